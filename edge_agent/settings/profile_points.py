"""Names of points to addresses and back: how a product counts, and where its n-th point lies.

    o{n}   at di/8192, count 128           o5    = di/8197
    X{n}   at di/1024, octal               X10   = di/1032      (after X7 comes X10)
    I{n}   at di/0, byte_bit               I1.0  = di/8
    DBX{n} at hr/0.8, byte_bit             DBX0.0 = hr/0.8      (the first byte is the high one; DBX1.0 = hr/0.0)
    DBW{n} at hr/0, bytes                  DBW2  = hr/1
    c{n}   at hr/4.0, count 16             c3    = hr/4.3       (after bit 15 the next register)
    led{n} at ir/1118, mask 15             led1  = ir/1118, mask 0xF0; led4 = ir/1119, mask 0xF

Source: the profiles' manuals; IEC 61131-3 for byte and bit addresses.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from edge_agent.domain.plan import Table, ValueType
from edge_agent.settings.address import Address, Misaddress
from edge_agent.settings.profile_schema import Numbering, PointSection

PLACEHOLDER: Final = "{n}"
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Form of a point's name; a range's has the placeholder besides."""

_DIGITS: Final = {
    Numbering.DECIMAL: re.compile(r"0|[1-9][0-9]{0,4}"),
    Numbering.OCTAL: re.compile(r"0|[1-7][0-7]{0,5}"),
    Numbering.BYTE_BIT: re.compile(r"(0|[1-9][0-9]{0,4})\.([0-7])"),
    Numbering.BYTES: re.compile(r"0|[1-9][0-9]{0,5}"),
}
_LIKE_A_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
WORD_BITS: Final = 16
_BYTE_SWAP: Final = 8
"""Bits 0–7 of the first byte are bits 8–15 of its register, and the other way round."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive points of a range: numbers `first` to `first + count - 1`, the first of them at `at`."""

    first: int
    count: int
    at: Address


@dataclass(frozen=True, slots=True)
class Place:
    """Where one point lies; `mask` None where the whole item or its one bit is meant."""

    table: Table
    number: int
    bit: int | None
    mask: int | None

    @property
    def at(self) -> str:
        """As an address without device: TABLE/NUMBER[.BIT]."""
        return f"{self.table}/{self.number}" + ("" if self.bit is None else f".{self.bit}")


@dataclass(frozen=True, slots=True)
class Family:
    """What stands under one key of a profile's `points`: one point, or a range of them."""

    key: str
    section: PointSection
    spans: tuple[Span, ...]

    @property
    def is_range(self) -> bool:
        """Whether it has numbered points."""
        return PLACEHOLDER in self.key

    @property
    def affixes(self) -> tuple[str, str]:
        """What stands before and after the number in its points' names."""
        before, _, after = self.key.partition(PLACEHOLDER)
        return before, after

    def names(self) -> Iterator[str]:
        """Its points' names, in order."""
        if not self.is_range:
            yield self.key
            return
        before, after = self.affixes
        for span in self.spans:
            for number in range(span.first, span.first + span.count):
                yield before + written(number, self.section.numbering) + after

    def place(self, number: int) -> Place | None:
        """Where point `number` lies; None where the range has no such point. Of a single point the number is 0."""
        for span in self.spans:
            if span.first <= number < span.first + span.count:
                return self._place(span.at, number - span.first)
        return None

    def _place(self, at: Address, offset: int) -> Place:
        mask = self.section.mask
        if at.bit is not None:
            swap = _BYTE_SWAP if self.section.numbering is Numbering.BYTE_BIT else 0
            bits = (at.bit ^ swap) + offset * (self.section.step or 1)
            return Place(at.table, at.number + bits // WORD_BITS, (bits % WORD_BITS) ^ swap, None)
        if mask is not None and self.is_range:
            shift = (mask & -mask).bit_length() - 1
            field_ = mask >> shift
            bits = shift + offset * (self.section.step or field_.bit_length())
            return Place(at.table, at.number + bits // WORD_BITS, None, field_ << bits % WORD_BITS)
        width = 1 if at.table.is_bits else (self.section.type or ValueType.UINT16).registers
        step = self.section.step or (1 if self.section.numbering is Numbering.BYTES else width)
        return Place(at.table, at.number + offset * step, None, mask)


def written(number: int, numbering: Numbering) -> str:
    """A point's number as the product writes it."""
    match numbering:
        case Numbering.DECIMAL:
            return str(number)
        case Numbering.OCTAL:
            return f"{number:o}"
        case Numbering.BYTE_BIT:
            return f"{number // 8}.{number % 8}"
        case Numbering.BYTES:
            return str(number * 2)


def read_number(text: str, numbering: Numbering) -> int | Misaddress:
    """The number that `text` is in this way of counting, or why it is none."""
    match = _DIGITS[numbering].fullmatch(text)
    if match is None:
        return Misaddress(f"{text[:20]} is no {_WORDS[numbering]}", _MENDS[numbering])
    match numbering:
        case Numbering.DECIMAL:
            return int(text)
        case Numbering.OCTAL:
            return int(text, 8)
        case Numbering.BYTE_BIT:
            return int(match[1]) * 8 + int(match[2])
        case Numbering.BYTES:
            half, odd = divmod(int(text), 2)
            if odd:
                return Misaddress(f"byte {text} is the middle of a register", _MENDS[numbering])
            return half


_WORDS: Final[Mapping[Numbering, str]] = {
    Numbering.DECIMAL: "number",
    Numbering.OCTAL: "octal number",
    Numbering.BYTE_BIT: "BYTE.BIT",
    Numbering.BYTES: "number of bytes",
}
_MENDS: Final[Mapping[Numbering, str]] = {
    Numbering.DECIMAL: "write the number without leading zeros",
    Numbering.OCTAL: "this product counts octal: after 7 comes 10, there is no 8 or 9",
    Numbering.BYTE_BIT: "write BYTE.BIT with a bit from 0 to 7, such as 1.3",
    Numbering.BYTES: "write an even number: each register is two bytes",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A point that a name means: its family, and its place."""

    family: Family
    place: Place


@dataclass(frozen=True, slots=True)
class PointNames:
    """All names of a profile."""

    families: tuple[Family, ...]
    _single: dict[str, Family] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._single.update({family.key: family for family in self.families if not family.is_range})

    def find(self, name: str) -> Found | Misaddress:
        """The point called `name`; NAME.BIT is one bit of a whole register's point."""
        found = self._exactly(name)
        register, dot, bit = name.rpartition(".")
        if found is not None or not dot:
            return found or self._unknown(name)
        whole = self._exactly(register)
        if not isinstance(whole, Found):
            return whole or self._unknown(name)
        if not _is_whole_register(whole):
            return Misaddress(f"{register} is no whole register", f"write {register} without .{bit}")
        if not bit.isdecimal() or int(bit) >= WORD_BITS:
            return Misaddress(f"a register has no bit {bit[:10]}", "write a bit from .0 to .15")
        return Found(whole.family, Place(whole.place.table, whole.place.number, int(bit), None))

    def _exactly(self, name: str) -> Found | Misaddress | None:
        single = self._single.get(name)
        if single is not None and (place := single.place(single.spans[0].first)) is not None:
            return Found(single, place)
        for family, text in self._in_ranges(name):
            number = read_number(text, family.section.numbering)
            if isinstance(number, Misaddress):
                return Misaddress(f"there is no point {name[:40]}: {number.what}", number.mend)
            place = family.place(number)
            if place is None:
                return Misaddress(f"there is no point {name[:40]}", f"{family.key} has {_extent(family)}")
            return Found(family, place)
        return None

    def _in_ranges(self, name: str) -> Iterator[tuple[Family, str]]:
        """The range that a name with a number in its place belongs to."""
        for family in self.families:
            if not family.is_range:
                continue
            before, after = family.affixes
            if len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after):
                text = name[len(before) : len(name) - len(after)]
                is_dotted = "." in text and family.section.numbering is not Numbering.BYTE_BIT
                if _LIKE_A_NUMBER.fullmatch(text) and not is_dotted:
                    yield family, text

    def _unknown(self, name: str) -> Misaddress:
        numbers = _LIKE_A_NUMBER.findall(name)
        by_fold = {
            candidate.casefold(): candidate
            for family in self.families
            for candidate in (
                [family.key.replace(PLACEHOLDER, number) for number in numbers]
                if family.is_range
                else [family.key]
            )
        }
        near = difflib.get_close_matches(name.casefold(), by_fold, n=3, cutoff=0.6)
        if near:
            return Misaddress(
                f"there is no point {name[:40]}", f"did you mean {', '.join(by_fold[one] for one in near)}?"
            )
        known = ", ".join(family.key for family in self.families[:12])
        return Misaddress(f"there is no point {name[:40]}", f"points here: {known}")


def _is_whole_register(found: Found) -> bool:
    section = found.family.section
    return (
        not found.place.table.is_bits
        and found.place.bit is None
        and found.place.mask is None
        and section.map is None
        and section.type in (None, ValueType.UINT16)
    )


def _extent(family: Family) -> str:
    numbering = family.section.numbering
    return " and ".join(
        f"{written(span.first, numbering)} to {written(span.first + span.count - 1, numbering)}"
        for span in family.spans
    )
