"""R01 `guard_open_motion`: a guard is not closed while its machine moves.

    closed  MOVING   result   raise
    ------  -------  -------  ---------------------------------------------------------------
    F       T        T        P1 once held for on_delay (T_allow)
    F       U        U        P2 on unknown, after unknown_delay: motion cannot be excluded
    F       F        F        none
    U       T        U        P2 on unknown, after unknown_guard_delay: the guard is not seen
    U       U, F     U, F     none
    T       any      F        none

T_allow separates "the interlock worked, the machine is stopping" from "the interlock did not work". A raise on
unknown keeps its clock when it changes between raising rows; the delay is the present row's. A bypass exempts nothing.

Source: the rule catalogue, truth table R01 (README, map of rules); ISO 14119, ISO 12100 6.3.3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.domain.findings import Findings
from edge_agent.domain.guard import GuardWatch
from edge_agent.domain.held import ClearRun, Held, UnknownClock, latest, one_of
from edge_agent.domain.kleene import Tri, all_of, negated
from edge_agent.domain.machine import MachineWatch
from edge_agent.domain.occurrence import Place
from edge_agent.domain.plan import Grade, RulePlan
from edge_agent.domain.rule import PROVEN, RETURNED_TO_NORMAL, Found, Rule, at_most, proven_by
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs
from edge_agent.wire.event import Basis, Priority

UNKNOWN_GUARD_DELAY_MS = 10_000
"""Default of `unknown_guard_delay_ms`: as long as R29's on-delay, so that one lost device is one alarm."""


@dataclass(frozen=True, slots=True)
class _Timing:
    """What is counted while the result is not plainly false, or an occurrence is open."""

    held: Held
    unknown: UnknownClock
    clearing: ClearRun


class GuardOpenMotion(Rule):
    """Judges one guard against its machine's motion."""

    __slots__ = ("_guard", "_machine", "_timing")

    def __init__(
        self, plan: RulePlan, place: Place, guard: GuardWatch, machine: MachineWatch, findings: Findings
    ) -> None:
        self._guard, self._machine = guard, machine
        super().__init__(plan, place, findings)
        self._timing: _Timing | None = None

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """The guard's channels, and whatever tells motion."""
        return (*self._guard.channels, *self._machine.motion_inputs)

    @property
    def grade_at_best(self) -> Grade:
        """A contactor's feedback alone is no proof of standstill."""
        is_contactor_alone = [signal.plan.name for signal in self._machine.motion_inputs] == ["running"]
        return Grade.C if is_contactor_alone else Grade.A

    def step(self, now: MonoNs, *, sampled: bool) -> bool:
        """Judge by the truth table above."""
        result = all_of((negated(self._guard.closed), self._machine.moving))
        delay_ms = self._unknown_delay_ms()
        is_nothing = result is None and delay_ms is None and self._timing is None
        if self.occurrence is None and (result is False or is_nothing):
            self._timing, self.due, self.watching = None, None, False
        else:
            self._judge(result, delay_ms, self._timing or self._begin(), now, sampled=sampled)
        return False

    def _begin(self) -> _Timing:
        plan = self.plan
        held = Held(plan.on_delay_ms, plan.hold_gap_ms, self.inputs)
        self._timing = _Timing(held, UnknownClock(), ClearRun(plan.off_delay_ms))
        return self._timing

    def _judge(
        self, result: Tri, delay_ms: int | None, timing: _Timing, now: MonoNs, *, sampled: bool
    ) -> None:
        begun = latest(self._guard.opened_at, self._machine.moving_from)
        grounds = one_of(self._guard.open_channels) + one_of(self._machine.motion_proofs)
        fires = timing.held.step(result, now, sampled=sampled, begun=begun, grounds=grounds)
        raise_at = timing.unknown.step(delay_ms, now)
        clears = timing.clearing.step(result, now, sampled=sampled)
        self._account(now, known=result is not None)
        if self.occurrence is None:
            if fires:
                self._raise(proven_by(timing.held, self.plan.priority, now), now)
            elif raise_at is not None and now >= raise_at:
                since = now if timing.unknown.since is None else timing.unknown.since
                self._raise(self._unproven(since), now)
        elif fires and self.occurrence.basis is Basis.UNKNOWN:
            self._change(proven_by(timing.held, self.plan.priority, now), PROVEN, now)
        elif clears:
            self._clear(RETURNED_TO_NORMAL, now)
            self._timing = None
        self.due = raise_at if self.occurrence is None else None
        self.watching = self._is_timing(result)

    def _is_timing(self, result: Tri) -> bool:
        """Whether the next sample can matter though nothing in it has changed."""
        if self.occurrence is None:
            return result is True
        return result is False or (result is True and self.occurrence.basis is Basis.UNKNOWN)

    def _unknown_delay_ms(self) -> int | None:
        if self.plan.unknown_delay_ms is None:
            return None
        match (self._guard.closed, self._machine.moving):
            case (False, None):
                return self.plan.unknown_delay_ms
            case (None, True):
                return self.plan.parameters.get("unknown_guard_delay_ms", UNKNOWN_GUARD_DELAY_MS)
            case _:
                return None

    def _unproven(self, since: MonoNs) -> Found:
        return Found(since, 0, at_most(self.plan.priority, Priority.P2), Basis.UNKNOWN)
