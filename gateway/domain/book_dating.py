"""Times for violations that were told before their time was known.

An event of a boot whose clock was never synchronised has the time of receipt; as soon as a synchronised event of that
boot comes, however late, what was told before it gets its time: the open ones at once, the others piece by piece, a
piece with each journal time, so that no transaction grows beyond measure.

Source: the outside contract, section 5 (`occurred_at`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edge_agent.wire.event import ClockState, ViolationCleared, ViolationRaised
from gateway.domain.book_rows import Page
from gateway.domain.book_state import BookState, Dating
from gateway.domain.instants import iso_utc
from gateway.domain.journal import EdgeEvent
from gateway.domain.occurred import anchor_of, rebuild, undated_of
from gateway.domain.violation import Violation

DATED_AT_ONCE: Final = 5_000
"""Journal positions whose violations are put right in one transaction: at most some 0.3 s of work, whatever an agent that
ran for months without a clock has told."""


def date_open(state: BookState, body: EdgeEvent, page: Page) -> Sequence[Violation]:
    """Remember that a violation has no time yet; the open ones with theirs, as soon as an event of their boot tells it."""
    event = body.event
    if event.clock is ClockState.SYNCED and state.undated.is_empty:
        return ()  # as nearly always
    anchor = anchor_of(event)
    if anchor is None:
        undated = undated_of(event, body.occurred_at, iso_utc(page.now_ms))
        if undated is not None and isinstance(event.body, ViolationRaised | ViolationCleared):
            state.note_undated(event, undated, page.entry.position)
        return ()
    found = state.take_undated(event)
    if found is None:
        return ()
    dating = Dating(event.site, event.agent, event.boot, anchor, found.position, page.entry.position)
    state.datings.put(dating.until, dating)
    dated = []
    for violation in state.undated_violations(event):
        at = rebuild(anchor, violation.undated.mono_ms) if violation.undated else None
        if at is not None:
            dated.append(replace(violation, occurred_at=at, raised_at=at, undated=None))
    return dated


def date_more(state: BookState, page: Page) -> None:
    """Put right the next piece of what was told before its time was known."""
    dating = state.next_dating(page.now_ms)
    if dating is None:
        return
    before = min(dating.position + DATED_AT_ONCE, dating.until)
    if page.rows is not None:
        page.rows.date_violations(dating, before)
    if before == dating.until:
        state.datings.drop(dating.until)
    else:
        state.datings.put(dating.until, replace(dating, position=before, at_ms=page.now_ms))
