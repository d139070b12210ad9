"""An event's seal checked by its bytes, without making its content into values: what a check of many events needs.

`decode` hashes what it parsed and wrote again, and then gives every field its type. Whether an event hashes needs less.
A canonical payload is the canonical form C with one member more, so C is the payload without that member:

    {"agent":…,"hash":"9f3c…","kind":…}  ──cut `"hash":"9f3c…",` out──▶  C,  and  hash = SHA-256(prev ‖ C)

That holds where the payload is canonical (writing the parsed object gives the same bytes: which also excludes a key
that stands twice, blanks, NaN) and the member stands in it once (nothing else can hold an event's own hash). `kind`
sorts after `hash` and is always there, so a comma follows. Everything else goes the long way through `decode`; both
ways accept the same payloads, and a property test holds them to it.

Source: the outside contract, section 6; RFC 8785.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

from edge_agent.wire.chain import canonical
from edge_agent.wire.codec import (
    DECODE_MAX_BYTES,
    DecodeError,
    Stamp,
    decode,
    parse_object,
    read_envelope,
)
from edge_agent.wire.event import Json, Position

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode


class Sealed(NamedTuple):
    """A payload whose hash is right: its envelope, and the parsed object for whoever looks at the content."""

    stamp: Stamp
    kind: str
    hash: str
    document: Mapping[str, Json]
    is_canonical: bool

    @property
    def position(self) -> Position:
        """Its place in the stream."""
        return Position(self.stamp.epoch, self.stamp.seq, self.hash)

    @property
    def name(self) -> str:
        """How people are told which event this is."""
        return f"{self.stamp.epoch}/{self.stamp.seq} ({self.kind})"


def unseal(payload: bytes) -> Sealed | DecodeError:
    """The envelope of an event whose hash is right, or why there is none. Never raises."""
    return _unseal_canonical(payload) or _unseal_any(payload)


def bears_seal(payload: bytes, seal: Position) -> bool:
    """Whether these are the very bytes that were sealed as `seal`: for whoever wrote them and has kept the hash beside.

    What was written was canonical, and the bytes themselves hash to what they hashed to then: nothing has to be written
    again to see it, which is four fifths of the work.
    """
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    if type(document) is not dict or (document.get("epoch"), document.get("seq")) != (seal.epoch, seal.seq):
        return False
    before, _, after = payload.partition(f'"hash":"{seal.hash}",'.encode())
    return hashlib.sha256(f"{document.get('prev')}".encode() + before + after).hexdigest() == seal.hash


def _unseal_canonical(payload: bytes) -> Sealed | None:
    """None for everything that is not canonical, or not good: the long way says why."""
    if len(payload) > DECODE_MAX_BYTES:
        return None
    try:
        text = payload.decode()
        document = json.loads(text)
        if type(document) is not dict or _encode(document) != text:
            return None
        stamp, kind, digest = read_envelope(document)
    except (ValueError, RecursionError):
        return None
    before, _, after = text.partition(f'"hash":"{digest}",')
    unhashed = f"{stamp.prev}{before}{after}".encode()
    if hashlib.sha256(unhashed).hexdigest() != digest:
        return None
    return Sealed(stamp, kind, digest, document, is_canonical=True)


def _unseal_any(payload: bytes) -> Sealed | DecodeError:
    event, document = decode(payload), parse_object(payload)
    if isinstance(event, DecodeError):
        return event
    if isinstance(document, DecodeError):
        return document
    stamp, kind, digest = read_envelope(document)
    return Sealed(stamp, kind, digest, document, is_canonical=canonical(document) == payload)
