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

from collections.abc import Mapping

from edge_agent.domain.device import DeviceWatch
from edge_agent.domain.findings import Findings
from edge_agent.domain.guard import GuardWatch
from edge_agent.domain.held import ClearRun, Held, UnknownClock
from edge_agent.domain.kleene import Tri
from edge_agent.domain.machine import MachineWatch
from edge_agent.domain.occurrence import Place
from edge_agent.domain.plan import RulePlan
from edge_agent.domain.rule import MOVING, PROVEN, RETURNED_TO_NORMAL, Found, Rule, at_most
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import DeviceId, MonoNs
from edge_agent.wire.event import Basis, Priority

PERMITLESS_MS = 15 * 60_000
"""Default of `permitless_ms`: a longer bypass is at least P2, permit or not."""

ATTENDED_MODES = frozenset({"setup", "maint", "local"})
"""Modes for working at the open machine; compared without regard to case. Membership only, never iterated."""


def is_auto_like(mode: str | None) -> bool:
    """Whether this mode must be treated as automatic running."""
    return mode is None or mode.lower() not in ATTENDED_MODES


class BypassActive(Rule):
    """Judges one guard's bypass against its machine's mode, motion and permits."""

    def __init__(
        self,
        plan: RulePlan,
        guard: GuardWatch,
        bypass: Signal,
        machine: MachineWatch,
        *,
        permits: tuple[Signal, ...],
        devices: Mapping[DeviceId, DeviceWatch],
        findings: Findings,
    ) -> None:
        inputs = (bypass, *machine.inputs, *permits)
        super().__init__(plan, Place(machine.plan.id, guard.plan.id, None), inputs, devices, findings)
        self._bypass, self._machine, self._permits = bypass, machine, permits
        permitless_ms = plan.parameters.get("permitless_ms", PERMITLESS_MS)
        self._in_motion = Held(plan.on_delay_ms, plan.hold_gap_ms, self.blocks)
        self._unpermitted = Held(plan.on_delay_ms, plan.hold_gap_ms, self.blocks)
        self._too_long = Held(permitless_ms, plan.hold_gap_ms, (bypass.block,))
        self._unknown = UnknownClock()
        self._clearing = ClearRun(plan.off_delay_ms)
        self._lower = at_most(plan.priority, Priority.P2)

    def step(self, now: MonoNs, *, sampled: bool) -> bool:
        """Judge by the truth table above."""
        bypass = self._bypass.truth
        moving = self._motion_in_auto()
        in_motion = self._in_motion.step(_while_bypassed(bypass, moving), now, sampled=sampled)
        unpermitted = self._unpermitted.step(
            _while_bypassed(bypass, self._lacks_permit(moving)), now, sampled=sampled
        )
        too_long = self._too_long.step(bypass, now, sampled=sampled)
        is_open_question = bypass is True and moving is None
        raise_at = self._unknown.step(self.plan.unknown_delay_ms if is_open_question else None, now)
        clears = self._clearing.step(bypass, now, sampled=sampled)
        self._account(now, known=bypass is not None and not is_open_question)
        if in_motion:
            self._find(self._held_found(self._in_motion, self.plan.priority, now), now)
        elif unpermitted or too_long:
            held = self._unpermitted if unpermitted else self._too_long
            self._find(self._held_found(held, self._lower, now), now)
        elif self.occurrence is None and raise_at is not None and now >= raise_at:
            self._raise(Found(self._unknown.since or now, 0, self._lower, Basis.UNKNOWN), now)
        elif self.occurrence is not None and clears:
            self._clear(RETURNED_TO_NORMAL, now)
        self.due = raise_at if self.occurrence is None else None
        self.watching = self._is_timing(bypass)
        return False

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

    def _held_found(self, held: Held, priority: Priority, now: MonoNs) -> Found:
        assert held.first is not None
        return Found(held.first, held.known_ns(now), priority, Basis.PROVEN, held.sum_ns)

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
