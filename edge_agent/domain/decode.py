"""Bytes of a good answer to values: the hot path, compiled once per block.

Theory of operation. `compile_decoder` turns each signal of a block into a small reader that knows its bytes. Nearly all
polls bring nothing new, so `changed` compares old and new bytes and runs only the readers behind bytes that differ.

    bits       item i is bit i mod 8 of byte i div 8, least significant first (Modbus Application Protocol 1.1b3, 6.1)
    registers  item i is bytes 2i, 2i+1, high byte first (4.2)
    values of several registers, A most significant byte:
               word big, byte big ABCD · word little, byte big CDAB · word big, byte little BADC · both little DCBA

Content that says nothing becomes None (unknown): a raw value that `map` lacks or `sentinel` names, a float that is no
number, a scaled value beyond what a float holds. An answer of the wrong length is never decoded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, TypeAlias

from edge_agent.domain.plan import Endian, ReadBlock, SignalPlan, ValueType
from edge_agent.domain.units import SignalId

Value: TypeAlias = bool | int | float | str | None
"""What a signal says; None where the content says nothing (unknown)."""

_Reader: TypeAlias = Callable[[bytes], Value]

_FORMATS: Final = {
    ValueType.UINT16: ">H",
    ValueType.INT16: ">h",
    ValueType.UINT32: ">I",
    ValueType.INT32: ">i",
    ValueType.FLOAT32: ">f",
    ValueType.UINT64: ">Q",
    ValueType.INT64: ">q",
    ValueType.FLOAT64: ">d",
}


class LengthError(ValueError):
    """An answer whose data bytes are not exactly those that were asked for."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One signal's reader, and the bits of each byte that it looks at: (byte, mask)."""

    signal: SignalId
    read: _Reader
    footprint: tuple[tuple[int, int], ...]


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

    def changed(self, old: bytes, new: bytes) -> list[tuple[SignalId, Value]]:
        """The signals whose raw content differs, with their new values, in block order. Raises `LengthError`.

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
        return [(fields[index].signal, fields[index].read(new)) for index in sorted(touched)]

    def _demand_length(self, data: bytes) -> None:
        if len(data) != self._length:
            raise LengthError(f"{len(data)} data bytes instead of {self._length}")


def compile_decoder(block: ReadBlock, signals: Sequence[SignalPlan]) -> BlockDecoder:
    """The decoder of `block`; `signals` are the whole plan's (`signals[i].id == i`)."""
    return BlockDecoder(block.length_bytes, [_field(block, signals[index]) for index in block.signals])


def _field(block: ReadBlock, signal: SignalPlan) -> _Field:
    offset = signal.number - block.start
    if block.table.is_bits:
        byte, mask = offset // 8, 1 << offset % 8
        return _Field(signal.id, _bit_reader(signal, byte, mask), ((byte, mask),))
    order = _byte_order(signal, offset * 2)
    if signal.is_bit:
        bit = signal.bit or 0
        byte, mask = order[1 - bit // 8], 1 << bit % 8
        return _Field(signal.id, _bit_reader(signal, byte, mask), ((byte, mask),))
    return _Field(signal.id, _number_reader(signal, order), tuple((byte, 0xFF) for byte in order))


def _byte_order(signal: SignalPlan, first: int) -> tuple[int, ...]:
    """Where the bytes of the value lie, most significant first."""
    words = [(first + 2 * word, first + 2 * word + 1) for word in range(signal.type.registers)]
    if signal.word_order is Endian.LITTLE:
        words.reverse()
    if signal.byte_order is Endian.LITTLE:
        words = [(low, high) for high, low in words]
    return tuple(byte for word in words for byte in word)


def _bit_reader(signal: SignalPlan, byte: int, mask: int) -> _Reader:
    words, invert = signal.map, signal.invert
    if words is not None:
        return lambda data: words.get(int(bool(data[byte] & mask) != invert))
    if invert:
        return lambda data: not data[byte] & mask
    return lambda data: bool(data[byte] & mask)


def _number_reader(signal: SignalPlan, order: tuple[int, ...]) -> _Reader:
    unpack = struct.Struct(_FORMATS[signal.type]).unpack
    pick = itemgetter(*order)
    words, sentinels, scale, offset = signal.map, frozenset(signal.sentinel), signal.scale, signal.offset
    is_raw = scale == 1.0 and offset == 0.0

    def read(data: bytes) -> Value:
        raw: int | float = unpack(bytes(pick(data)))[0]
        if raw in sentinels or not math.isfinite(raw):
            return None
        if words is not None:
            return words.get(int(raw))
        value = raw if is_raw else raw * scale + offset
        return value if math.isfinite(value) else None

    return read
