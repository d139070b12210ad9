"""The agent's links beside two clients that share no code with them, libmodbus and mbpoll: all read the same."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.domain.decode import Value, compile_decoder
from edge_agent.domain.plan import Coding, Endian, ReadBlock, SignalPlan, Table, ValueType
from edge_agent.domain.units import BlockId, DeviceId, SignalId
from edge_agent.ports import BlockOk
from simulators.endpoint import Transport
from simulators.register_bank import Table as BankTable
from simulators.servers import cache_folder, find_mbpoll
from tests.fieldbus_rig import PATIENT_MS, Plant, plant_on

pytestmark = pytest.mark.integration

ITEMS = 100
READERS = {
    Table.COIL: "modbus_read_bits",
    Table.DISCRETE_INPUT: "modbus_read_input_bits",
    Table.HOLDING_REGISTER: "modbus_read_registers",
    Table.INPUT_REGISTER: "modbus_read_input_registers",
}
FLOATS = {
    (Endian.BIG, Endian.BIG): "abcd",
    (Endian.LITTLE, Endian.BIG): "cdab",
    (Endian.BIG, Endian.LITTLE): "badc",
    (Endian.LITTLE, Endian.LITTLE): "dcba",
}
"""libmodbus's names of the orders, by word order and byte order."""

MBPOLL_TABLES = {
    Table.COIL: "0",
    Table.DISCRETE_INPUT: "1",
    Table.INPUT_REGISTER: "3",
    Table.HOLDING_REGISTER: "4",
}


@pytest.fixture(params=[Transport.TCP, Transport.RTU])
async def plant(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_on(request.param, tmp_path) as plant:
        draw = random.Random(7)
        for table in Table:
            if table.is_bits:
                plant.bank.set_bits(1, BankTable(table.value), 0, [draw.random() < 0.5 for _ in range(ITEMS)])
            else:
                words = [
                    draw.randrange(0x3E00, 0x4600) for _ in range(ITEMS)
                ]  # as floats neither huge nor tiny
                plant.bank.set_words(1, BankTable(table.value), 0, words)
        yield plant


def whole(table: Table) -> ReadBlock:
    return ReadBlock(BlockId(0), DeviceId("plc"), table, 0, ITEMS, (SignalId(0),), 200, 2000)


async def by_agent(plant: Plant, table: Table) -> bytes:
    async with plant.linked() as link:
        outcome = await link.read(1, whole(table), PATIENT_MS)
    assert isinstance(outcome, BlockOk)
    return outcome.data


def items(table: Table, data: bytes) -> list[int]:
    if table.is_bits:
        return [data[n // 8] >> n % 8 & 1 for n in range(ITEMS)]
    return [int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2)]


def libmodbus() -> ctypes.CDLL:
    found = ctypes.util.find_library("modbus")
    unpacked = sorted(cache_folder().glob("mbpoll-*/usr/lib/*/libmodbus.so.5"))
    assert found or unpacked, "libmodbus is missing: run `make servers`"
    library = ctypes.CDLL(found or str(unpacked[-1]))
    library.modbus_new_tcp.restype = library.modbus_new_rtu.restype = ctypes.c_void_p
    for order in FLOATS.values():
        getattr(library, f"modbus_get_float_{order}").restype = ctypes.c_float
    return library


@contextmanager
def client_of(library: ctypes.CDLL, place: str, transport: Transport) -> Iterator[ctypes.c_void_p]:
    if transport is Transport.TCP:
        host, port = place.split(":")
        client = ctypes.c_void_p(library.modbus_new_tcp(host.encode(), int(port)))
    else:
        client = ctypes.c_void_p(library.modbus_new_rtu(place.encode(), 115200, ctypes.c_char(b"E"), 8, 1))
    assert library.modbus_set_slave(client, 1) == 0
    assert library.modbus_connect(client) == 0
    try:
        yield client
    finally:
        library.modbus_close(client)
        library.modbus_free(client)


def by_libmodbus(place: str, transport: Transport, table: Table) -> list[int]:
    library = libmodbus()
    found = (ctypes.c_uint8 * ITEMS)() if table.is_bits else (ctypes.c_uint16 * ITEMS)()
    with client_of(library, place, transport) as client:
        assert getattr(library, READERS[table])(client, 0, ITEMS, found) == ITEMS
    return list(found)


async def by_mbpoll(plant: Plant, kind: str, count: int, *more: str) -> list[str]:
    """What mbpoll prints as `[ADDRESS]: VALUE`."""
    binary = find_mbpoll()
    assert binary is not None, "mbpoll is missing: run `make servers`"
    if plant.transport is Transport.TCP:
        host, port = plant.endpoint.place.split(":")
        where = ["-m", "tcp", "-p", port, host]
    else:
        where = ["-m", "rtu", "-b", "115200", "-P", "even", plant.endpoint.place]
    arguments = ["-0", "-1", "-q", "-a", "1", "-t", kind, "-r", "0", "-c", str(count), *more, *where]
    process = await asyncio.create_subprocess_exec(
        binary.path, *arguments, stdout=asyncio.subprocess.PIPE, env=binary.environment()
    )
    output, _ = await process.communicate()
    lines = [line for line in output.decode().splitlines() if line.startswith("[")]
    return [line.split(":")[1].split()[0] for line in lines]


def signal(table: Table, kind: ValueType, number: int, word: Endian, byte: Endian) -> SignalPlan:
    return SignalPlan(
        id=SignalId(0),
        name="speed",
        machine=None,
        guard=None,
        device=DeviceId("plc"),
        table=table,
        number=number,
        bit=None,
        type=kind,
        coding=Coding(word_order=word, byte_order=byte),
        poll_ms=200,
    )


def decoded(data: bytes, point: SignalPlan) -> Value:
    (value,) = compile_decoder(whole(point.table), [point]).decode_all(data)
    return value


@pytest.mark.parametrize("table", Table)
async def test_all_three_read_the_same_raw_items(plant: Plant, table: Table) -> None:
    ours = items(table, await by_agent(plant, table))
    theirs = await asyncio.to_thread(by_libmodbus, plant.endpoint.place, plant.transport, table)
    polled = await by_mbpoll(plant, MBPOLL_TABLES[table], ITEMS)
    assert ours == theirs == [int(value) for value in polled]


@pytest.mark.parametrize("table", [Table.HOLDING_REGISTER, Table.INPUT_REGISTER])
async def test_numbers_of_every_type_and_order_are_the_same(plant: Plant, table: Table) -> None:
    data = await by_agent(plant, table)
    words = await asyncio.to_thread(by_libmodbus, plant.endpoint.place, plant.transport, table)
    library = libmodbus()
    for kind in set(ValueType) - {ValueType.BIT}:
        for (word, byte), name in FLOATS.items():
            for number in range(0, ITEMS - kind.registers + 1, 7):
                ours = decoded(data, signal(table, kind, number, word, byte))
                span = words[number : number + kind.registers]
                if kind is ValueType.FLOAT32:
                    there = (ctypes.c_uint16 * 2)(*span)
                    assert ours == getattr(library, f"modbus_get_float_{name}")(there)
                elif kind is not ValueType.FLOAT64:
                    assert ours == integer(span, kind, word, byte)


def integer(words: list[int], kind: ValueType, word: Endian, byte: Endian) -> int:
    """By shifting and adding, as a PLC programmer would."""
    ordered = words if word is Endian.BIG else words[::-1]
    value = 0
    for item in ordered:
        value = value << 16 | (item if byte is Endian.BIG else (item & 0xFF) << 8 | item >> 8)
    bits = 16 * len(words)
    is_negative = kind.value.startswith("int") and value >> bits - 1
    return value - (1 << bits) if is_negative else value


@pytest.mark.parametrize("table", [Table.HOLDING_REGISTER, Table.INPUT_REGISTER])
async def test_mbpoll_shows_the_same_wide_numbers(plant: Plant, table: Table) -> None:
    data = await by_agent(plant, table)
    for order, options in ((Endian.LITTLE, []), (Endian.BIG, ["-B"])):
        kinds = {ValueType.INT32: "int", ValueType.FLOAT32: "float"}
        for kind, name in kinds.items():
            shown = await by_mbpoll(plant, f"{MBPOLL_TABLES[table]}:{name}", 20, *options)
            ours = [decoded(data, signal(table, kind, 2 * n, order, Endian.BIG)) for n in range(20)]
            assert [float(value) for value in shown] == pytest.approx(ours, rel=1e-5)
