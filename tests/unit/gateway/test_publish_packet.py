"""What a PUBLISH brings, as MQTT writes it, and the PUBACKs that answer several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.broker.wire import Limits, Packet, ProtocolError, Wire
from gateway.adapters.publish_packet import PUBLISH, Publish, decode_publish, encode_pubacks
from tests.broker_pieces import Pieces, read_all, varint


def publish(topic: bytes, payload: bytes, mid: int = 0, properties: bytes = b"", flags: int = 0) -> bytes:
    """A PUBLISH packet (MQTT 5.0, 3.3), at QoS 1 where it has a `mid`."""
    body = len(topic).to_bytes(2, "big") + topic + (mid.to_bytes(2, "big") if mid else b"")
    body += varint(len(properties)) + properties + payload
    return bytes([0x30 | (2 if mid else 0) | flags]) + varint(len(body)) + body


def read(stream: bytes) -> list[Publish]:
    found = read_all(Wire(Pieces(stream), Limits(1 << 20, 1 << 20)), PUBLISH)
    return [decode_publish(item) for item in found if isinstance(item, Packet)]


def test_a_message_has_its_topic_its_payload_and_how_it_was_sent() -> None:
    assert read(publish(b"a", b"one", 7) + publish(b"b", b"two", flags=1)) == [
        Publish(b"a", b"one", 7, 1, False),
        Publish(b"b", b"two", 0, 0, True),
    ]


@given(st.binary(max_size=40), st.binary(max_size=300), st.integers(0, 65_535), st.binary(max_size=200))
def test_properties_of_whatever_length_are_passed_over(
    topic: bytes, payload: bytes, mid: int, properties: bytes
) -> None:
    (found,) = read(publish(topic, payload, mid, properties))
    assert (found.topic, found.payload, found.mid) == (topic, payload, mid)


@pytest.mark.parametrize("body", [b"\x00\x01t", b""])
def test_what_is_no_message_is_no_mqtt(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_publish(Packet(0x30, body))


def test_each_message_has_a_puback_of_its_own() -> None:
    assert encode_pubacks([1, 515]) == b"\x40\x02\x00\x01\x40\x02\x02\x03"
