"""Habits of our vendors that the design stands on, each pinned: an upgrade that changes one must fail here, loudly.

A probe that turns red is no bug of the product: read what it says, and rethink what leans on it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pymodbus
import pytest
from paho.mqtt import __version__ as paho_version
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from pymodbus.client import AsyncModbusTcpClient


def make_client(name: str = "probe") -> Client:
    return Client(
        CallbackAPIVersion.VERSION2,
        client_id=name,
        protocol=MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
    )


def test_versions_are_the_probed_ones() -> None:
    assert pymodbus.__version__.startswith("3.16.")
    assert paho_version.startswith("2.")


def test_paho_queues_in_ram_what_is_published_offline() -> None:
    """Why nothing is handed to paho while the link is down, and each attempt has a client of its own."""
    client = make_client()
    infos = [client.publish("t", b"x", qos=1) for _ in range(30)]
    assert {info.rc for info in infos} == {MQTTErrorCode.MQTT_ERR_NO_CONN}
    assert len(client._out_messages) == 30


@asynccontextmanager
async def answering(pdu: bytes) -> AsyncIterator[int]:
    """A Modbus/TCP peer that answers everything with this PDU."""
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        while len(request := await reader.read(12)) == 12:
            writer.write(request[:2] + struct.pack(">HHB", 0, len(pdu) + 1, request[6]) + pdu)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close()
        await asyncio.gather(*serving)


async def ask_bits(port: int, count: int) -> list[bool]:
    client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0, reconnect_delay=0)
    assert await client.connect()
    answer = await client.read_discrete_inputs(0, count=count)
    client.close()
    return list(answer.bits)


async def test_pymodbus_gives_bits_least_significant_first_padded_to_bytes() -> None:
    """It changed that order three times in three releases; the simulator's server stands on it."""
    async with answering(bytes.fromhex("02020180")) as port:
        bits = await ask_bits(port, 11)
    assert [number for number, bit in enumerate(bits) if bit] == [0, 15]
    assert len(bits) == 16


async def test_pymodbus_takes_a_short_answer_and_another_function_for_success() -> None:
    """Why the agent has a link of its own."""
    for pdu in (bytes.fromhex("0302002a"), bytes.fromhex("0402002a")):
        async with answering(pdu) as port:
            client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0, reconnect_delay=0)
            assert await client.connect()
            answer = await client.read_holding_registers(0, count=5)
            client.close()
        assert not answer.isError()
        assert answer.registers == [42]


def test_sqlite_reuses_a_plain_rowid_and_knows_strict_tables() -> None:
    """Why places are minted by us, never by the database."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB) STRICT")
    for _ in range(2):
        assert database.execute("INSERT INTO t (v) VALUES (x'00')").lastrowid == 1
        database.execute("DELETE FROM t")
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO t (v) VALUES ('text')")
    database.close()


def test_sqlite_errors_carry_their_code() -> None:
    """Full, damaged and failed are told apart by it."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("CREATE TABLE t (v)")
    database.execute("PRAGMA max_page_count=3")
    with pytest.raises(sqlite3.OperationalError) as full:
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert full.value.sqlite_errorcode == sqlite3.SQLITE_FULL
    database.close()
