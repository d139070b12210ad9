"""One Modbus device as a source: frozen, lost, restored, and which guards are blind without it.

A device is *lost* when a block of it goes stale, its heartbeat stands still or a presence check denies it; it is
*restored* when all its blocks are good again and no check denies. Its heartbeat (`heartbeat`) and its presence checks
(`presence`) decide what its replies are worth; a block that is not the heartbeat's own is good again with its next
reply, since what it holds was read before the proof.

Source: the rule catalogue, quality FROZEN and encoding traps; the outside contract, `device_lost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from edge_agent.domain.evidence import GUARDS_LISTED_MAX
from edge_agent.domain.findings import DeviceView, Findings
from edge_agent.domain.heartbeat import Heartbeat
from edge_agent.domain.node import Node
from edge_agent.domain.plan import DevicePlan
from edge_agent.domain.presence import PresenceCheck, presence_checks
from edge_agent.domain.quality import BlockState, Supply, age_ms
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs
from edge_agent.wire.event import DeviceLost, DeviceRestored, Json
from edge_agent.wire.structure import MisfitError, plain, structure

DEVICE_KEY_PREFIX = "device/"
"""Memory keys of lost devices begin so."""

FROZEN_REASON = "frozen"
STALE_REASON = "stale"
RESTORED_REASON = "good"


class Feed(Protocol):
    """What a device asks of a guard that it feeds."""

    @property
    def path(self) -> str:
        """`machine/guard`."""
        ...

    @property
    def judged_by(self) -> Sequence[Signal]:
        """Everything that its state and its rules read."""
        ...


@dataclass(frozen=True, slots=True)
class _LostMemory:
    reason: str
    guards: tuple[str, ...]


class DeviceWatch(Node):
    """Watches the supply of one device; `monitors` is its R29, where it has one."""

    __slots__ = (
        "_findings",
        "_lost",
        "_signals",
        "checks",
        "feeds",
        "heartbeat",
        "monitors",
        "plan",
    )

    def __init__(
        self,
        plan: DevicePlan,
        signals: Sequence[Signal],
        blocks: Sequence[BlockState],
        findings: Findings,
        memory: Json,
    ) -> None:
        self._signals = tuple(signals)
        super().__init__()
        self.plan = plan
        self.blocks = tuple(blocks)
        self.feeds: tuple[Feed, ...] = ()
        self.monitors: tuple[Node, ...] = ()
        self._findings = findings
        self._lost = _recalled_loss(memory)
        beat = next((s for s in signals if plan.heartbeat and s.plan.id == plan.heartbeat.signal), None)
        self.heartbeat: Heartbeat | None = None
        if plan.heartbeat is not None and beat is not None:
            self.heartbeat = Heartbeat(beat, plan.heartbeat.stale_ms)
        self.checks = presence_checks(plan, signals)

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """Every signal that is read from it."""
        return self._signals

    @property
    def heard(self) -> tuple[Signal, ...]:
        """Nothing: it reads qualities only, and is marked when they change."""
        return ()

    @property
    def readers(self) -> tuple[Node, ...]:
        """Its R29."""
        return self.monitors

    def supply_of(self, block: BlockState, now: MonoNs) -> Supply:
        """What a good reply of `block` makes of its supply."""
        return Supply.GOOD if self.heartbeat is None else self.heartbeat.supply_of(block, now)

    @property
    def last_beat_at(self) -> MonoNs:
        """When its heartbeat was last seen to move."""
        return MonoNs(0) if self.heartbeat is None else self.heartbeat.moved_at

    def awaits_proof(self, block: BlockState) -> bool:
        """Whether `block` must be read again, because a presence check holds only since it was asked for."""
        return any(check.is_proven and check.doubt(block) is not None for check in self.checks)

    @property
    def is_bad(self) -> bool:
        """Whether any of its sources has not been good since its first reply or its time for one."""
        return any(block.supply in (Supply.LOST, Supply.FROZEN) for block in self.blocks) or any(
            not signal.is_good and not signal.is_pending for signal in self.inputs
        )

    @property
    def denied(self) -> tuple[PresenceCheck, ...]:
        """The presence checks that can be read, and do not hold."""
        return tuple(check for check in self.checks if check.is_denied)

    def blinded(self) -> tuple[str, ...]:
        """The guards, in board order, that cannot be fully judged because an input on this device is not good."""
        device = self.plan.id
        return tuple(
            feed.path
            for feed in self.feeds
            if any(not signal.is_good and signal.plan.device == device for signal in feed.judged_by)
        )

    def step(self, now: MonoNs, *, sampled: bool) -> bool:  # noqa: ARG002 — supply changes with or without a sample
        """Record its loss or its return; its R29 steps in any case."""
        trouble = self._trouble()
        if self._lost is None and trouble is not None:
            self._lose(trouble, now)
        elif self._lost is not None and trouble is None and self._is_whole():
            self._findings.note(now, DeviceRestored(self.plan.id, RESTORED_REASON, self._lost.guards))
            self._findings.remember(self._key, None)
            self._lost = None
        return True

    def view(self, now: MonoNs) -> DeviceView:
        """How health shows it."""
        ages = [age_ms(block, now) for block in self.blocks]
        known = [age for age in ages if age is not None]
        is_up = self._is_whole() and not self.denied
        return DeviceView(self.plan.id, is_up, max(known) if len(known) == len(ages) and known else None)

    def _is_whole(self) -> bool:
        return all(block.supply is Supply.GOOD for block in self.blocks)

    def _trouble(self) -> str | None:
        """Why it is lost now, if it is: what is the matter with the link says more than what follows from it."""
        supplies = [block.supply for block in self.blocks]
        if Supply.LOST in supplies:
            failures = (block.failure for block in self.blocks if block.supply is Supply.LOST)
            return next((failure for failure in failures if failure is not None), STALE_REASON)
        if Supply.FROZEN in supplies:
            return FROZEN_REASON
        return next((check.reason for check in self.denied), None)

    def _lose(self, reason: str, now: MonoNs) -> None:
        self._lost = _LostMemory(reason, self.blinded()[:GUARDS_LISTED_MAX])
        self._findings.note(now, DeviceLost(self.plan.id, reason, self._lost.guards))
        self._findings.remember(self._key, plain(self._lost))

    @property
    def _key(self) -> str:
        return DEVICE_KEY_PREFIX + self.plan.id


def _recalled_loss(memory: Json) -> _LostMemory | None:
    try:
        return cast("_LostMemory", structure(_LostMemory, memory, "memory"))
    except MisfitError:
        return None
