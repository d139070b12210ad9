"""Whether a machine moves: every configured source asked, the dangerous answer believed.

MOVING = OR(running, |speed| > v0, NOT zero_speed, coasting), three-valued, over the sources that are wired.

- v0 is 2 % of the rated speed (0 without one), with a hysteresis of 2 % of v0, so that a speed at the edge does not
  chatter: it counts as moving above v0 and as standing at or below 0.98·v0.
- Coasting exists only with a configured run-down time and without a zero-speed monitor. When `running` falls, the
  machine coasts for 1.2 × run-down. When the fall itself was not seen (true, unknown, false) no edge is inferred, but
  motion cannot be excluded: unknown for that long from the first false. The same after a restart when the memory says
  that the machine was last moving.
- `zero_speed` true for more than 3 s while `running` is true or the speed is above v0 is a conflict: moving stays true,
  the quality says so. A drive that runs while nothing turns is none: belts slip and couplings break.

Source: the rule catalogue, MOVING and CONFLICT (README, map of rules); the run-down factor 1.2 is margin for wear.
"""

from __future__ import annotations

from edge_agent.domain.kleene import Tri, any_of, negated
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_MS, NS_PER_S, MonoNs

STANDSTILL_FRACTION = 0.02
"""v0 as a part of the rated speed."""

HYSTERESIS_FRACTION = 0.02
"""Default analog hysteresis, as a part of v0."""

CONFLICT_AFTER_NS = 3 * NS_PER_S
"""Sources may disagree this long: a zero-speed monitor reacts late to a start."""


class Motion:
    """The motion of one machine over time; its step is fed with the time only, it reads its signals itself."""

    __slots__ = (
        "_coast_ns",
        "_coast_until",
        "_coasting",
        "_conflict_since",
        "_fast",
        "_gap",
        "_ran",
        "_running",
        "_speed",
        "_zero_speed",
        "is_conflicting",
    )

    def __init__(
        self,
        running: Signal | None,
        speed: Signal | None,
        zero_speed: Signal | None,
        rundown_ms: int | None,
        *,
        was_moving: bool,
    ) -> None:
        self._running = running
        self._speed = speed
        self._zero_speed = zero_speed
        coasts = running is not None and zero_speed is None and rundown_ms is not None
        self._coast_ns = (rundown_ms or 0) * NS_PER_MS * 12 // 10 if coasts else None
        self._fast = False
        self._ran = was_moving
        self._gap = True
        self._coasting: Tri = False
        self._coast_until: MonoNs | None = None
        self._conflict_since: MonoNs | None = None
        self.is_conflicting = False

    def step(self, now: MonoNs) -> Tri:
        """Whether it moves at `now`; unknown (None) when no source excludes it and none proves it."""
        sources: list[Tri] = []
        if self._running is not None:
            sources.append(self._running.truth)
        if self._speed is not None:
            sources.append(self._over_standstill(self._speed))
        if self._zero_speed is not None:
            sources.append(negated(self._zero_speed.truth))
        if self._coast_ns is not None and self._running is not None:
            sources.append(self._coast(self._running.truth, self._coast_ns, now))
        self._judge_conflict(now)
        return any_of(sources) if sources else None

    @property
    def proofs(self) -> tuple[Signal, ...]:
        """The sources that prove by themselves that it moves; while it coasts, what told that it ran."""
        found = []
        if self._running is not None and (self._running.truth is True or self._coasting is True):
            found.append(self._running)
        if self._speed is not None and self._fast:
            found.append(self._speed)
        if self._zero_speed is not None and self._zero_speed.truth is False:
            found.append(self._zero_speed)
        return tuple(found)

    def due(self) -> MonoNs | None:
        """When it changes by time alone."""
        times = [] if self._coast_until is None else [self._coast_until]
        if self._conflict_since is not None and not self.is_conflicting:
            times.append(MonoNs(self._conflict_since + CONFLICT_AFTER_NS))
        return min(times, default=None)

    def _over_standstill(self, speed: Signal) -> Tri:
        value = speed.value
        if not isinstance(value, int | float):
            self._fast = False
            return None
        edge = (speed.plan.coding.rated or 0.0) * STANDSTILL_FRACTION
        if self._fast:
            edge -= edge * HYSTERESIS_FRACTION
        self._fast = abs(value) > edge
        return self._fast

    def _coast(self, running: Tri, coast_ns: int, now: MonoNs) -> Tri:
        match running:
            case True:
                self._ran, self._gap = True, False
                self._coasting, self._coast_until = False, None
            case None:
                self._gap = True
            case False:
                if self._ran:
                    self._coasting = None if self._gap else True
                    self._coast_until = MonoNs(now + coast_ns)
                self._ran = self._gap = False
        if self._coast_until is not None and now >= self._coast_until:
            self._coasting, self._coast_until = False, None
        return self._coasting

    def _judge_conflict(self, now: MonoNs) -> None:
        stands = self._zero_speed is not None and self._zero_speed.truth is True
        runs = self._running is not None and self._running.truth is True
        if not (stands and (runs or self._fast)):
            self._conflict_since, self.is_conflicting = None, False
            return
        if self._conflict_since is None:
            self._conflict_since = now
        self.is_conflicting = now - self._conflict_since >= CONFLICT_AFTER_NS
