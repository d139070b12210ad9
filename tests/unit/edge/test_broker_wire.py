"""What a broker sends, cut into packets: those of the wanted kind taken out, the rest for paho, in whatever pieces it comes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.broker.wire import Limits, Packet, ProtocolError, Wire
from tests.broker_pieces import PINGRESP, Pieces, read_all, varint

PUBLISH, PUBACK = 3, 4
LIMITS = Limits(read_bytes=4096, packet_bytes=2048)


def packet(body: bytes, kind: int = PUBLISH, flags: int = 0) -> bytes:
    """A packet of that kind (MQTT 5.0, 2.1)."""
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def test_packets_of_the_wanted_kind_are_taken_out_and_everything_else_is_left_to_paho_in_order() -> None:
    stream = [packet(b"one", flags=2), PINGRESP, packet(b""), packet(b"\x00\x05", PUBACK), packet(b"two")]
    assert read_all(Wire(Pieces(b"".join(stream)), LIMITS), PUBLISH) == [
        Packet(0x32, b"one"),
        PINGRESP,
        Packet(0x30, b""),
        b"\x40\x02\x00\x05",
        Packet(0x30, b"two"),
    ]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.data())
def test_a_stream_means_the_same_in_whatever_pieces_it_comes(
    bodies: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(packet(body) for body in bodies)
    cuts = data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=6, unique=True))
    pieces = Pieces()
    wire = Wire(pieces, LIMITS)
    found: list[Packet | bytes] = []
    for start, end in pairwise([0, *sorted(cuts), len(whole)]):
        pieces.pieces.append(whole[start:end])
        found += read_all(wire, PUBLISH)
    assert found == [Packet(0x30, body) for body in bodies]


def test_more_than_is_read_at_once_is_told_so_that_what_tls_holds_is_not_forgotten() -> None:
    wire = Wire(Pieces(bytes(LIMITS.read_bytes), bytes(1)), LIMITS)
    assert not wire.fill()
    assert wire.fill()


def test_paho_is_told_to_wait_until_there_is_more_and_hears_of_the_end() -> None:
    pieces = Pieces()
    wire = Wire(pieces, LIMITS)
    with pytest.raises(BlockingIOError):
        wire.recv(1)
    pieces.pieces = [PINGRESP, b""]
    assert wire.fill()
    assert wire.next_packet(PUBLISH) is None
    assert (wire.recv(8), wire.has_for_paho, wire.recv(8)) == (PINGRESP, True, b"")


def test_a_packet_without_an_end_to_its_length_is_no_mqtt() -> None:
    wire = Wire(Pieces(b"\x40\xff\xff\xff\xff\x01"), LIMITS)
    wire.fill()
    with pytest.raises(ProtocolError):
        wire.next_packet(PUBACK)


def test_the_largest_packet_that_is_taken_comes_whole_in_small_pieces() -> None:
    body = b"x" * (LIMITS.packet_bytes - 3)
    whole = packet(body)
    assert len(whole) == LIMITS.packet_bytes
    wire, found = Wire(pieces := Pieces(), LIMITS), list[Packet | bytes]()
    for at in range(0, len(whole), 100):
        pieces.pieces.append(whole[at : at + 100])
        found += read_all(wire, PUBLISH)
    assert found == [Packet(0x30, body)]


@pytest.mark.parametrize("kind", [PUBLISH, PUBACK])
def test_a_packet_larger_than_the_broker_was_told_is_refused_by_its_first_bytes(kind: int) -> None:
    wire = Wire(Pieces(packet(b"x" * (LIMITS.packet_bytes - 2))[:5]), LIMITS)
    wire.fill()
    with pytest.raises(ProtocolError, match="where we take"):
        wire.next_packet(kind)


def test_a_connection_that_came_too_late_says_nothing_before_it_ends() -> None:
    """Its CONNECT would throw out the connection that stands by now, and leave our last will behind."""
    pieces = Pieces()
    wire = Wire(pieces, LIMITS)
    wire.send(b"CONNECT")
    wire.close()
    assert pieces.sent == b""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


async def test_what_is_written_in_one_turn_leaves_together_after_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    wire = Wire(ours, LIMITS)
    wire.attach(asyncio.get_running_loop(), lambda: None)
    assert [wire.send(b"one"), wire.send(b"more")] == [3, 4]
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    await asyncio.sleep(0)
    assert theirs.recv(99) == b"onemore"
    wire.close()


async def test_what_is_written_leaves_in_order_however_slowly_the_peer_reads(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    loop = asyncio.get_running_loop()
    wire = Wire(ours, LIMITS)
    wire.send(b"before;")
    wire.attach(loop, lambda: None)
    pieces = [b"%d;" % n * 1000 for n in range(1000)]
    for piece in pieces:
        assert wire.send(piece) == len(piece)
    expected = b"before;" + b"".join(pieces)
    heard = bytearray()
    async with asyncio.timeout(20):
        while len(heard) < len(expected):
            heard += await loop.sock_recv(theirs, 65_536)
    assert heard == expected
    wire.close()
    assert await loop.sock_recv(theirs, 1) == b""


async def test_a_wire_that_is_paused_reads_on_when_it_is_resumed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    wire, looks = Wire(ours, LIMITS), asyncio.Event()
    wire.attach(asyncio.get_running_loop(), looks.set)
    wire.pause()
    theirs.send(PINGRESP)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not looks.is_set()
    wire.resume()
    async with asyncio.timeout(20):
        await looks.wait()
    wire.close()


class Unwritable(Pieces):
    """A TLS connection that is spoilt for writing: nothing ever comes that a read would say it by."""

    def __init__(self, handle: int) -> None:
        super().__init__()
        self._handle = handle

    def send(self, buffer: bytes | bytearray) -> int:
        if buffer:
            raise ssl.SSLError(1, "[SSL: BAD_LENGTH]")
        return 0

    def fileno(self) -> int:
        return self._handle


async def test_what_cannot_be_written_ends_the_connection_though_no_read_says_so(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """What was gathered is dropped, perhaps in the middle of a packet: nothing may follow it."""
    wire = Wire(Unwritable(pair[0].fileno()), LIMITS)
    told = asyncio.Event()
    wire.attach(asyncio.get_running_loop(), told.set)
    wire.send(b"PUBLISH")
    async with asyncio.timeout(5):
        await told.wait()
    wire.fill()
    assert (wire.has_for_paho, wire.recv(8)) == (True, b"")
    wire.close()
