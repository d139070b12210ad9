"""The real engine behind the links: a block without a good reply is unknown once its time is up, whatever its link did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge_agent.domain.plan import (
    CellPlan,
    DevicePlan,
    GuardKind,
    GuardPlan,
    MachinePlan,
    SignalPlan,
    ValueType,
)
from edge_agent.domain.units import (
    NS_PER_MS,
    AgentId,
    DeviceId,
    GuardId,
    MachineId,
    MonoNs,
    SignalId,
    SiteId,
    UtcNs,
)
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from edge_agent.ports import BlockOk, BlockOutcome
from edge_agent.wire.event import GuardState
from tests.faults.line import TIMEOUT_MS
from tests.faults.truth import CONTENT_BYTES, POLL_MS, STALE_MS, UNITS, Place

STALE_NS: Final = STALE_MS * NS_PER_MS
MACHINE: Final = MachineId("cell")
_LABELS: Final[Mapping[str, str]] = {"zh": "单元", "en": "Cell"}
_WORDS: Final = CONTENT_BYTES // 2


def plan_of(places: list[Place]) -> CellPlan:
    """A guard for each block, whose one channel is the lowest bit of the block's generation."""
    signals = tuple(_channel(place) for place in places)
    guards = tuple(
        GuardPlan(
            _guard(place), MACHINE, _LABELS, GuardKind.ESTOP, (signal.id,), None, None, {}, (), STALE_MS
        )
        for place, signal in zip(places, signals, strict=True)
    )
    devices = {
        DeviceId(f"unit-{unit}"): DevicePlan(
            DeviceId(f"unit-{unit}"),
            "modbus+tcp://192.0.2.1",
            unit,
            POLL_MS,
            TIMEOUT_MS,
            STALE_MS,
            1000,
            None,
            (),
            tuple(place.block.id for place in places if place.unit == unit),
        )
        for unit in UNITS
    }
    machine = MachinePlan(MACHINE, _LABELS, None, "mixer", None, {}, guards, ())
    blocks = tuple(place.block for place in places)
    return CellPlan(
        SiteId("s"), AgentId("a"), _LABELS, None, {}, devices, {MACHINE: machine}, signals, blocks, "0" * 64
    )


def _guard(place: Place) -> GuardId:
    return GuardId(f"guard-{place.block.id}")


def _channel(place: Place) -> SignalPlan:
    block = place.block
    number, bit = (
        (block.start + 8 * (CONTENT_BYTES - 1), None)
        if block.table.is_bits
        else (block.start + _WORDS - 1, 0)
    )
    return SignalPlan(
        SignalId(block.id),
        "ch_a",
        MACHINE,
        _guard(place),
        block.device,
        block.table,
        number,
        bit,
        ValueType.BIT,
        POLL_MS,
    )


class Watch:
    """Feeds the engine and looks at what it shows. `late_ns_max`: how long beyond its time a state was shown."""

    def __init__(self, places: list[Place]) -> None:
        self.went_unknown = 0
        self.late_ns_max = 0
        self.shown_too_long = 0
        wall = WallPair(MonoNs(0), UtcNs(0), synced=True)
        self._engine = EdgeEngine(plan_of(places), epoch="E", boot="b", now=MonoNs(0), wall=wall, memory={})
        self._good_ns: dict[GuardId, int] = {}

    def take(self, place: Place, outcome: BlockOutcome, asked_ns: int, now_ns: int) -> None:
        """One outcome, at its time; before it, everything that time alone brings."""
        self._pass_time(now_ns)
        if isinstance(outcome, BlockOk):
            self._engine.receive_block(place.block.id, outcome.data, MonoNs(asked_ns), MonoNs(now_ns))
            if now_ns - asked_ns < STALE_NS:
                self._note_good(_guard(place), asked_ns)
        else:
            self._engine.receive_failure(place.block.id, outcome.reason, MonoNs(now_ns))
        self._look(now_ns)

    def _note_good(self, guard: GuardId, asked_ns: int) -> None:
        self._good_ns.pop(guard, None)
        self._good_ns[guard] = asked_ns

    def _pass_time(self, now_ns: int) -> None:
        while (due := self._engine.next_deadline()) is not None and due <= now_ns:
            self._engine.handle_timer(due)
            self._look(due)

    def _look(self, now_ns: int) -> None:
        """Hold against the engine every state whose last good request is too long ago."""
        self._engine.take_effects()
        expired: list[GuardId] = []
        for guard, asked_ns in self._good_ns.items():  # the longest ago first
            late_ns = now_ns - asked_ns - STALE_NS
            if late_ns < 0:
                break
            if self._engine.guard_view(MACHINE, guard).state is GuardState.UNKNOWN:
                expired.append(guard)
                self.late_ns_max = max(self.late_ns_max, late_ns)
            else:
                self.shown_too_long += 1
        for guard in expired:
            del self._good_ns[guard]
        self.went_unknown += len(expired)
