"""The stream, end to end: what an agent committed is journaled, once, in order, or its loss is stated.

The model is of sets and sequences: what was committed (with the bytes), what lies in the journal's file, and which
disks were lost when. It knows nothing of acks or windows.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import TYPE_CHECKING

from gateway.domain.journal import GapFound
from tests.simulation.findings import Check

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed."""
    if auditor.gateway.parts is None or auditor.agent.agent is None:
        auditor.find(Check.ALL_COMES_TOGETHER, "somebody is down after the healing")
        return
    _audit_loss(auditor)
    _audit_order(auditor)
    _audit_healing(auditor)


def _audit_loss(auditor: Auditor) -> None:
    assert auditor.gateway.parts is not None
    held = {(item.event.epoch, item.event.seq): item.event.hash for item in auditor.journaled()}
    gaps = [
        entry.body
        for entry in auditor.gateway.parts.journal.entries_after(0, 1_000_000)
        if isinstance(entry.body, GapFound) and entry.body.final
    ]
    for said in auditor.said:
        event = said.event
        found = held.get((event.epoch, event.seq))
        if found == event.hash:
            continue
        if found is not None:
            auditor.find(Check.NO_COMMITTED_EVENT_LOST, f"{event.epoch}/{event.seq} is journaled otherwise")
            continue
        was_disk_lost = any(mishap >= said.at_ns for mishap in auditor.store_mishaps)
        is_stated = any(
            gap.epoch == event.epoch and gap.from_seq <= event.seq and event.seq <= (gap.to_seq or event.seq)
            for gap in gaps
        )
        if not (was_disk_lost or is_stated):
            auditor.find(
                Check.NO_COMMITTED_EVENT_LOST, f"{event.epoch}/{event.seq} {event.kind} is not journaled"
            )
    committed = {(said.event.epoch, said.event.seq): said.event.hash for said in auditor.said}
    for (epoch, seq), digest in held.items():
        if committed.get((epoch, seq)) != digest:
            auditor.find(
                Check.NO_COMMITTED_EVENT_LOST, f"{epoch}/{seq} is journaled, and was never committed"
            )


def _audit_order(auditor: Auditor) -> None:
    with sqlite3.connect(auditor.gateway.path) as reader:
        keys = reader.execute(
            "SELECT site, agent, epoch, seq FROM journal WHERE epoch IS NOT NULL ORDER BY position"
        ).fetchall()
        raises = reader.execute(
            "SELECT occurrence FROM journal WHERE event_kind='violation_raised'"
        ).fetchall()
        gaps = reader.execute(
            "SELECT epoch, from_seq, to_seq FROM gaps WHERE final_at_ms IS NOT NULL"
        ).fetchall()
    reader.close()
    for key, times in Counter(keys).items():
        if times > 1:
            auditor.find(Check.JOURNAL_HAS_NO_DUPLICATE, f"{key} is journaled {times} times")
    for (occurrence,), times in Counter(raises).items():
        if times > 1:
            auditor.find(Check.JOURNAL_HAS_NO_DUPLICATE, f"{occurrence} is raised {times} times")
    last: dict[str, int] = {}
    for _, _, epoch, seq in keys:
        expected = last.get(epoch, 0) + 1
        is_stated = any(
            gap_epoch == epoch and from_seq <= expected and seq - 1 <= (to_seq or seq)
            for gap_epoch, from_seq, to_seq in gaps
        )
        if seq != expected and not (seq > expected and is_stated):
            auditor.find(Check.PER_EDGE_ORDER, f"{epoch}: {seq} follows {expected - 1} without a stated gap")
        last[epoch] = seq


def _audit_healing(auditor: Auditor) -> None:
    assert auditor.agent.agent is not None
    assert auditor.gateway.parts is not None
    sender = auditor.agent.agent._courier.sender
    if sender.acked != sender.tail:
        auditor.find(Check.ALL_COMES_TOGETHER, f"acked {sender.acked} of {sender.tail}")
    state = auditor.gateway.parts.plant.state
    if not state.is_trusted(auditor.plan.site, auditor.plan.agent):
        auditor.find(Check.ALL_COMES_TOGETHER, "the gateway does not trust the agent again")
    for guard in state.guards.values():
        if guard.state.value not in {"closed", "closed_locked"}:
            auditor.find(Check.ALL_COMES_TOGETHER, f"{guard.machine}/{guard.guard} is still {guard.state}")
    for violation in state.violations.values():
        if violation.agent == auditor.plan.agent and violation.rule not in _LASTING:
            auditor.find(Check.ALL_COMES_TOGETHER, f"{violation.occurrence} {violation.rule} is still open")


_LASTING = frozenset({"evidence_conflict", "epoch_fork", "identity_conflict", "quarantine"})
"""Findings of the gateway that last longer than a healing, or until somebody looks."""
