"""The register image of a Modbus endpoint: what its units would answer at this instant.

A bank holds any number of units; each has the four tables of the Modbus data model (coils, discrete inputs,
holding registers, input registers; Modbus application protocol V1.1b3, 4.3), addressed by 0-based PDU address.
Bits are kept packed, bit n in word n // 16 at place n % 16, the way controllers keep them. The bank also knows
how an endpoint *fails*: a unit may be silent (unplugged behind a gateway), or refuse some addresses with an
exception code. It does no I/O; `simulators.modbus_server` puts it on the wire, the physical cell and tests write it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

WORD_BITS: Final = 16
WORD_MAX: Final = 0xFFFF


class Table(StrEnum):
    """A Modbus table, named as in addresses of the agent's configuration."""

    CO = "co"
    DI = "di"
    HR = "hr"
    IR = "ir"


READ_FUNCTIONS: Final = {1: Table.CO, 2: Table.DI, 3: Table.HR, 4: Table.IR}
BIT_TABLES: Final = frozenset({Table.CO, Table.DI})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reads of `unit` that touch `count` addresses from `first` of `table` get `exception_code` (null table: all)."""

    unit: int
    exception_code: int
    table: Table | None = None
    first: int = 0
    count: int = 65536

    def covers(self, unit: int, table: Table, address: int, count: int) -> bool:
        """Whether a read of `count` addresses from `address` touches a refused one."""
        return (
            unit == self.unit
            and self.table in {None, table}
            and address < self.first + self.count
            and self.first < address + count
        )


class RegisterBank:
    """Units, their tables, and how they fail. Every change shows in the next answer, whole."""

    def __init__(self, units: Iterable[int], *, bits: int = 2048, words: int = 256) -> None:
        """Make `units`, each with `bits` coils and discrete inputs and `words` registers a kind, all zero."""
        self.bits = bits
        self.words = words
        bit_words = -(-bits // WORD_BITS)
        self._image: dict[int, dict[Table, list[int]]] = {
            unit: {table: [0] * (bit_words if table in BIT_TABLES else words) for table in Table}
            for unit in units
        }
        self._silent: set[int] = set()
        self._refusals: list[Refusal] = []

    @property
    def units(self) -> tuple[int, ...]:
        """The unit ids of this bank, as given."""
        return tuple(self._image)

    def set_bit(self, unit: int, table: Table, number: int, value: bool) -> None:  # noqa: FBT001 — a bit's value
        """Set coil or discrete input `number`."""
        assert table in BIT_TABLES, "registers have words: use set_word or set_word_bit"
        self.set_word_bit(unit, table, number // WORD_BITS, number % WORD_BITS, value)

    def set_bits(self, unit: int, table: Table, first: int, values: Iterable[bool]) -> None:
        """Set coils or discrete inputs from `first` on."""
        for number, value in enumerate(values, first):
            self.set_bit(unit, table, number, value)

    def set_word(self, unit: int, table: Table, number: int, value: int) -> None:
        """Set register `number` (of a bit table: packed word `number`) to an unsigned 16-bit value."""
        assert 0 <= value <= WORD_MAX, f"{value} is no 16-bit word"
        self._image[unit][table][number] = value

    def set_words(self, unit: int, table: Table, first: int, values: Iterable[int]) -> None:
        """Set registers from `first` on."""
        for number, value in enumerate(values, first):
            self.set_word(unit, table, number, value)

    def set_word_bit(self, unit: int, table: Table, number: int, bit: int, value: bool) -> None:  # noqa: FBT001 — a bit's value
        """Set bit `bit` (0 = least significant) of register `number`."""
        words = self._image[unit][table]
        words[number] = words[number] | 1 << bit if value else words[number] & ~(1 << bit)

    def word_span(self, unit: int, table: Table, first: int, count: int) -> Sequence[int]:
        """`count` words of a table from word `first` on (bit tables: packed words)."""
        return self._image[unit][table][first : first + count]

    def set_silent(self, unit: int, *, silent: bool) -> None:
        """A silent unit answers nothing at all, while its neighbours on the endpoint go on."""
        (self._silent.add if silent else self._silent.discard)(unit)

    def is_silent(self, unit: int) -> bool:
        """Whether nobody answers for `unit`: silenced, or never there."""
        return unit in self._silent or unit not in self._image

    def refuse(self, refusal: Refusal) -> None:
        """Answer such reads with the exception code from now on."""
        self._refusals.append(refusal)

    def accept_all(self, unit: int) -> None:
        """Take back every refusal of `unit`."""
        self._refusals = [refusal for refusal in self._refusals if refusal.unit != unit]

    def refusal_of(self, unit: int, table: Table, address: int, count: int) -> int | None:
        """The exception code this read gets, or None when it is answered."""
        for refusal in self._refusals:
            if refusal.covers(unit, table, address, count):
                return refusal.exception_code
        return None
