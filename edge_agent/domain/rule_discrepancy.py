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

from edge_agent.domain.findings import Findings
from edge_agent.domain.held import Held, latest
from edge_agent.domain.kleene import Tri
from edge_agent.domain.node import Node
from edge_agent.domain.occurrence import Place
from edge_agent.domain.plan import RulePlan
from edge_agent.domain.rule import CLEAN_CYCLE, Rule, proven_by
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs

AWAIT_BOTH_CLOSED = 0
AWAIT_BOTH_OPEN = 1
AWAIT_CLOSED_AGAIN = 2


class ChannelDiscrepancy(Rule):
    """Judges one pair of equivalent channels; its guard reads `is_open` and `is_mismatched`."""

    __slots__ = ("_channels", "_held", "guards")

    def __init__(
        self, plan: RulePlan, place: Place, channels: tuple[Signal, ...], findings: Findings
    ) -> None:
        self._channels = channels
        super().__init__(plan, place, findings)
        self._held: Held | None = None
        self.guards: tuple[Node, ...] = ()

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """Its channels."""
        return self._channels

    @property
    def readers(self) -> tuple[Node, ...]:
        """Its guard."""
        return self.guards

    @property
    def is_mismatched(self) -> bool:
        """Whether the channels contradict each other now."""
        return self._mismatch() is True

    def step(self, now: MonoNs, *, sampled: bool) -> bool:
        """Judge the pair; its guard steps too when a discrepancy begins or ends."""
        mismatch = self._mismatch()
        was_open = self.is_open
        if mismatch is True and self._held is None:
            self._held = Held(self.plan.on_delay_ms, self.plan.hold_gap_ms, self.inputs)
        held = self._held
        begun = latest(*(channel.since for channel in self._channels))
        fires = held is not None and held.step(mismatch, now, sampled=sampled, begun=begun)
        if mismatch is False:
            self._held = None
        self._account(now, known=mismatch is not None)
        if self.occurrence is None:
            if held is not None and fires:
                self._raise(proven_by(held, self.plan.priority, now), now)
        else:
            self._follow_cycle(now, is_disturbed=fires)
        # A mismatch is timed before the raise, and after it too: once held, it spoils the cycle.
        self.watching = mismatch is True and not (self.is_open and self._stage == AWAIT_BOTH_CLOSED)
        return was_open is not self.is_open

    @property
    def _stage(self) -> int:
        return AWAIT_BOTH_CLOSED if self.occurrence is None else self.occurrence.stage

    def _mismatch(self) -> Tri:
        a, b = self._channels
        return None if a.truth is None or b.truth is None else a.truth is not b.truth

    def _follow_cycle(self, now: MonoNs, *, is_disturbed: bool) -> None:
        if self.is_pending:
            return
        a, b = (channel.truth for channel in self._channels)
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
