"""One machine: its motion and its mode, recorded when they change.

Until every block that motion and mode are read from has answered once (or has had its time to), nothing is recorded:
half a picture would look like a change. Then the memory of the last run is compared, and only a difference is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from edge_agent.domain.findings import Findings, MachineView
from edge_agent.domain.kleene import Tri
from edge_agent.domain.motion import Motion
from edge_agent.domain.node import Node
from edge_agent.domain.plan import MachinePlan
from edge_agent.domain.quality import worst
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs
from edge_agent.wire.event import Json, MachineChanged, Observation, Quality
from edge_agent.wire.structure import MisfitError, plain, structure

MACHINE_KEY_PREFIX = "machine/"
"""Memory keys of machines begin so."""

MOTION_SOURCES = ("running", "speed", "zero_speed")
"""The signals that say whether a machine moves, by their configuration names."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """`last_moving` outlives an unknown motion: a machine that was last moving may still be."""

    moving: bool | None
    mode: str | None
    last_moving: bool


class MachineWatch(Node):
    """Watches one machine; its rules (`judges`) read `moving` and `mode`.

    `moving_from` is from when `moving` counts as it is; 0 before it was first known.
    """

    __slots__ = (
        "_findings",
        "_mode_signal",
        "_motion",
        "_told",
        "judges",
        "last_moving",
        "mode",
        "motion_inputs",
        "moving",
        "moving_from",
        "plan",
    )

    def __init__(
        self, plan: MachinePlan, signals: Mapping[str, Signal], findings: Findings, memory: Json
    ) -> None:
        self.motion_inputs = tuple(signals[name] for name in MOTION_SOURCES if name in signals)
        self._mode_signal = signals.get("mode")
        super().__init__()
        self.plan = plan
        self.judges: tuple[Node, ...] = ()
        self._findings = findings
        self._told = _recalled(memory)
        self.last_moving = self._told is not None and self._told.last_moving
        self._motion = Motion(
            signals.get("running"),
            signals.get("speed"),
            signals.get("zero_speed"),
            plan.rundown_ms,
            was_moving=self.last_moving,
        )
        self.moving: Tri = None
        self.moving_from = MonoNs(0)
        self.mode: str | None = None

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """What tells motion, and mode."""
        return self.motion_inputs if self._mode_signal is None else (*self.motion_inputs, self._mode_signal)

    @property
    def readers(self) -> tuple[Node, ...]:
        """The rules that judge by its motion or mode."""
        return self.judges

    @property
    def has_motion_source(self) -> bool:
        """Whether anything says if it moves."""
        return bool(self.motion_inputs)

    @property
    def is_conflicting(self) -> bool:
        """Whether its motion sources have contradicted each other for too long to be a transition."""
        return self._motion.is_conflicting

    def step(self, now: MonoNs, *, sampled: bool) -> bool:  # noqa: ARG002 — coasting ends without a sample
        """Judge motion and mode anew; the rules that read them step when either changed."""
        was = (self.moving, self.mode, self.is_conflicting)
        self.moving = self._motion.step(now)
        self.mode = self._mode_word()
        self.due = self._motion.due()
        if self.moving is not was[0]:
            self.moving_from = self._changed_at(now)
        if self.moving is not None:
            self.last_moving = self.moving
        if self.is_conflicting and not was[2]:
            self._findings.note(now, Observation("source_conflict", {"machine": self.plan.id}))
        if self.inputs and not self.is_pending:
            self._tell(now)
        return was != (self.moving, self.mode, self.is_conflicting)

    def view(self) -> MachineView:
        """How it stands now."""
        quality = worst(signal.quality for signal in self.inputs)
        conflict = (Quality.CONFLICT,) if self.is_conflicting else ()
        return MachineView(self.plan.id, self.moving, self.mode, worst((quality, *conflict)))

    def _changed_at(self, now: MonoNs) -> MonoNs:
        """When `moving` changed: a start with what proves it, all else (coasting ends by itself) now."""
        if self.moving is not True:
            return now
        return max((item.since for item in self.motion_inputs if item.since is not None), default=now)

    @property
    def motion_proofs(self) -> tuple[Signal, ...]:
        """The sources that prove by themselves that it moves."""
        return self._motion.proofs

    @property
    def mode_inputs(self) -> tuple[Signal, ...]:
        """What tells its mode."""
        return () if self._mode_signal is None else (self._mode_signal,)

    @property
    def mode_from(self) -> MonoNs | None:
        """From when `mode` counts as it is; None where it cannot be read."""
        return MonoNs(0) if self._mode_signal is None else self._mode_signal.since

    def _mode_word(self) -> str | None:
        value = None if self._mode_signal is None else self._mode_signal.value
        return value if isinstance(value, str) else None

    def _tell(self, now: MonoNs) -> None:
        told = self._told
        if told is not None and (told.moving, told.mode) == (self.moving, self.mode):
            return
        was = None if told is None else told.moving
        self._findings.note(now, MachineChanged(self.plan.id, self.moving, self.mode, was))
        self._told = _Memory(self.moving, self.mode, self.last_moving)
        self._findings.remember(MACHINE_KEY_PREFIX + self.plan.id, plain(self._told))


def _recalled(memory: Json) -> _Memory | None:
    try:
        return cast("_Memory", structure(_Memory, memory, "memory"))
    except MisfitError:
        return None
