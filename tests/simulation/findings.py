"""What an auditor says, and the names of what it checks: one per promise of the product."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """The promises; a seeded bug must turn each of them red."""

    NO_COMMITTED_EVENT_LOST = "no_committed_event_lost"
    JOURNAL_HAS_NO_DUPLICATE = "journal_has_no_duplicate"
    PER_EDGE_ORDER = "per_edge_order"
    GAP_MEANS_LOSS = "gap_means_loss"
    EVERY_REAL_VIOLATION_RAISED_ONCE = "every_real_violation_raised_once"
    NO_FALSE_VIOLATION = "no_false_violation"
    NEVER_CLOSED_ON_STALE_DATA = "never_closed_on_stale_data"
    UNKNOWN_WITHIN_BOUND = "unknown_within_bound"
    ACK_ONLY_AFTER_COMMIT = "ack_only_after_commit"
    REPLAY_EQUALS_LIVE = "replay_equals_live"
    BOARD_EQUALS_BOOK = "board_equals_book"
    ROUTED_ALARM_NOTIFIED = "routed_alarm_notified"
    ROUTED_ALARM_NOTIFIED_IN_TIME = "routed_alarm_notified_in_time"
    SUPPRESSED_NEVER_NOTIFIED = "suppressed_never_notified"
    ACTS_STAND = "acts_stand"
    HISTORIAN_HAS_IT_ALL = "historian_has_it_all"
    QUEUES_WITHIN_LIMITS = "queues_within_limits"
    WALL_JUMP_CHANGES_NO_DURATION = "wall_jump_changes_no_duration"
    NOBODY_DIES_BY_HIMSELF = "nobody_dies_by_himself"
    NO_OCCURRENCE_LEFT_OPEN = "no_occurrence_left_open"
    ALL_COMES_TOGETHER = "all_comes_together"


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise: which, when (virtual seconds), and what was seen."""

    check: Check
    at_s: float
    text: str

    def __str__(self) -> str:
        return f"{self.check} at {self.at_s:.3f} s: {self.text}"
