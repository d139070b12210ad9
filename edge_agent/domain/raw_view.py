"""Raw registers as a person at the cabinet wants to see them, and where a known value hides in them.

Two registers can be one number in four orders (A is the most significant byte): ABCD big words and bytes; CDAB words
swapped; BADC bytes swapped; DCBA both. Which one a device means is rarely in its manual, but the fitter often knows
the value: the display says 24.5 rpm. `search` looks for it in every type, order, decimal scale and at neighbouring
addresses, and `Sighting.hint` says what that means for the configuration.

Source: Modbus Application Protocol 1.1b3, 4.2 (registers are big-endian; nothing is said of longer values).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.domain.decode import FORMATS
from edge_agent.domain.plan import Endian, ValueType

NEIGHBOURS: Final = 2
"""Addresses to either side in which a value is looked for: tables are 1-based, or count in words where bytes are meant."""

SCALES: Final = (1.0, 0.1, 0.01, 0.001)
"""Decimal scales that controllers use for whole numbers."""

NAMES: Final = {
    (Endian.BIG, Endian.BIG): "ABCD",
    (Endian.LITTLE, Endian.BIG): "CDAB",
    (Endian.BIG, Endian.LITTLE): "BADC",
    (Endian.LITTLE, Endian.LITTLE): "DCBA",
}
"""The usual names of (word order, byte order)."""

_ZERO_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Sighting:
    """A value found: where (`offset` from the register asked), as what, in which order, with which scale."""

    offset: int
    type: ValueType
    word_order: Endian
    byte_order: Endian
    scale: float

    @property
    def order(self) -> str:
        """ABCD, CDAB, BADC or DCBA; empty for one register in its normal order."""
        if self.type.registers == 1 and self.byte_order is Endian.BIG:
            return ""
        return NAMES[self.word_order, self.byte_order]

    @property
    def hints(self) -> tuple[str, ...]:
        """What is unusual about it, as questions with their answers."""
        hints: list[str] = []
        if self.offset == -1:
            hints.append("1-based? the value stands one address lower: addresses here are 0-based")
        elif self.offset:
            hints.append(f"off by {self.offset:+d}: check the address in the device's table")
        if self.word_order is Endian.LITTLE:
            hints.append("words swapped? write word_order: little")
        if self.byte_order is Endian.LITTLE:
            hints.append("bytes swapped? write byte_order: little")
        if self.scale != 1.0:
            hints.append(f"scaled? write scale: {self.scale:g}")
        return tuple(hints)


def interpret(words: Sequence[int], kind: ValueType, word_order: Endian, byte_order: Endian) -> int | float:
    """The value of these registers (as many as `kind` spans) in this order; a float may be NaN or infinite."""
    ordered = words if word_order is Endian.BIG else list(reversed(words))
    raw = b"".join(word.to_bytes(2, byte_order.value) for word in ordered)
    value: int | float = struct.unpack(FORMATS[kind], raw)[0]
    return value


def orders(kind: ValueType) -> Iterator[tuple[Endian, Endian]]:
    """The orders worth trying, the usual one first; of one register only its bytes can be swapped."""
    for word_order, byte_order in NAMES:
        if kind.registers > 1 or word_order is Endian.BIG:
            yield word_order, byte_order


def search(words: Sequence[int], asked: int, value: float, tolerance: float) -> list[Sighting]:
    """Where `value` (± `tolerance`) stands in `words` near index `asked`, the least surprising sighting first."""
    found: list[Sighting] = []
    for offset in sorted(range(-NEIGHBOURS, NEIGHBOURS + 1), key=abs):
        at = asked + offset
        for kind in FORMATS:
            if not 0 <= at <= len(words) - kind.registers:
                continue
            part = words[at : at + kind.registers]
            for word_order, byte_order in orders(kind):
                raw = interpret(part, kind, word_order, byte_order)
                found += [
                    Sighting(offset, kind, word_order, byte_order, scale)
                    for scale in _scales(kind)
                    if _is_near(raw * scale, value, tolerance)
                ]
    return sorted(found, key=_surprise)


def _scales(kind: ValueType) -> Sequence[float]:
    return SCALES[:1] if kind in (ValueType.FLOAT32, ValueType.FLOAT64) else SCALES


def _is_near(got: float, wanted: float, tolerance: float) -> bool:
    return math.isfinite(got) and abs(got - wanted) <= max(tolerance, _ZERO_TOLERANCE)


def _surprise(seen: Sighting) -> tuple[int, int, int]:
    """How many things had to be assumed; then the nearer address and the shorter value."""
    assumed = [seen.word_order is Endian.LITTLE, seen.byte_order is Endian.LITTLE, seen.scale != 1.0]
    return (sum(assumed) + (seen.offset != 0), abs(seen.offset), seen.type.registers)
