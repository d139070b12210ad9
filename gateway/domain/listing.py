"""What a list asks for (filters, a page, where the next one begins), and rows that are only ever listed.

Lists are paged by keyset, newest first: a cursor names the last item given, so entries that come meanwhile neither
shift nor double what is read. A cursor is opaque to its user and checked when it comes back.

Source: the outside contract, section 5.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from edge_agent.wire.canonical_form import INTEGER_MAX
from edge_agent.wire.event import GuardState

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
"""Items of a page, as the outside contract has them."""

T = TypeVar("T")

Place: TypeAlias = tuple[int, int]
"""Where a page ends: two numbers that order the list; the second is 0 in lists that one number orders."""


@dataclass(frozen=True, slots=True)
class Query:
    """`equal`: column → allowed values. `from_ms`/`to_ms` half-open, gateway UTC. `after`: the last item seen."""

    equal: Mapping[str, Sequence[str]] = field(default_factory=dict)
    from_ms: int | None = None
    to_ms: int | None = None
    after: Place | None = None
    limit: int = LIMIT_DEFAULT


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items, newest first, and where the next page begins (None: this was the last)."""

    items: tuple[T, ...]
    next: Place | None


@dataclass(frozen=True, slots=True)
class GapRow:
    """A hole in an agent's stream: open, filled, or final. Times are gateway UTC."""

    epoch: str
    from_seq: int
    to_seq: int | None
    found_at_ms: int
    filled_at_ms: int | None
    final_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Interval:
    """A guard was in `state` from `from_ms` to `to_ms` (gateway UTC, of occurrence); unknown time is `unknown`."""

    from_ms: int
    to_ms: int
    state: GuardState


@dataclass(frozen=True, slots=True)
class RefusedPayload:
    """A payload in quarantine, raw."""

    id: int
    received_at_ms: int
    topic: str
    site: str | None
    agent: str | None
    reason: str
    payload: bytes


def encode_cursor(place: Place) -> str:
    """A place as an opaque cursor."""
    return base64.urlsafe_b64encode(f"{place[0]}.{place[1]}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> Place:
    """The inverse. Raises `ValueError` for what `encode_cursor` never gave."""
    try:
        padded = text + "=" * (-len(text) % 4)
        first, _, second = base64.urlsafe_b64decode(padded.encode("ascii")).decode("ascii").partition(".")
        place = (int(first), int(second))
    except (binascii.Error, UnicodeError, ValueError):
        raise ValueError("this cursor was not given out here") from None
    if encode_cursor(place) != text or max(map(abs, place)) > INTEGER_MAX:
        raise ValueError("this cursor was not given out here")
    return place
