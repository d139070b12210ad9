"""The journal as line protocol: what InfluxDB gets of each entry, and at which nanosecond.

Theory of operation. `Projection` is a fold over the journal; `lines_of` gives an entry's points. It keeps the places
that birth certificates named (the area is a tag) and, per agent, the newest time of each series that could still
collide. The same journal always gives the same lines, so writing again overwrites each point with itself.

A point's time is the event's `at` in microseconds, with twice `seq` modulo 500 as its nanoseconds. `at` never goes
back within an agent's stream but may stand still (a clock that was set back): where that would put two points of one
series on one nanosecond, the later one takes the next free even one. What the gateway found or reconciled has its
journal time, made unique by its position, on odd nanoseconds, so that it never meets an agent's event.

Text of agents never breaks a line: tags are escaped, control characters and backslashes replaced (ids hold neither),
strings quoted, integers written as integers from the first day (a field's type can never change).

Source: the outside contract, section 7; InfluxDB v2 line protocol reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, cast

from edge_agent.wire.event import (
    GuardChanged,
    GuardState,
    Json,
    MachineChanged,
    ViolationCleared,
    ViolationRaised,
)
from edge_agent.wire.status import Health
from edge_agent.wire.structure import plain, structure
from gateway.domain.journal import (
    AgentModelled,
    EdgeEvent,
    Entry,
    FindingCleared,
    FindingRaised,
    MachineModelled,
    MachineRemoved,
    ReconciledClear,
    ReconciledRaise,
)
from gateway.domain.places import Places
from gateway.domain.violation import Violation

NONE: Final = "-"
"""A tag for what is not there: an empty tag is no tag."""

GUARD_CODES: Final[Mapping[GuardState, int]] = {
    GuardState.UNKNOWN: 0,
    GuardState.CLOSED: 1,
    GuardState.CLOSED_LOCKED: 2,
    GuardState.OPEN: 3,
    GuardState.BYPASSED: 4,
    GuardState.FAULT: 5,
    GuardState.OUT_OF_SERVICE: 6,
}
"""`code` of a guard's state (the outside contract, section 7)."""

Fields: TypeAlias = Mapping[str, int | str | None]
"""Fields of a point; None leaves one out."""

FindViolation: TypeAlias = Callable[[str], Violation | None]
"""The row of an occurrence: entries that end one name nothing but its id."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest `at` of an agent (µs since 1970), and of each series the newest nanosecond that is not before it."""

    at_us: int
    series: Mapping[str, int]


class Projection:
    """Entries to lines, in the journal's order."""

    def __init__(self) -> None:
        self.placed_at = 0
        """Position of the newest entry that changed a place: places are large and seldom change."""
        self._places = Places()
        self._newest: dict[str, _Newest] = {}

    def lines_of(self, entry: Entry, find: FindViolation) -> list[str]:
        """The points of one entry: none or one."""
        if isinstance(entry.body, AgentModelled | MachineModelled | MachineRemoved):
            self._places.stage(entry.body)
            self._places.adopt()
            self.placed_at = entry.position
        match entry.body:
            case EdgeEvent() as body:
                line = self._event_line(body)
            case ReconciledRaise() | FindingRaised() as raised:
                line = self._own_line(entry, find(raised.occurrence), is_active=True)
            case ReconciledClear() | FindingCleared() as cleared:
                line = self._own_line(entry, find(cleared.occurrence), is_active=False)
            case _:
                line = None
        return [] if line is None else [line]

    def snapshot(self) -> Json:
        """What it needs to go on but for the places, as JSON; small."""
        return plain(self._newest)

    def places(self) -> Json:
        """The places as of `placed_at`, as JSON."""
        return self._places.snapshot()

    def restore(self, snapshot: Json, places: Json, placed_at: int) -> None:
        """Go on from what `snapshot` and `places` gave. Raises `MisfitError` for what they never gave."""
        kept = cast("Mapping[str, _Newest]", structure(Mapping[str, _Newest], snapshot, "projection"))
        self._newest = dict(kept)
        self._places.restore(places)
        self.placed_at = placed_at

    def _event_line(self, body: EdgeEvent) -> str | None:
        event = body.event
        fields: dict[str, int | str | None] = {
            "event_id": f"{event.site}/{event.agent}/{event.epoch}/{event.seq}"
        }
        match event.body:
            case ViolationRaised() as raised:
                series = self._violation_series(event.site, raised, raised.priority)
                fields |= {"occurrence": raised.occurrence, "active": 1}
            case ViolationCleared() as cleared:
                series = self._violation_series(event.site, cleared, cleared.priority)
                fields |= {"occurrence": cleared.occurrence, "active": 0, "duration_ms": cleared.duration_ms}
            case GuardChanged() as guard:
                series = self._series("guard_state", event.site, guard.machine, guard=guard.guard)
                fields |= {"state": guard.state, "code": GUARD_CODES[guard.state], "quality": guard.quality}
            case MachineChanged() as machine:
                series = self._series("machine_state", event.site, machine.machine)
                moving = None if machine.moving is None else int(machine.moving)
                fields |= {"moving": moving, "mode": machine.mode}
            case _:
                return None
        ns = self._unique_ns(f"{event.site}/{event.agent}", series, utc_us(event.at), event.seq)
        return format_line(series, fields, ns)

    def _own_line(self, entry: Entry, row: Violation | None, *, is_active: bool) -> str | None:
        """What the gateway found or reconciled itself; without a row the entry changed nothing."""
        if row is None:
            return None
        series = self._violation_series(row.site, row, row.raised_priority)
        fields: Fields = {
            "event_id": f"gateway/{entry.position}",
            "occurrence": row.occurrence,
            "active": int(is_active),
            "duration_ms": None if is_active else row.duration_ms,
        }
        return format_line(
            series, fields, entry.recorded_at_ms * 1_000_000 + 2 * (entry.position % 500_000) + 1
        )

    def _violation_series(
        self, site: str | None, of: ViolationRaised | ViolationCleared | Violation, priority: str
    ) -> str:
        return self._series("violation", site, of.machine, guard=of.guard, rule=of.rule, priority=priority)

    def _series(self, measurement: str, site: str | None, machine: str | None, **more: str | None) -> str:
        place = self._places.machine(site, machine)
        area = place.area if place else None
        return format_series(measurement, {"site": site, "area": area, "machine": machine, **more})

    def _unique_ns(self, agent: str, series: str, at_us: int, seq: int) -> int:
        before = self._newest.get(agent, _Newest(at_us, {}))
        at_us = max(at_us, before.at_us)
        near = {name: ns for name, ns in before.series.items() if ns >= at_us * 1000}
        ns = max(at_us * 1000 + 2 * (seq % 500), near.get(series, 0) + 2)
        self._newest[agent] = _Newest(at_us, {**near, series: ns})
        return ns


def health_line(site: str, agent: str, health: Health, received_ms: int) -> str:
    """One sample of an agent's health, at its own time where it has one."""
    up = sum(device.up for device in health.devices.values())
    fields: Fields = {
        "online": int(health.online),
        "seq": health.seq,
        "outbox_pct": health.outbox_pct,
        "polls": health.polls,
        "overruns": health.overruns,
        "requests": sum(health.requests.values()),
        "devices_up": up,
        "devices_down": len(health.devices) - up,
        "clock": health.clock,
        "clock_offset_ms": health.clock_offset_ms,
        "rss_mb": health.rss_mb,
    }
    try:
        ns = utc_us(health.at or "") * 1000
    except ValueError:
        ns = received_ms * 1_000_000
    return format_line(format_series("agent_health", {"site": site, "agent": agent}), fields, ns)


def format_series(measurement: str, tags: Mapping[str, str | None]) -> str:
    """Measurement and tags, in the order given."""
    return ",".join([measurement, *(f"{name}={_tag(value)}" for name, value in tags.items())])


def format_line(series: str, fields: Fields, ns: int) -> str:
    """One line; at least one field must be there."""
    shown = ",".join(f"{name}={_field(value)}" for name, value in fields.items() if value is not None)
    return f"{series} {shown} {ns}"


def _tag(value: str | None) -> str:
    text = "".join(char if char.isprintable() and char != "\\" else "_" for char in value or NONE)
    for special in (",", "=", " "):
        text = text.replace(special, f"\\{special}")
    return text


def _field(value: int | str) -> str:
    if isinstance(value, int):
        return f"{value}i"
    text = "".join(char if char.isprintable() else " " for char in value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def utc_us(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time. Raises `ValueError` for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)
