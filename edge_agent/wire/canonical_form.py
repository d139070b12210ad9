"""Received bytes that are the canonical form already, recognised and hashed as they are.

A payload is the canonical form C of its event with one member more, so C is the payload without that member:

    {"agent":…,"hash":"9f3c…","kind":…}  ──cut `"hash":"9f3c…",` out──▶  C,  and  hash = SHA-256(prev ‖ C)

That holds where the payload is canonical (writing the parsed object gives the same bytes: which also excludes a key
that stands twice, blanks, NaN) and the member stands in it once (nothing else can hold an event's own hash). `kind`
sorts after `hash` and is always there, so a comma follows. Whoever finds that it does not hold goes the long way, by
`chain.link_hash`; both ways accept the same payloads, and property tests hold them to it.

Source: the outside contract, section 6; RFC 8785.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Final

from edge_agent.wire.event import Json

INTEGER_MAX: Final = 2**53 - 1
"""Largest magnitude that every JSON reader keeps exact (RFC 8785)."""

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode
_scan = json.JSONDecoder().raw_decode


def parse_canonical(payload: bytes) -> dict[str, Json] | None:
    """The object that `payload` is the canonical form of, within the bounds of an event; None for all else.

    Never raises; the caller bounds the size.
    """
    try:
        text = payload.decode()
        document, end = _scan(text)
        if type(document) is not dict or end != len(text) or not _is_bounded(document):
            return None
        return document if _encode(document) == text else None
    except (ValueError, RecursionError):
        return None


def hash_received(payload: bytes, prev: str, digest: str) -> str:
    """What the canonical `payload` of an event that follows `prev` and states `digest` as its hash hashes to."""
    before, _, after = payload.partition(b'"hash":"%b",' % digest.encode())
    return sha256(b"".join((prev.encode(), before, after))).hexdigest()


def _is_bounded(document: dict[str, Json]) -> bool:
    """Whether all of it travels in an event: no floats, no huge integers, no key beyond ASCII."""
    if not "".join(document).isascii():
        return False
    for value in document.values():
        kind = type(value)
        if kind is str or kind is bool or value is None:
            continue  # most of it
        if not _travels(value):
            return False
    return True


def _travels(value: Json) -> bool:
    if isinstance(value, dict):
        return _is_bounded(value)
    if isinstance(value, list):
        return all(map(_travels, value))
    if isinstance(value, int):
        return -INTEGER_MAX <= value <= INTEGER_MAX
    return value is None or isinstance(value, str)
