"""What a complete state report heals: the difference between what an agent lists as open and what is open here.

Theory of operation. Edges can be lost (an overflow, a pruned or damaged event, a lost store); a report is levels. It
is judged in its place in the stream, so everything that the agent said before it is in the books.

    listed, unknown here ────────────▶ raise                     (§3.7a)
    listed, cleared here ────────────▶ raise as OCC.2, OCC.3, …  (§3.7a; OCC's next clear ends it)
    listed, open here, other state ──▶ change
    open here, not listed ───────────▶ clear                     (§3.7b; one of an older store only where it is known now)
        … and one of the same machine, device, guard and rule is listed: its alarm goes on with that (`continues`)

Raises come before clears, so that an alarm that passes on is never normal in between, and parents before children.

Source: the delivery protocol, section 3.7 (README).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from edge_agent.wire.event import GUARD_CODES, Basis, GuardState, OpenOccurrence, Priority, StateReport


@dataclass(frozen=True, slots=True)
class OpenHere:
    """An occurrence of the agent that is open here; `is_of_older_store`: raised before the agent's present store."""

    occurrence: str
    rule: str
    machine: str | None
    guard: str | None
    device: str | None
    priority: Priority
    basis: Basis
    hidden_by: str | None
    is_of_older_store: bool


@dataclass(frozen=True, slots=True)
class Raise:
    """Open `occurrence` as `listed`; the alarm of `continues`, if any, goes on with it."""

    occurrence: str
    listed: OpenOccurrence
    continues: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """`occurrence` stands as `listed` now."""

    occurrence: str
    listed: OpenOccurrence


@dataclass(frozen=True, slots=True)
class Clear:
    """`occurrence` is over; its alarm, if any, went on with `continued_by`."""

    occurrence: str
    continued_by: str | None


Healing: TypeAlias = Raise | Change | Clear


def reconcile(
    parts: Sequence[StateReport], here: Sequence[OpenHere], find_violation: Callable[[str], bool | None]
) -> list[Healing]:
    """What to journal after the last of `parts`.

    `find_violation` says whether an occurrence is open (True), cleared (False) or unknown (None) here.
    """
    listed = [item for part in parts for item in part.open]
    names = {item.occurrence: _name_here(item.occurrence, find_violation) for item in listed}
    by_name = {
        names[item.occurrence]: replace(item, hidden_by=_renamed(item.hidden_by, names)) for item in listed
    }
    open_here = {item.occurrence: item for item in here}
    over = [item for item in here if item.occurrence not in by_name and _is_provably_over(item, parts)]
    heirs = _heirs(over, by_name)
    continued = {
        heir: old for old, heir in reversed(heirs.items())
    }  # of several, the first open one passes on
    healings: list[Healing] = []
    for name in sorted(by_name, key=lambda key: by_name[key].hidden_by is not None):
        item, known = by_name[name], open_here.get(name)
        if known is None:
            healings.append(Raise(name, item, continued.get(name)))
        elif (known.priority, known.basis, known.hidden_by) != (item.priority, item.basis, item.hidden_by):
            healings.append(Change(name, item))
    return [*healings, *(Clear(item.occurrence, heirs.get(item.occurrence)) for item in over)]


def _name_here(occurrence: str, find_violation: Callable[[str], bool | None]) -> str:
    """The id that a listed occurrence goes by here: its own, or the first of OCC.2, OCC.3, … that is not cleared."""
    name, n = occurrence, 1
    while find_violation(name) is False:
        n += 1
        name = f"{occurrence}.{n}"
    return name


def _renamed(occurrence: str | None, names: Mapping[str, str]) -> str | None:
    return None if occurrence is None else names.get(occurrence, occurrence)


def _heirs(over: Sequence[OpenHere], by_name: Mapping[str, OpenOccurrence]) -> dict[str, str]:
    """For each occurrence that is over: the listed one of the same machine, device, guard and rule, where there is one."""
    places = {(item.machine, item.device, item.guard, item.rule): name for name, item in by_name.items()}
    found = {item.occurrence: places.get((item.machine, item.device, item.guard, item.rule)) for item in over}
    return {old: heir for old, heir in found.items() if heir is not None}


def _is_provably_over(item: OpenHere, parts: Sequence[StateReport]) -> bool:
    """An agent knows its own store's occurrences; of an older store's it knows only what it can see now.

    A guard, or a machine, that the report does not name has left the configuration, and its occurrences with it; a
    device that a complete report leaves unmentioned has answered.
    """
    if not item.is_of_older_store or item.machine is None:
        return True
    if item.guard is not None:
        codes = [part.guards.get(item.machine, {}).get(item.guard) for part in parts]
        known = [code for code in codes if code is not None]
        return all(GUARD_CODES.get(code[:1]) not in (None, GuardState.UNKNOWN) for code in known)
    machines = [part.machines[item.machine] for part in parts if item.machine in part.machines]
    return all(moving is not None for moving, _ in machines)
