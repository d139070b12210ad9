"""Nothing but reads ever leaves a whole agent: seeded configurations, hostile peers, every byte written down and parsed."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.settings import AgentSettings, load
from simulators.fault_proxy import reset
from simulators.pseudo_terminal import PseudoTerminal
from simulators.rtu import is_whole, seal

pytestmark = pytest.mark.integration

REQUESTS = 150
"""Of each peer, before the agent is stopped; hostile answers make RTU links pause, so they are the slowest."""

READS = {1: 2000, 2: 2000, 3: 125, 4: 125}
"""Function codes of reads, and how many items one may ask for (Modbus application protocol V1.1b3, 6.1-6.4)."""

TYPES = ("uint16", "int16", "uint32", "int32", "float32", "uint64", "int64", "float64")


@dataclass
class Peer:
    """Answers by chance, and remembers every byte that it got, by connection."""

    draw: random.Random
    is_rtu: bool
    heard: list[bytearray] = field(default_factory=list)

    @property
    def request_bytes(self) -> int:
        return 8 if self.is_rtu else 12

    @property
    def count(self) -> int:
        return sum(len(heard) for heard in self.heard) // self.request_bytes

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = bytearray()
        self.heard.append(heard)
        is_tcp = writer.get_extra_info("socket") is not None
        try:
            while data := await reader.read(4096):
                heard += data
                reply = self._reply(bytes(heard[-self.request_bytes :]))
                if reply is None:
                    if is_tcp:
                        reset(writer)
                        return
                    continue
                writer.write(reply)
                await writer.drain()
        except OSError:
            pass
        finally:
            if is_tcp:
                writer.close()

    def _reply(self, request: bytes) -> bytes | None:
        """None: hang up."""
        draw, pdu = self.draw, request[1:-2] if self.is_rtu else request[7:]
        unit = request[0] if self.is_rtu else request[6]
        count = int.from_bytes(pdu[3:5], "big")
        length = (count + 7) // 8 if pdu[0] < 3 else 2 * count
        good = bytes([pdu[0], length]) + draw.randbytes(length)
        said = draw.choices(
            [
                good,
                bytes([pdu[0] | 0x80, draw.choice([1, 2, 3, 4, 5, 6, 10, 11])]),
                good[:-1],
                bytes([draw.choice([5, 6, 15, 16, 22, 23]), 0, 0, 0, 1]),  # the echo of a write
                b"",
                None,
            ],
            [70, 8, 4, 6, 6, 2],
        )[0]
        if said is None:
            return None
        if draw.random() < 0.04:
            return draw.randbytes(draw.randrange(1, 300))
        if self.is_rtu:
            return seal(bytes([unit]) + said) if said else b""
        return request[:4] + (len(said) + 1).to_bytes(2, "big") + bytes([unit]) + said if said else b""

    def requests(self) -> Iterator[bytes]:
        """PDUs of all requests; fails on anything that is no whole request."""
        for heard in self.heard:
            assert len(heard) % self.request_bytes == 0, bytes(heard[-16:])
            for place in range(0, len(heard), self.request_bytes):
                frame = bytes(heard[place : place + self.request_bytes])
                if self.is_rtu:
                    assert is_whole(frame), frame
                    assert 1 <= frame[0] <= 247, "0 would be a broadcast"
                    yield frame[1:-2]
                else:
                    assert frame[2:6] == bytes([0, 0, 0, 6]), frame
                    yield frame[7:]


def configuration(seed: int, urls: list[str]) -> str:
    """A plant over all tables and types, at addresses that chance gave."""
    draw = random.Random(seed)
    lines = ["site: plant", f"agent: gw-{seed}", "labels: {zh: 网关, en: Gateway}"]
    lines += ["mqtt: {url: 'mqtt://127.0.0.1:1'}", "store: {path: agent.db}", "devices:"]
    for number, url in enumerate(urls):
        lines.append(
            f"  d{number}: {{url: '{url}', unit: {draw.randint(1, 247)}, poll_ms: 200, timeout_ms: 100, max_rps: 1000}}"
        )
    lines.append("machines:")
    for number in range(len(urls)):
        spare = iter(range(draw.randrange(60000), 65536, draw.randrange(1, 40)))

        def at(tables: str, spare: Iterator[int] = spare, number: int = number) -> str:
            return f"d{number}/{draw.choice(tables.split())}/{next(spare)}"

        def bit() -> str:
            place = at("co di hr ir")
            return place if place.split("/")[1] in {"co", "di"} else f"{place}.{draw.randrange(16)}"

        order = draw.choice(["big", "little"])
        lines += [f"  m{number}:", "    labels: {zh: 机, en: Machine}", "    signals:"]
        lines.append(f"      running: {{at: {bit()}}}")
        lines.append(
            f"      speed: {{at: {at('hr ir')}, type: {draw.choice(TYPES)}, word_order: {order}, rated: 24}}"
        )
        next(spare), next(spare), next(spare)
        lines.append(f"      mode: {{at: {at('hr ir')}, map: {{0: auto, 1: setup}}}}")
        lines.append("    guards:")
        for guard in range(draw.randint(1, 6)):
            table = draw.choice(["co", "di"])
            first = next(spare)
            lines.append(
                f"      g{guard}: {{labels: {{zh: 门, en: Door}}, kind: interlocked_door, "
                f"channels: [{{at: d{number}/{table}/{first}}}, {{at: d{number}/{table}/{first + 1}}}]}}"
            )
            next(spare)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_it_is_configured_for_and_told_an_agent_sends_nothing_but_reads(
    tmp_path: Path, seed: int
) -> None:
    peers = {
        kind: Peer(random.Random(f"{seed} {kind}"), is_rtu=kind != "tcp")
        for kind in ("tcp", "rtuovertcp", "rtu")
    }
    servers = [
        await asyncio.start_server(peers[kind].serve, "127.0.0.1", 0) for kind in ("tcp", "rtuovertcp")
    ]
    line = PseudoTerminal(peers["rtu"].serve, tmp_path / "line")
    await line.open()
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    urls = [f"modbus+tcp://127.0.0.1:{ports[0]}", f"modbus+rtuovertcp://127.0.0.1:{ports[1]}"]
    urls.append(f"modbus+rtu://{tmp_path}/line?baud=115200")
    config = tmp_path / "agent.yaml"
    config.write_text(configuration(seed, urls))
    agent = await asyncio.create_subprocess_exec(sys.executable, "-m", "edge_agent", "run", str(config))
    try:
        settings = load(config, {})
        assert isinstance(settings, AgentSettings), "\n".join(map(str, settings))
        async with asyncio.timeout(120):
            while min(peer.count for peer in peers.values()) < REQUESTS:
                await asyncio.sleep(0.1)
                assert agent.returncode is None
        agent.send_signal(signal.SIGTERM)
        assert await agent.wait() == 0
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.wait()
        for server in servers:
            server.close()
        await line.close()
    asked: Counter[int] = Counter()
    for peer in peers.values():
        for pdu in peer.requests():
            function, count = pdu[0], int.from_bytes(pdu[3:5], "big")
            assert function in READS, pdu
            assert 1 <= count <= READS[function], pdu
            asked[function] += 1
    assert sum(asked.values()) >= 3 * REQUESTS
