"""One violation: a row of the violation log, and what the alarm book keeps of it while it is open.

Source of the fields: the outside contract, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.wire.event import Basis, Json, Priority, ViolationRaised
from gateway.domain.instants import iso_utc, parse_utc_ms
from gateway.domain.journal import EdgeEvent, Entry, FindingRaised, ReconciledRaise
from gateway.domain.occurred import Undated, undated_of


class Origin(StrEnum):
    """Who found it: an agent's rule, or the gateway itself."""

    AGENT = "agent"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Violation:
    """One occurrence. Times are RFC 3339 but for `received_at_ms` (gateway UTC).

    `occurrence` is the id it goes by here. `priority` is the present one, `raised_priority` the one it was raised
    with. `area` is the machine's at the raise, as far as it was known. `alarm` is None while it is hidden.
    `raised_position` is the journal position of its raise. `undated` is kept while it is open: `occurred_at` is the time
    of receipt so far.
    """

    occurrence: str
    site: str | None
    agent: str | None
    area: str | None
    machine: str | None
    guard: str | None
    device: str | None
    rule: str
    priority: Priority
    raised_priority: Priority
    basis: Basis
    since: str
    occurred_at: str
    received_at_ms: int
    raised_at: str
    hidden_by: str | None
    evidence: Mapping[str, Json]
    origin: Origin
    raised_position: int
    alarm: int | None = None
    cleared_at: str | None = None
    duration_ms: int | None = None
    undated: Undated | None = None

    @property
    def is_active(self) -> bool:
        """Whether it is not over."""
        return self.cleared_at is None


def from_event(found: EdgeEvent, raised: ViolationRaised, area: str | None, entry: Entry) -> Violation:
    """The row that an agent's raise becomes."""
    event = found.event
    return Violation(
        occurrence=raised.occurrence,
        site=event.site,
        agent=event.agent,
        area=area,
        machine=raised.machine,
        guard=raised.guard,
        device=raised.device,
        rule=raised.rule,
        priority=raised.priority,
        raised_priority=raised.priority,
        basis=raised.basis,
        since=raised.since,
        occurred_at=found.occurred_at,
        received_at_ms=entry.recorded_at_ms,
        raised_at=found.occurred_at,
        hidden_by=raised.hidden_by,
        evidence=raised.evidence,
        origin=Origin.AGENT,
        raised_position=entry.position,
        undated=undated_of(event, found.occurred_at, iso_utc(entry.recorded_at_ms)),
    )


def from_report(found: ReconciledRaise, area: str | None, entry: Entry) -> Violation:
    """The row of an occurrence that only a state report told of: raised, as far as is known here, when it came."""
    listed, now = found.listed, iso_utc(entry.recorded_at_ms)
    return Violation(
        occurrence=found.occurrence,
        site=found.site,
        agent=found.agent,
        area=area,
        machine=listed.machine,
        guard=listed.guard,
        device=listed.device,
        rule=listed.rule,
        priority=listed.priority,
        raised_priority=listed.priority,
        basis=listed.basis,
        since=listed.since,
        occurred_at=now,
        received_at_ms=entry.recorded_at_ms,
        raised_at=now,
        hidden_by=listed.hidden_by,
        evidence={},
        origin=Origin.AGENT,
        raised_position=entry.position,
    )


def from_finding(found: FindingRaised, entry: Entry) -> Violation:
    """The row of something that the gateway found itself."""
    now = iso_utc(entry.recorded_at_ms)
    return Violation(
        occurrence=found.occurrence,
        site=found.site,
        agent=found.agent,
        area=None,
        machine=None,
        guard=None,
        device=None,
        rule=found.rule.value,
        priority=found.priority,
        raised_priority=found.priority,
        basis=Basis.PROVEN,
        since=found.since,
        occurred_at=now,
        received_at_ms=entry.recorded_at_ms,
        raised_at=now,
        hidden_by=None,
        evidence=found.detail,
        origin=Origin.GATEWAY,
        raised_position=entry.position,
    )


def lasted_ms(since: str, until: str) -> int | None:
    """Milliseconds between two RFC 3339 times, never negative; None when one is none."""
    try:
        return max(0, parse_utc_ms(until) - parse_utc_ms(since))
    except ValueError:
        return None
