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

from collections.abc import Mapping

from edge_agent.domain.device import DeviceWatch
from edge_agent.domain.findings import Findings
from edge_agent.domain.guard import GuardWatch
from edge_agent.domain.held import ClearRun, Held, UnknownClock
from edge_agent.domain.kleene import Tri, all_of, negated
from edge_agent.domain.machine import MachineWatch
from edge_agent.domain.occurrence import Place
from edge_agent.domain.plan import Grade, RulePlan
from edge_agent.domain.rule import PROVEN, RETURNED_TO_NORMAL, Found, Rule, at_most
from edge_agent.domain.units import DeviceId, MonoNs
from edge_agent.wire.event import Basis, Priority

UNKNOWN_GUARD_DELAY_MS = 10_000
"""Default of `unknown_guard_delay_ms`: as long as R29's on-delay, so that one lost device is one alarm."""


class GuardOpenMotion(Rule):
    """Judges one guard against its machine's motion."""

    def __init__(
        self,
        plan: RulePlan,
        guard: GuardWatch,
        machine: MachineWatch,
        devices: Mapping[DeviceId, DeviceWatch],
        findings: Findings,
    ) -> None:
        inputs = (*guard.channels, *machine.motion_inputs)
        super().__init__(plan, Place(machine.plan.id, guard.plan.id, None), inputs, devices, findings)
        if [signal.plan.name for signal in machine.motion_inputs] == ["running"]:
            # A contactor's feedback alone is no proof of standstill.
            self.grade_at_best = Grade.C
        self._guard, self._machine = guard, machine
        self._held = Held(plan.on_delay_ms, plan.hold_gap_ms, self.blocks)
        self._unknown = UnknownClock()
        self._clearing = ClearRun(plan.off_delay_ms)
        self._unknown_guard_delay_ms = plan.parameters.get("unknown_guard_delay_ms", UNKNOWN_GUARD_DELAY_MS)

    def step(self, now: MonoNs, *, sampled: bool) -> bool:
        """Judge by the truth table above."""
        result = all_of((negated(self._guard.closed), self._machine.moving))
        fires = self._held.step(result, now, sampled=sampled)
        raise_at = self._unknown.step(self._unknown_delay_ms(), now)
        clears = self._clearing.step(result, now, sampled=sampled)
        self._account(now, known=result is not None)
        if self.occurrence is None:
            if fires:
                self._raise(self._proven(now), now)
            elif raise_at is not None and now >= raise_at:
                self._raise(self._unproven(now), now)
        elif fires and self.occurrence.basis is Basis.UNKNOWN:
            self._change(self._proven(now), PROVEN, now)
        elif clears:
            self._clear(RETURNED_TO_NORMAL, now)
        self.due = raise_at if self.occurrence is None else None
        self.watching = self._is_timing(result)
        return False

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
                return self._unknown_guard_delay_ms
            case _:
                return None

    def _proven(self, now: MonoNs) -> Found:
        held = self._held
        assert held.first is not None
        return Found(held.first, held.known_ns(now), self.plan.priority, Basis.PROVEN, held.sum_ns)

    def _unproven(self, now: MonoNs) -> Found:
        since = self._unknown.since
        return Found(
            now if since is None else since, 0, at_most(self.plan.priority, Priority.P2), Basis.UNKNOWN
        )
