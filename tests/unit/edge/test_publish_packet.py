"""PUBLISH packets are as paho would write them, and PUBACKs mean what MQTT says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.adapters.publish_packet import PUBACK, Puback, decode_puback, encode_publish
from edge_agent.broker.wire import Limits, Packet, ProtocolError, Wire
from tests.broker_pieces import Pieces, read_all

LENGTHS = st.sampled_from([0, 1, 100, 127, 128, 129, 16_300, 16_384, 49_152])


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


def test_an_answer_without_a_code_is_success() -> None:
    stream = b"\x40\x02\x00\x05" + b"\x40\x03\x01\x00\x10" + b"\x40\x04\xff\xff\x87\x00"
    found = read_all(Wire(Pieces(stream), Limits(4096, 4096)), PUBACK)
    answers = [decode_puback(item) for item in found if isinstance(item, Packet)]
    assert answers == [Puback(5, 0), Puback(256, 0x10), Puback(65_535, 0x87)]


@pytest.mark.parametrize("body", [b"", b"\x07"])
def test_an_answer_to_nothing_is_no_mqtt(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_puback(Packet(0x40, body))
