"""One alarm's life after ISA-18.2: what is true, who has seen it, what holds it; the letter A…I follows from these.

Theory of operation. A flat state of nine letters cannot say which state an alarm goes back to when its shelf ends, so
the parts are kept apart, as OPC UA Part 9 keeps them: the condition (is it true now?), the acknowledgement (has
somebody seen it?), the latch (does it stay listed after it is over?), and the set of reasons for which it is laid
aside. The letter is derived:

    I out of service ◀ H suppressed by design ◀ G shelved ◀ else, by condition and acknowledgement:

                        ACTIVE                     NORMAL                     NORMAL, latched
        UNACKED    B unacknowledged     D returned, unacknowledged     E latched, unacknowledged
        ACKED      C acknowledged       A normal                       F latched, acknowledged

Acknowledging says "seen and owned", never "fixed": on an alarm that is over it only records that it was seen, and
opens nothing again. A latched alarm that is over stays listed until its latch is reset. An alarm in A is history.

Source: ISA-18.2 / IEC 62682 (states), OPC UA Part 9 (their parts); which rules latch: the README's map of rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from edge_agent.wire.event import Basis, Json, Priority
from gateway.domain.journal import GatewayRule


class Condition(StrEnum):
    """Whether what the alarm is about is true now."""

    ACTIVE = "active"
    NORMAL = "normal"


class Ack(StrEnum):
    """Whether somebody has seen it and owns it."""

    UNACKED = "unacked"
    ACKED = "acked"


class Aside(StrEnum):
    """Reasons for which an alarm is laid aside; journaling goes on under each of them."""

    SHELVED = "shelved"
    SUPPRESSED = "suppressed"
    OUT_OF_SERVICE = "out_of_service"


class Letter(StrEnum):
    """ISA-18.2's name of a state."""

    NORMAL = "A"
    UNACKED = "B"
    ACKED = "C"
    RETURNED_UNACKED = "D"
    LATCHED_UNACKED = "E"
    LATCHED_ACKED = "F"
    SHELVED = "G"
    SUPPRESSED = "H"
    OUT_OF_SERVICE = "I"


class Input(StrEnum):
    """What can happen to an alarm. `REALARM`: it got more urgent, so that the old acknowledgement no longer covers it."""

    RAISE = "raise"
    REALARM = "realarm"
    CLEAR = "clear"
    ACKNOWLEDGE = "acknowledge"


_LETTERS: Mapping[tuple[Condition, Ack, bool], Letter] = {
    (Condition.ACTIVE, Ack.UNACKED, False): Letter.UNACKED,
    (Condition.ACTIVE, Ack.UNACKED, True): Letter.UNACKED,
    (Condition.ACTIVE, Ack.ACKED, False): Letter.ACKED,
    (Condition.ACTIVE, Ack.ACKED, True): Letter.ACKED,
    (Condition.NORMAL, Ack.UNACKED, False): Letter.RETURNED_UNACKED,
    (Condition.NORMAL, Ack.UNACKED, True): Letter.LATCHED_UNACKED,
    (Condition.NORMAL, Ack.ACKED, False): Letter.NORMAL,
    (Condition.NORMAL, Ack.ACKED, True): Letter.LATCHED_ACKED,
}

_NEXT: Mapping[tuple[Input, Condition, Ack], tuple[Condition, Ack]] = {
    # raised again while active: one occurrence is one alarm, nothing changes; after its return: a new alarm to see
    (Input.RAISE, Condition.ACTIVE, Ack.UNACKED): (Condition.ACTIVE, Ack.UNACKED),
    (Input.RAISE, Condition.ACTIVE, Ack.ACKED): (Condition.ACTIVE, Ack.ACKED),
    (Input.RAISE, Condition.NORMAL, Ack.UNACKED): (Condition.ACTIVE, Ack.UNACKED),
    (Input.RAISE, Condition.NORMAL, Ack.ACKED): (Condition.ACTIVE, Ack.UNACKED),
    # more urgent: whoever saw it saw something smaller; what is over does not become active by that
    (Input.REALARM, Condition.ACTIVE, Ack.UNACKED): (Condition.ACTIVE, Ack.UNACKED),
    (Input.REALARM, Condition.ACTIVE, Ack.ACKED): (Condition.ACTIVE, Ack.UNACKED),
    (Input.REALARM, Condition.NORMAL, Ack.UNACKED): (Condition.NORMAL, Ack.UNACKED),
    (Input.REALARM, Condition.NORMAL, Ack.ACKED): (Condition.NORMAL, Ack.ACKED),
    # over: never takes an unseen alarm off the list
    (Input.CLEAR, Condition.ACTIVE, Ack.UNACKED): (Condition.NORMAL, Ack.UNACKED),
    (Input.CLEAR, Condition.ACTIVE, Ack.ACKED): (Condition.NORMAL, Ack.ACKED),
    (Input.CLEAR, Condition.NORMAL, Ack.UNACKED): (Condition.NORMAL, Ack.UNACKED),
    (Input.CLEAR, Condition.NORMAL, Ack.ACKED): (Condition.NORMAL, Ack.ACKED),
    # seen: changes nothing about what is true
    (Input.ACKNOWLEDGE, Condition.ACTIVE, Ack.UNACKED): (Condition.ACTIVE, Ack.ACKED),
    (Input.ACKNOWLEDGE, Condition.ACTIVE, Ack.ACKED): (Condition.ACTIVE, Ack.ACKED),
    (Input.ACKNOWLEDGE, Condition.NORMAL, Ack.UNACKED): (Condition.NORMAL, Ack.ACKED),
    (Input.ACKNOWLEDGE, Condition.NORMAL, Ack.ACKED): (Condition.NORMAL, Ack.ACKED),
}


@dataclass(frozen=True, slots=True)
class AlarmState:
    """The parts of one alarm's state; `is_latching` keeps it listed after it is over; `aside` in the enum's order."""

    condition: Condition
    ack: Ack
    is_latching: bool
    aside: tuple[Aside, ...] = ()

    @property
    def letter(self) -> Letter:
        """ISA-18.2's letter: the strongest reason to lay it aside, else condition, acknowledgement and latch."""
        if Aside.OUT_OF_SERVICE in self.aside:
            return Letter.OUT_OF_SERVICE
        if Aside.SUPPRESSED in self.aside:
            return Letter.SUPPRESSED
        if Aside.SHELVED in self.aside:
            return Letter.SHELVED
        return _LETTERS[self.condition, self.ack, self.is_latching]

    def after(self, happened: Input) -> AlarmState:
        """The state that `happened` leads to; `aside` and the latch stay as they are."""
        condition, ack = _NEXT[happened, self.condition, self.ack]
        return replace(self, condition=condition, ack=ack)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who saw the alarm, in which role, by which way (`session`, `token`, `cli`), when (gateway UTC)."""

    who: str
    role: str
    via: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. `id` counts from 1 in the journal's order; `since` (RFC 3339) is the first occurrence's.

    `occurrence` is the violation it stands for now: an alarm passes on when a violation goes on under another id.
    `alarmed_ms` is when it last became something to see (gateway UTC): repeats count from there. `raised_n` counts
    how often that happened, `repeats` how often its timers fired; `repeated_ms` is when each fired last, by name.
    """

    id: int
    state: AlarmState
    occurrence: str
    site: str | None
    agent: str | None
    area: str | None
    machine: str | None
    guard: str | None
    device: str | None
    rule: str
    priority: Priority
    basis: Basis
    since: str
    alarmed_ms: int
    raised_n: int = 1
    repeats: int = 0
    repeated_ms: Mapping[str, int] = field(default_factory=dict)
    cleared_at: str | None = None
    acknowledged: Acknowledgement | None = None
    note: str | None = None

    @property
    def letter(self) -> Letter:
        """ISA-18.2's letter of its state."""
        return self.state.letter

    @property
    def is_calling(self) -> bool:
        """Whether somebody still has to be told: true now, seen by nobody, not laid aside."""
        return self.letter is Letter.UNACKED


_LATCHING = frozenset(
    {
        "guard_open_motion",
        "unlocked_while_moving",
        "start_with_guard_open",
        "restart_without_reset",
        "channel_discrepancy",
        "incomplete_cycle",
        "defeat_suspicion",
        "power_not_removed",
        "bypass_active",
        "setup_motion_violation",
        "safety_config_changed",
        "pull_cord",
        "conveyor_elevator_protection",
        "dryer_burner_interlock",
        "loto_conflict",
        GatewayRule.EVIDENCE_CONFLICT.value,
    }
)
"""Rules whose alarms stay listed after they are over: somebody has to go and look (column "Latch" of the rule table)."""

_LATCHING_FROM: Mapping[str, Priority] = {
    "opened_while_moving": Priority.P2,
    "dust_extraction_interlock": Priority.P1,
}
"""Rules that latch only at this priority or a more urgent one."""


def is_latching(rule: str, priority: Priority, evidence: Mapping[str, Json]) -> bool:
    """Whether an alarm of `rule` latches: as its agent's configuration says (`params.latch`), else as the rule table."""
    params = evidence.get("params")
    if isinstance(params, dict) and isinstance(configured := params.get("latch"), bool):
        return configured
    if rule in _LATCHING_FROM:
        return priority.rank <= _LATCHING_FROM[rule].rank
    return rule in _LATCHING
