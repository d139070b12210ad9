"""The fleet for benchmarks must be correct before it is fast: a reader that is measured against it believes it."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pymodbus.client import AsyncModbusTcpClient

from simulators.raw_fleet import RawFleet, RawPlan

POINTS = 20


@asynccontextmanager
async def fleet(
    devices: int = 1, log: io.StringIO | None = None
) -> AsyncIterator[tuple[RawFleet, list[int]]]:
    """A fleet that changes nothing by itself, and its ports."""
    raw = RawFleet(RawPlan(devices, POINTS, changes_per_s=0, seed=1), log)
    ports = [port for _, port in await raw.start()]
    try:
        yield raw, ports
    finally:
        await raw.stop()


async def exchange(port: int, *frames: bytes, answers: int = 1) -> list[bytes]:
    """Send the frames in one segment; the answers, header included."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(frames))
    found = []
    for _ in range(answers):
        header = await reader.readexactly(6)
        found.append(header + await reader.readexactly(struct.unpack(">H", header[4:])[0]))
    writer.close()
    return found


def request(transaction: int, unit: int, function: int, start: int, count: int) -> bytes:
    return struct.pack(">HHHBBHH", transaction, 0, 6, unit, function, start, count)


async def test_a_client_reads_closed_doors_a_running_machine_and_then_the_open_door() -> None:
    async with fleet() as (raw, [port]):
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        before = await client.read_discrete_inputs(0, count=POINTS + 1, device_id=1)
        door = raw.open_next()
        after = await client.read_discrete_inputs(0, count=POINTS + 1, device_id=1)
        client.close()
        assert before.bits[: POINTS + 1] == [True] * (POINTS + 1)
        assert door is not None
        assert [n for n, bit in enumerate(after.bits[: POINTS + 1]) if not bit] == [door[1]]


async def test_registers_hold_sixteen_bits_of_the_same_image_each() -> None:
    async with fleet() as (raw, [port]):
        raw.devices[0].set_bit(17, closed=False)
        [answer] = await exchange(port, request(9, 1, 3, 0, 2))
        assert answer == struct.pack(">HHHBBBHH", 9, 0, 7, 1, 3, 4, 0xFFFF, 0b1_1101)


@pytest.mark.parametrize(
    ("unit", "function", "start", "count", "code"),
    [
        (1, 5, 0, 0xFF00, 1),
        (1, 16, 0, 1, 1),
        (1, 2, 10, POINTS, 2),
        (1, 3, 2, 1, 2),
        (1, 2, 0, 0, 3),
        (1, 2, 0, 2001, 3),
        (1, 4, 0, 126, 3),
        (2, 2, 0, 1, 11),
    ],
)
async def test_what_it_cannot_answer_it_refuses_with_the_standards_exception(
    unit: int, function: int, start: int, count: int, code: int
) -> None:
    async with fleet() as (_, [port]):
        [answer] = await exchange(port, request(7, unit, function, start, count))
        assert answer == struct.pack(">HHHBBB", 7, 0, 3, unit, function | 0x80, code)


async def test_requests_that_come_in_one_segment_are_answered_in_order() -> None:
    async with fleet() as (_, [port]):
        frames = [request(number, 1, 2, 0, number) for number in (3, 4, 5)]
        answers = await exchange(port, *frames, answers=3)
        assert [struct.unpack(">H", answer[:2])[0] for answer in answers] == [3, 4, 5]


async def test_what_is_no_modbus_ends_the_connection() -> None:
    async with fleet() as (_, [port]):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()


async def test_the_log_names_each_change_and_when_all_devices_had_been_read() -> None:
    log = io.StringIO()
    async with fleet(devices=2, log=log) as (raw, ports):
        for port in ports:
            await exchange(port, request(1, 1, 2, 0, 1))
        door = raw.open_next()
    asked, change = [json.loads(line) for line in log.getvalue().splitlines()]
    assert door is not None
    assert asked["asked"] == 2
    assert (change["device"], change["point"], change["closed"]) == (*door, False)
    assert asked["at_ns"] <= change["at_ns"]
