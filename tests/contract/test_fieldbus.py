"""The links of all four transports over real sockets and pseudo-terminals: what is read is true, whatever goes wrong."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from edge_agent.adapters.fieldbus_confirmed import ConfirmedLink
from edge_agent.adapters.fieldbus_dial import TcpDial
from edge_agent.adapters.fieldbus_framing import MbapFraming
from edge_agent.adapters.fieldbus_request import judge
from edge_agent.adapters.fieldbus_stream import StreamLink
from edge_agent.domain.plan import Table
from edge_agent.ports import BlockFailed, BlockOk
from simulators.endpoint import Transport
from simulators.faults import Fault, FaultKind
from simulators.register_bank import Refusal
from simulators.register_bank import Table as BankTable
from tests.fieldbus_rig import PATIENT_MS, TIMEOUT_MS, Plant, block, is_ok, plant_on, read_until

pytestmark = [
    pytest.mark.thorough,
    # Its successor, a hook, would give every test of this folder another name.
    pytest.mark.filterwarnings(
        "ignore:Overriding the .event_loop_policy. fixture:pytest.PytestDeprecationWarning"
    ),
]


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The event loop of production: timers, sockets and half-closed connections are its own."""
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


@pytest.fixture(params=Transport)
async def plant(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_on(request.param, tmp_path) as plant:
        yield plant


@asynccontextmanager
async def link_to(address: tuple[str, int]) -> AsyncIterator[StreamLink]:
    link = StreamLink(TcpDial(*address), MbapFraming())
    try:
        yield link
    finally:
        await link.close()


async def test_reads_registers_as_they_stand_on_the_wire(plant: Plant) -> None:
    async with plant.linked() as link:
        assert await link.read(1, block(), PATIENT_MS) == BlockOk(bytes.fromhex("1234abcd0007ffff"))
        inputs = await link.read(1, block(Table.INPUT_REGISTER, 1, 2), PATIENT_MS)
        assert inputs == BlockOk(bytes.fromhex("00020003"))
        assert link.trouble is None


@pytest.mark.parametrize("table", [Table.COIL, Table.DISCRETE_INPUT])
@pytest.mark.parametrize("start", [0, 5])
async def test_bits_come_in_order_least_significant_first_over_byte_bounds(
    plant: Plant, table: Table, start: int
) -> None:
    """A swap of bits would be the wrong guard: 19 bits, each set alone."""
    async with plant.linked() as link:
        for number in range(19):
            plant.bank.set_bits(1, BankTable(table.value), 0, [False] * 32)
            plant.bank.set_bit(1, BankTable(table.value), start + number, value=True)
            outcome = await link.read(1, block(table, start, 19), PATIENT_MS)
            assert outcome == BlockOk((1 << number).to_bytes(3, "little"))


async def test_largest_blocks(plant: Plant) -> None:
    async with plant.linked() as link:
        words = await link.read(1, block(Table.HOLDING_REGISTER, 0, 125), PATIENT_MS)
        bits = await link.read(1, block(Table.DISCRETE_INPUT, 0, 2000), PATIENT_MS)
    assert isinstance(words, BlockOk)
    assert isinstance(bits, BlockOk)
    assert (len(words.data), len(bits.data)) == (250, 250)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 0x0A, 0x0B])
async def test_an_exception_reply_is_a_failure_with_its_code(plant: Plant, code: int) -> None:
    plant.bank.refuse(Refusal(1, code))
    async with plant.linked() as link:
        assert await link.read(1, block(), PATIENT_MS) == BlockFailed(f"exception:{code}")
        plant.bank.accept_all(1)
        assert is_ok(await link.read(1, block(), PATIENT_MS)), "and the connection goes on"


async def test_a_silent_unit_times_out_and_its_neighbour_answers_at_once(plant: Plant) -> None:
    plant.bank.set_silent(2, silent=True)
    async with plant.linked() as link:
        assert is_ok(await link.read(1, block(), PATIENT_MS))
        assert await link.read(2, block(), TIMEOUT_MS) == BlockFailed("timeout")
        assert is_ok(await link.read(1, block(), PATIENT_MS))


async def test_requests_are_counted_by_function_code(plant: Plant) -> None:
    async with plant.linked() as link:
        await link.read(1, block(), PATIENT_MS)
        before = dict(link.requests)
        for table in (Table.COIL, Table.DISCRETE_INPUT, Table.DISCRETE_INPUT):
            await link.read(1, block(table, 0, 8), PATIENT_MS)
        assert {code: link.requests[code] - before[code] for code in link.requests} == {
            1: 1,
            2: 2,
            3: 0,
            4: 0,
        }


async def test_nobody_there_fails_and_heals_when_the_device_comes(plant: Plant) -> None:
    async with plant.linked() as link:
        assert is_ok(await link.read(1, block(), PATIENT_MS))
        await plant.endpoint.stop()
        assert await read_until(link, lambda outcome: outcome == BlockFailed("link"))
        assert link.trouble is None or "cannot connect" in link.trouble
        port = plant.endpoint.place
        await plant.endpoint.start()
        assert plant.endpoint.place == port
        assert is_ok(await read_until(link, is_ok))


STRUCK: dict[FaultKind, dict[str, str]] = {
    FaultKind.WRONG_UNIT: {"tcp": "wrong_unit", "rtu": "wrong_unit"},
    FaultKind.WRONG_FUNCTION: {"tcp": "wrong_function", "rtu": "wrong_function"},
    FaultKind.SHORT: {"tcp": "short", "rtu": "short"},
    FaultKind.WRONG_LENGTH: {"tcp": "bad_frame", "rtu": "short"},
    FaultKind.WRONG_TRANSACTION: {"tcp": "timeout"},
    FaultKind.DROP_REPLY: {"tcp": "timeout", "rtu": "timeout"},
    FaultKind.SWALLOW: {"tcp": "timeout", "tls": "timeout", "rtu": "timeout"},
    FaultKind.CLOSE: {"tcp": "link", "tls": "link", "rtuovertcp": "link"},
    FaultKind.RESET: {"tcp": "link", "tls": "link", "rtuovertcp": "link"},
    FaultKind.RESET_MID_FRAME: {"tcp": "link", "tls": "link", "rtuovertcp": "link"},
    FaultKind.CRC_ERROR: {"rtu": "bad_frame"},
    FaultKind.COLLISION: {"rtu": "bad_frame"},
    FaultKind.DUPLICATE: {"rtu": "bad_frame"},
    FaultKind.TWO_ANSWERS: {"rtu": "bad_frame"},
    FaultKind.JUNK: {"tls": "link", "rtu": "bad_frame"},
}
"""What a fault comes to, by transport; `rtu` is both of RTU framing. A frame cut in TLS is a broken TLS record."""


def reason_of(kind: FaultKind, transport: Transport) -> str | None:
    by = STRUCK[kind]
    is_rtu = transport in {Transport.RTU, Transport.RTU_OVER_TCP}
    return by.get(transport.value) or (by.get("rtu") if is_rtu else None)


CASES = [
    pytest.param(transport, kind, reason, id=f"{transport.value}-{kind.value}")
    for kind in STRUCK
    for transport in Transport
    if (reason := reason_of(kind, transport)) is not None
]


@pytest.mark.parametrize(("transport", "kind", "reason"), CASES)
async def test_each_fault_is_a_reason_and_the_next_good_answer_is_right(
    tmp_path: Path, transport: Transport, kind: FaultKind, reason: str
) -> None:
    async with plant_on(transport, tmp_path) as plant, plant.linked() as link:
        good = await link.read(1, block(), PATIENT_MS)
        assert is_ok(good)
        plant.spoil(kind)
        assert await link.read(1, block(), TIMEOUT_MS) == BlockFailed(reason)
        plant.spoil()
        assert await read_until(link, is_ok) == good


async def test_a_connection_whose_peer_is_gone_without_goodbye_is_made_anew(tmp_path: Path) -> None:
    """Half-open TCP would stay silent for a quarter of an hour: three timeouts in a row are enough."""
    for transport in (Transport.TCP, Transport.TLS, Transport.RTU_OVER_TCP):
        async with plant_on(transport, tmp_path) as plant, plant.linked() as link:
            good = await link.read(1, block(), PATIENT_MS)
            plant.spoil(Fault(FaultKind.SWALLOW, connection=0))
            for _ in range(1 if plant.is_rtu else 3):
                assert await link.read(1, block(), TIMEOUT_MS) == BlockFailed("timeout")
            assert await read_until(link, is_ok) == good


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS, Transport.RTU_OVER_TCP])
@pytest.mark.parametrize("kind", [FaultKind.CLOSE, FaultKind.RESET, FaultKind.RESET_MID_FRAME])
async def test_a_close_by_the_peer_is_noticed_long_before_the_timeout(
    tmp_path: Path, transport: Transport, kind: FaultKind
) -> None:
    async with plant_on(transport, tmp_path) as plant, plant.linked() as link:
        assert is_ok(await link.read(1, block(), PATIENT_MS))
        plant.spoil(kind)
        async with asyncio.timeout(20):
            assert await link.read(1, block(), 60_000) == BlockFailed("link")


async def test_a_pulled_adapter_is_noticed_long_before_the_timeout_and_opened_again(tmp_path: Path) -> None:
    async with plant_on(Transport.RTU, tmp_path) as plant, plant.linked() as link:
        good = await link.read(1, block(), PATIENT_MS)
        plant.bank.set_silent(1, silent=True)
        reading = asyncio.ensure_future(link.read(1, block(), 60_000))
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await plant.endpoint.stop()
            assert await reading == BlockFailed("link")
        assert await link.read(1, block(), PATIENT_MS) == BlockFailed("link")
        plant.bank.set_silent(1, silent=False)
        await plant.endpoint.start()
        assert await read_until(link, is_ok) == good


async def test_a_serial_line_has_one_owner(tmp_path: Path) -> None:
    async with plant_on(Transport.RTU, tmp_path) as plant, plant.linked() as first, plant.linked() as second:
        assert is_ok(await first.read(1, block(), PATIENT_MS))
        assert await second.read(1, block(), PATIENT_MS) == BlockFailed("link")
        assert second.trouble is not None
        assert "exclusively lock" in second.trouble


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.RTU_OVER_TCP, Transport.RTU])
async def test_a_late_answer_is_never_taken_for_the_next_one(tmp_path: Path, transport: Transport) -> None:
    """Where no transaction id tells, the link waits until the late answer has come, and reads twice."""
    async with plant_on(transport, tmp_path) as plant, plant.linked() as link:
        assert is_ok(await link.read(1, block(), PATIENT_MS))
        for value in range(5):
            plant.bank.set_word(1, BankTable.HR, 0, value)
            plant.spoil(Fault(FaultKind.LATE, delay_ms=TIMEOUT_MS))
            assert await link.read(1, block(count=1), TIMEOUT_MS // 3) == BlockFailed("timeout")
            plant.spoil()
            plant.bank.set_word(1, BankTable.HR, 0, 1000 + value)
            fresh = BlockOk((1000 + value).to_bytes(2, "big"))
            for _ in range(10):
                assert await link.read(1, block(count=1), PATIENT_MS) == fresh
                await asyncio.sleep(TIMEOUT_MS / 5000)


async def test_dribbled_answers_are_read_right(plant: Plant) -> None:
    async with plant.linked() as link:
        assert is_ok(await link.read(1, block(count=1), PATIENT_MS))
        plant.spoil(Fault(FaultKind.DRIBBLE, delay_ms=1))
        assert await link.read(1, block(count=1), PATIENT_MS) == BlockOk(b"\x12\x34")


async def test_doubled_answers_are_told_apart_by_their_transaction(tmp_path: Path) -> None:
    async with plant_on(Transport.TCP, tmp_path) as plant, plant.linked() as link:
        plant.spoil(FaultKind.DUPLICATE)
        for start in (0, 1, 2, 0):
            outcome = await link.read(1, block(Table.INPUT_REGISTER, start, 1), PATIENT_MS)
            assert outcome == BlockOk((start + 1).to_bytes(2, "big"))


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("seed", range(4))
async def test_junk_gives_no_value_and_the_link_heals(
    tmp_path: Path, transport: Transport, seed: int
) -> None:
    async with plant_on(transport, tmp_path, seed=seed) as plant, plant.linked() as link:
        good = await link.read(1, block(), PATIENT_MS)
        plant.spoil(FaultKind.JUNK)
        assert isinstance(await link.read(1, block(), TIMEOUT_MS), BlockFailed)
        plant.spoil()
        assert await read_until(link, is_ok) == good


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("seed", range(2))
async def test_a_storm_of_all_faults_never_gives_a_wrong_value(
    tmp_path: Path, transport: Transport, seed: int
) -> None:
    kinds = [kind for kind in STRUCK if kind is not FaultKind.SWALLOW]
    faults = [Fault(kind, share=0.04) for kind in kinds] + [Fault(FaultKind.LATE, delay_ms=60, share=0.1)]
    good = 0
    async with plant_on(transport, tmp_path, faults, seed=seed) as plant, plant.linked(40) as link:
        while good < 10:
            value = (good * 257 + seed) % 65536
            plant.bank.set_word(1, BankTable.HR, 0, value)
            outcome = await link.read(1, block(count=1), 40)
            if isinstance(outcome, BlockOk):
                assert outcome.data == value.to_bytes(2, "big")
                good += 1
            elif outcome.reason == "link":
                await asyncio.sleep(0.02)


Script = Callable[[bytes], bytes]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[tuple[str, int], list[bytes]]]:
    """A peer that answers each 12-byte request by `script`, and what it was asked."""
    asked: list[bytes] = []
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        try:
            while True:
                request = await reader.readexactly(12)
                asked.append(request)
                writer.write(script(request))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2], asked
        server.close()
        await asyncio.gather(*serving)


def frame(
    request: bytes, pdu: bytes, *, protocol: int = 0, length: int | None = None, unit: int = 1
) -> bytes:
    told = len(pdu) + 1 if length is None else length
    return request[:2] + struct.pack(">HHB", protocol, told, unit) + pdu


GOOD = b"\x03\x02\x00\x2a"
HOSTILE: dict[str, tuple[Script, set[str]]] = {
    "protocol id 1": (lambda r: frame(r, GOOD, protocol=1), {"bad_frame", "link"}),
    "length beyond the protocol": (lambda r: frame(r, GOOD, length=300), {"bad_frame", "link"}),
    "length of zero": (lambda r: frame(r, GOOD, length=0), {"bad_frame", "link"}),
    "an HTTP server": (
        lambda _: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        {"bad_frame", "link"},
    ),
    "an SSH server": (lambda _: b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", {"bad_frame", "link"}),
    "more registers than asked": (lambda r: frame(r, b"\x03\x04\x00\x2a\x00\x2b"), {"short"}),
    "no register at all": (lambda r: frame(r, b"\x03\x00"), {"short"}),
    "a byte count that lies low": (lambda r: frame(r, b"\x03\x01\x00\x2a"), {"short"}),
    "a byte count that lies high": (lambda r: frame(r, b"\x03\x04\x00\x2a"), {"short"}),
    "the echo of a write": (lambda r: frame(r, b"\x06\x00\x00\x00\x2a"), {"wrong_function"}),
    "an exception of another function": (lambda r: frame(r, b"\x84\x02"), {"wrong_function"}),
    "an exception of the wrong length": (lambda r: frame(r, b"\x83\x02\x00"), {"wrong_function"}),
    "a function that is none": (lambda r: frame(r, b"\x55\x00"), {"wrong_function"}),
    "another unit": (lambda r: frame(r, GOOD, unit=9), {"wrong_unit"}),
    "half a frame": (lambda r: frame(r, GOOD)[:8], {"bad_frame", "link"}),
    "silence": (lambda _: b"", {"timeout"}),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_peer_gets_no_value_believed(name: str) -> None:
    script, reasons = HOSTILE[name]
    async with scripted(script) as (address, _), link_to(address) as link:
        for _ in range(2):
            waits = name in {"half a frame", "silence"}
            outcome = await link.read(1, block(count=1), TIMEOUT_MS if waits else PATIENT_MS)
            assert isinstance(outcome, BlockFailed)
            assert outcome.reason in reasons


async def test_a_gateway_with_nobody_behind_it_is_asked_again_without_a_failure_of_the_link() -> None:
    """Silence ends the connection; the next read waits for the new one instead of being refused."""
    async with scripted(lambda _: b"") as (address, asked), link_to(address) as link:
        outcomes = [await link.read(unit, block(count=1), TIMEOUT_MS) for unit in range(1, 9)]
    assert outcomes == [BlockFailed("timeout")] * 8
    assert [request[6] for request in asked] == [*range(1, 9)]


async def test_requests_are_twelve_bytes_of_function_1_to_4_with_a_new_transaction_each() -> None:
    async with scripted(lambda r: frame(r, GOOD)) as (address, asked), link_to(address) as link:
        for table in Table:
            await link.read(1, block(table, 0x0102, 1), TIMEOUT_MS)
    assert [request[2:] for request in asked] == [
        bytes.fromhex(f"0000000601{code:02x}01020001") for code in (1, 2, 3, 4)
    ]
    assert len({request[:2] for request in asked}) == 4


async def test_transaction_ids_wrap() -> None:
    async with scripted(lambda r: frame(r, GOOD)) as (address, _), link_to(address) as link:
        await link.read(1, block(count=1), PATIENT_MS)
        assert isinstance(link._framing, MbapFraming)
        link._framing._transaction = 0xFFFF
        for _ in range(3):
            assert await link.read(1, block(count=1), PATIENT_MS) == BlockOk(b"\x00\x2a")


async def test_a_link_that_was_never_used_closes() -> None:
    await StreamLink(TcpDial("127.0.0.1", 1), MbapFraming()).close()


def test_the_port_has_no_way_to_write() -> None:
    offered = {name for kind in (StreamLink, ConfirmedLink) for name in dir(kind) if not name.startswith("_")}
    assert offered == {"ask", "close", "connected", "read", "requests", "trouble"}


def test_judging_takes_nothing_that_is_not_exact() -> None:
    """Every truncation and every single-byte change before the data is refused."""
    body = b"\x01\x03\x08" + bytes(range(8))
    assert judge(1, block(), body) == BlockOk(bytes(range(8)))
    for length in range(3, len(body)):
        assert isinstance(judge(1, block(), body[:length]), BlockFailed)
    for place in range(3):
        for value in set(range(256)) - {body[place]}:
            changed = body[:place] + bytes([value]) + body[place + 1 :]
            assert isinstance(judge(1, block(), changed), BlockFailed)
