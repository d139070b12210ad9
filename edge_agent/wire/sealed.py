"""An event's seal checked by its bytes, without making its content into values: what a check of many events needs.

`decode` gives every field its type. Whether an event hashes needs less: of a payload in canonical form
(`canonical_form`) the bytes and the envelope are enough. Everything else goes the long way through `decode`; both ways
accept the same payloads, and a property test holds them to it.

Source: the outside contract, section 6; RFC 8785.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from edge_agent.wire.canonical_form import hash_received, parse_canonical
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
from edge_agent.wire.structure import MisfitError


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
        if type(document) is not dict:
            return False
        stated = document.get("epoch"), document.get("seq"), document.get("hash")
        if stated != (seal.epoch, seal.seq, seal.hash):  # which a damaged row may have of any type
            return False
        return hash_received(payload, str(document.get("prev")), str(seal.hash)) == seal.hash
    except (ValueError, RecursionError):  # also half of a character, which has no bytes
        return False


def _unseal_canonical(payload: bytes) -> Sealed | None:
    """None for everything that is not canonical, or not good: the long way says why."""
    if len(payload) > DECODE_MAX_BYTES:
        return None
    document = parse_canonical(payload)
    if document is None:
        return None
    try:
        stamp, kind, digest = read_envelope(document)
    except MisfitError:
        return None
    if hash_received(payload, stamp.prev, digest) != digest:
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
