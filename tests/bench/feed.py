"""Events as a busy plant makes them, and a publisher that is faster than any gateway.

`python -m tests.bench.feed PORT FILE` sends a file of events through a broker as MQTT 3.1.1, QoS 1, which knows no
Receive Maximum: the broker's queue fills as fast as the wire allows, and what is measured is whoever reads from it.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edge_agent.wire.chain import seed_hash
from edge_agent.wire.codec import Stamp, seal
from edge_agent.wire.event import (
    AgentStarted,
    Basis,
    Body,
    Checkpoint,
    ClockState,
    Event,
    GuardChanged,
    GuardState,
    Json,
    MachineChanged,
    OpenOccurrence,
    Priority,
    Quality,
    StateReport,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from edge_agent.wire.topics import Channel, topic
from gateway.domain.instants import iso_utc

SITE: Final = "bench"
MACHINES: Final = 20
GUARDS: Final = 8
"""Of each machine of an agent."""

REPORT_EVERY: Final = 2000
"""Events between two state reports: one an hour at half an event a second."""

_SIGNATURE: Final = "A" * 86 + "=="


class Mint:
    """One agent's chain, each event a tenth of a second after the one before, the first at `at_ms`."""

    def __init__(self, agent: str, at_ms: int) -> None:
        self._agent, self._at_ms, self._began_ms = agent, at_ms, at_ms
        self._epoch = f"01JD{agent:0>22}".replace("-", "0").upper()
        self._prev = seed_hash(SITE, agent, self._epoch)
        self._seq = 0

    def add(self, body: Body) -> Event:
        """The next event."""
        self._seq += 1
        self._at_ms += 100
        at = iso_utc(self._at_ms)
        mono_ms = self._at_ms - self._began_ms
        stamp = Stamp(
            SITE,
            self._agent,
            self._epoch,
            self._seq,
            "boot",
            mono_ms,
            at,
            ClockState.SYNCED,
            self._prev,
        )
        event = seal(stamp, body)
        self._prev = event.hash
        return event

    def checkpoint(self) -> Event:
        """A checkpoint over all before it (its signature is none: the gateway does not look at it)."""
        return self.add(Checkpoint(self._seq, self._prev, _SIGNATURE))


def lives(agent: str, at_ms: int) -> Iterator[Event]:
    """One agent's events without end: six in ten are guards that change, one in eight is of a violation."""
    mint = Mint(agent, at_ms)
    yield mint.add(AgentStarted(None, "1.0", "c0ffee", clean_stop=True))
    standing: dict[str, OpenOccurrence] = {}
    count = 0
    while True:
        machine = f"m{count % MACHINES}"
        for event in _opening(mint, machine, count, iso_utc(at_ms), standing):
            yield event
            if event.seq % REPORT_EVERY == 0:
                guards = {f"m{n}": {f"d{k}": "c--g" for k in range(GUARDS)} for n in range(MACHINES)}
                machines = {f"m{n}": (False, None) for n in range(MACHINES)}
                yield mint.add(StateReport(1, 1, guards, machines, tuple(standing.values())))
        count += 1


def _opening(
    mint: Mint, machine: str, count: int, since: str, standing: dict[str, OpenOccurrence]
) -> Iterator[Event]:
    """A machine stops, all its doors open and close, and one of them is opened too early."""
    door, rule = f"d{count % GUARDS}", "guard_open_motion"
    priority = Priority.P1 if count % 4 == 0 else Priority.P2
    yield mint.add(MachineChanged(machine, True, None, False))
    yield mint.add(
        GuardChanged(machine, door, GuardState.OPEN, GuardState.CLOSED_LOCKED, None, False, Quality.GOOD)
    )
    occurrence = f"{mint._agent}-{count:08d}"
    evidence: dict[str, Json] = {
        "signals": {"ch_a": False, "ch_b": False, "locked": False, "running": True},
        "registers": {"plc1/di/0": 0, "plc1/di/1": 0, "plc1/di/2": 0, "plc1/di/4": 1},
        "ages_ms": {"plc1/di/0": 40, "plc1/di/1": 40, "plc1/di/2": 40, "plc1/di/4": 40},
        "params": {"on_delay_ms": 1000, "latch": False},
        "grade": "C",
        "held_min_ms": 1000,
        "held_max_ms": 1200,
    }
    yield mint.add(
        ViolationRaised(machine, door, None, rule, priority, Basis.PROVEN, occurrence, since, None, evidence)
    )
    standing[occurrence] = OpenOccurrence(
        occurrence, rule, machine, door, None, priority, Basis.PROVEN, since, None
    )
    if priority is Priority.P1:
        yield mint.checkpoint()
    yield mint.add(MachineChanged(machine, False, None, True))
    for guard in range(GUARDS // 2):
        name = f"d{(count + guard + 1) % GUARDS}"
        yield mint.add(
            GuardChanged(machine, name, GuardState.OPEN, GuardState.CLOSED_LOCKED, None, False, Quality.GOOD)
        )
        yield mint.add(
            GuardChanged(machine, name, GuardState.CLOSED_LOCKED, GuardState.OPEN, None, True, Quality.GOOD)
        )
    if count % 8 == 0:
        yield mint.add(
            ViolationChanged(
                occurrence,
                rule,
                machine,
                door,
                None,
                Priority.P2,
                priority,
                Basis.PROVEN,
                None,
                "the machine stopped",
            )
        )
    yield mint.add(
        GuardChanged(machine, door, GuardState.CLOSED_LOCKED, GuardState.OPEN, None, True, Quality.GOOD)
    )
    yield mint.add(
        ViolationCleared(occurrence, rule, machine, door, None, priority, since, "closed", 1400, 1400, 1400)
    )
    del standing[occurrence]


def mixed(agents: int, count: int, at_ms: int, run: int = 16) -> list[tuple[str, bytes]]:
    """Topics and payloads of `count` events of `agents` agents, which take turns every `run` events."""
    streams = [lives(f"gw-{n}", at_ms) for n in range(agents)]
    topics = [topic(SITE, f"gw-{n}", Channel.EVENTS) for n in range(agents)]
    found: list[tuple[str, bytes]] = []
    while len(found) < count:
        for where, stream in zip(topics, streams, strict=True):
            found += [(where, next(stream).payload) for _ in range(run)]
    return found[:count]


def write(messages: Sequence[tuple[str, bytes]], path: Path) -> None:
    """The messages as the packets that they travel in."""
    path.write_bytes(
        b"".join(_publish(where, payload, n % 65_535 + 1) for n, (where, payload) in enumerate(messages))
    )


def send(port: int, packets: bytes) -> float:
    """Send all, wait for the last PUBACK; the CLOCK_MONOTONIC second at which the first was sent."""
    with socket.create_connection(("127.0.0.1", port)) as wire:
        name = b"feed"
        connect = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name
        wire.sendall(b"\x10" + bytes([len(connect)]) + connect)
        assert wire.recv(4)[3] == 0, "the broker refuses the feed"
        began_s = time.monotonic()
        writer = threading.Thread(target=wire.sendall, args=(packets,))
        writer.start()
        answers = 4 * _count(packets)
        while answers > 0:
            answers -= len(wire.recv(65_536))
        writer.join()
    return began_s


def _publish(where: str, payload: bytes, mid: int) -> bytes:
    name = where.encode()
    body = len(name).to_bytes(2, "big") + name + mid.to_bytes(2, "big") + payload
    return b"\x32" + _length(len(body)) + body


def _length(value: int) -> bytes:
    """MQTT's variable byte integer."""
    digits = bytearray()
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(digits)


def _count(packets: bytes) -> int:
    """How many packets there are."""
    count, at = 0, 0
    while at < len(packets):
        at, shift, length = at + 1, 0, 0
        while True:
            length |= (packets[at] & 0x7F) << shift
            shift += 7
            at += 1
            if packets[at - 1] < 0x80:
                break
        at += length
        count += 1
    return count


if __name__ == "__main__":
    print(send(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()), flush=True)
