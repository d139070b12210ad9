"""R09 `channel_discrepancy`: the two channels of a guard disagree for longer than their discrepancy time.

A mismatch counts at once as "not closed"; held for on_delay it is a fault, latched until one clean full cycle has been
seen. Mere agreement proves nothing: a welded contact agrees whenever its partner happens to stand where it stuck.

    stage 0 ──both 1──▶ 1 ──both 0──▶ 2 ──both 1──▶ cleared at that edge (`clean_cycle`)
      ▲                 │             │
      └── held mismatch or unknown ───┘

The cycle in which it was raised does not count: the first agreement on 1/1 after the raise only starts the count. The
time before the first reply of a run is no unknown here: the memory of an earlier run goes on where it was.

Source: the rule catalogue, truth table R09 (README, map of rules); ISO 13849-1 categories 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_agent.domain.device import DeviceWatch
from edge_agent.domain.findings import Findings
from edge_agent.domain.held import Held
from edge_agent.domain.kleene import Tri
from edge_agent.domain.occurrence import Place
from edge_agent.domain.plan import RulePlan
from edge_agent.domain.rule import CLEAN_CYCLE, Found, Rule
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import DeviceId, MonoNs
from edge_agent.wire.event import Basis

AWAIT_BOTH_CLOSED = 0
AWAIT_BOTH_OPEN = 1
AWAIT_CLOSED_AGAIN = 2


class ChannelDiscrepancy(Rule):
    """Judges one pair of equivalent channels; its guard reads `is_open` and `is_mismatched`."""

    def __init__(
        self,
        plan: RulePlan,
        place: Place,
        channels: tuple[Signal, Signal],
        devices: Mapping[DeviceId, DeviceWatch],
        findings: Findings,
    ) -> None:
        super().__init__(plan, place, channels, devices, findings)
        self._a, self._b = channels
        self._held = Held(plan.on_delay_ms, plan.hold_gap_ms, self.blocks)
        self._mismatch: Tri = None

    @property
    def is_mismatched(self) -> bool:
        """Whether the channels contradict each other now."""
        return self._mismatch is True

    def step(self, now: MonoNs, *, sampled: bool) -> bool:
        """Judge the pair; its guard steps too when a discrepancy begins or ends."""
        a, b = self._a.truth, self._b.truth
        mismatch = None if a is None or b is None else a is not b
        self._mismatch = mismatch
        was_open = self.is_open
        fires = self._held.step(mismatch, now, sampled=sampled)
        self._account(now, known=mismatch is not None)
        if self.occurrence is None:
            if fires:
                self._raise(self._found(now), now)
        else:
            self._follow_cycle(a, b, now, is_disturbed=fires)
        # A mismatch is timed before the raise, and after it too: once held, it spoils the cycle.
        self.watching = mismatch is True and not (self.is_open and self._stage == AWAIT_BOTH_CLOSED)
        return was_open is not self.is_open

    @property
    def _stage(self) -> int:
        return AWAIT_BOTH_CLOSED if self.occurrence is None else self.occurrence.stage

    def _follow_cycle(self, a: Tri, b: Tri, now: MonoNs, *, is_disturbed: bool) -> None:
        if self.is_pending:
            return
        if is_disturbed or a is None or b is None:
            self._enter(AWAIT_BOTH_CLOSED, now)
            return
        match (self._stage, a, b):
            case (0, True, True):
                self._enter(AWAIT_BOTH_OPEN, now)
            case (1, False, False):
                self._enter(AWAIT_CLOSED_AGAIN, now)
            case (2, True, True):
                self._clear(CLEAN_CYCLE, now)
            case _:
                pass

    def _enter(self, stage: int, now: MonoNs) -> None:
        assert self.occurrence is not None
        if self.occurrence.stage != stage:
            self.occurrence.stage = stage
            self.remember(now)

    def _found(self, now: MonoNs) -> Found:
        held = self._held
        assert held.first is not None
        return Found(held.first, held.known_ns(now), self.plan.priority, Basis.PROVEN, held.sum_ns)
