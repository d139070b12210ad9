"""Violations and alarms as the REST interface shows them.

Source: the outside contract, section 5.
"""

from __future__ import annotations

from edge_agent.wire.event import Json
from gateway.domain.alarm import Alarm
from gateway.domain.instants import iso_utc
from gateway.domain.violation import Violation


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
