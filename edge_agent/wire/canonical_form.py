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
from itertools import repeat
from typing import Final

from edge_agent.wire.event import Json

INTEGER_MAX: Final = 2**53 - 1
"""Largest magnitude that every JSON reader keeps exact (RFC 8785)."""

NESTING_MAX: Final = 64
"""Objects and arrays within each other; ours have six. Whoever reads them goes down by recursion, in a stack that is higher
for one reader than for another: what one has taken, none may stumble over."""

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
        if type(document) is not dict or end != len(text) or not _is_bounded(document, NESTING_MAX):
            return None
        return document if _encode(document) == text else None
    except (ValueError, RecursionError):
        return None


def hash_received(payload: bytes, prev: str, digest: str) -> str:
    """What the canonical `payload` of an event that follows `prev` and states `digest` as its hash hashes to."""
    before, _, after = payload.partition(b'"hash":"%b",' % digest.encode())
    return sha256(b"".join((prev.encode(), before, after))).hexdigest()


def is_nested_within(value: Json, levels: int) -> bool:
    """Whether no more than so many objects and arrays stand within each other."""
    if isinstance(value, dict):
        return levels > 0 and all(map(is_nested_within, value.values(), repeat(levels - 1)))
    if isinstance(value, list):
        return levels > 0 and all(map(is_nested_within, value, repeat(levels - 1)))
    return True


def _is_bounded(document: dict[str, Json], levels: int) -> bool:
    """Whether all of it travels in an event: no floats, no huge integers, no key beyond ASCII, no deep nesting."""
    if not "".join(document).isascii():
        return False
    for value in document.values():
        kind = type(value)
        if kind is str or kind is bool or value is None:
            continue  # most of it
        if not _travels(value, levels - 1):
            return False
    return True


def _travels(value: Json, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and _is_bounded(value, levels)
    if isinstance(value, list):
        return levels > 0 and all(map(_travels, value, repeat(levels - 1)))
    if isinstance(value, int):
        return -INTEGER_MAX <= value <= INTEGER_MAX
    return value is None or isinstance(value, str)
