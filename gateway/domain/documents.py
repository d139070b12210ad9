"""Violations, alarms and agents as the REST interface shows them.

Source: the outside contract, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_agent.wire.event import Json
from gateway.domain.alarm import Alarm
from gateway.domain.board import View, blind_guards
from gateway.domain.instants import iso_utc
from gateway.domain.listing import GapRow
from gateway.domain.notice import NoticeNow
from gateway.domain.plant import AgentNow
from gateway.domain.violation import Violation

VIOLATION_FIELDS = (
    "occurrence",
    "site",
    "agent",
    "area",
    "machine",
    "guard",
    "device",
    "rule",
    "priority",
    "basis",
    "since",
    "occurred_at",
    "received_at",
    "raised_at",
    "cleared_at",
    "duration_ms",
    "state",
    "hidden_by",
    "evidence",
    "alarm",
    "origin",
)
"""Columns of an export, in the order of the document's members."""


def violation_document(violation: Violation) -> dict[str, Json]:
    """A row of the violation log; `priority` is the present one."""
    return {
        "occurrence": violation.occurrence,
        "site": violation.site,
        "agent": violation.agent,
        "area": violation.area,
        "machine": violation.machine,
        "guard": violation.guard,
        "device": violation.device,
        "rule": violation.rule,
        "priority": violation.priority.value,
        "basis": violation.basis.value,
        "since": violation.since,
        "occurred_at": violation.occurred_at,
        "received_at": iso_utc(violation.received_at_ms),
        "raised_at": violation.raised_at,
        "cleared_at": violation.cleared_at,
        "duration_ms": violation.duration_ms,
        "state": "active" if violation.is_active else "cleared",
        "hidden_by": violation.hidden_by,
        "evidence": dict(violation.evidence),
        "alarm": violation.alarm,
        "origin": violation.origin.value,
    }


def alarm_document(alarm: Alarm) -> dict[str, Json]:
    """One alarm; `letter` is ISA-18.2's, A to I."""
    acknowledged = alarm.acknowledged
    return {
        "id": alarm.id,
        "letter": alarm.letter.value,
        "condition": alarm.state.condition.value,
        "ack": alarm.state.ack.value,
        "shelved_until": None,
        "priority": alarm.priority.value,
        "basis": alarm.basis.value,
        "site": alarm.site,
        "agent": alarm.agent,
        "area": alarm.area,
        "machine": alarm.machine,
        "guard": alarm.guard,
        "device": alarm.device,
        "rule": alarm.rule,
        "occurrence": alarm.occurrence,
        "since": alarm.since,
        "cleared_at": alarm.cleared_at,
        "acked_by": acknowledged.who if acknowledged else None,
        "acked_at": iso_utc(acknowledged.at_ms) if acknowledged else None,
        "note": alarm.note,
    }


def told_documents(notices: Sequence[NoticeNow]) -> list[dict[str, Json]]:
    """Who was to be told of an alarm, and what became of it: names, no contact data."""
    return [
        {
            "event": now.notice.alert.event.value,
            "person": now.notice.alert.to.id,
            "name": now.notice.alert.to.name,
            "channel": now.notice.channel,
            "state": now.state.value,
            "decided_at": iso_utc(now.notice.decided_ms),
            "attempts": now.attempts,
        }
        for now in notices
    ]


@dataclass(frozen=True, slots=True)
class Signs:
    """What an agent's newest heartbeat says, beside its guards; None where none was heard."""

    lag_ms: int
    clock_offset_ms: int | None = None
    overruns: int | None = None
    outbox_pct: int | None = None


def agent_document(
    view: View, key: tuple[str, str], gaps: Sequence[Mapping[str, Json]], signs: Signs
) -> dict[str, Json]:
    """One agent of `GET /api/v1/agents`."""
    known = view.plant.agents.get(key) or AgentNow(*key)
    model = known.model
    return {
        "site": known.site,
        "agent": known.agent,
        "labels": dict(model.labels) if model else {"zh": known.agent, "en": known.agent},
        "online": known.online,
        "offline_since": None if known.online or known.silent_ms is None else iso_utc(known.silent_ms),
        "version": model.version if model else None,
        "epoch": known.epoch,
        "last_seq": known.seq,
        "gaps": [dict(gap) for gap in gaps],
        "lag_ms": signs.lag_ms,
        "config_hash": model.config_hash if model else None,
        "clock_offset_ms": signs.clock_offset_ms,
        "outbox_pct": signs.outbox_pct,
        "blind_guards": blind_guards(view, *key),
        "overruns": signs.overruns,
    }


def gap_document(gap: GapRow) -> dict[str, Json]:
    """One gap of an agent."""
    return {
        "epoch": gap.epoch,
        "from_seq": gap.from_seq,
        "to_seq": gap.to_seq,
        "found_at": iso_utc(gap.found_at_ms),
        "filled_at": None if gap.filled_at_ms is None else iso_utc(gap.filled_at_ms),
        "final_at": None if gap.final_at_ms is None else iso_utc(gap.final_at_ms),
    }
