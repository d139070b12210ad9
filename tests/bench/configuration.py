"""How long a large plant's configuration takes to load: 256 devices, 256 machines, 25 600 guards."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from edge_agent.settings import AgentSettings, load

MACHINES = 256
GUARDS_EACH = 100


def run() -> None:
    """Write the file, load it, print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.yaml"
        path.write_text(plant(), encoding="utf-8")
        start = time.perf_counter()
        settings = load(path, {})
        seconds = time.perf_counter() - start
        assert isinstance(settings, AgentSettings), settings[:3]
        size_mb = path.stat().st_size / 1e6
    plan = settings.plan
    print(f"{MACHINES * GUARDS_EACH} guards, {len(plan.signals)} signals, {size_mb:.1f} MB of YAML")
    print(f"loaded, checked and compiled in {seconds:.1f} s")


def plant() -> str:
    """The configuration: two channels, lock and bypass a guard."""
    lines = [
        "site: big",
        "agent: gw-01",
        "labels: {zh: 大, en: Big}",
        "mqtt: {url: mqtt://127.0.0.1}",
        "store: {path: gw.db}",
    ]
    lines.append("devices:")
    lines += [f"  plc{n}: {{url: 'modbus+tcp://10.0.{n}.1'}}" for n in range(MACHINES)]
    lines.append("machines:")
    for n in range(MACHINES):
        lines += [f"  m{n}:", f"    labels: {{zh: 机{n}, en: Machine {n}}}", "    guards:"]
        for guard in range(GUARDS_EACH):
            bits = [f"{{at: plc{n}/di/{4 * guard + bit}}}" for bit in range(4)]
            lines += [
                f"      door-{guard}:",
                f"        labels: {{zh: 门{guard}, en: Door {guard}}}",
                "        kind: interlocked_door",
                f"        channels: [{bits[0]}, {bits[1]}]",
                f"        locked: {bits[2]}",
                f"        bypass: {bits[3]}",
            ]
        lines.append(f"    signals: {{running: {{at: plc{n}/di/1000}}}}")
    return "\n".join(lines) + "\n"
