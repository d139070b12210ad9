"""What a guard was over time, as the journal tells it afterwards: unknown time included.

The board shows what may be believed now; a timeline shows what turned out. An agent that was out of reach but went on
seeing delivers what it saw later, so its silence leaves no hole; these do:

    agent_started ─────────▶ unknown since its last sign of life: nobody was looking
    a final gap ───────────▶ unknown from the last event before it, until the guard is spoken of again
    silent to this day ────▶ unknown since it fell silent: a state is never drawn past its last confirmation

Times are gateway UTC in milliseconds, of occurrence; an event that had none when it came gets the one that was found since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_agent.wire.event import AgentStarted, GuardChanged, GuardState, StateReport
from gateway.domain.instants import iso_utc, parse_utc_ms
from gateway.domain.journal import EdgeEvent, Entry, GapFound, PresenceChanged
from gateway.domain.listing import Interval
from gateway.domain.occurred import Anchor, occurred_at, undated_of
from gateway.domain.plant import read_code


@dataclass(frozen=True, slots=True)
class _Mark:
    at_ms: int
    state: GuardState


def trace_guard(
    entries: Iterable[Entry],
    machine: str,
    guard: str,
    window: tuple[int, int],
    anchors: Mapping[str, Anchor],
) -> list[Interval]:
    """The intervals of `window` (from, to) without holes.

    `entries` are those of the guard's agent, in order; `anchors` are of its boots.
    """
    marks: list[_Mark] = []
    heard_ms: int | None = None
    silent_ms: int | None = None
    is_silent = False
    for entry in entries:
        match entry.body:
            case EdgeEvent(event) as edge:
                at_ms = _moment(edge, entry, anchors)
                if isinstance(event.body, AgentStarted):
                    # the later of its last event and the moment it was missed, where there is any
                    signs = [moment for moment in (silent_ms, heard_ms) if moment is not None]
                    marks.append(_Mark(min(at_ms, max(signs, default=at_ms)), GuardState.UNKNOWN))
                state = _stated(edge, machine, guard)
                if state is not None:
                    marks.append(_Mark(at_ms, state))
                heard_ms = at_ms
            case PresenceChanged(online=online):
                is_silent = not online
                silent_ms = entry.recorded_at_ms if is_silent else silent_ms
            case GapFound(final=True) if heard_ms is not None:
                marks.append(_Mark(heard_ms, GuardState.UNKNOWN))
            case _:
                pass
    if is_silent and silent_ms is not None:
        marks.append(_Mark(silent_ms, GuardState.UNKNOWN))
    return _intervals(marks, *window)


def _moment(edge: EdgeEvent, entry: Entry, anchors: Mapping[str, Anchor]) -> int:
    at = edge.occurred_at
    received_at = iso_utc(entry.recorded_at_ms)
    if undated_of(edge.event, at, received_at) is not None:
        at = occurred_at(edge.event, anchors.get(edge.event.boot), received_at)
    try:
        return parse_utc_ms(at)
    except (ValueError, OverflowError):
        return entry.recorded_at_ms


def _stated(edge: EdgeEvent, machine: str, guard: str) -> GuardState | None:
    match edge.event.body:
        case GuardChanged() as change if (change.machine, change.guard) == (machine, guard):
            return change.state
        case StateReport(guards=guards):
            code = guards.get(machine, {}).get(guard)
            return None if code is None else read_code(code).state
        case _:
            return None


def _intervals(marks: list[_Mark], from_ms: int, to_ms: int) -> list[Interval]:
    intervals: list[Interval] = []
    began_ms, state = from_ms, GuardState.UNKNOWN
    for mark in sorted(marks, key=lambda mark: mark.at_ms):
        if mark.at_ms >= to_ms:
            break
        if mark.state is not state and mark.at_ms > began_ms:
            intervals.append(Interval(began_ms, mark.at_ms, state))
            began_ms = mark.at_ms
        state = mark.state
    intervals.append(Interval(began_ms, to_ms, state))
    return _merged(intervals)


def _merged(intervals: list[Interval]) -> list[Interval]:
    """Neighbours in the same state are one interval."""
    merged: list[Interval] = []
    for interval in intervals:
        if merged and merged[-1].state is interval.state:
            merged[-1] = Interval(merged[-1].from_ms, interval.to_ms, interval.state)
        else:
            merged.append(interval)
    return merged
