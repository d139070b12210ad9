"""Three-valued logic: true, false, unknown (None), after Kleene.

Everything the agent judges may be unknown, and "unknown" must never look like "fine". AND is false as soon as one
operand is false, else unknown as soon as one is unknown; OR is the mirror image; NOT unknown is unknown.

Source: the rule catalogue's evaluation semantics (README, map of rules); Kleene's strong three-valued logic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Tri: TypeAlias = "bool | None"
"""True, False, or None for unknown."""


def all_of(operands: Iterable[Tri]) -> Tri:
    """Kleene AND; true for no operands."""
    result: Tri = True
    for operand in operands:
        if operand is False:
            return False
        if operand is None:
            result = None
    return result


def any_of(operands: Iterable[Tri]) -> Tri:
    """Kleene OR; false for no operands."""
    result: Tri = False
    for operand in operands:
        if operand is True:
            return True
        if operand is None:
            result = None
    return result


def negated(operand: Tri) -> Tri:
    """Kleene NOT."""
    return None if operand is None else not operand
