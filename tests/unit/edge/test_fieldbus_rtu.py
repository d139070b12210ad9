"""RTU framing in virtual time: a line whose answers come late, doubled, spoilt or twice, and a link that is never fooled.

The device answers one request after the other, each after a time drawn from a seed; every answer says in its data which
request it belongs to, so that any wrong value is seen. `bare` is the link without its discipline: that these tests can fail.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest

from edge_agent.adapters.fieldbus_confirmed import CHANGING_MAX, ConfirmedLink
from edge_agent.adapters.fieldbus_connection import Connection, Timing
from edge_agent.adapters.fieldbus_framing import RtuFraming, crc
from edge_agent.adapters.fieldbus_stream import StreamLink
from edge_agent.app.looking import settled
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import BlockId, DeviceId
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome, Fieldbus
from tests.simulation.virtual_loop import run_virtual

TIMEOUT_MS = 500
SILENCE_S = 0.004
POLL_S = 0.1
"""Between a read without a connection and the next; else the reads follow one another at once."""


def block(start: int, count: int = 4) -> ReadBlock:
    return ReadBlock(BlockId(0), DeviceId("plc"), Table.HOLDING_REGISTER, start, count, (), 200, 2000)


def truth(unit: int, start: int, count: int, counter: int = 0) -> bytes:
    return b"".join((unit * 4096 + start + n + counter).to_bytes(2, "big") for n in range(count))


def answer(request: bytes, counter: int = 0) -> bytes:
    unit, start, count = request[0], int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
    body = bytes([unit, request[1], 2 * count]) + truth(unit, start, count, counter)
    return body + crc(body)


@dataclass
class Device:
    """What hangs on the line; `latency_ms` and `spoil` are asked for each request."""

    latency_ms: Callable[[], float]
    spoil: Callable[[bytes], Sequence[tuple[float, bytes]]] = lambda frame: [(0, frame)]
    counts: bool = False
    asked: list[tuple[float, bytes]] = field(default_factory=list)
    free_at: float = 0.0
    counter: int = 0


class Wire(asyncio.Transport):
    """The line: requests go to the device one after the other, whoever waits for what."""

    def __init__(self, device: Device, connection: Connection) -> None:
        super().__init__()
        self._device = device
        self._connection = connection
        self._is_open = True
        self.is_aborted = False
        connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        loop, device = asyncio.get_running_loop(), self._device
        request = bytes(data)
        device.asked.append((loop.time(), request))
        device.counter += device.counts
        device.free_at = max(device.free_at, loop.time()) + device.latency_ms() / 1000
        for later_ms, frame in device.spoil(answer(request, device.counter)):
            loop.call_at(device.free_at + later_ms / 1000, self._deliver, frame)

    def _deliver(self, frame: bytes) -> None:
        if self._is_open:
            self._connection.data_received(frame)

    def is_closing(self) -> bool:
        return not self._is_open

    def abort(self) -> None:
        self.is_aborted = True
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)


class Port:
    """Dials the wire; a device goes on with what it was asked over an earlier connection, as a serial server does."""

    name = closed_early = "line"

    def __init__(self, device: Device) -> None:
        self._device = device
        self.connections: list[Wire] = []
        self.open_when_dialled: list[int] = []

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        self.open_when_dialled.append(sum(not wire.is_aborted for wire in self.connections))
        connection = make()
        wire = Wire(self._device, connection)
        for earlier in self.connections:
            earlier._connection = connection
            earlier._is_open = True  # what is still to come from there comes here
        self.connections.append(wire)
        return connection


def bare(device: Device) -> Fieldbus:
    """The link without its discipline."""
    return StreamLink(Port(device), RtuFraming(), Timing(silence_s=SILENCE_S))


def confirmed(device: Device, *, is_dialled: bool) -> ConfirmedLink:
    stream = StreamLink(Port(device), RtuFraming(), Timing(silence_s=SILENCE_S))
    return ConfirmedLink(stream, quiet_s=TIMEOUT_MS / 1000, is_dialled=is_dialled)


async def reads(link: Fieldbus, blocks: Sequence[ReadBlock]) -> list[BlockOutcome]:
    outcomes = []
    for wanted in blocks:
        outcomes.append(await link.read(1, wanted, TIMEOUT_MS))
        await asyncio.sleep(POLL_S if outcomes[-1] == BlockFailed("link") else 0)
    await link.close()
    return outcomes


def wrong(blocks: Sequence[ReadBlock], outcomes: Sequence[BlockOutcome]) -> int:
    return sum(
        isinstance(outcome, BlockOk) and outcome.data != truth(1, wanted.start, wanted.count)
        for wanted, outcome in zip(blocks, outcomes, strict=True)
    )


def run(main: Callable[[], Coroutine[object, object, list[BlockOutcome]]]) -> list[BlockOutcome]:
    return run_virtual(main)


ALTERNATING = [block(100 * (1 + n % 4)) for n in range(14)]


@pytest.mark.parametrize("is_dialled", [True, False])
def test_a_device_slower_than_the_timeout_gives_no_wrong_value(is_dialled: bool) -> None:
    """0.6 s against a timeout of 0.5 s, blocks of equal length: where the naive client is off by one for ever."""
    outcomes = run(lambda: reads(confirmed(Device(lambda: 600), is_dialled=is_dialled), ALTERNATING))
    assert set(outcomes) <= {BlockFailed("timeout"), BlockFailed("link")}


def test_without_the_discipline_the_same_device_gives_wrong_values() -> None:
    outcomes = run(lambda: reads(bare(Device(lambda: 600)), ALTERNATING))
    assert wrong(ALTERNATING, outcomes) >= 5


WALK = [block(100 * (1 + n % 7), 3) for n in range(300)]


def jittery(seed: int) -> Device:
    """Mostly quick, often late, up to timeout and silence together: what the link promises to tell apart."""
    draw = random.Random(seed)
    return Device(lambda: draw.choice([20, 30, 50, 50, 80, 400, 520, 600, 700, 900, 990]))


@pytest.mark.parametrize("is_dialled", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_latencies_no_value_is_another_blocks(seed: int, is_dialled: bool) -> None:
    outcomes = run(lambda: reads(confirmed(jittery(seed), is_dialled=is_dialled), WALK))
    assert wrong(WALK, outcomes) == 0
    assert sum(isinstance(outcome, BlockOk) for outcome in outcomes) > 5


def test_without_the_discipline_such_latencies_give_wrong_values() -> None:
    assert wrong(WALK, run(lambda: reads(bare(jittery(0)), WALK))) > 20


def faulty(seed: int) -> Device:
    """Everything that a line does to an answer."""
    draw = random.Random(seed)

    def spoil(frame: bytes) -> list[tuple[float, bytes]]:
        other = bytes([frame[0], frame[1], frame[2]]) + bytes(byte ^ 0x5A for byte in frame[3:-2])
        flipped = bytearray(frame)
        flipped[draw.randrange(len(frame))] ^= 1 << draw.randrange(8)
        return draw.choice(
            [
                *[[(0.0, frame)]] * 8,
                [],
                [(0, frame), (1, frame)],
                [(0, frame + frame)],
                [(0, frame), (2, other + crc(other))],
                [(0, bytes(flipped))],
                [(0, frame[:-1])],
                [(0, draw.randbytes(300))],
                [(3.0 * n, frame[n : n + 1]) for n in range(len(frame))],
                [(draw.choice([510, 700, 900]), frame)],
                [(0, bytes([2]) + frame[1:-2] + crc(bytes([2]) + frame[1:-2]))],
            ]
        )

    return Device(lambda: draw.choice([5, 10, 20]), spoil)


@pytest.mark.parametrize("is_dialled", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_line_does_to_answers_no_value_is_wrong(seed: int, is_dialled: bool) -> None:
    outcomes = run(lambda: reads(confirmed(faulty(seed), is_dialled=is_dialled), WALK))
    assert wrong(WALK, outcomes) == 0
    assert sum(isinstance(outcome, BlockOk) for outcome in outcomes) > 5


def test_without_the_discipline_such_a_line_gives_wrong_values() -> None:
    assert wrong(WALK, run(lambda: reads(bare(faulty(0)), WALK))) > 0


def test_after_a_timeout_the_line_is_left_quiet_and_the_next_read_is_made_twice() -> None:
    draw = iter([10, 10, 10, 5000, *[10] * 9])
    device = Device(lambda: next(draw), lambda frame: [(0, frame)])

    async def main() -> list[BlockOutcome]:
        link = confirmed(device, is_dialled=False)
        outcomes = [await link.read(1, block(n), TIMEOUT_MS) for n in (1, 2)]
        device.free_at = 0.0
        outcomes.append(await link.read(1, block(3), TIMEOUT_MS))
        device.free_at = 0.0
        outcomes.append(await link.read(1, block(4), TIMEOUT_MS))
        await link.close()
        return outcomes

    outcomes = run(main)
    assert outcomes == [
        BlockOk(truth(1, 1, 4)),
        BlockOk(truth(1, 2, 4)),
        BlockFailed("timeout"),
        BlockOk(truth(1, 4, 4)),
    ]
    starts = [int.from_bytes(request[2:4], "big") for _, request in device.asked]
    assert starts == [1, 1, 2, 3, 4, 4], "the first of all is made twice, too"
    failed_at, next_at = device.asked[3][0], device.asked[4][0]
    assert next_at - failed_at >= 2 * TIMEOUT_MS / 1000, "the timeout, and as long again in silence"


def test_what_comes_during_the_silence_prolongs_it() -> None:
    draw = iter([10, 10, 900, *[10] * 9])
    device = Device(lambda: next(draw))

    async def main() -> list[BlockOutcome]:
        return await reads(confirmed(device, is_dialled=False), [block(1), block(2), block(3)])

    outcomes = run(main)
    assert outcomes[1:] == [BlockFailed("timeout"), BlockOk(truth(1, 3, 4))]
    assert device.asked[3][0] - device.asked[2][0] >= 0.9 + TIMEOUT_MS / 1000


def test_two_answers_that_differ_after_a_disturbance_are_not_believed() -> None:
    device = Device(lambda: 10, counts=True)
    outcomes = run(lambda: reads(confirmed(device, is_dialled=False), [block(1)]))
    assert outcomes == [BlockFailed("unconfirmed")]


def test_a_block_that_always_changes_is_believed_once_the_line_has_proved_itself() -> None:
    device = Device(lambda: 10, counts=True)
    count = CHANGING_MAX + 3
    outcomes = run(lambda: reads(confirmed(device, is_dialled=False), [block(1)] * count))
    assert outcomes[:CHANGING_MAX] == [BlockFailed("unconfirmed")] * CHANGING_MAX
    assert all(isinstance(outcome, BlockOk) for outcome in outcomes[CHANGING_MAX:])


def test_one_look_at_a_block_that_always_changes_gives_a_value() -> None:
    """A free-running counter is what `scan`, `probe` and `doctor` meet first in many a device."""
    device = Device(lambda: 10, counts=True)

    async def main() -> list[BlockOutcome]:
        return [await settled(confirmed(device, is_dialled=False), 1, block(1), TIMEOUT_MS)]

    (outcome,) = run(main)
    assert isinstance(outcome, BlockOk)


def test_a_cancelled_read_puts_the_line_out_of_step() -> None:
    device = Device(lambda: 100)

    async def main() -> list[BlockOutcome]:
        link = confirmed(device, is_dialled=False)
        outcomes = [await link.read(1, block(1), TIMEOUT_MS)]
        reading = asyncio.ensure_future(link.read(1, block(2), TIMEOUT_MS))
        await asyncio.sleep(0.05)
        reading.cancel()
        outcomes.append(await link.read(1, block(3), TIMEOUT_MS))
        await link.close()
        return outcomes

    assert run(main) == [BlockOk(truth(1, 1, 4)), BlockOk(truth(1, 3, 4))]
    assert len(device.asked) == 5


def test_each_connection_begins_with_silence_and_a_read_made_twice() -> None:
    """What an agent that was killed had asked may still be answered to the next one."""
    device = Device(lambda: 10)
    assert run(lambda: reads(confirmed(device, is_dialled=True), [block(1)])) == [BlockOk(truth(1, 1, 4))]
    assert device.asked[0][0] >= TIMEOUT_MS / 1000
    assert len(device.asked) == 2


def test_frames_are_apart_by_the_silence_of_the_line() -> None:
    device = Device(lambda: 10)
    run(lambda: reads(confirmed(device, is_dialled=False), [block(n) for n in range(20)]))
    times = [at for at, _ in device.asked]
    assert all(later - sooner >= 0.010 + SILENCE_S for sooner, later in itertools.pairwise(times))


class Nobody:
    """Nobody listens, until `opens_at`."""

    name = closed_early = "nobody"

    def __init__(self, device: Device, opens_at: float) -> None:
        self._port = Port(device)
        self._opens_at = opens_at
        self.tries: list[float] = []

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        now = asyncio.get_running_loop().time()
        self.tries.append(now)
        if now < self._opens_at:
            raise ConnectionRefusedError(111, "Connection refused")
        return await self._port.connect(make)


async def read_until_ok(link: Fieldbus) -> list[BlockOutcome]:
    outcomes = [await link.read(1, block(1), TIMEOUT_MS)]
    while not isinstance(outcomes[-1], BlockOk):
        await asyncio.sleep(POLL_S)
        outcomes.append(await link.read(1, block(1), TIMEOUT_MS))
    await link.close()
    return outcomes


def test_a_device_that_is_away_is_tried_with_growing_pauses_and_read_soon_when_it_is_back() -> None:
    device = Device(lambda: 10)
    nobody = Nobody(device, opens_at=20.0)
    stream = StreamLink(nobody, RtuFraming(), Timing(silence_s=SILENCE_S))
    assert stream.trouble is None
    run(lambda: read_until_ok(ConfirmedLink(stream, quiet_s=TIMEOUT_MS / 1000, is_dialled=True)))
    pauses = [later - sooner for sooner, later in itertools.pairwise(nobody.tries)]
    assert pauses == pytest.approx([0.5, 1, *[2] * (len(pauses) - 2)], abs=1e-6)
    assert 20.0 <= device.asked[0][0] < 23.0


def test_the_pause_after_connecting_is_kept() -> None:
    device = Device(lambda: 10)
    stream = StreamLink(Port(device), RtuFraming(), Timing(silence_s=SILENCE_S), connect_pause_ms=300)
    run(lambda: read_until_ok(stream))
    assert device.asked[0][0] == pytest.approx(0.3, abs=0.01)


def test_a_connection_is_closed_before_the_next_one_is_made() -> None:
    device = faulty(3)
    port = Port(device)
    stream = StreamLink(port, RtuFraming(), Timing(silence_s=SILENCE_S))
    run(lambda: reads(ConfirmedLink(stream, quiet_s=TIMEOUT_MS / 1000, is_dialled=True), WALK))
    assert len(port.connections) > 10
    assert port.open_when_dialled == [0] * len(port.connections)


def test_what_is_asked_on_a_lost_connection_fails_as_one() -> None:
    """It may be lost between the two requests of a provisional read."""

    async def main() -> list[BlockOutcome]:
        stream = StreamLink(Port(Device(lambda: 10)), RtuFraming(), Timing(silence_s=SILENCE_S))
        connection = await stream.connected(TIMEOUT_MS)
        assert connection is not None
        connection.abort()
        outcomes = [await stream.ask(connection, 1, block(1), timeout_ms=TIMEOUT_MS)]
        await stream.close()
        return outcomes

    assert run(main) == [BlockFailed("link")]


async def refusals(device: Device, is_dialled: bool) -> list[BlockOutcome]:
    return await reads(confirmed(device, is_dialled=is_dialled), [block(1)] * 3)


def test_a_refusal_is_a_refusal_though_less_would_be_given() -> None:
    """After a disturbance the whole and a part are asked: only the whole touches the address that does not exist."""

    def refuse(frame: bytes) -> list[tuple[float, bytes]]:
        refused = bytes([frame[0], frame[1] | 0x80, 2])
        return [(0, refused + crc(refused) if frame[2] == 8 else frame)]

    for is_dialled in (True, False):
        outcomes = run(partial(refusals, Device(lambda: 10, refuse), is_dialled))
        assert outcomes == [BlockFailed("exception:2")] * 3
