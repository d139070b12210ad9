"""R17 `bypass_active`: a guard is declared suspended, by key or software.

    bypass  mode       MOVING   permit    result
    ------  ---------  -------  --------  ---------------------------------------------------------------
    1       auto-like  T        any       P1 once held for on_delay
    1       auto-like  U        any       P2 on unknown, after unknown_delay
    1       otherwise           none      P2 once held for on_delay
    1       otherwise           proven    nothing within permitless_ms
    1       any        any      any       at least P2 once held for permitless_ms
    U       any        any      any       unknown: no raise, and no all-clear
    0       any        any      any       over, once good for off_delay

"Auto-like" is every mode that is not *proven* to be one for working at the open machine: AUTO, unknown, unmapped, not
wired. "Otherwise" is a machine that stands, or one in SETUP, MAINT or LOCAL, or one whose motion nothing tells. The
priority of an open occurrence only ever rises: P2 becomes P1 when the machine is found moving in AUTO.

Source: the rule catalogue, R17, G5 (README, map of rules); IEC 60204-1 9.3.6.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.domain.findings import Findings
from edge_agent.domain.held import ClearRun, Held, UnknownClock, each_of, latest, one_of
from edge_agent.domain.kleene import Tri
from edge_agent.domain.machine import MachineWatch
from edge_agent.domain.occurrence import Place
from edge_agent.domain.plan import RulePlan
from edge_agent.domain.rule import MOVING, PROVEN, RETURNED_TO_NORMAL, Found, Rule, at_most, proven_by
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs
from edge_agent.wire.event import Basis, Priority

PERMITLESS_MS = 15 * 60_000
"""Default of `permitless_ms`: a longer bypass is at least P2, permit or not."""

ATTENDED_MODES = frozenset({"setup", "maint", "local"})
"""Modes for working at the open machine; compared without regard to case. Membership only, never iterated."""


def is_auto_like(mode: str | None) -> bool:
    """Whether this mode must be treated as automatic running."""
    return mode is None or mode.lower() not in ATTENDED_MODES


@dataclass(frozen=True, slots=True)
class _Timing:
    """What is counted while the bypass is not plainly off, or an occurrence is open."""

    in_motion: Held
    unpermitted: Held
    too_long: Held
    unknown: UnknownClock
    clearing: ClearRun


class BypassActive(Rule):
    """Judges one guard's bypass against its machine's mode, motion and permits."""

    __slots__ = ("_bypass", "_machine", "_permits", "_timing")

    def __init__(
        self,
        plan: RulePlan,
        place: Place,
        bypass: Signal,
        machine: MachineWatch,
        *,
        permits: tuple[Signal, ...],
        findings: Findings,
    ) -> None:
        self._bypass, self._machine, self._permits = bypass, machine, permits
        super().__init__(plan, place, findings)
        self._timing: _Timing | None = None

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """The bypass, what tells motion and mode, the permits."""
        return (self._bypass, *self._machine.inputs, *self._permits)

    def step(self, now: MonoNs, *, sampled: bool) -> bool:
        """Judge by the truth table above."""
        bypass = self._bypass.truth
        is_nothing = bypass is None and self._timing is None
        if self.occurrence is None and (bypass is False or is_nothing):
            self._timing, self.due, self.watching = None, None, False
        else:
            self._judge(bypass, self._timing or self._begin(), now, sampled=sampled)
        return False

    def _begin(self) -> _Timing:
        plan = self.plan
        permitless_ms = plan.parameters.get("permitless_ms", PERMITLESS_MS)
        self._timing = _Timing(
            Held(plan.on_delay_ms, plan.hold_gap_ms, self.inputs),
            Held(plan.on_delay_ms, plan.hold_gap_ms, self.inputs),
            Held(permitless_ms, plan.hold_gap_ms, (self._bypass,)),
            UnknownClock(),
            ClearRun(plan.off_delay_ms),
        )
        return self._timing

    def _judge(self, bypass: Tri, timing: _Timing, now: MonoNs, *, sampled: bool) -> None:
        plan, lower = self.plan, at_most(self.plan.priority, Priority.P2)
        moving = self._motion_in_auto()
        begun = self._begun()
        is_moving = _while_bypassed(bypass, moving)
        grounds = each_of((self._bypass, *self._machine.mode_inputs)) + one_of(self._machine.motion_proofs)
        in_motion = timing.in_motion.step(is_moving, now, sampled=sampled, begun=begun, grounds=grounds)
        lacks_permit = _while_bypassed(bypass, self._lacks_permit(moving))
        # Whatever motion and mode were in between: a bypass without permit is P2 at least.
        grounds = each_of((self._bypass, *self._permits))
        unpermitted = timing.unpermitted.step(
            lacks_permit, now, sampled=sampled, begun=begun, grounds=grounds
        )
        too_long = timing.too_long.step(bypass, now, sampled=sampled, begun=self._bypass.since)
        is_open_question = bypass is True and moving is None
        raise_at = timing.unknown.step(plan.unknown_delay_ms if is_open_question else None, now)
        clears = timing.clearing.step(bypass, now, sampled=sampled)
        self._account(now, known=bypass is not None and not is_open_question)
        if in_motion:
            self._find(proven_by(timing.in_motion, plan.priority, now), now)
        elif unpermitted or too_long:
            held = timing.unpermitted if unpermitted else timing.too_long
            self._find(proven_by(held, lower, now), now)
        elif self.occurrence is None and raise_at is not None and now >= raise_at:
            raise_from = now if timing.unknown.since is None else timing.unknown.since
            self._raise(Found(raise_from, 0, lower, Basis.UNKNOWN), now)
        elif self.occurrence is not None and clears:
            self._clear(RETURNED_TO_NORMAL, now)
            self._timing = None
        self.due = raise_at if self.occurrence is None else None
        self.watching = self._is_timing(bypass)

    def _begun(self) -> MonoNs | None:
        """From when bypass, motion, mode and permits count as they are, the last of them."""
        permits = (permit.since for permit in self._permits)
        return latest(self._bypass.since, self._machine.moving_from, self._machine.mode_from, *permits)

    def _motion_in_auto(self) -> Tri:
        """Whether it moves in an auto-like mode; false in attended modes and where nothing tells motion."""
        machine = self._machine
        if not is_auto_like(machine.mode) or not machine.has_motion_source:
            return False
        return machine.moving

    def _lacks_permit(self, moving_in_auto: Tri) -> Tri:
        if any(permit.truth is True for permit in self._permits):
            return False
        return None if moving_in_auto is None else True

    def _find(self, found: Found, now: MonoNs) -> None:
        """Raise, or raise an open occurrence further; what is told already is not told again."""
        occurrence = self.occurrence
        if occurrence is None:
            self._raise(found, now)
        elif occurrence.basis is Basis.UNKNOWN:
            self._change(found, PROVEN, now)
        elif found.priority.rank < occurrence.priority.rank:
            self._change(found, MOVING, now)

    def _is_timing(self, bypass: Tri) -> bool:
        """Whether the next sample can matter though nothing in it has changed."""
        occurrence = self.occurrence
        if bypass is not True:
            return bypass is False and occurrence is not None
        if occurrence is None or occurrence.basis is Basis.UNKNOWN:
            return True
        return occurrence.priority.rank > self.plan.priority.rank and self._motion_in_auto() is True


def _while_bypassed(bypass: Tri, condition: Tri) -> Tri:
    """The condition while the bypass is on; the bypass's own truth value otherwise."""
    return condition if bypass is True else bypass
