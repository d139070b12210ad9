"""Each fault of the proxy, seen by a raw socket between it and an echoing or framed server."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from simulators.draw import Draw
from simulators.fault_proxy import FaultProxy, SerialFaultProxy, read_frame
from simulators.faults import EXCEPTION_CODES, Fault, FaultKind, Frame, Framing, kinds_of, spoil
from simulators.register_bank import RegisterBank, Table
from simulators.rtu import is_whole, seal
from simulators.serial_line import RtuServer, RtuSlaves
from tests.serial_master import Master

REQUEST = bytes.fromhex("0001 0000 0006 07 03 0000 0002")
REPLY = bytes.fromhex("0001 0000 0007 07 03 04 1234 5678")


class FramedServer:
    """Answers every request with REPLY under the request's transaction id; counts what reached it."""

    def __init__(self) -> None:
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await read_frame(reader, Framing.MBAP, is_request=True)
                self.requests += 1
                writer.write(request[:2] + REPLY[2:])
        except (asyncio.IncompleteReadError, OSError):
            writer.close()


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[tuple[FramedServer, tuple[str, int]]]:
    framed = FramedServer()
    server = await asyncio.start_server(framed.serve, "127.0.0.1", 0)
    yield framed, server.sockets[0].getsockname()[:2]
    server.close()


class Client:
    """A raw connection through a proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def through(cls, proxy: FaultProxy) -> "Client":
        return cls(*await asyncio.open_connection(*proxy.address))

    def send(self, transaction: int = 1) -> None:
        self.writer.write(transaction.to_bytes(2, "big") + REQUEST[2:])

    async def ask(self, transaction: int = 1, count: int = len(REPLY)) -> bytes:
        self.send(transaction)
        return await self.reader.readexactly(count)

    async def silence(self) -> bool:
        """Nothing comes for a while (the proxy would have answered a thousand times over)."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.reader.read(1), 0.2)
            return False
        return True

    def close(self) -> None:
        self.writer.close()


Upstream = tuple[FramedServer, tuple[str, int]]


async def test_without_faults_bytes_pass_both_ways_unchanged(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1]) as proxy:
        client = await Client.through(proxy)
        assert await client.ask(1) == REPLY
        assert await client.ask(2) == b"\x00\x02" + REPLY[2:]
        client.close()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FaultKind.WRONG_TRANSACTION, bytes.fromhex("5501 0000 0007 07 03 04 1234 5678")),
        (FaultKind.WRONG_UNIT, bytes.fromhex("0001 0000 0007 52 03 04 1234 5678")),
        (FaultKind.WRONG_FUNCTION, bytes.fromhex("0001 0000 0007 07 04 04 1234 5678")),
        (FaultKind.WRONG_LENGTH, bytes.fromhex("0001 0000 0008 07 03 04 1234 5678")),
        (FaultKind.SHORT, bytes.fromhex("0001 0000 0005 07 03 02 1234")),
        (FaultKind.DUPLICATE, REPLY + REPLY),
    ],
)
async def test_a_reply_is_spoilt_in_exactly_the_named_way(
    upstream: Upstream, kind: FaultKind, expected: bytes
) -> None:
    async with FaultProxy(upstream[1], [Fault(kind)]) as proxy:
        client = await Client.through(proxy)
        assert await client.ask(count=len(expected)) == expected
        assert await client.silence()
        assert proxy.struck[kind] == 1
        client.close()


async def test_junk_is_longer_than_any_frame_and_not_the_reply(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1], [Fault(FaultKind.JUNK)]) as proxy:
        client = await Client.through(proxy)
        assert REPLY not in await client.ask(count=300)
        client.close()


async def test_a_dropped_reply_never_comes_and_the_next_does(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1], [Fault(FaultKind.DROP_REPLY)]) as proxy:
        client = await Client.through(proxy)
        client.send()
        assert await client.silence()
        proxy.faults = []
        assert await client.ask(9) == b"\x00\x09" + REPLY[2:]
        assert upstream[0].requests == 2
        client.close()


async def test_a_half_open_connection_swallows_requests_too(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1], [Fault(FaultKind.SWALLOW)]) as proxy:
        client = await Client.through(proxy)
        client.send()
        assert await client.silence()
        assert upstream[0].requests == 0
        client.close()


@pytest.mark.parametrize(("kind", "before"), [(FaultKind.RESET, b""), (FaultKind.RESET_MID_FRAME, REPLY[:6])])
async def test_a_reset_is_a_reset_and_no_end_of_stream(
    upstream: Upstream, kind: FaultKind, before: bytes
) -> None:
    loop = asyncio.get_running_loop()
    async with FaultProxy(upstream[1], [Fault(kind)]) as proxy:
        with socket.socket() as raw:
            raw.setblocking(False)
            await loop.sock_connect(raw, proxy.address)
            await loop.sock_sendall(raw, REQUEST)
            if before:
                assert await loop.sock_recv(raw, 100) == before
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(raw, 100)


async def test_a_close_is_an_end_of_stream(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1], [Fault(FaultKind.CLOSE)]) as proxy:
        client = await Client.through(proxy)
        client.send()
        assert await client.reader.read(1) == b""
        client.close()


async def test_latency_holds_replies_back_by_the_delay_at_least(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1], [Fault(FaultKind.LATENCY, delay_ms=80)]) as proxy:
        client = await Client.through(proxy)
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        assert await client.ask() == REPLY
        assert loop.time() - start_s >= 0.08
        client.close()


async def test_dribbled_bytes_come_one_by_one_and_whole(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1], [Fault(FaultKind.DRIBBLE, delay_ms=5)]) as proxy:
        client = await Client.through(proxy)
        client.send()
        chunks: list[bytes] = []
        while len(b"".join(chunks)) < len(REPLY):
            chunks.append(await client.reader.read(100))
        assert b"".join(chunks) == REPLY
        assert len(chunks) > 1
        client.close()


async def test_a_late_reply_is_passed_by_the_one_after_it(upstream: Upstream) -> None:
    """Seed 1 draws the fault for the first reply and not for the second."""
    late = Fault(FaultKind.LATE, delay_ms=150, share=0.5)
    async with FaultProxy(upstream[1], [late], seed=1) as proxy:
        client = await Client.through(proxy)
        client.send(1)
        assert await client.ask(2) == b"\x00\x02" + REPLY[2:]
        assert await client.reader.readexactly(len(REPLY)) == REPLY
        client.close()


async def test_a_fault_strikes_only_the_connection_it_names(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1], [Fault(FaultKind.CLOSE, connection=1)]) as proxy:
        first, second = await Client.through(proxy), await Client.through(proxy)
        assert await first.ask() == REPLY
        second.send()
        assert await second.reader.read(1) == b""
        assert proxy.connections == 2
        first.close()
        second.close()


async def test_a_stopped_proxy_refuses_and_drops_and_comes_back_on_its_port(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1]) as proxy:
        client = await Client.through(proxy)
        assert await client.ask() == REPLY
        await proxy.stop()
        assert await client.reader.read(1) == b""
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await Client.through(proxy)
        await proxy.start()
        again = await Client.through(proxy)
        assert await again.ask() == REPLY
        client.close()
        again.close()


async def test_a_missing_server_closes_the_connection(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1]) as taken:
        nowhere = taken.address
    async with FaultProxy(nowhere) as proxy:
        client = await Client.through(proxy)
        assert await client.reader.read(1) == b""
        client.close()


async def test_unframed_bytes_of_any_protocol_pass_and_are_dropped(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1], framing=Framing.RAW) as proxy:
        client = await Client.through(proxy)
        assert await client.ask() == REPLY
        proxy.faults = [Fault(FaultKind.DROP_REPLY)]
        client.send()
        assert await client.silence()
        client.close()


@pytest.mark.parametrize(("now_ms", "applies"), [(99, False), (100, True), (199, True), (200, False)])
def test_a_fault_has_its_time_half_open(now_ms: int, applies: bool) -> None:
    assert Fault(FaultKind.RESET, from_ms=100, until_ms=200).applies(0, now_ms) is applies


def test_the_same_seed_makes_the_same_junk() -> None:
    one, again, other = (spoil(Fault(FaultKind.JUNK), Framing.MBAP, REPLY, Draw(seed)) for seed in (4, 4, 5))
    assert one == again != other


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_draws_strikes(share: float) -> None:
    draw = Draw(1)
    assert sum(draw.chance(share) for _ in range(10_000)) / 10_000 == pytest.approx(share, abs=0.02)


RTU_REQUEST = seal(REQUEST[6:])
RTU_REPLY = seal(REPLY[6:])
PLAIN: list[tuple[FaultKind, str]] = [
    (FaultKind.WRONG_UNIT, "52 03 04 1234 5678"),
    (FaultKind.WRONG_FUNCTION, "07 04 04 1234 5678"),
    (FaultKind.WRONG_LENGTH, "07 03 05 1234 5678"),
    (FaultKind.SHORT, "07 03 02 1234"),
]


@pytest.mark.parametrize(("kind", "expected"), PLAIN)
def test_an_rtu_reply_is_spoilt_in_exactly_the_named_way_under_a_right_crc(
    kind: FaultKind, expected: str
) -> None:
    assert spoil(Fault(kind), Framing.RTU, RTU_REPLY, Draw(1)) == seal(bytes.fromhex(expected))


@pytest.mark.parametrize("kind", [FaultKind.CRC_ERROR, FaultKind.COLLISION])
def test_what_garbles_an_rtu_frame_never_leaves_its_crc_right(kind: FaultKind) -> None:
    draw = Draw(5)
    assert not any(is_whole(spoil(Fault(kind), Framing.RTU, RTU_REPLY, draw)) for _ in range(5_000))


@pytest.mark.parametrize(("framing", "reply"), [(Framing.MBAP, REPLY), (Framing.RTU, RTU_REPLY)])
def test_a_second_slaves_answer_follows_the_first_and_differs_in_every_byte_of_data(
    framing: Framing, reply: bytes
) -> None:
    both = spoil(Fault(FaultKind.TWO_ANSWERS), framing, reply, Draw(2))
    first, second = Frame.read(framing, both[: len(reply)]), Frame.read(framing, both[len(reply) :])
    assert both[: len(reply)] == reply
    assert (second.transaction, second.unit, second.pdu[:2]) == (first.transaction, first.unit, first.pdu[:2])
    assert all(one != other for one, other in zip(first.pdu[2:], second.pdu[2:], strict=True))


@pytest.mark.parametrize(("framing", "reply"), [(Framing.MBAP, REPLY), (Framing.RTU, RTU_REPLY)])
def test_exceptions_are_drawn_from_all_codes_or_given(framing: Framing, reply: bytes) -> None:
    draw = Draw(3)
    drawn = {
        Frame.read(framing, spoil(Fault(FaultKind.EXCEPTION), framing, reply, draw)).pdu for _ in range(200)
    }
    assert drawn == {bytes([0x83, code]) for code in EXCEPTION_CODES}
    given = spoil(Fault(FaultKind.EXCEPTION, code=6), framing, reply, draw)
    assert Frame.read(framing, given).pdu == b"\x83\x06"


def test_every_fault_belongs_to_a_framing() -> None:
    assert kinds_of(Framing.MBAP) | kinds_of(Framing.RTU) == set(FaultKind)
    assert FaultKind.CRC_ERROR not in kinds_of(Framing.MBAP)
    assert FaultKind.WRONG_TRANSACTION not in kinds_of(Framing.RTU)
    assert FaultKind.WRONG_UNIT not in kinds_of(Framing.RAW)


@pytest_asyncio.fixture
async def slaves() -> AsyncIterator[tuple[RegisterBank, tuple[str, int]]]:
    bank = RegisterBank([7, 8])
    bank.set_words(7, Table.HR, 0, [0x1234, 0x5678])
    async with RtuServer(RtuSlaves(bank)) as server:
        yield bank, server.address


Slaves = tuple[RegisterBank, tuple[str, int]]


async def test_rtu_replies_are_cut_and_spoilt_one_by_one(slaves: Slaves) -> None:
    async with FaultProxy(slaves[1], framing=Framing.RTU) as proxy:
        client = await Client.through(proxy)
        client.writer.write(RTU_REQUEST)
        assert await client.reader.readexactly(9) == RTU_REPLY
        proxy.faults = [Fault(FaultKind.WRONG_TRANSACTION), Fault(FaultKind.SHORT)]
        client.writer.write(RTU_REQUEST)
        assert await client.reader.readexactly(7) == seal(bytes.fromhex("07 03 02 1234"))
        assert proxy.struck == {FaultKind.SHORT: 1}, "RTU has no transaction to get wrong"
        client.close()


async def test_a_fault_strikes_only_the_unit_it_names(slaves: Slaves) -> None:
    async with FaultProxy(slaves[1], [Fault(FaultKind.SWALLOW, unit=8)], framing=Framing.RTU) as proxy:
        client = await Client.through(proxy)
        client.writer.write(seal(b"\x08" + RTU_REQUEST[1:-2]) + RTU_REQUEST)
        assert await client.reader.readexactly(9) == RTU_REPLY
        assert proxy.struck == {FaultKind.SWALLOW: 1}
        client.close()


@pytest.mark.parametrize("dies", [False, True], ids=["the slave goes on", "the slave dies"])
async def test_a_gateway_that_answers_from_memory_hides_what_the_slave_does(
    slaves: Slaves, dies: bool
) -> None:
    bank, address = slaves
    async with FaultProxy(address, framing=Framing.RTU) as proxy:
        client = await Client.through(proxy)
        client.writer.write(RTU_REQUEST)
        assert await client.reader.readexactly(9) == RTU_REPLY
        proxy.faults = [Fault(FaultKind.CACHED)]
        bank.set_words(7, Table.HR, 0, [1, 2])
        bank.set_silent(7, silent=dies)
        client.writer.write(RTU_REQUEST)
        assert await client.reader.readexactly(9) == RTU_REPLY
        client.close()


async def test_a_cached_modbus_tcp_reply_carries_the_present_transaction(upstream: Upstream) -> None:
    async with FaultProxy(upstream[1]) as proxy:
        client = await Client.through(proxy)
        assert await client.ask(1) == REPLY
        proxy.faults = [Fault(FaultKind.CACHED)]
        assert await client.ask(5) == b"\x00\x05" + REPLY[2:]
        assert upstream[0].requests == 1
        client.close()


async def test_a_spoilt_serial_line_stays_and_goes_silent_instead_of_closing(slaves: Slaves) -> None:
    async with SerialFaultProxy(slaves[1]) as proxy:
        master = Master(proxy.place)
        master.send(RTU_REQUEST)
        assert await master.hear(9) == RTU_REPLY
        proxy.faults = [Fault(FaultKind.RESET)]
        master.send(RTU_REQUEST)
        await asyncio.sleep(0.2)
        proxy.faults = [Fault(FaultKind.RESET_MID_FRAME)]
        master.send(RTU_REQUEST)
        assert await master.hear(4) == RTU_REPLY[:4]
        proxy.faults = []
        master.send(RTU_REQUEST)
        assert await master.hear(9) == RTU_REPLY
        master.close()
