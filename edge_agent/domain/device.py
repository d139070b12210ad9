"""One Modbus device as a source: frozen, lost, restored, and which guards are blind without it.

A device is *lost* when a block of it goes stale or its heartbeat stops; it is *restored* when all its blocks are good
again. A heartbeat is a free-running counter in the controller's program: a controller in STOP goes on answering with
old data, and only the counter tells. It is judged at samples: unchanged for more than `stale_ms` freezes every signal
of the device at once. When it moves again, its own block is good at once; the others with their next reply, since
what they hold was read while the program stood still.

Source: the rule catalogue, quality FROZEN; the outside contract, `device_lost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from edge_agent.domain.decode import Value
from edge_agent.domain.evidence import GUARDS_LISTED_MAX
from edge_agent.domain.findings import DeviceView, Findings
from edge_agent.domain.node import Node
from edge_agent.domain.plan import DevicePlan
from edge_agent.domain.quality import BlockState, Supply, age_ms
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_MS, MonoNs
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
        "_beat",
        "_beat_at",
        "_beat_content",
        "_beat_stale_ns",
        "_findings",
        "_lost",
        "_signals",
        "feeds",
        "is_frozen",
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
        self.is_frozen = False
        self._findings = findings
        self._lost = _recalled_loss(memory)
        heartbeat = plan.heartbeat
        self._beat = next((s for s in signals if heartbeat and s.plan.id == heartbeat.signal), None)
        self._beat_stale_ns = heartbeat.stale_ms * NS_PER_MS if heartbeat else 0
        self._beat_content: Value = None
        self._beat_at = MonoNs(0)

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

    @property
    def beat(self) -> Signal | None:
        """The signal that is its heartbeat, if any."""
        return self._beat

    def hear(self, content: Value, now: MonoNs, *, after_gap: bool) -> None:
        """The heartbeat's content in a good reply: settles `is_frozen`."""
        if content is not None and content != self._beat_content:
            self._beat_content, self._beat_at = content, now
            self.is_frozen = False
        elif after_gap and not self.is_frozen:
            # Nobody watched the counter meanwhile; an equal reading may be a whole turn later.
            self._beat_at = now
        elif now - self._beat_at > self._beat_stale_ns:
            self.is_frozen = True

    @property
    def last_beat(self) -> tuple[Value, MonoNs]:
        """The counter's content when it last moved, and when that was."""
        return self._beat_content, self._beat_at

    @property
    def is_bad(self) -> bool:
        """Whether any of its sources has not been good since its first reply or its time for one."""
        return any(block.supply in (Supply.LOST, Supply.FROZEN) for block in self.blocks) or any(
            not signal.is_good and not signal.block.is_pending for signal in self.inputs
        )

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
        lost = next((block for block in self.blocks if block.supply is Supply.LOST), None)
        if self._lost is None and (self.is_frozen or lost is not None):
            reason = FROZEN_REASON if lost is None else lost.failure or STALE_REASON
            self._lose(reason, now)
        elif self._lost is not None and all(block.supply is Supply.GOOD for block in self.blocks):
            self._findings.note(now, DeviceRestored(self.plan.id, RESTORED_REASON, self._lost.guards))
            self._findings.remember(self._key, None)
            self._lost = None
        return True

    def view(self, now: MonoNs) -> DeviceView:
        """How health shows it."""
        ages = [age_ms(block, now) for block in self.blocks]
        known = [age for age in ages if age is not None]
        is_up = all(block.supply is Supply.GOOD for block in self.blocks)
        return DeviceView(self.plan.id, is_up, max(known) if len(known) == len(ages) and known else None)

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
