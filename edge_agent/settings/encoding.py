"""How raw content becomes a value: which keys a kind of value takes, and whether what they say can be.

    one bit      a coil, a discrete input, a bit of a register                      invert, debouncing
    coded bit    a whole register or its `mask`, with `true_when` (`false_when`)    sentinel, debouncing
    proof        like either, with `any_of`, `none_of`: a presence check
    number       a whole register or its `mask`, scaled                             sentinel
    word         a whole register, its `mask` or a bit, with `map`                  sentinel

A masked field is unsigned, so that its raw values are those of the device's manual. Codes that the field cannot hold are
errors: they would never be seen.

Source: the outside contract, section 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.configfile import Problem
from edge_agent.domain.plan import ValueType
from edge_agent.settings.signals import (
    ALL_ONES,
    ALL_ZEROS,
    COUNTERS,
    MODE_WORDS,
    Meaning,
    SignalSection,
)
from edge_agent.settings.spot import Spot

WORD_MAX_CHARS: Final = 80
"""A word stands in events, evidence and state reports, and on the board: longer ones would not fit into a payload."""

_FLOATS: Final = (ValueType.FLOAT32, ValueType.FLOAT64)
_UNSIGNED: Final = (ValueType.UINT16, ValueType.UINT32, ValueType.UINT64)
_ANALOG: Final = ("scale", "offset", "unit", "rated", "limit", "min", "max", "counter_max")
_CODED: Final = ("true_when", "false_when")
_PROOF_CODES: Final = ("any_of", "none_of")
_EDGES: Final = ("debounce_on_ms", "debounce_off_ms")
_FIELD: Final = ("mask", "sentinel", "word_order", *_CODED)
REFUSED: Final[Mapping[Meaning, tuple[tuple[str, ...], str]]] = {
    Meaning.BIT: ((*_ANALOG, "map"), "one bit"),
    Meaning.PROOF: ((*_ANALOG, "map"), "a proof"),
    Meaning.NUMBER: (("invert", "map", *_CODED, *_EDGES), "a number"),
    Meaning.WORD: ((*_ANALOG, "invert", *_CODED, *_EDGES), "a mode"),
}
"""Keys that say nothing about a kind of value, and would mislead where they stand."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a section says about its raw content, resolved."""

    map: Mapping[int, str] | None
    sentinel: tuple[int, ...]
    true_when: tuple[int, ...]
    false_when: tuple[int, ...]
    invert: bool
    mask: int | None


class EncodingCheck:
    """Resolves the encoding of one section at `spot`; what is wrong with it goes to `problems` and `warnings`."""

    def __init__(
        self,
        spot: Spot,
        section: SignalSection,
        name: str,
        meaning: Meaning,
        kind: ValueType,
    ) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._spot, self._section, self._name, self._meaning, self._kind = spot, section, name, meaning, kind
        self._is_bit = kind is ValueType.BIT
        self._is_proof = meaning is Meaning.PROOF
        self._on_key, self._off_key = _PROOF_CODES if self._is_proof else _CODED

    def resolve(self) -> Encoding:
        """The encoding; as much of it as can be made sense of."""
        section = self._section
        if not self._is_misunderstood():
            self.problems += self._key_problems()
            self.problems += self._mask_problems()
            self.problems += self._counter_problems()
            self.problems += self._code_problems()
            self.problems += self._sentinel_problems()
        on, off = section.true_when, section.false_when
        if self._is_bit:
            invert = section.invert or (self._is_proof and _proves(0, on, off))
            return Encoding(self._map(), (), (), (), invert, None)
        mask = section.mask
        if mask is not None and mask >= 1 << 16 * self._kind.registers:
            mask = None
        return Encoding(self._map(), self._sentinels(), on, off, section.invert, mask)

    @property
    def _width(self) -> int:
        """How many bits the raw value has."""
        if self._is_bit:
            return 1
        mask = self._section.mask
        return 16 * self._kind.registers if mask is None else (mask // (mask & -mask)).bit_length()

    def _is_misunderstood(self) -> bool:
        """Whether the address and the kind of value do not fit together; then nothing more is said."""
        section, meaning = self._section, self._meaning
        if meaning is Meaning.NUMBER and self._is_bit:
            self._refuse("this signal is a number, not one bit", "address a register: hr/5", "at")
            return True
        if meaning is not Meaning.BIT or self._is_bit or section.true_when or section.false_when:
            return False
        if section.mask is None:
            mend = "address one bit: hr/5.0, or add true_when"
            self._refuse("this signal is one bit, not a number", mend, "type")
        else:
            mend = "add true_when, the raw values that mean 1, or address one bit: hr/5.0"
            self._refuse("a masked field is no bit by itself", mend, "mask")
        return True

    def _refuse(self, what: str, mend: str, key: str) -> None:
        self.problems.append(self._spot.problem(what, mend, key))

    def _key_problems(self) -> Iterator[Problem]:
        spot, section, meaning = self._spot, self._section, self._meaning
        if meaning is Meaning.WORD and section.map is None:
            yield spot.problem("a mode needs `map`", "add map: {0: auto, 1: setup, …}", at_key=True)
        if meaning is Meaning.WORD and self._kind in _FLOATS:
            yield spot.problem("a mode cannot be a float", "use a whole-number type", "type")
        refused, named = REFUSED[meaning]
        if self._is_bit and not self._is_proof:
            refused = tuple(dict.fromkeys(key for key in (*refused, *_FIELD) if key != "invert"))
        for key in refused:
            if key in section.model_fields_set:
                mend = "remove it"
                if key in _CODED and self._is_bit:
                    mend = "say invert: true for the other polarity, or address the whole register"
                yield spot.problem(f"`{key}` has no meaning for {named}", mend, key, at_key=True)
        if section.true_when and section.invert:
            what, mend = "`invert` has no meaning beside `true_when`", "write the codes that mean 1"
            yield spot.problem(what, mend, "invert", at_key=True)
        if section.scale == 0:
            yield spot.problem("`scale` is 0: every value would be the same", "write a factor", "scale")

    def _mask_problems(self) -> Iterator[Problem]:
        mask, registers = self._section.mask, self._kind.registers
        if mask is None:
            return
        if self._is_bit:
            if self._is_proof:
                yield self._spot.problem(
                    "`mask` has no meaning for one bit", "remove it", "mask", at_key=True
                )
        elif self._kind not in _UNSIGNED:
            what = f"`mask` takes bits out of a whole unsigned value, not out of {self._kind.value}"
            yield self._spot.problem(what, f"write type: uint{16 * registers}", "mask")
        elif mask >= 1 << 16 * registers:
            what = f"`mask` is {mask:#x}, wider than {self._kind.value}"
            mend = f"write at most {(1 << 16 * registers) - 1:#x}, or a wider type"
            yield self._spot.problem(what, mend, "mask")

    def _counter_problems(self) -> Iterator[Problem]:
        section, name = self._section, self._name
        if name not in COUNTERS:
            if self._meaning is Meaning.NUMBER and section.counter_max is not None:
                what, mend = (
                    f"`counter_max` has no meaning for {name}",
                    f"only {' and '.join(COUNTERS)} count",
                )
                yield self._spot.problem(what, mend, "counter_max", at_key=True)
            return
        if self._kind not in _UNSIGNED:
            what = f"{name} is a counter, and cannot be {self._kind.value}"
            yield self._spot.problem(what, "use uint16, uint32 or uint64", "type")
        for key in ("scale", "offset"):
            if key in section.model_fields_set:
                what = f"`{key}` has no meaning for a counter"
                yield self._spot.problem(what, "remove it: each step is one", key, at_key=True)
        if section.mask is not None and self._ones & (self._ones + 1):
            what = f"{name} is a counter, and the bits of its `mask` must stand side by side"
            yield self._spot.problem(what, "write a mask without gaps, such as 0xFF00", "mask")
        if section.counter_max is not None and section.counter_max >= 1 << self._width:
            what = f"`counter_max` is {section.counter_max}, but {self._width} bits hold no such value"
            yield self._spot.problem(what, f"write at most {(1 << self._width) - 1}", "counter_max")

    def _code_problems(self) -> Iterator[Problem]:
        spot, on, off = self._spot, self._section.true_when, self._section.false_when
        if self._is_bit and not self._is_proof:
            return
        if off and not on and not self._is_proof:
            mend = "add true_when, the raw values that mean 1"
            yield spot.problem("`false_when` stands alone", mend, "false_when", at_key=True)
        if self._kind in _FLOATS and (on or off):
            yield spot.problem("codes are whole numbers, not floats", "use a whole-number type", "type")
            return
        yield from self._impossible(self._on_key, on)
        yield from self._impossible(self._off_key, off)
        for key, codes in ((self._on_key, on), (self._off_key, off)):
            for place, code in enumerate(codes):
                if codes is off and code in on:
                    what = f"`{key}`: {code} stands in `{self._on_key}` too"
                    yield spot.problem(what, "keep it in one of the two", key, place)
        if self._is_proof and (
            not (on or off) or (self._is_bit and _proves(0, on, off) == _proves(1, on, off))
        ):
            what = "nothing that could be read here would deny the presence, or nothing would prove it"
            yield spot.problem(what, "write any_of: [codes] or none_of: [codes]", at_key=True)

    def _range(self) -> tuple[int, int]:
        if self._kind.value.startswith("int"):
            half = 1 << self._width - 1
            return -half, half - 1
        return 0, (1 << self._width) - 1

    @property
    def _ones(self) -> int:
        """The raw value, read without a sign, whose bits are all 1; a mask may have gaps."""
        mask = self._section.mask
        return (1 << self._width) - 1 if mask is None else mask // (mask & -mask)

    def _impossible(self, key: str, codes: tuple[int | str, ...]) -> Iterator[Problem]:
        """Codes that this raw value never has."""
        least, most = self._range()
        for place, code in enumerate(codes):
            if isinstance(code, int) and (not least <= code <= most or (least == 0 and code & ~self._ones)):
                what = f"`{key}`: {code} cannot be, the raw value is {least} to {most}"
                yield self._spot.problem(what, "correct it, or `type` and `mask`", key, place)

    def _sentinel_problems(self) -> Iterator[Problem]:
        if not self._is_bit and self._kind not in _FLOATS:
            yield from self._impossible("sentinel", self._section.sentinel)

    def _sentinels(self) -> tuple[int, ...]:
        """Raw values; all ones of a signed type is −1, and of a float no number anyway."""
        ones = -1 if self._kind.value.startswith("int") else self._ones
        named = {ALL_ONES: ones, ALL_ZEROS: 0}
        return tuple(named[item] if isinstance(item, str) else item for item in self._section.sentinel)

    def _map(self) -> Mapping[int, str] | None:
        written = self._section.map
        if written is None:
            return None
        words: dict[int, str] = {}
        for text, word in written.items():
            try:
                raw = int(text, 0)
            except ValueError:
                what = f"`map`: {text[:20]} is no raw value"
                self.problems.append(
                    self._spot.problem(what, "write whole numbers as keys", "map", text, at_key=True)
                )
                continue
            if raw in words or (self._is_bit and raw not in (0, 1)):
                what = f"`map`: {raw} stands twice" if raw in words else f"`map`: one bit is never {raw}"
                self.problems.append(self._spot.problem(what, "remove it", "map", text, at_key=True))
            if not 0 < len(word) <= WORD_MAX_CHARS or not word.isprintable():
                what, mend = f"`map`: the word for {raw} is none", f"write 1 to {WORD_MAX_CHARS} characters"
                self.problems.append(self._spot.problem(what, mend, "map", text))
            elif self._name == "mode" and word not in MODE_WORDS:
                self.warnings.append(self._foreign_mode(text, word))
            words[raw] = word
        return words

    def _foreign_mode(self, text: str, word: str) -> Problem:
        near = difflib.get_close_matches(word, MODE_WORDS, n=1)
        mend = f"did you mean {near[0]}?" if near else "write the closest of them, or leave it so"
        what = f"`map`: {word[:40]} is none of {', '.join(MODE_WORDS)}, and exempts from nothing"
        return self._spot.problem(what, mend, "map", text)


def _proves(raw: int, on: tuple[int, ...], off: tuple[int, ...]) -> bool:
    """Whether a presence check takes this raw value for a proof."""
    return raw in on if on else raw not in off
