"""File schema of device profiles: which points a product has, where, and what they mean.

A profile is data, never code: points with an address, and regular blocks of points as ranges. A range is named with
`{n}`, such as `o{n}`, and counts as the product counts: decimal, octal (Delta's and Inovance's X and Y), by byte and bit
(`I0.7`, then `I1.0`) or by bytes (`DBW0`, then `DBW2`).

Source: the outside contract, section 2 (addresses, types); each profile names the manuals that it was written from.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field

from edge_agent.configfile import Section, fault
from edge_agent.settings.schema import DeviceTraits, Id, Labels
from edge_agent.settings.signals import SignalSection

TEXT_MAX_CHARS: Final = 600
"""One meaning or caution: a few sentences on a screen or on paper."""

RANGE_MAX: Final = 65536
"""Points in a range: as many as a table has addresses."""


class Numbering(StrEnum):
    """How a product counts the points of a range."""

    DECIMAL = "decimal"
    OCTAL = "octal"
    BYTE_BIT = "byte_bit"
    BYTES = "bytes"


def _prose(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise fault("the text is blank or unprintable", "write a sentence on one line")
    return value


Prose: TypeAlias = Annotated[str, Field(max_length=TEXT_MAX_CHARS), AfterValidator(_prose)]


LATE: Final = ConfigDict(defer_build=True)
"""Validators are built when a profile is read: a plant without profiles does not wait for them at each start."""


class Texts(Section):
    """A text in both languages."""

    model_config = LATE

    zh: Prose
    """Chinese."""
    en: Prose
    """English."""


class SpanSection(Section):
    """A further part of a range that lies elsewhere: Delta's M1536 does not follow M1535."""

    model_config = LATE

    first: int = Field(ge=0, lt=RANGE_MAX)
    """Number of its first point."""
    count: int = Field(ge=1, le=RANGE_MAX)
    """How many points it has."""
    at: str
    """TABLE/NUMBER[.BIT] of its first point."""


class PointSection(SignalSection):
    """One point, or a range of alike ones. Its keys are the defaults of each signal that names it."""

    model_config = LATE

    at: str
    """TABLE/NUMBER[.BIT], 0-based PDU address; of a range that of its first point."""
    labels: Labels
    """What people call it; in a range `{n}` stands for the point's number."""
    meaning: Texts | None = None
    """What its values say, above all what 0 means."""
    count: int | None = Field(default=None, ge=1, le=RANGE_MAX)
    """How many points a range has; only where the name has `{n}`."""
    first: int = Field(default=0, ge=0, lt=RANGE_MAX)
    """Number of the first point of a range."""
    step: int | None = Field(default=None, ge=1, le=RANGE_MAX)
    """From one point of a range to the next: bits where `at` names a bit, else registers. Default: no gap between them."""
    numbering: Numbering = Numbering.DECIMAL
    """decimal; octal (after X7 comes X10); byte_bit (after I0.7 comes I1.0); bytes (after DBW0 comes DBW2)."""
    more: tuple[SpanSection, ...] = Field(default=(), max_length=16)
    """Further parts of the range, elsewhere."""


class UnverifiedSection(Texts):
    """A fact that was not read in a manual: each use of it is a warning of `check`."""

    points: tuple[str, ...] = Field(default=(), max_length=200)
    """The points it is about, named as under `points`; empty: all."""


class AvoidSection(Section):
    """Addresses that clients write, or that guard themselves: not to be read."""

    model_config = LATE

    at: str
    """TABLE/NUMBER of the first."""
    count: int = Field(ge=1, le=RANGE_MAX)
    """How many."""
    why: Texts
    """What is there."""


class ProfileFile(Section):
    """A whole profile."""

    model_config = LATE

    id: Id
    """Its name; that of the file without .yaml."""
    labels: Labels
    """What it describes."""
    vendor: str = Field(min_length=1, max_length=80)
    """Who makes it."""
    products: tuple[str, ...] = Field(min_length=1, max_length=40)
    """Product names and series."""
    source: tuple[str, ...] = Field(min_length=1, max_length=20)
    """Manuals and tables that it was written from."""
    notes: tuple[Texts, ...] = Field(default=(), max_length=20)
    """What one must know or do before using it."""
    unverified: tuple[UnverifiedSection, ...] = Field(default=(), max_length=40)
    """What was not read in a manual, and must be compared with the device."""
    avoid: tuple[AvoidSection, ...] = Field(default=(), max_length=40)
    """What must not be read."""
    relocatable: bool = False
    """Its points count from the device's `profile_base`."""
    device: DeviceTraits = DeviceTraits()
    """Suggestions for the device: limits of its requests, heartbeat, presence. What the plant writes goes before."""
    points: dict[str, PointSection] = Field(min_length=1)
    """Its points by name."""
