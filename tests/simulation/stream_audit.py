"""The stream, end to end: what an agent committed is journaled, once, in order, or its loss is stated.

The model is of sets and sequences: what was committed (with the bytes), what lies in the journal's file, and which
disks were lost when. It knows nothing of acks or windows.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.simulation.findings import Check
from tests.simulation.gap_audit import final_gaps, is_stated

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed."""
    _audit_loss(auditor)
    _audit_order(auditor)


def _audit_loss(auditor: Auditor) -> None:
    held = {(item.event.epoch, item.event.seq): item.event.hash for item in auditor.journaled()}
    for ward in auditor.wards:
        for said in ward.said:
            key = (said.event.epoch, said.event.seq)
            found = held.get(key)
            if found == said.event.hash:
                continue
            what = f"{ward.name} {said.event.epoch}/{said.event.seq} {said.event.kind}"
            if found is not None:
                auditor.find(Check.NO_COMMITTED_EVENT_LOST, f"{what} is journaled otherwise")
            elif key not in ward.unreadable and not ward.went_with_a_disk(said):
                auditor.find(Check.NO_COMMITTED_EVENT_LOST, f"{what} is not journaled, and could be")
    committed = {(said.event.epoch, said.event.seq): said.event.hash for said in auditor.said}
    for (epoch, seq), digest in held.items():
        if committed.get((epoch, seq)) != digest:
            auditor.find(
                Check.NO_COMMITTED_EVENT_LOST, f"{epoch}/{seq} is journaled, and was never committed"
            )


def _audit_order(auditor: Auditor) -> None:
    keys = auditor.rows(
        "SELECT site, agent, epoch, seq FROM journal WHERE epoch IS NOT NULL ORDER BY position"
    )
    raises = auditor.rows("SELECT occurrence FROM journal WHERE event_kind='violation_raised'")
    for key, times in Counter(keys).items():
        if times > 1:
            auditor.find(Check.JOURNAL_HAS_NO_DUPLICATE, f"{key} is journaled {times} times")
    for (occurrence,), times in Counter(raises).items():
        if times > 1:
            auditor.find(Check.JOURNAL_HAS_NO_DUPLICATE, f"{occurrence} is raised {times} times")
    gaps = final_gaps(auditor)
    last: dict[str, int] = {}
    for _, _, epoch, seq in keys:
        assert isinstance(epoch, str)
        assert isinstance(seq, int)
        expected = last.get(epoch, 0) + 1
        is_skipped = all(is_stated(gaps, epoch, missing) for missing in range(expected, seq))
        if seq < expected or not is_skipped:
            auditor.find(Check.PER_EDGE_ORDER, f"{epoch}: {seq} follows {expected - 1} without a stated gap")
        last[epoch] = seq
