"""What a violation was judged by: values, raw registers, ages, parameters, the grade of the worst input.

An alarm that cannot be checked afterwards is an opinion. Evidence therefore holds the raw content beside its
interpretation: of a small block all its bytes, of a long one only the items of the signals concerned. It holds no
floats (the chain's canonical form has none): analog values are decimal strings.

Source: the rule catalogue, G9 (README, map of rules); the outside contract, sections 3 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from edge_agent.domain.decode import Value
from edge_agent.domain.plan import Grade, RulePlan
from edge_agent.domain.quality import BlockState, age_ms, raw_hex
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_MS, MonoNs
from edge_agent.wire.event import Json

WHOLE_BLOCK_MAX_BYTES = 32
"""A block up to this stands in evidence whole: its neighbours often explain a reading."""

SIGNALS_MAX = 64
"""More signals than this are not listed one by one: an event must stay far below its payload limit."""

GUARDS_LISTED_MAX = 200
"""Lists of guards stop here, with `guards_count` (the outside contract, section 3)."""

_SIGNIFICANT_DIGITS = 10
_DECIMAL_MAX_CHARS = 40


def blocks_of(signals: Sequence[Signal]) -> tuple[BlockState, ...]:
    """The blocks that signals live in or are proven by, each once, in the signals' order."""
    return tuple(dict.fromkeys(block for signal in signals for block in signal.sources()))


def readable(value: Value) -> Json:
    """A signal's value in evidence: numbers as decimal strings."""
    if value is None or isinstance(value, bool | str):
        return value
    number = Decimal(f"{value:.{_SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else Decimal(value)
    text = f"{number:f}"
    return text if len(text) <= _DECIMAL_MAX_CHARS else str(number)


def parameters_of(plan: RulePlan) -> dict[str, Json]:
    """The parameters a rule was judged with."""
    params: dict[str, Json] = {
        "on_delay_ms": plan.on_delay_ms,
        "off_delay_ms": plan.off_delay_ms,
        "hold_gap_ms": plan.hold_gap_ms,
    }
    if plan.unknown_delay_ms is not None:
        params["unknown_delay_ms"] = plan.unknown_delay_ms
    params.update(plan.parameters)
    return params


def gather(
    plan: RulePlan,
    signals: Sequence[Signal],
    now: MonoNs,
    held_ns: tuple[int, int],
    grade_at_best: Grade = Grade.A,
) -> dict[str, Json]:
    """The evidence of one judgement; `held_ns` is the proven and the longest possible time it was held."""
    listed = signals[:SIGNALS_MAX]
    ages: dict[str, Json] = {block.key: age_ms(block, now) for block in blocks_of(listed)}
    values: dict[str, Json] = {signal.plan.path: readable(signal.value) for signal in listed}
    return {
        "signals": values,
        "registers": _registers(listed),
        "ages_ms": ages,
        "params": parameters_of(plan),
        "grade": max([grade_at_best, *(signal.plan.grade for signal in signals)]).value,
        "held_min_ms": held_ns[0] // NS_PER_MS,
        "held_max_ms": held_ns[1] // NS_PER_MS,
    }


def guard_list(guards: Sequence[str]) -> Mapping[str, Json]:
    """A list of guards as events carry it: the first ones, and how many there are."""
    return {"guards": list(guards[:GUARDS_LISTED_MAX]), "guards_count": len(guards)}


def _registers(signals: Sequence[Signal]) -> dict[str, Json]:
    registers: dict[str, Json] = {}
    for signal in signals:
        block, plan = signal.block, signal.plan
        if block.data is None:
            continue
        if block.plan.length_bytes <= WHOLE_BLOCK_MAX_BYTES:
            registers[block.key] = block.data.hex()
        else:
            key = f"{plan.device}/{plan.table.value}/{plan.number}"
            registers[key] = raw_hex(block, plan.number, plan.type.registers)
    return registers
