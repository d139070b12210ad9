"""Finding a value that the fitter knows: the order, scale and address that give it, and what to write for them."""

from __future__ import annotations

import struct

import pytest

from edge_agent.domain.plan import Endian, ValueType
from edge_agent.domain.raw_view import interpret, search


def words(raw: bytes) -> list[int]:
    return [int.from_bytes(raw[place : place + 2], "big") for place in range(0, len(raw), 2)]


@pytest.mark.parametrize(
    ("raw", "order"),
    [("41c40000", "ABCD"), ("000041c4", "CDAB"), ("c4410000", "BADC"), ("0000c441", "DCBA")],
)
def test_a_float_is_found_in_each_of_the_four_orders(raw: str, order: str) -> None:
    seen = search(words(bytes.fromhex(raw)), 0, 24.5, 0.01)[0]
    assert (seen.type, seen.order, seen.offset) == (ValueType.FLOAT32, order, 0)


def test_swapped_words_are_said_with_what_to_write() -> None:
    (hint,) = search(words(bytes.fromhex("000041c4")), 0, 24.5, 0.01)[0].hints
    assert hint == "words swapped? write word_order: little"


def test_a_value_one_address_lower_means_a_table_that_counts_from_one() -> None:
    seen = search([7, 1234, 9], 2, 1234, 0)[0]
    assert seen.offset == -1
    assert seen.hints[0].startswith("1-based?")


def test_a_scaled_whole_number_is_found_and_the_plain_reading_comes_first() -> None:
    assert search([0, 245, 0], 1, 24.5, 0)[0].hints == ("scaled? write scale: 0.1",)
    assert search([0, 245, 0], 1, 245, 0)[0].hints == ()


def test_a_value_that_is_nowhere_is_not_found() -> None:
    assert search([1, 2, 3], 1, 99.5, 0.1) == []


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *(("uint16", "H"), ("int16", "h"), ("uint32", "I"), ("int32", "i")),
        *(("float32", "f"), ("uint64", "Q"), ("int64", "q"), ("float64", "d")),
    ],
)
def test_the_usual_order_is_big_endian(kind: str, code: str) -> None:
    raw = bytes(range(0x41, 0x41 + struct.calcsize(code)))
    assert interpret(words(raw), ValueType(kind), Endian.BIG, Endian.BIG) == struct.unpack(f">{code}", raw)[0]
