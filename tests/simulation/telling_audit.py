"""People: everybody who is to hear of an alarm does, in time, and nobody hears of what a parent hides.

Who is to hear of what comes from the journal, by a fold of our own, and from the simulated gateway's routes: one
person hears of P1 and P2, another of P1 only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge_agent.wire.event import Priority, ViolationChanged, ViolationRaised
from gateway.domain.journal import EdgeEvent, FindingRaised, ReconciledChange, ReconciledRaise
from tests.simulation.findings import Check
from tests.simulation.virtual_loop import NS_PER_S

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor

TOLD: Final = {Priority.P1: ("li-qiang", "wang-fang"), Priority.P2: ("li-qiang",)}

IN_TIME_NS: Final = 10 * NS_PER_S
"""From the commit of an alarm to a receiver that answers: 2 s for news that came late, and a burst before it."""


@dataclass(frozen=True, slots=True)
class Called:
    """An occurrence that first called for people in the entry at `position`, with that priority."""

    priority: Priority
    position: int


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed."""
    calls, hidden = fold_calls(auditor)
    states = {str(key): str(state) for key, state in auditor.rows("SELECT key, state FROM notices")}
    received = auditor.gateway.received
    for key, state in states.items():
        if state == "delivered" and key not in received.alerts:
            auditor.find(Check.ROUTED_ALARM_NOTIFIED, f"{key} is said to be delivered")
    for occurrence, called in calls.items():
        for person in TOLD.get(called.priority, ()):
            _audit_told(auditor, f"{occurrence}/raised/1/{person}/hook", called, states)
    if auditor.journal_mishaps:
        return  # what an older journal knew, and told, is not known any more
    for alert in received.alerts.values():
        if alert.occurrence in hidden:
            auditor.find(
                Check.SUPPRESSED_NEVER_NOTIFIED, f"{alert.delivery}: its parent was there all the time"
            )


def fold_calls(auditor: Auditor) -> tuple[dict[str, Called], set[str]]:
    """What calls for people, since when; and what was hidden from its beginning to its end."""
    calls: dict[str, Called] = {}
    hidden: set[str] = set()

    def take(
        occurrence: str, hidden_by: str | None, priority: Priority, position: int, *, is_raise: bool
    ) -> None:
        if hidden_by is not None:
            if is_raise and occurrence not in calls:
                hidden.add(occurrence)
        elif is_raise or occurrence in hidden:
            hidden.discard(occurrence)
            calls.setdefault(occurrence, Called(priority, position))

    for entry in auditor.entries:
        at = entry.position
        match entry.body:
            case EdgeEvent(event=event):
                match event.body:
                    case ViolationRaised() as body:
                        take(body.occurrence, body.hidden_by, body.priority, at, is_raise=True)
                    case ViolationChanged() as body:
                        take(body.occurrence, body.hidden_by, body.priority, at, is_raise=False)
                    case _:
                        pass
            case ReconciledRaise(occurrence=occurrence, listed=listed, continues=None):
                take(occurrence, listed.hidden_by, listed.priority, at, is_raise=True)
            case ReconciledChange(occurrence=occurrence, listed=listed):
                take(occurrence, listed.hidden_by, listed.priority, at, is_raise=False)
            case FindingRaised(occurrence=occurrence, priority=priority):
                take(occurrence, None, priority, at, is_raise=True)
            case _:
                pass
    return calls, hidden


def _audit_told(auditor: Auditor, key: str, called: Called, states: dict[str, str]) -> None:
    received = auditor.gateway.received
    at_ns = received.at_ns.get(key)
    if at_ns is None:
        if key not in received.rejected and states.get(key) not in {"summarised", "withdrawn"}:
            state = states.get(key, "was never decided")
            auditor.find(Check.ROUTED_ALARM_NOTIFIED, f"{key} never left ({state})")
        return
    since_ns = auditor.committed_ns[called.position]
    late_ns = at_ns - since_ns - auditor.tolerance_ns
    if auditor.is_receiver_good and late_ns > IN_TIME_NS and auditor.gateway_worked(since_ns, at_ns):
        auditor.find(Check.ROUTED_ALARM_NOTIFIED_IN_TIME, f"{key} left {late_ns / NS_PER_S:.1f} s late")
