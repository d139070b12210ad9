"""Whether a number read once can be meant so, and what would make sense of it: swapped words, swapped bytes, a neighbour.

Only signals with a `rated` or `limit` can be judged: a value more than `FACTOR` times beyond both, no number at all, or a
float closer to zero than any sensor resolves, is implausible. A doubt is a hint for the person who commissions the
device; nothing is ever corrected by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edge_agent.domain.plan import Endian, SignalPlan, ValueType
from edge_agent.domain.raw_view import interpret, orders

FACTOR = 10.0
"""Beyond this many times the rated value or limit nothing real is measured."""

DENORMAL = 1e-9
"""Swapped floats read as numbers this small; a standing machine reads 0."""


def doubt(signal: SignalPlan, words: Sequence[int], index: int) -> str | None:
    """What is doubtful about `signal`, whose value begins at `words[index]`; None when nothing is, or nothing can be."""
    if (
        signal.is_bit
        or signal.coding.map is not None
        or (signal.coding.rated is None and signal.coding.limit is None)
    ):
        return None
    value = _value(signal, words, index, signal.coding.word_order, signal.coding.byte_order)
    if value is None or _is_plausible(signal, value):
        return None
    better = next(_better(signal, words, index), "check type and address")
    return f"{signal.path} reads {value:g} {signal.coding.unit or ''}".rstrip() + f": {better}"


def _better(signal: SignalPlan, words: Sequence[int], index: int) -> Iterator[str]:
    for word_order, byte_order in orders(signal.type):
        value = _value(signal, words, index, word_order, byte_order)
        if value and _is_plausible(signal, value):
            keys = []
            if word_order is not signal.coding.word_order:
                keys.append(f"word_order: {word_order.value}")
            if byte_order is not signal.coding.byte_order:
                keys.append(f"byte_order: {byte_order.value}")
            yield f"swapped? with {' and '.join(keys)} it would be {value:g}"
    for offset in (-1, 1):
        value = _value(signal, words, index + offset, signal.coding.word_order, signal.coding.byte_order)
        if value and _is_plausible(signal, value):
            at = f"{signal.table.value}/{signal.number + offset}"
            yield f"{'1-based' if offset < 0 else 'off by one'}? at {at} it would be {value:g}"


def _value(
    signal: SignalPlan, words: Sequence[int], index: int, word_order: Endian, byte_order: Endian
) -> float | None:
    """The scaled value; None where the registers do not reach."""
    if not 0 <= index <= len(words) - signal.type.registers:
        return None
    part = words[index : index + signal.type.registers]
    return interpret(part, signal.type, word_order, byte_order) * signal.coding.scale + signal.coding.offset


def _is_plausible(signal: SignalPlan, value: float) -> bool:
    bound = max(abs(edge) for edge in (signal.coding.rated, signal.coding.limit) if edge is not None)
    is_dust = signal.type in (ValueType.FLOAT32, ValueType.FLOAT64) and 0 < abs(value) < DENORMAL
    return math.isfinite(value) and abs(value) <= FACTOR * bound and not is_dust
