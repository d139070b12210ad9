"""The decoder: exact bytes to exact values, only what changed, and None for content that says nothing."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.domain.decode import BlockDecoder, LengthError, Value, compile_decoder
from edge_agent.domain.plan import Coding, Endian, ReadBlock, SignalPlan, Table, ValueType
from edge_agent.domain.units import BlockId, DeviceId, SignalId

BIG, LITTLE = Endian.BIG, Endian.LITTLE
UNSIGNED = (ValueType.UINT16, ValueType.UINT32, ValueType.UINT64)


def point(
    number: int,
    kind: ValueType = ValueType.BIT,
    *,
    index: int = 0,
    table: Table = Table.HOLDING_REGISTER,
    bit: int | None = None,
    words: Endian = BIG,
    bytes_: Endian = BIG,
    invert: bool = False,
    scale: float = 1.0,
    offset: float = 0.0,
    mapping: Mapping[int, str] | None = None,
    sentinel: tuple[int, ...] = (),
    mask: int | None = None,
    on: tuple[int, ...] = (),
    off: tuple[int, ...] = (),
) -> SignalPlan:
    return SignalPlan(
        SignalId(index), "x", None, None, DeviceId("plc1"), table, number, bit, kind, 200,
        Coding(
            word_order=words, byte_order=bytes_, invert=invert, scale=scale, offset=offset, map=mapping, sentinel=sentinel,
            mask=mask, true_when=on, false_when=off,
        ),
    )  # fmt: skip


def decoder(signals: list[SignalPlan], start: int, count: int) -> BlockDecoder:
    numbered = tuple(item.id for item in signals)
    block = ReadBlock(BlockId(0), DeviceId("plc1"), signals[0].table, start, count, numbered, 200, 2000)
    return compile_decoder(block, signals)


def one(signal: SignalPlan, data: bytes, start: int = 0) -> Value:
    count = len(data) * 8 if signal.table.is_bits else len(data) // 2
    (value,) = decoder([signal], start, count).decode_all(data)
    return value


@pytest.mark.parametrize(
    ("item", "data", "value"),
    [
        (0, b"\x01\x00", True),
        (1, b"\x01\x00", False),
        (7, b"\x80\x00", True),
        (8, b"\x00\x01", True),
        (8, b"\x80\x00", False),
        (15, b"\x00\x80", True),
    ],
)
def test_the_first_item_is_the_least_significant_bit_of_the_first_byte(
    item: int, data: bytes, value: bool
) -> None:
    for table in (Table.COIL, Table.DISCRETE_INPUT):
        assert one(point(100 + item, table=table), data, start=100) is value
        assert one(point(100 + item, table=table, invert=True), data, start=100) is not value


@pytest.mark.parametrize(
    ("order", "bit", "data"),
    [
        (BIG, 0, b"\x00\x01"),
        (BIG, 8, b"\x01\x00"),
        (BIG, 15, b"\x80\x00"),
        (LITTLE, 0, b"\x01\x00"),
        (LITTLE, 15, b"\x00\x80"),
    ],
)
def test_bit_zero_of_a_register_is_its_least_significant(order: Endian, bit: int, data: bytes) -> None:
    for candidate in range(16):
        assert one(point(0, bit=candidate, bytes_=order), data) is (candidate == bit)


@pytest.mark.parametrize(
    ("words", "bytes_", "data"),
    [
        (BIG, BIG, b"\x0a\x0b\x0c\x0d"),
        (LITTLE, BIG, b"\x0c\x0d\x0a\x0b"),
        (BIG, LITTLE, b"\x0b\x0a\x0d\x0c"),
        (LITTLE, LITTLE, b"\x0d\x0c\x0b\x0a"),
    ],
    ids=["ABCD", "CDAB", "BADC", "DCBA"],
)
def test_the_four_orders_of_two_registers_give_the_same_value(
    words: Endian, bytes_: Endian, data: bytes
) -> None:
    assert one(point(0, ValueType.UINT32, words=words, bytes_=bytes_), data) == 0x0A0B0C0D


@pytest.mark.parametrize(
    ("words", "bytes_", "data"),
    [
        (BIG, BIG, "0102030405060708"),
        (LITTLE, BIG, "0708050603040102"),
        (BIG, LITTLE, "0201040306050807"),
        (LITTLE, LITTLE, "0807060504030201"),
    ],
)
def test_the_four_orders_of_four_registers_give_the_same_value(
    words: Endian, bytes_: Endian, data: str
) -> None:
    signal = point(0, ValueType.UINT64, words=words, bytes_=bytes_)
    assert one(signal, bytes.fromhex(data)) == 0x0102030405060708


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (ValueType.UINT16, "ffff", 65535),
        (ValueType.INT16, "ffff", -1),
        (ValueType.INT16, "8000", -32768),
        (ValueType.UINT32, "ffffffff", 4294967295),
        (ValueType.INT32, "fffffffe", -2),
        (ValueType.FLOAT32, "42f6e666", 123.44999694824219),
        (ValueType.FLOAT32, "c0490fdb", -3.1415927410125732),
        (ValueType.UINT64, "ffffffffffffffff", 18446744073709551615),
        (ValueType.INT64, "8000000000000000", -9223372036854775808),
        (ValueType.FLOAT64, "400921fb54442d18", 3.141592653589793),
    ],
)
def test_each_type_reads_its_known_bytes_exactly(kind: ValueType, data: str, value: float) -> None:
    assert one(point(7, kind), bytes.fromhex(data), start=7) == value


def test_a_scaled_value_is_raw_times_scale_plus_offset() -> None:
    assert one(point(0, ValueType.UINT16, scale=0.5, offset=-40.0), b"\x00\x64") == 10.0


@pytest.mark.parametrize("pattern", ["7fc00000", "ffc00001", "7f800000", "ff800000"])
def test_a_float_that_is_no_number_is_unknown(pattern: str) -> None:
    assert one(point(0, ValueType.FLOAT32), bytes.fromhex(pattern)) is None


def test_a_value_scaled_out_of_range_is_unknown() -> None:
    assert one(point(0, ValueType.FLOAT64, scale=1e300), struct.pack(">d", 1e300)) is None


def test_a_mode_is_its_word_and_an_unmapped_one_is_unknown() -> None:
    mode = point(0, ValueType.UINT16, mapping={0: "auto", 1: "setup"})
    assert [one(mode, bytes([0, raw])) for raw in (0, 1, 2)] == ["auto", "setup", None]
    switch = point(0, table=Table.COIL, mapping={0: "auto", 1: "local"}, invert=True)
    assert [one(switch, bytes([raw])) for raw in (0, 1)] == ["local", "auto"]


def test_a_sentinel_is_unknown_before_any_scaling() -> None:
    broken = point(0, ValueType.INT16, scale=0.1, sentinel=(32767, -32768))
    assert [one(broken, raw) for raw in (b"\x7f\xff", b"\x80\x00", b"\x00\x0a")] == [None, None, 1.0]


@pytest.mark.parametrize("length", [0, 1, 3, 250])
def test_an_answer_of_another_length_is_never_decoded(length: int) -> None:
    reader = decoder([point(0, ValueType.UINT16)], 0, 1)
    with pytest.raises(LengthError):
        reader.decode_all(bytes(length))
    with pytest.raises(LengthError):
        reader.changed(b"\x00\x00", bytes(length))
    with pytest.raises(LengthError):
        reader.changed(bytes(length), b"\x00\x00")


def test_only_signals_behind_changed_bits_are_decoded() -> None:
    bits = [point(n, index=n, table=Table.DISCRETE_INPUT) for n in range(12)]
    reader = decoder(bits, 0, 12)
    assert reader.changed(b"\xff\x0f", b"\xff\x0f") == []
    assert reader.changed(b"\xff\x0f", b"\xf7\x0e") == [(3, False), (8, False)]
    assert reader.changed(b"\xff\x0f", b"\xff\xff") == [], "padding bits belong to nobody"


def test_a_register_bit_does_not_report_its_neighbours() -> None:
    bits = [point(0, index=0, bit=0), point(0, index=1, bit=9), point(0, ValueType.UINT16, index=2)]
    reader = decoder(bits, 0, 1)
    assert reader.changed(b"\x00\x00", b"\x02\x00") == [(1, True), (2, 512)]


def masks(kind: ValueType) -> st.SearchStrategy[int]:
    return st.integers(1, (1 << 16 * kind.registers) - 1)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[SignalPlan], int]:
    if draw(st.booleans()):
        count = draw(st.integers(1, 40))
        bits = [
            point(draw(st.integers(0, count - 1)), index=index, table=Table.COIL, invert=draw(st.booleans()))
            for index in range(draw(st.integers(1, 10)))
        ]
        return bits, count
    count = draw(st.integers(4, 12))
    order = st.sampled_from([BIG, LITTLE])
    signals = []
    for index in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(list(ValueType)))
        number = draw(st.integers(0, count - kind.registers))
        bit = draw(st.integers(0, 15)) if kind is ValueType.BIT else None
        mask = draw(masks(kind)) if kind in UNSIGNED and draw(st.booleans()) else None
        on = (draw(st.integers(0, 3)),) if mask is not None and draw(st.booleans()) else ()
        signals.append(
            point(number, kind, index=index, bit=bit, words=draw(order), bytes_=draw(order), mask=mask, on=on)
        )
    return signals, count


@given(layouts(), st.data())
@settings(max_examples=400, deadline=None)
def test_decoding_changes_gives_what_decoding_everything_gives(
    layout: tuple[list[SignalPlan], int], data: st.DataObject
) -> None:
    signals, count = layout
    length = (count + 7) // 8 if signals[0].table.is_bits else count * 2
    old, new = (data.draw(st.binary(min_size=length, max_size=length)) for _ in range(2))
    reader = decoder(signals, 0, count)
    before, after = reader.decode_all(old), reader.decode_all(new)
    changed = dict(reader.changed(old, new))
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        if index in changed:
            assert changed[SignalId(index)] == now
        else:
            assert was == now


@given(
    st.sampled_from([kind for kind in ValueType if kind is not ValueType.BIT]),
    st.sampled_from([BIG, LITTLE]),
    st.sampled_from([BIG, LITTLE]),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_every_type_and_order_agrees_with_an_independent_reading(
    kind: ValueType, words: Endian, bytes_: Endian, data: st.DataObject
) -> None:
    raw = data.draw(st.binary(min_size=kind.registers * 2, max_size=kind.registers * 2))
    registers = [raw[n : n + 2] for n in range(0, len(raw), 2)]
    ordered = b"".join(
        word if bytes_ is BIG else word[::-1] for word in (registers if words is BIG else reversed(registers))
    )
    value = one(point(0, kind, words=words, bytes_=bytes_), raw)
    if kind.value.startswith("float"):
        (expected,) = struct.unpack(">f" if kind is ValueType.FLOAT32 else ">d", ordered)
        assert value == (expected if math.isfinite(expected) else None)
    else:
        assert value == int.from_bytes(ordered, "big", signed=kind.value.startswith("int"))


# Masked fields and coded bits.


def field_by_text(data: bytes, words: Endian, bytes_: Endian, mask: int | None) -> int:
    """The masked field read off the digits of the number, as a person would with a manual."""
    registers = [data[n : n + 2] for n in range(0, len(data), 2)]
    digits = "".join(
        f"{byte:08b}"
        for word in (registers if words is BIG else registers[::-1])
        for byte in (word if bytes_ is BIG else word[::-1])
    )
    if mask is None:
        return int(digits, 2)
    wanted = f"{mask:0{len(digits)}b}"
    taken = [digit if keep == "1" else "0" for digit, keep in zip(digits, wanted, strict=True)]
    return int("".join(taken)[: wanted.rindex("1") + 1], 2)


@given(
    st.sampled_from(UNSIGNED),
    st.sampled_from([BIG, LITTLE]),
    st.sampled_from([BIG, LITTLE]),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_a_masked_field_agrees_with_its_digits_in_every_type_and_order(
    kind: ValueType, words: Endian, bytes_: Endian, data: st.DataObject
) -> None:
    raw = data.draw(st.binary(min_size=kind.registers * 2, max_size=kind.registers * 2))
    mask = data.draw(masks(kind) | st.none())
    on = tuple(data.draw(st.lists(st.integers(0, 15), max_size=3)))
    off = tuple(code for code in data.draw(st.lists(st.integers(0, 15), max_size=3)) if code not in on)
    expected = field_by_text(raw, words, bytes_, mask)
    assert one(point(0, kind, words=words, bytes_=bytes_, mask=mask), raw) == expected
    if on or off:
        is_on, is_off = expected in on, expected in off
        meant = True if is_on else False if is_off else None if on and off else not on
        assert one(point(0, kind, words=words, bytes_=bytes_, mask=mask, on=on, off=off), raw) is meant


@given(st.sampled_from(UNSIGNED), st.sampled_from([BIG, LITTLE]), st.data())
@settings(max_examples=200, deadline=None)
def test_a_bit_outside_its_mask_says_nothing_about_a_field(
    kind: ValueType, words: Endian, data: st.DataObject
) -> None:
    mask = data.draw(masks(kind))
    raw = data.draw(st.binary(min_size=kind.registers * 2, max_size=kind.registers * 2))
    flipped = data.draw(st.integers(0, 16 * kind.registers - 1))
    order = words.value
    number = b"".join([raw[n : n + 2] for n in range(0, len(raw), 2)][:: 1 if order == "big" else -1])
    other = (int.from_bytes(number, "big") ^ 1 << flipped).to_bytes(len(raw), "big")
    new = b"".join([other[n : n + 2] for n in range(0, len(raw), 2)][:: 1 if order == "big" else -1])
    reader = decoder([point(0, kind, words=words, mask=mask)], 0, kind.registers)
    assert bool(reader.changed(raw, new)) is bool(mask >> flipped & 1)


def test_a_nibble_of_lamps_is_a_coded_bit() -> None:
    lamp = point(0, ValueType.UINT16, mask=0x0F00, on=(0xF,), off=(0x0,))
    assert [one(lamp, bytes((high, 0xFF))) for high in (0xFF, 0xF0, 0x03)] == [True, False, None]


def test_a_masked_mode_is_its_word() -> None:
    mode = point(0, ValueType.UINT16, mask=0x00F0, mapping={1: "auto", 2: "setup"})
    assert [one(mode, bytes((0xFF, low))) for low in (0x1F, 0x20, 0x3F)] == ["auto", "setup", None]


def test_a_sentinel_of_a_coded_bit_is_unknown_before_any_code() -> None:
    assert one(point(0, ValueType.UINT16, on=(1, 0xFFFF), sentinel=(0xFFFF,)), b"\xff\xff") is None


def test_a_large_counter_keeps_its_last_digit_under_a_whole_scale() -> None:
    raw = (2**63 + 1).to_bytes(8, "big")
    assert one(point(0, ValueType.UINT64, scale=10.0, offset=-1.0), raw) == (2**63 + 1) * 10 - 1
