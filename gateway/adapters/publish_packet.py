"""The two packets that a gateway reads and writes by the thousand: PUBLISH, and the PUBACK that says it is stored.

Source: MQTT 5.0, sections 3.3 (PUBLISH), 3.4 (PUBACK) and 3.12 (PINGREQ).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from edge_agent.broker.wire import LENGTH_BYTES_MAX, Packet, ProtocolError

PUBLISH: Final = 3
"""The kind of packet that brings a message (2.1.2)."""

PINGREQ: Final = b"\xc0\x00"
"""Tells the broker that we are there."""

_PUBACK: Final = b"\x40\x02"
"""Type and length of the shortest PUBACK, which means success (3.4.2.1)."""


class Publish(NamedTuple):
    """A PUBLISH packet; `mid` is 0 at QoS 0. Its properties say nothing to a gateway."""

    topic: bytes
    payload: bytes
    mid: int
    qos: int
    retain: bool


def decode_publish(packet: Packet) -> Publish:
    """What a PUBLISH brings. Raises `ProtocolError`."""
    header, body = packet
    qos = header >> 1 & 3
    at = 2 + int.from_bytes(body[:2], "big")
    topic, mid = body[2:at], 0
    if qos:
        mid = int.from_bytes(body[at : at + 2], "big")
        at += 2
    length, shift = 0, 0
    for at in range(at, min(at + LENGTH_BYTES_MAX, len(body))):  # noqa: B020 - on from where it stands
        length |= (body[at] & 0x7F) << shift
        shift += 7
        if body[at] < 0x80:
            return Publish(topic, body[at + 1 + length :], mid, qos, bool(header & 1))
    raise ProtocolError("a PUBLISH without properties")


def encode_pubacks(mids: Iterable[int]) -> bytes:
    """PUBACKs of these messages, one after the other."""
    return b"".join([_PUBACK + mid.to_bytes(2, "big") for mid in mids])
