"""What the engine wants done: events to mint with the memory that goes with them, and guard states to publish.

Theory of operation. Everything that one step of the engine finds is collected here and handed over at once. One
`RecordEvents` is one commit: its memory and its drafts are stored together or not at all, so that an agent that is
killed at any point takes up exactly what it had told. A `PublishState` follows the commit it stands behind; it
carries the whole view, so that nobody has to ask again.

Occurrence ids are `EPOCH-N`: an epoch belongs to one run (delivery protocol §1), N counts within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edge_agent.domain.units import DeviceId, GuardId, MachineId, MonoNs
from edge_agent.domain.wall import WallPair
from edge_agent.wire.event import Body, GuardState, Json, Quality


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before it has its place in the chain: what, and when it was observed (monotonic)."""

    observed: MonoNs
    body: Body


@dataclass(frozen=True, slots=True)
class RecordEvents:
    """Mint `drafts` in order and put `memory` (None deletes a key), in one commit. Drafts may be none."""

    drafts: tuple[Draft, ...]
    memory: dict[str, Json]


@dataclass(frozen=True, slots=True)
class GuardView:
    """A guard as it is to be shown now; `since` (RFC 3339) is when its state began, `stale_ms` the age that blinds it."""

    machine: MachineId
    guard: GuardId
    state: GuardState
    bypass: bool | None
    locked: bool | None
    quality: Quality
    since: str
    stale_ms: int


@dataclass(frozen=True, slots=True)
class MachineView:
    """A machine now: `moving` and `mode` are None when unknown or not wired; quality `conflict` when sources disagree."""

    machine: MachineId
    moving: bool | None
    mode: str | None
    quality: Quality


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device now: `up` while all its blocks are good, `age_ms` since the request of its oldest last good reply."""

    device: DeviceId
    up: bool
    age_ms: int | None


@dataclass(frozen=True, slots=True)
class PublishState:
    """Publish this guard's retained state, after the commit of the events before it."""

    guard: GuardView


Effect: TypeAlias = RecordEvents | PublishState


class Findings:
    """Collects what a step finds; knows the run's identity and the wall pair that labels are made from.

    `start` (RFC 3339) is when the run began; `monitoring` are the open occurrences of lost monitoring (R29) by device: the parents of raises on unknown.
    """

    __slots__ = (
        "_drafts",
        "_labelled",
        "_memory",
        "_minted",
        "_published",
        "boot",
        "epoch",
        "monitoring",
        "start",
        "wall",
    )

    def __init__(self, epoch: str, boot: str, wall: WallPair) -> None:
        self.epoch = epoch
        self.boot = boot
        self.wall = wall
        self.start = wall.label(wall.mono)
        self.monitoring: dict[DeviceId, str] = {}
        self._minted = 0
        self._labelled: tuple[MonoNs, WallPair, str] | None = None
        self._drafts: list[Draft] = []
        self._memory: dict[str, Json] = {}
        self._published: dict[tuple[MachineId, GuardId], GuardView] = {}

    @property
    def count(self) -> int:
        """How many events have been found since the last `take`."""
        return len(self._drafts)

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything to `take`."""
        return bool(self._drafts or self._memory or self._published)

    def note(self, observed: MonoNs, body: Body) -> None:
        """An event to be minted."""
        self._drafts.append(Draft(observed, body))

    def remember(self, key: str, value: Json) -> None:
        """Memory to be put with the events found so far; None forgets."""
        self._memory[key] = value

    def publish(self, view: GuardView) -> None:
        """A guard's state as it is now; a younger one of the same step replaces it."""
        self._published[view.machine, view.guard] = view

    def mint_occurrence(self) -> str:
        """A new occurrence id, unique for ever."""
        self._minted += 1
        return f"{self.epoch}-{self._minted}"

    def label(self, mono: MonoNs) -> str:
        """UTC label of a monotonic time of this boot; all that happens in one step has the same one."""
        if self._labelled is None or self._labelled[:2] != (mono, self.wall):
            self._labelled = mono, self.wall, self.wall.label(mono)
        return self._labelled[2]

    def take(self) -> list[Effect]:
        """Everything collected, as one commit and the publications behind it; then empty."""
        effects: list[Effect] = []
        if self._drafts or self._memory:
            effects.append(RecordEvents(tuple(self._drafts), self._memory))
        effects.extend(PublishState(view) for view in self._published.values())
        self._drafts, self._memory, self._published = [], {}, {}
        return effects
