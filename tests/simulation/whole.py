"""Whether all has come together: what must be so some time after the weather has turned, whatever happened before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from tests.simulation.findings import Check
from tests.simulation.ward import Ward

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor
    from tests.simulation.gateway_node import Parts

_LASTING: Final = frozenset(
    {
        "evidence_conflict",
        "epoch_fork",
        "identity_conflict",
        "quarantine",
        "store_damaged",
        "journal_damaged",
        "historian_refused",
    }
)
"""Findings of the gateway that last longer than a healing, or until somebody looks."""


def what_is_not(auditor: Auditor) -> Iterator[tuple[Check, str]]:
    """Everything that is not whole, with the promise that it breaks if it lasts."""
    parts = auditor.gateway.parts
    if parts is None or not auditor.gateway.is_running:
        yield Check.ALL_COMES_TOGETHER, "the gateway is down"
        return
    for ward in auditor.wards:
        if not ward.is_clone:
            yield from _of_agent(parts, ward)
    for guard in parts.plant.state.guards.values():
        if guard.state.value not in {"closed", "closed_locked"}:
            yield Check.ALL_COMES_TOGETHER, f"{guard.machine}/{guard.guard} is still {guard.state}"
    for violation in parts.plant.state.violations.values():
        if violation.rule not in _LASTING:
            text = f"{violation.occurrence} {violation.rule} of {violation.agent} is still open"
            yield Check.NO_OCCURRENCE_LEFT_OPEN, text
    if parts.historian.position < parts.journal.position:
        text = f"the historian has {parts.historian.position} of {parts.journal.position}"
        yield Check.HISTORIAN_HAS_IT_ALL, text
    for (key,) in auditor.rows("SELECT key FROM notices WHERE state='pending'"):
        yield Check.ROUTED_ALARM_NOTIFIED, f"{key} still waits"


def _of_agent(parts: Parts, ward: Ward) -> Iterator[tuple[Check, str]]:
    agent = ward.node.agent
    if agent is None or not ward.node.is_running or not hasattr(agent, "_courier"):
        yield Check.ALL_COMES_TOGETHER, f"{ward.name} is down"
        return
    sender = agent._courier.sender
    if sender.acked != sender.tail:
        yield Check.ALL_COMES_TOGETHER, f"{ward.name}: acked {sender.acked} of {sender.tail}"
    if not parts.plant.state.is_trusted(ward.plan.site, ward.plan.agent):
        yield Check.ALL_COMES_TOGETHER, f"the gateway does not trust {ward.name} again"
