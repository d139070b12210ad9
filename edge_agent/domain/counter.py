"""Counters in the PLC: how far one has gone between two readings, however far apart.

A counter survives missed polls, lost links and restarts of this agent. It only goes up, and wraps. A lower reading is
therefore either a wrap or a restart of the device, which begins anew from anywhere: a wrap is believed only when the
steps that it takes could have been made since, and so is a rise. What is not believed counts nothing; the counter has a
new baseline.

Source: the rule catalogue, evaluation semantics (16- and 32-bit wrap, restart re-baselines; README, map of rules).
"""

from __future__ import annotations

from typing import Final

from edge_agent.domain.plan import SignalPlan
from edge_agent.domain.units import NS_PER_S

RISES_PER_S: Final = 50
"""A contact that chatters at mains frequency makes as many openings; a faster rise is another counter's."""

WRAPS_PER_S: Final = 1
"""Nobody opens a guard more often for long: a drop that needs more steps is a restart, not a wrap."""

STEPS_LEAST: Final = 16
"""So many steps are believed however short the time: a burst between two polls."""

RISE_MOST: Final = 100_000
"""So many steps are believed over a time nobody knows (another boot): a door opened every minute for two months."""

_WRAP_SHARE: Final = 4
"""A wrap never takes more than this part of the whole turn: most of the drops that do are restarts."""


def modulus_of(signal: SignalPlan) -> int:
    """How many values a counter has before it starts again from 0."""
    coding = signal.coding
    if coding.counter_max is not None:
        return coding.counter_max + 1
    if coding.mask is not None:
        return (coding.mask // (coding.mask & -coding.mask)) + 1
    return 1 << 16 * signal.type.registers


def steps(before: int, now: int, modulus: int, elapsed_ns: int | None) -> int | None:
    """Steps from `before` to `now`, `elapsed_ns` later (None: nobody knows); None when the counter began anew."""
    taken = (now - before) % modulus
    per_s, share = (RISES_PER_S, 1) if now >= before else (WRAPS_PER_S, _WRAP_SHARE)
    if elapsed_ns is None:
        believed = min(RISE_MOST, modulus // 2) if now >= before else STEPS_LEAST
    else:
        believed = STEPS_LEAST + per_s * elapsed_ns // NS_PER_S
    return taken if taken <= min(believed, modulus // share) else None
