"""Bytes of a good answer to values: the hot path, compiled once per block.

Theory of operation. `compile_decoder` turns each signal of a block into a small reader that knows its bytes. Nearly all
polls bring nothing new, so `changed` compares old and new bytes and runs only the readers behind bytes that differ.
Readers know places in a block, not signals: a plant with a hundred equal controllers has each of them once.

    bits       item i is bit i mod 8 of byte i div 8, least significant first (Modbus Application Protocol 1.1b3, 6.1)
    registers  item i is bytes 2i, 2i+1, high byte first (4.2)
    values of several registers, A most significant byte:
               word big, byte big ABCD · word little, byte big CDAB · word big, byte little BADC · both little DCBA

    masked     raw = (raw & mask) shifted down to the lowest bit of the mask: a bit field, a nibble, always unsigned
    coded bits raw in `true_when` is true, in `false_when` false; see `SignalPlan` for what is in neither

Content that says nothing becomes None (unknown): a raw value that `map` lacks or `sentinel` names, a float that is no
number, a scaled value beyond what a float holds. Whole numbers stay whole under whole `scale` and `offset`, however
large. An answer of the wrong length is never decoded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, TypeAlias

from edge_agent.domain.plan import Coding, Endian, ReadBlock, SignalPlan, ValueType

Value: TypeAlias = bool | int | float | str | None
"""What a signal says; None where the content says nothing (unknown)."""

_Reader: TypeAlias = Callable[[bytes], Value]
_Raw: TypeAlias = Callable[[bytes], int | float]
_FieldKey: TypeAlias = tuple[int, bool, ValueType, int | None, Coding]
"""What a reader depends on: the place in the block, whether items are bits, and what the content means."""
_Footprint: TypeAlias = tuple[tuple[int, int], ...]

FORMATS: Final = {
    ValueType.UINT16: ">H",
    ValueType.INT16: ">h",
    ValueType.UINT32: ">I",
    ValueType.INT32: ">i",
    ValueType.FLOAT32: ">f",
    ValueType.UINT64: ">Q",
    ValueType.INT64: ">q",
    ValueType.FLOAT64: ">d",
}
"""How `struct` reads each type, its bytes put in order before (Modbus Application Protocol 1.1b3, 4.2)."""


_WHOLE_MAX: Final = 2.0**53
"""Up to here a float holds every whole number (IEEE 754 binary64)."""


class LengthError(ValueError):
    """An answer whose data bytes are not exactly those that were asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """One signal's reader, and the bits of each byte that it looks at."""

    read: _Reader
    footprint: _Footprint


class BlockDecoder:
    """Decodes the answers to one block. Made by `compile_decoder`; holds nothing but its plan."""

    __slots__ = ("_bytes", "_fields", "_length")

    def __init__(self, length_bytes: int, fields: Sequence[_Field]) -> None:
        self._length = length_bytes
        self._fields = tuple(fields)
        behind: dict[int, list[tuple[int, int]]] = {}
        for index, item in enumerate(self._fields):
            for byte, mask in item.footprint:
                behind.setdefault(byte, []).append((mask, index))
        self._bytes = tuple((byte, tuple(behind[byte])) for byte in sorted(behind))

    def decode_all(self, data: bytes) -> list[Value]:
        """Every signal's value, in the order of the block's `signals`. Raises `LengthError`."""
        self._demand_length(data)
        return [item.read(data) for item in self._fields]

    def changed(self, old: bytes, new: bytes) -> list[tuple[int, Value]]:
        """Which of the block's signals differ in raw content, with their new values, in order. Raises `LengthError`.

        Two different raw contents can mean the same value (two unmapped modes are both None).
        """
        self._demand_length(old)
        self._demand_length(new)
        if old == new:
            return []
        touched: set[int] = set()
        for byte, behind in self._bytes:
            difference = old[byte] ^ new[byte]
            if difference:
                touched.update(index for mask, index in behind if mask & difference)
        fields = self._fields
        return [(index, fields[index].read(new)) for index in sorted(touched)]

    def _demand_length(self, data: bytes) -> None:
        if len(data) != self._length:
            raise LengthError(f"{len(data)} data bytes instead of {self._length}")


class SharedReaders:
    """What the decoders of one plan have in common: each reader once, and each decoder of equal blocks."""

    __slots__ = ("_decoders", "_fields")

    def __init__(self) -> None:
        self._fields: dict[_FieldKey, _Field] = {}
        self._decoders: dict[tuple[int, tuple[_Field, ...]], BlockDecoder] = {}

    def decoder(self, block: ReadBlock, signals: Sequence[SignalPlan]) -> BlockDecoder:
        """The decoder of `block`; `signals` are the whole plan's (`signals[i].id == i`)."""
        fields = tuple(self._field(block, signals[index]) for index in block.signals)
        key = block.length_bytes, fields
        if key not in self._decoders:
            self._decoders[key] = BlockDecoder(*key)
        return self._decoders[key]

    def _field(self, block: ReadBlock, signal: SignalPlan) -> _Field:
        key = signal.number - block.start, block.table.is_bits, signal.type, signal.bit, signal.coding
        if key not in self._fields:
            self._fields[key] = _field(block, signal)
        return self._fields[key]


def compile_decoder(
    block: ReadBlock, signals: Sequence[SignalPlan], shared: SharedReaders | None = None
) -> BlockDecoder:
    """The decoder of `block`; `signals` are the whole plan's. `shared` where many blocks are compiled."""
    return (shared or SharedReaders()).decoder(block, signals)


def footprint(signal: SignalPlan, start: int) -> tuple[tuple[int, int], ...]:
    """The bits of each byte that `signal` looks at, as (byte, mask), in data that begins at PDU address `start`."""
    offset = signal.number - start
    if signal.table.is_bits:
        return ((offset // 8, 1 << offset % 8),)
    order = _byte_order(signal, offset * 2)
    if signal.is_bit:
        bit = signal.bit or 0
        return ((order[1 - bit // 8], 1 << bit % 8),)
    if signal.coding.mask is None:
        return tuple((byte, 0xFF) for byte in order)
    masks = signal.coding.mask.to_bytes(len(order), "big")
    return tuple((byte, mask) for byte, mask in zip(order, masks, strict=True) if mask)


def _field(block: ReadBlock, signal: SignalPlan) -> _Field:
    where = footprint(signal, block.start)
    if signal.is_bit:
        return _Field(_bit_reader(signal, *where[0]), where)
    raw = _raw_reader(signal, _byte_order(signal, (signal.number - block.start) * 2))
    if signal.coding.true_when or signal.coding.false_when:
        return _Field(_coded_reader(signal, raw), where)
    return _Field(_number_reader(signal, raw), where)


def _byte_order(signal: SignalPlan, first: int) -> tuple[int, ...]:
    """Where the bytes of the value lie, most significant first."""
    words = [(first + 2 * word, first + 2 * word + 1) for word in range(signal.type.registers)]
    if signal.coding.word_order is Endian.LITTLE:
        words.reverse()
    if signal.coding.byte_order is Endian.LITTLE:
        words = [(low, high) for high, low in words]
    return tuple(byte for word in words for byte in word)


def _bit_reader(signal: SignalPlan, byte: int, mask: int) -> _Reader:
    words, invert = signal.coding.map, signal.coding.invert
    if words is not None:
        return lambda data: words.get(int(bool(data[byte] & mask) != invert))
    if invert:
        return lambda data: not data[byte] & mask
    return lambda data: bool(data[byte] & mask)


def _raw_reader(signal: SignalPlan, order: tuple[int, ...]) -> _Raw:
    """The value before any meaning: all of the item, or the masked field of it."""
    unpack, pick, mask = struct.Struct(FORMATS[signal.type]).unpack, itemgetter(*order), signal.coding.mask

    def whole(data: bytes) -> int | float:
        raw: int | float = unpack(bytes(pick(data)))[0]
        return raw

    if mask is None:
        return whole
    shift = (mask & -mask).bit_length() - 1
    return lambda data: (int.from_bytes(pick(data), "big") & mask) >> shift


def _coded_reader(signal: SignalPlan, raw_of: _Raw) -> _Reader:
    coding = signal.coding
    sentinels, on, off = map(frozenset, (coding.sentinel, coding.true_when, coding.false_when))
    otherwise = None if on and off else not on

    def read(data: bytes) -> Value:
        raw = raw_of(data)
        if raw in sentinels:
            return None
        return True if raw in on else False if raw in off else otherwise

    return read


def _number_reader(signal: SignalPlan, raw_of: _Raw) -> _Reader:
    words, sentinels = signal.coding.map, frozenset(signal.coding.sentinel)
    scale, offset = _whole(signal.coding.scale), _whole(signal.coding.offset)
    is_raw = scale == 1 and offset == 0

    def read(data: bytes) -> Value:
        raw = raw_of(data)
        if raw in sentinels or not math.isfinite(raw):
            return None
        if words is not None:
            return words.get(int(raw))
        value = raw if is_raw else raw * scale + offset
        return value if math.isfinite(value) else None

    return read


def _whole(factor: float) -> int | float:
    """A whole factor as an integer, which loses nothing of a large counter."""
    return int(factor) if factor.is_integer() and abs(factor) <= _WHOLE_MAX else factor
