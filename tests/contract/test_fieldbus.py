"""The Modbus link over real sockets: exact answers are data, everything else is a reason, nothing is ever invented.

Peers: the register-bank server (good), the fault proxy in front of it (a bad network), and a scripted peer that says
what no server says. The oracle is the bank: a value that it does not hold must never come out.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from edge_agent.adapters.fieldbus_dial import TcpDial
from edge_agent.adapters.fieldbus_framing import MbapFraming
from edge_agent.adapters.fieldbus_request import judge
from edge_agent.adapters.fieldbus_stream import StreamLink
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import BlockId, DeviceId
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome
from simulators.fault_proxy import FaultProxy
from simulators.faults import Fault, FaultKind
from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import Refusal, RegisterBank
from simulators.register_bank import Table as BankTable

pytestmark = pytest.mark.thorough

TIMEOUT_MS = 150
PATIENT_MS = 5000


def block(table: Table = Table.HOLDING_REGISTER, start: int = 0, count: int = 4) -> ReadBlock:
    return ReadBlock(BlockId(0), DeviceId("plc"), table, start, count, (), 200, 2000)


@asynccontextmanager
async def link_to(address: tuple[str, int]) -> AsyncIterator[StreamLink]:
    link = StreamLink(TcpDial(*address), MbapFraming())
    try:
        yield link
    finally:
        await link.close()


async def read_until(link: StreamLink, wanted: Callable[[BlockOutcome], bool]) -> BlockOutcome:
    """Read again until the outcome is as wanted; the test's own timeout is the bound."""
    while True:
        outcome = await link.read(1, block(), PATIENT_MS)
        if wanted(outcome):
            return outcome
        await asyncio.sleep(0.01)


def is_ok(outcome: BlockOutcome) -> bool:
    return isinstance(outcome, BlockOk)


@pytest.fixture
async def bank() -> RegisterBank:
    bank = RegisterBank([1, 2])
    bank.set_words(1, BankTable.HR, 0, [0x1234, 0xABCD, 7, 65535])
    bank.set_words(1, BankTable.IR, 0, [1, 2, 3, 4])
    return bank


@pytest.fixture
async def server(bank: RegisterBank) -> AsyncIterator[RegisterBankServer]:
    async with RegisterBankServer(bank) as server:
        yield server


async def test_reads_registers_as_they_stand_on_the_wire(server: RegisterBankServer) -> None:
    async with link_to(server.address) as link:
        assert await link.read(1, block(), PATIENT_MS) == BlockOk(bytes.fromhex("1234abcd0007ffff"))
        inputs = await link.read(1, block(Table.INPUT_REGISTER, 1, 2), PATIENT_MS)
        assert inputs == BlockOk(bytes.fromhex("00020003"))


@pytest.mark.parametrize("table", [Table.COIL, Table.DISCRETE_INPUT])
@pytest.mark.parametrize("start", [0, 5])
async def test_bits_come_in_order_least_significant_first_over_byte_bounds(
    bank: RegisterBank, server: RegisterBankServer, table: Table, start: int
) -> None:
    """A swap of bits would be the wrong guard: 19 bits, each set alone."""
    async with link_to(server.address) as link:
        for number in range(19):
            bank.set_bits(1, BankTable(table.value), 0, [False] * 32)
            bank.set_bit(1, BankTable(table.value), start + number, value=True)
            outcome = await link.read(1, block(table, start, 19), PATIENT_MS)
            assert outcome == BlockOk((1 << number).to_bytes(3, "little"))


async def test_largest_blocks(server: RegisterBankServer) -> None:
    async with link_to(server.address) as link:
        words = await link.read(1, block(Table.HOLDING_REGISTER, 0, 125), PATIENT_MS)
        bits = await link.read(1, block(Table.DISCRETE_INPUT, 0, 2000), PATIENT_MS)
    assert isinstance(words, BlockOk)
    assert isinstance(bits, BlockOk)
    assert (len(words.data), len(bits.data)) == (250, 250)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 0x0A, 0x0B])
async def test_an_exception_reply_is_a_failure_with_its_code(
    bank: RegisterBank, server: RegisterBankServer, code: int
) -> None:
    bank.refuse(Refusal(1, code))
    async with link_to(server.address) as link:
        assert await link.read(1, block(), PATIENT_MS) == BlockFailed(f"exception:{code}")
        bank.accept_all(1)
        assert is_ok(await link.read(1, block(), PATIENT_MS)), "and the connection goes on"


async def test_a_silent_unit_times_out_and_its_neighbour_answers_on_the_same_connection(
    bank: RegisterBank, server: RegisterBankServer
) -> None:
    bank.set_silent(2, silent=True)
    async with link_to(server.address) as link:
        assert is_ok(await link.read(1, block(), PATIENT_MS))
        assert await link.read(2, block(), TIMEOUT_MS) == BlockFailed("timeout")
        assert is_ok(await link.read(1, block(), PATIENT_MS))


async def test_nobody_there_fails_at_once_and_heals_when_the_server_comes(bank: RegisterBank) -> None:
    async with RegisterBankServer(bank) as first:
        address = first.address
    async with link_to(address) as link:
        assert await link.read(1, block(), PATIENT_MS) == BlockFailed("link")
        async with RegisterBankServer(bank, host=address[0], port=address[1]):
            assert is_ok(await read_until(link, is_ok))


@asynccontextmanager
async def spoilt(server: RegisterBankServer, *faults: Fault, seed: int = 1) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.address, faults, seed=seed) as proxy:
        yield proxy


STRUCK = {
    FaultKind.WRONG_UNIT: "wrong_unit",
    FaultKind.WRONG_FUNCTION: "wrong_function",
    FaultKind.SHORT: "short",
    FaultKind.WRONG_TRANSACTION: "timeout",
    FaultKind.DROP_REPLY: "timeout",
    FaultKind.SWALLOW: "timeout",
    FaultKind.WRONG_LENGTH: "bad_frame",
    FaultKind.CLOSE: "link",
    FaultKind.RESET: "link",
    FaultKind.RESET_MID_FRAME: "link",
}


@pytest.mark.parametrize(("kind", "reason"), STRUCK.items())
async def test_each_fault_is_a_reason_and_the_next_good_answer_is_right(
    server: RegisterBankServer, kind: FaultKind, reason: str
) -> None:
    async with spoilt(server) as proxy, link_to(proxy.address) as link:
        good = await link.read(1, block(), PATIENT_MS)
        proxy.faults = [Fault(kind)]
        timeout_ms = TIMEOUT_MS if reason in {"timeout", "bad_frame"} else PATIENT_MS
        assert await link.read(1, block(), timeout_ms) == BlockFailed(reason)
        proxy.faults = []
        assert await read_until(link, is_ok) == good


async def test_a_connection_whose_peer_is_gone_without_goodbye_is_made_anew(
    server: RegisterBankServer,
) -> None:
    """Half-open TCP would stay silent for a quarter of an hour: three timeouts in a row are enough."""
    async with spoilt(server) as proxy, link_to(proxy.address) as link:
        good = await link.read(1, block(), PATIENT_MS)
        proxy.faults = [Fault(FaultKind.SWALLOW, connection=0)]
        for _ in range(3):
            assert await link.read(1, block(), TIMEOUT_MS) == BlockFailed("timeout")
        assert await read_until(link, is_ok) == good


@pytest.mark.parametrize("kind", [FaultKind.CLOSE, FaultKind.RESET, FaultKind.RESET_MID_FRAME])
async def test_a_close_by_the_peer_is_noticed_long_before_the_timeout(
    server: RegisterBankServer, kind: FaultKind
) -> None:
    async with spoilt(server, Fault(kind)) as proxy, link_to(proxy.address) as link:
        async with asyncio.timeout(20):
            assert await link.read(1, block(), 60_000) == BlockFailed("link")


async def test_a_late_answer_is_never_taken_for_the_next_one(
    bank: RegisterBank, server: RegisterBankServer
) -> None:
    """The trap of serial framing, where the answer to A comes back as B's: here the transaction id tells."""
    async with spoilt(server) as proxy, link_to(proxy.address) as link:
        assert is_ok(await link.read(1, block(), PATIENT_MS))
        for value in range(5):
            bank.set_word(1, BankTable.HR, 0, value)
            proxy.faults = [Fault(FaultKind.LATE, delay_ms=TIMEOUT_MS)]
            assert await link.read(1, block(count=1), TIMEOUT_MS // 3) == BlockFailed("timeout")
            proxy.faults = []
            bank.set_word(1, BankTable.HR, 0, 1000 + value)
            fresh = BlockOk((1000 + value).to_bytes(2, "big"))
            for _ in range(10):
                assert await link.read(1, block(count=1), PATIENT_MS) == fresh
                await asyncio.sleep(TIMEOUT_MS / 5000)


async def test_doubled_and_dribbled_answers_are_read_right(server: RegisterBankServer) -> None:
    async with spoilt(server, Fault(FaultKind.DUPLICATE)) as proxy, link_to(proxy.address) as link:
        for start in (0, 1, 2, 0):
            outcome = await link.read(1, block(Table.INPUT_REGISTER, start, 1), PATIENT_MS)
            assert outcome == BlockOk((start + 1).to_bytes(2, "big"))
        proxy.faults = [Fault(FaultKind.DRIBBLE, delay_ms=1)]
        assert await link.read(1, block(count=1), PATIENT_MS) == BlockOk(b"\x12\x34")


@pytest.mark.parametrize("seed", range(6))
async def test_junk_gives_no_value_and_the_link_heals(server: RegisterBankServer, seed: int) -> None:
    async with spoilt(server, seed=seed) as proxy, link_to(proxy.address) as link:
        good = await link.read(1, block(), PATIENT_MS)
        proxy.faults = [Fault(FaultKind.JUNK)]
        assert isinstance(await link.read(1, block(), TIMEOUT_MS), BlockFailed)
        proxy.faults = []
        assert await read_until(link, is_ok) == good


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_all_faults_never_gives_a_wrong_value(
    bank: RegisterBank, server: RegisterBankServer, seed: int
) -> None:
    kinds = [kind for kind in STRUCK if kind is not FaultKind.SWALLOW] + [FaultKind.DUPLICATE]
    faults = [Fault(kind, share=0.05) for kind in kinds] + [Fault(FaultKind.LATE, delay_ms=60, share=0.1)]
    good = 0
    async with spoilt(server, *faults, seed=seed) as proxy, link_to(proxy.address) as link:
        while good < 15:
            value = (good * 257 + seed) % 65536
            bank.set_word(1, BankTable.HR, 0, value)
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
    assert [name for name in dir(StreamLink) if not name.startswith("_")] == [
        "ask",
        "close",
        "connected",
        "read",
        "requests",
        "trouble",
    ]


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
