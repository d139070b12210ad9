"""The engine's hot path: an unchanged block must cost a comparison, not a decoding.

A plan of `DEVICES` devices is fed unchanged answers; the baseline, in the same run, decodes every signal of every
answer as a naive agent would. The ratio is what holds when the machine's speed drifts; the rate is an order of
magnitude.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge_agent.domain.decode import compile_decoder
from edge_agent.domain.plan import CellPlan
from edge_agent.domain.units import NS_PER_MS, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from edge_agent.settings import AgentSettings, load
from tests.bench.figures import time_of

DEVICES = 100
GUARDS = 24
ROUNDS = 50


def run() -> None:
    """Print the cost of one unchanged block, beside decoding it, and of one guard that opens and closes."""
    plan = _plan()
    blocks = [(block.id, bytes([0xFF]) * block.length_bytes) for block in plan.blocks]
    clock = [MonoNs(NS_PER_MS)]
    engine = EdgeEngine(
        plan,
        epoch="01JD0000000000000000000000",
        boot="bench",
        now=clock[0],
        wall=WallPair(clock[0], UtcNs(0), synced=False),
        memory={},
    )

    def feed() -> None:
        clock[0] = MonoNs(clock[0] + 100 * NS_PER_MS)
        for block, data in blocks:
            engine.receive_block(block, data, clock[0], clock[0])

    feed()
    engine.take_effects()
    decoders = [
        (compile_decoder(block, plan.signals), data)
        for block, (_, data) in zip(plan.blocks, blocks, strict=True)
    ]

    def decode() -> None:
        for decoder, data in decoders:
            decoder.decode_all(data)

    def toggle() -> None:
        for bits in (b"\x00", b"\xff"):
            clock[0] = MonoNs(clock[0] + 100 * NS_PER_MS)
            engine.receive_block(blocks[0][0], bits + blocks[0][1][1:], clock[0], clock[0])
        engine.take_effects()

    unchanged_ns = time_of(feed, ROUNDS) / len(blocks) * 1e9
    decoded_ns = time_of(decode, ROUNDS) / len(blocks) * 1e9
    changed_ns = time_of(toggle, ROUNDS) / 2 * 1e9
    signals = len(plan.signals) // len(blocks)
    print(f"unchanged block of {signals} signals {unchanged_ns:9.0f} ns")
    print(f"decoding it all (baseline)  {decoded_ns:9.0f} ns   ratio {unchanged_ns / decoded_ns:.3f}")
    print(f"four guards open or close   {changed_ns:9.0f} ns")
    print(f"samples on one core         {signals / unchanged_ns * 1e9:9.2e} /s")


def _plan() -> CellPlan:
    """`DEVICES` PLCs with one machine of `GUARDS` two-channel doors each."""
    lines = [
        "site: bench",
        "agent: gw-01",
        "labels: {zh: 台, en: Bench}",
        "mqtt: {url: 'mqtt://127.0.0.1:1883'}",
    ]
    lines += ["store: {path: bench.db}", "devices:"]
    lines += [
        f"  plc{n}: {{url: 'modbus+tcp://127.0.0.1:{10000 + n}', unit: 1, poll_ms: 100}}"
        for n in range(DEVICES)
    ]
    lines.append("machines:")
    for n in range(DEVICES):
        lines += [f"  m{n}:", f"    labels: {{zh: 机{n}, en: Machine {n}}}", "    kind: mixer"]
        lines += [f"    signals: {{running: {{at: plc{n}/di/0}}}}", "    guards:"]
        for g in range(GUARDS):
            a, b = 1 + 2 * g, 2 + 2 * g
            lines.append(
                f"      d{g}: {{labels: {{zh: 门, en: Door}}, kind: interlocked_door, "
                f"channels: [{{at: plc{n}/di/{a}}}, {{at: plc{n}/di/{b}}}]}}"
            )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "agent.yaml"
        file.write_text("\n".join(lines))
        settings = load(file, {})
    if not isinstance(settings, AgentSettings):
        raise SystemExit("\n".join(map(str, settings)))
    return settings.plan
