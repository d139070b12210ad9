"""R22 `estop`: an emergency stop is actuated.

Raised at the first good sample in which the guard (the button, 1 = healthy) is not closed: somebody had a reason.
Still pressed after `unreset_ms`, that is told once (`unreset`), at the same priority. A panel that loses its power
also reads 0: when every 1 = healthy signal of the machine is 0, and at least two of them fell within two polls of
each other, the evidence says `panel_power_suspected`; the raise stands all the same. Signals in later replies of the
same two polls are waited for after the raise, never before it (`panel_power`). Unknown raises nothing: that is R29's.

Source: the rule catalogue, R22 and its settled reading (README, map of rules); ISO 13850.
"""

from __future__ import annotations

from edge_agent.domain.findings import Findings
from edge_agent.domain.guard import GuardWatch
from edge_agent.domain.held import ClearRun, Held, one_of
from edge_agent.domain.kleene import Tri, negated
from edge_agent.domain.occurrence import Occurrence, Place
from edge_agent.domain.plan import RulePlan
from edge_agent.domain.rule import PANEL_POWER, RETURNED_TO_NORMAL, UNRESET, Found, Rule
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_MS, MonoNs
from edge_agent.wire.event import Basis

UNRESET_MS = 30 * 60_000
"""Default of `unreset_ms`: longer than any reset after a stop that was understood."""

UNRESET_TOLD = 1
"""The occurrence's stage once "unreset" was told: a restart does not tell it again."""

POLLS_TOGETHER = 2
"""Signals that fall within so many polls fell together."""


class EmergencyStop(Rule):
    """Judges one emergency stop; `healthy` are all 1 = healthy signals of its machine."""

    __slots__ = (
        "_clearing",
        "_guard",
        "_healthy",
        "_held",
        "_power_open_until",
        "_pressed_from",
        "_together_ns",
        "_unreset_ns",
    )

    def __init__(
        self,
        plan: RulePlan,
        place: Place,
        guard: GuardWatch,
        healthy: tuple[Signal, ...],
        findings: Findings,
    ) -> None:
        self._guard, self._healthy = guard, healthy
        super().__init__(plan, place, findings)
        self._held = Held(plan.on_delay_ms, plan.hold_gap_ms, self.inputs)
        self._clearing = ClearRun(plan.off_delay_ms)
        self._unreset_ns = plan.parameters.get("unreset_ms", UNRESET_MS) * NS_PER_MS
        poll_ms = max(signal.plan.poll_ms for signal in guard.channels)
        self._together_ns = POLLS_TOGETHER * poll_ms * NS_PER_MS
        self._power_open_until: MonoNs | None = None
        self._pressed_from: MonoNs | None = None

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """The button's channels."""
        return self._guard.channels

    @property
    def heard(self) -> tuple[Signal, ...]:
        """The button, and what falls with it when the panel loses its power."""
        return tuple(dict.fromkeys((*self._guard.channels, *self._healthy)))

    def restore(self, occurrence: Occurrence) -> None:
        """Go on; where the pressing began in another boot, "unreset" counts from now."""
        super().restore(occurrence)
        self._pressed_from = occurrence.since_mono

    def step(self, now: MonoNs, *, sampled: bool) -> bool:
        """Judge the button, then how long it has been left pressed."""
        pressed = negated(self._guard.closed)
        guard, grounds = self._guard, one_of(self._guard.open_channels)
        fires = self._held.step(pressed, now, sampled=sampled, begun=guard.opened_at, grounds=grounds)
        clears = self._clearing.step(pressed, now, sampled=sampled)
        self._account(now, known=pressed is not None)
        self.due = None
        if self.occurrence is None:
            if fires:
                self._press(now)
        elif clears:
            self._clear(RETURNED_TO_NORMAL, now)
            self._power_open_until = self._pressed_from = None
        if self.occurrence is not None and pressed is True:
            self._follow_power(now)
            self._follow_reset(self.occurrence, now)
        self.watching = self._is_timing(pressed)
        return False

    def _is_timing(self, pressed: Tri) -> bool:
        return pressed is True if self.occurrence is None else pressed is False

    def _press(self, now: MonoNs) -> None:
        held = self._held
        assert held.first is not None
        self._pressed_from = held.first
        suspected = self._is_power_suspected()
        self._power_open_until = None if suspected else MonoNs(held.first + self._together_ns)
        self._raise(self._found(held.first, now, suspected=suspected), now)

    def _follow_power(self, now: MonoNs) -> None:
        if self._power_open_until is None or self._pressed_from is None:
            return
        if self._is_power_suspected():
            self._power_open_until = None
            self._change(self._found(self._pressed_from, now, suspected=True), PANEL_POWER, now)
        elif now > self._power_open_until:
            self._power_open_until = None

    def _follow_reset(self, occurrence: Occurrence, now: MonoNs) -> None:
        if occurrence.stage == UNRESET_TOLD:
            return
        if self._pressed_from is None:
            self._pressed_from = now
        tell_at = MonoNs(self._pressed_from + self._unreset_ns)
        if now < tell_at:
            self.due = tell_at
            return
        occurrence.stage = UNRESET_TOLD
        self._change(self._found(self._pressed_from, now, suspected=self._is_power_suspected()), UNRESET, now)

    def _found(self, since: MonoNs, now: MonoNs, *, suspected: bool) -> Found:
        further = {"panel_power_suspected": True} if suspected else {}
        held = self._held
        return Found(since, held.known_ns(now), self.plan.priority, Basis.PROVEN, held.sum_ns, further)

    def _is_power_suspected(self) -> bool:
        """All 1 = healthy signals are 0, and this button and at least one other fell together."""
        if any(signal.truth is not False for signal in self._healthy):
            return False
        own = [signal.fell_at for signal in self._guard.channels if signal.fell_at is not None]
        others = [
            signal.fell_at
            for signal in self._healthy
            if signal not in self._guard.channels and signal.fell_at is not None
        ]
        return any(abs(fell - mine) <= self._together_ns for fell in others for mine in own)
