"""A device as its profile describes it: a register image that is driven by the names of its points.

The product reads a profile to decode; this reads the same file to encode, and shares nothing with the product's decoding:
points are laid out one after the other here, as the maker's tables list them, where the agent computes the address of a
name. So a slip in either shows as a difference between what was set and what is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.configfile import Plain, load
from simulators.register_bank import BIT_TABLES, RegisterBank, Table

_WIDTHS: Final = {"32": 2, "64": 4}
_FLOATS: Final = {"float32": ">f", "float64": ">d"}
READ_ALONG: Final = 256
"""Addresses after the last point: a long value ends there, and readers fill gaps."""

ADDRESSES: Final = 65536
"""PDU addresses in a table."""

_SWAPPED: Final = 8
"""Bits 0–7 of an even byte are the upper half of its register."""


class ProfileError(ValueError):
    """A profile that cannot be read, a name that it has not, or a value that its point cannot say."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Where one point lies: a bit, a masked field, or whole registers; `point` is what the profile says of it."""

    table: Table
    number: int
    bit: int | None
    mask: int | None
    point: Mapping[str, Plain]


class ProfileImage:
    """One unit's registers in a `bank` of its own, driven by point names. `cells` holds every point, ranges unrolled."""

    def __init__(self, profile: Path, *, unit: int = 1, base: int = 0) -> None:
        """Lay out the profile in the file `profile`; `base` moves it. Raises `ProfileError`."""
        document = load(profile, {})
        if isinstance(document, list):
            raise ProfileError("; ".join(str(problem) for problem in document))
        self.cells: dict[str, Cell] = {}
        try:
            for key, point in _mapping(document.data.get("points")).items():
                self.cells.update(_unrolled(key, _mapping(point), base))
        except (AssertionError, KeyError, TypeError, ValueError):
            told = f"{profile}: this is no good profile — see `guardwatch-agent profiles {profile}`"
            raise ProfileError(told) from None
        ends = {
            is_bits: max(
                (cell.number for cell in self.cells.values() if (cell.table in BIT_TABLES) is is_bits),
                default=0,
            )
            for is_bits in (True, False)
        }
        self.bank = RegisterBank([unit], bits=_roomy(ends[True]), words=_roomy(ends[False]))
        self._unit = unit

    def set(self, name: str, value: bool | float | str) -> None:  # noqa: FBT001 — a point's value
        """Have the point say `value`: true or false, a number in its unit, or a word of its map. Raises `ProfileError`."""
        cell = self.cells.get(name)
        if cell is None:
            raise ProfileError(f"the profile has no point {name}")
        if isinstance(value, bool):
            self._set_truth(cell, value)
        elif isinstance(value, str):
            self._set_raw(cell, _coded(cell, value))
        else:
            scale, offset = _number(cell, "scale", 1.0), _number(cell, "offset", 0.0)
            # A long whole number is more than a float holds: unscaled, it stays as it is.
            raw = value if (scale, offset) == (1, 0) else (value - offset) / scale
            self._set_raw(cell, raw if str(cell.point.get("type")) in _FLOATS else round(raw))

    def set_all_ones(self, name: str) -> None:
        """What a module that is not there says, of some makers."""
        cell = self.cells[name]
        if cell.table in BIT_TABLES:
            self.bank.set_bit(self._unit, cell.table, cell.number, value=True)
        else:
            self.bank.set_word(self._unit, cell.table, cell.number, 0xFFFF)

    def _set_truth(self, cell: Cell, value: bool) -> None:  # noqa: FBT001 — a point's value
        if cell.point.get("true_when") is not None:
            self._set_raw(cell, _code_of(cell, value))
            return
        raw = value != bool(cell.point.get("invert", False))
        if cell.table in BIT_TABLES:
            self.bank.set_bit(self._unit, cell.table, cell.number, raw)
        elif cell.bit is not None:
            self.bank.set_word_bit(self._unit, cell.table, cell.number, cell.bit, raw)
        else:
            raise ProfileError("the point is no bit")

    def _set_raw(self, cell: Cell, raw: float) -> None:
        if cell.table in BIT_TABLES or cell.bit is not None:
            self._set_truth(cell, bool(raw))
            return
        if cell.mask is not None:
            (word,) = self.bank.word_span(self._unit, cell.table, cell.number, 1)
            place = 0
            while not cell.mask >> place & 1:
                place += 1
            kept = word & (0xFFFF ^ cell.mask)
            self.bank.set_word(self._unit, cell.table, cell.number, kept | int(raw) << place & cell.mask)
            return
        self.bank.set_words(self._unit, cell.table, cell.number, _words(cell, raw))


def profile_folder() -> Path:
    """The shipped profiles, in a checkout or beside the agent in an installed wheel."""
    root = Path(__file__).resolve().parent.parent
    checkout = root / "config" / "profiles"
    return checkout if checkout.is_dir() else root / "edge_agent" / "profiles"


def _roomy(last: int) -> int:
    """As many addresses as hold the last point and what is read along with it."""
    return min(last + READ_ALONG, ADDRESSES)


def _unrolled(key: str, point: Mapping[str, Plain], base: int) -> Iterator[tuple[str, Cell]]:
    """The points under one key, laid out one after the other."""
    spans = [(point.get("first", 0), point.get("count", 1), point["at"])]
    more = point.get("more")
    spans += [(part["first"], part["count"], part["at"]) for part in map(_mapping, _listed(more))]
    for first, count, at in spans:
        assert isinstance(first, int)
        assert isinstance(count, int)
        cells = _cells(str(at), point, base)
        for number in range(first, first + count):
            yield key.replace("{n}", _written(number, str(point.get("numbering", "decimal")))), next(cells)


def _cells(at: str, point: Mapping[str, Plain], base: int) -> Iterator[Cell]:
    """Places from `at` on, without end."""
    table_name, _, rest = at.partition("/")
    table, (number_text, _, bit_text) = Table(table_name), rest.partition(".")
    number, step = int(number_text) + base, point.get("step")
    mask = point.get("mask")
    if bit_text:
        is_by_byte = point.get("numbering") == "byte_bit"
        place = int(bit_text) ^ (_SWAPPED if is_by_byte else 0)
        while True:
            yield Cell(table, number, place ^ (_SWAPPED if is_by_byte else 0), None, point)
            place += step if isinstance(step, int) else 1
            number, place = number + place // 16, place % 16
    if isinstance(mask, int):
        low = mask & -mask
        jump = step if isinstance(step, int) else (mask // low).bit_length()
        while True:
            yield Cell(table, number, None, mask, point)
            wide = mask << jump % 16
            number += jump // 16
            mask, number = (wide, number) if wide <= 0xFFFF else (wide >> 16, number + 1)
    width = 1
    if table not in BIT_TABLES and point.get("numbering") != "bytes":
        width = next((size for ending, size in _WIDTHS.items() if str(point.get("type")).endswith(ending)), 1)
    while True:
        yield Cell(table, number, None, None, point)
        number += step if isinstance(step, int) else width


def _written(number: int, numbering: str) -> str:
    match numbering:
        case "octal":
            return f"{number:o}"
        case "byte_bit":
            byte, bit = divmod(number, 8)
            return f"{byte}.{bit}"
        case "bytes":
            return str(2 * number)
        case _:
            return str(number)


def _words(cell: Cell, raw: float) -> list[int]:
    """A value's registers in the order in which they stand."""
    kind = str(cell.point.get("type", "uint16"))
    if kind in _FLOATS:
        content = struct.pack(_FLOATS[kind], raw)
    else:
        size = int(kind.lstrip("uint")) // 8
        content = int(raw).to_bytes(size, "big", signed=kind.startswith("int"))
    words = [content[index : index + 2] for index in range(0, len(content), 2)]
    if cell.point.get("word_order") == "little":
        words.reverse()
    if cell.point.get("byte_order") == "little":
        words = [word[::-1] for word in words]
    return [int.from_bytes(word, "big") for word in words]


def _coded(cell: Cell, word: str) -> int:
    for raw, meant in _mapping(cell.point.get("map") or {}).items():
        if meant == word:
            return int(raw, 0)
    raise ProfileError(f"the point never says {word}")


def _code_of(cell: Cell, value: bool) -> int:  # noqa: FBT001 — a point's value
    on, off = _listed(cell.point.get("true_when")), _listed(cell.point.get("false_when"))
    codes = on if value else off or [raw for raw in range(len(on) + 1) if raw not in on]
    first = codes[0]
    assert isinstance(first, int)
    return first


def _number(cell: Cell, key: str, default: float) -> float:
    value = cell.point.get(key, default)
    assert isinstance(value, int | float)
    return value


def _mapping(value: Plain) -> dict[str, Plain]:
    if not isinstance(value, dict):
        raise ProfileError("the profile is no profile")
    return value


def _listed(value: Plain) -> list[Plain]:
    return value if isinstance(value, list) else []
