"""What every rule shares: one place, at most one open occurrence, and the events of its life.

    (nothing) ──raise──▶ open ──change──▶ open ──clear──▶ (nothing)
                          │ priority up, proven, unhidden, "guards", "unreset"
                          └─ remembered with every event, so that a restart goes on with it

A raise on unknown is hidden by the lost-monitoring occurrence (R29) of the device that blinds one of its inputs, if
one is open. It is unhidden when it is proven or its parent is over. A restart neither clears nor raises: an
occurrence taken up from memory waits for the first good samples like any other.

Source: the rule catalogue, G1–G8 (README, map of rules); the outside contract, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.domain.evidence import gather
from edge_agent.domain.findings import Findings
from edge_agent.domain.held import Held
from edge_agent.domain.node import Node
from edge_agent.domain.occurrence import Occurrence, Place
from edge_agent.domain.plan import Grade, RulePlan
from edge_agent.domain.quality import trusted_until
from edge_agent.domain.units import MonoNs
from edge_agent.wire.event import Basis, Json, Priority, ViolationChanged, ViolationRaised

PROVEN = "proven"
PARENT_CLEARED = "parent_cleared"
MOVING = "moving"
UNRESET = "unreset"
MORE_GUARDS = "guards"
PANEL_POWER = "panel_power"
RETURNED_TO_NORMAL = "returned_to_normal"
CLEAN_CYCLE = "clean_cycle"
REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Found:
    """A judgement that raises or changes: since when, how much of that is known, how long it was held."""

    since: MonoNs
    known_ns: int
    priority: Priority
    basis: Basis
    held_min_ns: int = 0
    further: Mapping[str, Json] = field(default_factory=dict)


def proven_by(
    held: Held, priority: Priority, now: MonoNs, further: Mapping[str, Json] | None = None
) -> Found:
    """What a fired HELD has proven."""
    assert held.first is not None
    return Found(held.first, held.known_ns(now), priority, Basis.PROVEN, held.sum_ns, further or {})


def at_most(priority: Priority, limit: Priority) -> Priority:
    """The less urgent of two: a lower stage is never more urgent than the rule is configured to be."""
    return max(priority, limit, key=lambda item: item.rank)


class Rule(Node):
    """One rule on one guard, machine or device. Subclasses judge; this class keeps the occurrence.

    What a rule counts and times (`_timing` in the subclasses) exists only while it is not plainly quiet.
    """

    __slots__ = ("_findings", "occurrence", "place", "plan")

    def __init__(self, plan: RulePlan, place: Place, findings: Findings) -> None:
        super().__init__()
        self.plan = plan
        self.place = place
        self.occurrence: Occurrence | None = None
        self._findings = findings

    @property
    def key(self) -> str:
        """Where the memory keeps its open occurrence."""
        return self.place.memory_key(self.plan.name.value)

    @property
    def grade_at_best(self) -> Grade:
        """The evidence grade that better inputs cannot better."""
        return Grade.A

    @property
    def is_open(self) -> bool:
        """Whether it has an open occurrence."""
        return self.occurrence is not None

    def restore(self, occurrence: Occurrence) -> None:
        """Go on with what an earlier run left open."""
        self.occurrence = occurrence

    def remember(self, now: MonoNs) -> None:
        """Put the open occurrence into memory as it stands now."""
        if self.occurrence is not None:
            self._findings.remember(self.key, self.occurrence.remembered(now, self._findings.boot))

    def unhide(self, parent: str, now: MonoNs) -> None:
        """The parent `parent` is over: an occurrence hidden by it is hidden no more."""
        if self.occurrence is not None and self.occurrence.hidden_by == parent:
            self.occurrence.hidden_by = None
            self._note_change(self.occurrence.priority, PARENT_CLEARED, {}, now)

    def _account(self, now: MonoNs, *, known: bool) -> None:
        """Keep the known duration: it stops where the inputs were last told the truth."""
        occurrence = self.occurrence
        if occurrence is None:
            return
        if known and occurrence.known_from is None:
            occurrence.known_from = now
        elif not known and occurrence.known_from is not None:
            occurrence.known_ns = occurrence.known_until(trusted_until(self.blocks, now))
            occurrence.known_from = None

    def _raise(self, found: Found, now: MonoNs) -> None:
        proven = found.basis is Basis.PROVEN
        occurrence = Occurrence(
            id=self._findings.mint_occurrence(),
            rule=self.plan.name.value,
            place=self.place,
            priority=found.priority,
            raised_priority=found.priority,
            basis=found.basis,
            since=self._findings.label(found.since),
            since_mono=found.since,
            hidden_by=None if proven else self._parent(),
            known_ns=found.known_ns,
            known_from=now if proven else None,
            is_since_synced=self._findings.wall.synced,
        )
        self.occurrence = occurrence
        raised = ViolationRaised(
            self.place.machine,
            self.place.guard,
            self.place.device,
            occurrence.rule,
            occurrence.priority,
            occurrence.basis,
            occurrence.id,
            occurrence.since,
            occurrence.hidden_by,
            self._evidence(found, now),
        )
        self._findings.note(now, raised)
        self.remember(now)

    def _change(self, found: Found, reason: str, now: MonoNs) -> None:
        """A younger judgement of the open occurrence: more urgent, or proven. Never less."""
        occurrence = self.occurrence
        assert occurrence is not None
        was = occurrence.priority
        occurrence.priority = min(was, found.priority, key=lambda item: item.rank)
        if found.basis is Basis.PROVEN:
            occurrence.basis, occurrence.hidden_by = Basis.PROVEN, None
        self._note_change(was, reason, self._evidence(found, now), now)

    def _note_change(self, was: Priority, reason: str, evidence: Mapping[str, Json], now: MonoNs) -> None:
        occurrence = self.occurrence
        assert occurrence is not None
        changed = ViolationChanged(
            occurrence.id,
            occurrence.rule,
            self.place.machine,
            self.place.guard,
            self.place.device,
            occurrence.priority,
            was,
            occurrence.basis,
            occurrence.hidden_by,
            reason,
            evidence,
        )
        self._findings.note(now, changed)
        self.remember(now)

    def _clear(self, reason: str, now: MonoNs) -> None:
        assert self.occurrence is not None
        self._findings.note(now, self.occurrence.cleared(now, self._findings.wall, reason))
        self._findings.remember(self.key, None)
        self.occurrence = None

    def _evidence(self, found: Found, now: MonoNs) -> dict[str, Json]:
        held = (found.held_min_ns, now - found.since)
        return {**gather(self.plan, self.inputs, now, held, self.grade_at_best), **found.further}

    def _parent(self) -> str | None:
        """The open R29 of the first device that blinds an input."""
        lost = self._findings.monitoring
        blinded = {
            signal.plan.device for signal in self.inputs if not signal.is_good and signal.plan.device in lost
        }
        return next(
            (lost[device] for signal in self.inputs if (device := signal.plan.device) in blinded), None
        )
