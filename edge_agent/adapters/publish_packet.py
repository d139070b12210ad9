"""The two packets that an agent writes and reads by the thousand: PUBLISH at QoS 1, and the PUBACK that answers it.

Source: MQTT 5.0, sections 3.3 (PUBLISH) and 3.4 (PUBACK).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from edge_agent.broker.wire import Packet, ProtocolError

PUBACK: Final = 4
"""The kind of packet that answers a PUBLISH (2.1.2)."""

_PUBLISH_QOS_1: Final = 0x32
_RETAIN: Final = 0x01
_MID_BYTES: Final = 2
_SUCCESS: Final = 0
_MESSAGE_EXPIRY: Final = b"\x05\x02"
"""The properties of a PUBLISH that expires, up to the four bytes of seconds: their length, and which it is (3.3.2.3.3)."""


class Puback(NamedTuple):
    """The broker's answer to the PUBLISH `mid`; `code` is MQTT's reason code, 0 for success."""

    mid: int
    code: int


def decode_puback(packet: Packet) -> Puback:
    """What a PUBACK says. Raises `ProtocolError`."""
    body = packet.body
    if len(body) < _MID_BYTES:
        raise ProtocolError("a PUBACK of nothing")
    return Puback(int.from_bytes(body[:_MID_BYTES], "big"), body[2] if len(body) > _MID_BYTES else _SUCCESS)


def encode_publish(topic: str, payload: bytes, mid: int, *, retain: bool, expiry_s: int | None) -> bytes:
    """A PUBLISH packet at QoS 1; `expiry_s` is its Message Expiry Interval, None for none."""
    name = topic.encode()
    properties = b"\0" if expiry_s is None else _MESSAGE_EXPIRY + expiry_s.to_bytes(4, "big")
    header = _PUBLISH_QOS_1 | _RETAIN if retain else _PUBLISH_QOS_1
    length = len(name) + len(properties) + len(payload) + 4
    parts = (
        _fixed_header(header, length),
        len(name).to_bytes(2, "big"),
        name,
        mid.to_bytes(2, "big"),
        properties,
        payload,
    )
    return b"".join(parts)


def _fixed_header(header: int, length: int) -> bytes:
    """Type and flags, then the length of what follows (2.1, 1.5.5)."""
    packed = bytearray([header])
    while length > 0x7F:
        packed.append(length & 0x7F | 0x80)
        length >>= 7
    packed.append(length)
    return bytes(packed)
