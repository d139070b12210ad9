"""What the broker sends, cut into packets: messages taken out, the rest for paho, whatever pieces it comes in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.broker_wire import PACKET_MAX_BYTES, ProtocolError, Publish, Wire

PINGRESP = b"\xd0\x00"


def publish(topic: bytes, payload: bytes, mid: int = 0, properties: bytes = b"", flags: int = 0) -> bytes:
    """A PUBLISH packet (MQTT 5.0, 3.3), at QoS 1 where it has a `mid`."""
    body = len(topic).to_bytes(2, "big") + topic + (mid.to_bytes(2, "big") if mid else b"")
    body += varint(len(properties)) + properties + payload
    return bytes([0x30 | (2 if mid else 0) | flags]) + varint(len(body)) + body


def varint(value: int) -> bytes:
    """A variable byte integer (MQTT 5.0, 1.5.5)."""
    digits = bytearray()
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(digits)


class Pieces:
    """A socket that gives what it is given, piece by piece."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.sent = bytearray()
        self.takes = 1 << 20

    def recv(self, buffer_size: int) -> bytes:
        if not self.pieces:
            raise BlockingIOError
        return self.pieces.pop(0)

    def send(self, buffer: bytes | bytearray) -> int:
        self.sent += buffer[: self.takes]
        return min(len(buffer), self.takes)

    def close(self) -> None:
        self.pieces = [b""]

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        pass


def read_all(wire: Wire) -> tuple[list[Publish], bytes]:
    """Every message, and what is left for paho."""
    wire.fill()
    found = list(iter(wire.next_publish, None))
    rest = b""
    while wire.has_for_paho:
        rest += wire.recv(3)
    return found, rest


def test_messages_are_taken_out_and_everything_else_is_left_to_paho() -> None:
    stream = [
        publish(b"a", b"one", 7),
        PINGRESP,
        publish(b"b", b"two", flags=1),
        b"\x40\x02\x00\x05",
    ]
    found, rest = read_all(Wire(Pieces(b"".join(stream))))
    assert found == [Publish(b"a", b"one", 7, 1, False), Publish(b"b", b"two", 0, 0, True)]
    assert rest == PINGRESP + b"\x40\x02\x00\x05"


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.data())
def test_a_stream_means_the_same_in_whatever_pieces_it_comes(
    payloads: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(
        publish(b"t", payload, n + 1, b"\x02\x00\x00\x00\x09") for n, payload in enumerate(payloads)
    )
    cuts = sorted(data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=6))) if len(whole) > 1 else []
    bounds = [0, *sorted(set(cuts)), len(whole)]
    pieces = Pieces()
    wire = Wire(pieces)
    found: list[Publish] = []
    for start, end in pairwise(bounds):
        pieces.pieces.append(whole[start:end])
        wire.fill()
        found += iter(wire.next_publish, None)
    assert [(item.mid, item.payload) for item in found] == [(n + 1, each) for n, each in enumerate(payloads)]


def test_paho_is_told_to_wait_until_there_is_more_and_hears_of_the_end() -> None:
    pieces = Pieces()
    wire = Wire(pieces)
    with pytest.raises(BlockingIOError):
        wire.recv(1)
    pieces.pieces = [PINGRESP, b""]
    assert read_to_the_end(wire) == PINGRESP
    assert wire.has_for_paho
    assert wire.recv(1) == b""


def read_to_the_end(wire: Wire) -> bytes:
    """What paho is given before the end."""
    wire.fill()
    assert wire.next_publish() is None
    return b"".join(iter(lambda: wire.recv(8), b""))


@pytest.mark.parametrize("stream", [b"\x30\xff\xff\xff\xff\x01", b"\x30\x03\x00\x01t", b"\x30\x00"])
def test_what_is_no_mqtt_is_refused(stream: bytes) -> None:
    wire = Wire(Pieces(stream))
    wire.fill()
    with pytest.raises(ProtocolError):
        wire.next_publish()


def test_the_largest_packet_that_is_taken_comes_whole_in_small_pieces() -> None:
    whole = publish(b"t", b"x" * (PACKET_MAX_BYTES - 10), 1)
    assert len(whole) == PACKET_MAX_BYTES
    wire, found = Wire(pieces := Pieces()), list[Publish]()
    for at in range(0, len(whole), 1000):
        pieces.pieces.append(whole[at : at + 1000])
        wire.fill()
        found += iter(wire.next_publish, None)
    assert [(item.topic, len(item.payload)) for item in found] == [(b"t", PACKET_MAX_BYTES - 10)]


def test_a_packet_larger_than_the_broker_was_told_is_refused_before_it_is_read() -> None:
    wire = Wire(Pieces(publish(b"t", b"x" * (PACKET_MAX_BYTES - 9), 1)[:5]))
    wire.fill()
    with pytest.raises(ProtocolError, match="where we take"):
        wire.next_publish()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


async def test_what_is_written_in_one_turn_leaves_together_after_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    wire = Wire(ours)
    wire.attach(asyncio.get_running_loop(), wire.fill)
    wire.acknowledge([1, 2])
    assert wire.send(b"\xc0\x00") == 2
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    await asyncio.sleep(0)
    assert theirs.recv(99) == b"\x40\x02\x00\x01\x40\x02\x00\x02\xc0\x00"
    wire.close()


async def test_what_the_socket_does_not_take_at_once_follows_in_order(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    wire = Wire(ours)
    wire.attach(asyncio.get_running_loop(), wire.fill)
    much = bytes(range(256)) * 8000
    wire.send(much)
    wire.send(b"end")
    loop, got = asyncio.get_running_loop(), b""
    theirs.setblocking(False)
    while len(got) < len(much) + 3:
        got += await asyncio.wait_for(loop.sock_recv(theirs, 1 << 20), 10)
    assert got == much + b"end"
    wire.close()
