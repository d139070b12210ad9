"""What goes to the broker and comes from it: our PUBLISH packets as paho would write them, PUBACKs taken out of the rest."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.adapters.broker_wire import (
    READ_BYTES,
    ProtocolError,
    Puback,
    Wire,
    encode_publish,
)

PINGRESP = b"\xd0\x00"
LENGTHS = st.sampled_from([0, 1, 100, 127, 128, 129, 16_300, 16_384, 49_152])


class Pieces:
    """A socket that gives what it is given, piece by piece."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.sent = bytearray()

    def recv(self, buffer_size: int) -> bytes:
        if not self.pieces:
            raise BlockingIOError
        return self.pieces.pop(0)

    def send(self, buffer: bytes | bytearray) -> int:
        self.sent += buffer
        return len(buffer)

    def close(self) -> None:
        self.pieces = [b""]

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        pass


def written_by_paho(topic: str, payload: bytes, mid: int, *, retain: bool, expiry_s: int | None) -> bytes:
    """The same PUBLISH by the vendor, which queues its packets until there is a connection."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    properties = None
    if expiry_s is not None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = expiry_s
    client._sock = Pieces()
    client._thread = object()  # type: ignore[assignment]  # or it would write at once, and find nobody connected
    client._send_publish(mid, topic.encode(), payload, qos=1, retain=retain, properties=properties)
    client._sock = None
    client._thread = None
    return bytes(client._out_packet[0]["packet"])


@given(
    st.sampled_from(["t", "guardwatch/v1/site/gw/events", "砂" * 40]),
    LENGTHS,
    st.integers(1, 65_535),
    st.booleans(),
    st.none() | st.integers(0, 2**32 - 1),
)
def test_a_publish_is_written_as_paho_writes_it(
    topic: str, size: int, mid: int, retain: bool, expiry_s: int | None
) -> None:
    ours = encode_publish(topic, b"x" * size, mid, retain=retain, expiry_s=expiry_s)
    assert ours == written_by_paho(topic, b"x" * size, mid, retain=retain, expiry_s=expiry_s)


def read_all(wire: Wire) -> list[Puback | bytes]:
    """Everything that was read, in order: PUBACKs, and what paho is given in between."""
    wire.fill()
    found: list[Puback | bytes] = []
    while True:
        if (puback := wire.next_puback()) is not None:
            found.append(puback)
        elif wire.has_for_paho:
            found.append(b"".join(iter(lambda: wire.recv(3) if wire.has_for_paho else b"", b"")))
        else:
            return found


def test_answers_are_taken_out_and_everything_else_is_left_to_paho_in_order() -> None:
    stream = [
        b"\x40\x02\x00\x05",
        PINGRESP,
        b"\x40\x03\x01\x00\x10",
        b"\x40\x04\xff\xff\x87\x00",
        b"\x30\x03\x00\x01t",
    ]
    assert read_all(Wire(Pieces(b"".join(stream)))) == [
        Puback(5, 0),
        PINGRESP,
        Puback(256, 0x10),
        Puback(65_535, 0x87),
        b"\x30\x03\x00\x01t",
    ]


@given(st.lists(st.integers(1, 65_535), min_size=1, max_size=8), st.data())
def test_a_stream_means_the_same_in_whatever_pieces_it_comes(mids: list[int], data: st.DataObject) -> None:
    whole = b"".join(b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids)
    cuts = data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=6, unique=True))
    pieces = Pieces()
    wire = Wire(pieces)
    found: list[Puback | bytes] = []
    for start, end in pairwise([0, *sorted(cuts), len(whole)]):
        pieces.pieces.append(whole[start:end])
        found += read_all(wire)
    assert found == [Puback(mid, 0) for mid in mids]


def test_more_than_is_read_at_once_is_told_so_that_what_tls_holds_is_not_forgotten() -> None:
    wire = Wire(Pieces(b"\x40\x02\x00\x01" * (READ_BYTES // 4), b"\x40\x02\x00\x02"))
    assert not wire.fill()
    assert wire.fill()


def test_paho_is_told_to_wait_until_there_is_more_and_hears_of_the_end() -> None:
    pieces = Pieces()
    wire = Wire(pieces)
    with pytest.raises(BlockingIOError):
        wire.recv(1)
    pieces.pieces = [PINGRESP, b""]
    wire.fill()
    assert wire.next_puback() is None
    assert (wire.recv(8), wire.has_for_paho, wire.recv(8)) == (PINGRESP, True, b"")


def test_a_packet_without_an_end_to_its_length_is_no_mqtt() -> None:
    wire = Wire(Pieces(b"\x40\xff\xff\xff\xff\x01"))
    wire.fill()
    with pytest.raises(ProtocolError):
        wire.next_puback()


@pytest.mark.parametrize("packet", [b"\x40\x00", b"\x40\x01\x07"])
def test_an_answer_to_nothing_is_no_mqtt(packet: bytes) -> None:
    """The message id would be taken from the packet behind it, whose publish nobody has answered."""
    wire = Wire(Pieces(packet + b"\x00\x01"))
    wire.fill()
    with pytest.raises(ProtocolError):
        wire.next_puback()


def test_a_packet_larger_than_we_take_is_refused_by_its_first_bytes() -> None:
    wire = Wire(Pieces(b"\x30\xff\xff\xff\x7f" + b"x" * 100))
    wire.fill()
    with pytest.raises(ProtocolError, match="bytes"):
        wire.next_puback()


def test_a_connection_that_came_too_late_says_nothing_before_it_ends() -> None:
    """Its CONNECT would throw out the connection that stands by now, and leave our last will behind."""
    pieces = Pieces()
    wire = Wire(pieces)
    wire.send(b"CONNECT")
    wire.close()
    assert pieces.sent == b""


async def test_what_is_written_in_one_turn_leaves_in_order_however_slowly_the_peer_reads() -> None:
    ours, peer = socket.socketpair()
    with peer:
        ours.setblocking(False)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        wire = Wire(ours)
        wire.send(b"before;")
        wire.attach(loop, lambda: None)
        pieces = [b"%d;" % n * 1000 for n in range(1000)]
        for piece in pieces:
            assert wire.send(piece) == len(piece)
        expected = b"before;" + b"".join(pieces)
        heard = bytearray()
        async with asyncio.timeout(20):
            while len(heard) < len(expected):
                heard += await loop.sock_recv(peer, 65_536)
        assert heard == expected
        wire.close()
        assert await loop.sock_recv(peer, 1) == b""
