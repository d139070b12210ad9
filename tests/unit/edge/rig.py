"""A small cell on paper, and a rig that feeds an engine with samples in virtual time.

The cell: controller `plc1` carries a machine with two-channel door, E-stop and mode; `drive` (a second device)
carries motion, so that motion and guard can be blinded apart. Times are milliseconds from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from edge_agent.domain.findings import Draft, GuardView, PublishState, RecordEvents
from edge_agent.domain.plan import (
    CellPlan,
    Coding,
    DevicePlan,
    GuardKind,
    GuardPlan,
    HeartbeatPlan,
    MachinePlan,
    ReadBlock,
    RuleName,
    RulePlan,
    SignalPlan,
    Table,
    ValueType,
)
from edge_agent.domain.units import (
    NS_PER_MS,
    AgentId,
    BlockId,
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
from edge_agent.wire.event import Body, Json, Priority, ViolationChanged, ViolationCleared, ViolationRaised

POLL_MS = 200
STALE_MS = 2000
UTC_AT_START = UtcNs(1_790_000_000 * 1_000_000_000)
MODES = {0: "auto", 1: "setup", 2: "MAINT", 3: "local"}
LABELS = {"zh": "门", "en": "door"}

DOOR_BITS = ("ch_a", "ch_b", "locked", "bypass")
PLC_BITS = (*DOOR_BITS, "estop", "permit")

_T = TypeVar("_T")


def ns(ms: float) -> MonoNs:
    return MonoNs(round(ms * NS_PER_MS))


def rule(
    name: RuleName,
    *,
    on: int,
    off: int = 2000,
    unknown: int | None = None,
    priority: Priority = Priority.P1,
    parameters: Mapping[str, int] | None = None,
) -> RulePlan:
    return RulePlan(
        name, priority, on, off, unknown, True, 10_000, dict(parameters or {}), POLL_MS * 2 + on + 50
    )


R01 = rule(RuleName.GUARD_OPEN_MOTION, on=1000, unknown=5000, parameters={"unknown_guard_delay_ms": 10_000})
R09 = rule(RuleName.CHANNEL_DISCREPANCY, on=500, off=0, priority=Priority.P2)
R17 = rule(RuleName.BYPASS_ACTIVE, on=1000, off=5000, unknown=5000, parameters={"permitless_ms": 900_000})
R22 = rule(RuleName.ESTOP, on=0, off=2000, priority=Priority.P2, parameters={"unreset_ms": 1_800_000})
R29 = rule(
    RuleName.MONITORING_LOST, on=10_000, off=30_000, priority=Priority.P2, parameters={"window_ms": 60_000}
)


@dataclass(frozen=True)
class Layout:
    """What a test wants of the cell; every signal lives in the block its device reads."""

    door_rules: tuple[RulePlan, ...] = (R01, R09, R17)
    device_rules: tuple[RulePlan, ...] = (R29,)
    door_signals: tuple[str, ...] = DOOR_BITS
    motion: tuple[str, ...] = ("running",)
    estop: bool = True
    permit: bool = False
    mode: bool = True
    heartbeat_stale_ms: int | None = None
    rundown_ms: int | None = None
    debounce_ms: int = 0


class _Wiring:
    """Hands out signals in the order in which they are wired; a block is what was wired since the last one."""

    def __init__(self) -> None:
        self.signals: list[SignalPlan] = []
        self.blocks: list[ReadBlock] = []
        self._first = 0

    def wire(
        self,
        name: str,
        device: DeviceId,
        table: Table,
        number: int,
        guard: GuardId | None = None,
        **more: object,
    ) -> SignalId:
        machine = None if name == "heartbeat" else MIXER
        kind = ValueType.UINT16 if name in {"mode", "heartbeat", "speed"} else ValueType.BIT
        plan = SignalPlan(
            SignalId(len(self.signals)), name, machine, guard, device, table, number, None, kind, POLL_MS
        )
        coded = {key: more.pop(key) for key in list(more) if key not in plan.__slots__}
        self.signals.append(replace(plan, coding=Coding(**coded), **more))  # type: ignore[arg-type]
        return plan.id

    def block(self, device: DeviceId, table: Table, count: int) -> None:
        inside = tuple(signal.id for signal in self.signals[self._first :])
        self._first = len(self.signals)
        if inside:
            self.blocks.append(
                ReadBlock(BlockId(len(self.blocks)), device, table, 0, count, inside, POLL_MS, STALE_MS)
            )

    def device(
        self, device: DeviceId, rules: tuple[RulePlan, ...], heartbeat: HeartbeatPlan | None = None
    ) -> dict[DeviceId, DevicePlan]:
        own = tuple(block.id for block in self.blocks if block.device == device)
        plan = DevicePlan(
            device, f"modbus+tcp://{device}.example:502", 1, POLL_MS, 500, STALE_MS, 50, heartbeat, rules, own
        )
        return {device: plan} if own else {}


PLC, DRIVE = DeviceId("plc1"), DeviceId("drive")
MIXER, DOOR, ESTOP = MachineId("mixer"), GuardId("door"), GuardId("estop")
MOTION: Mapping[str, tuple[int, dict[str, object]]] = {
    "running": (0, {"bit": 0}),
    "zero_speed": (1, {"bit": 0}),
    "speed": (2, {"type": ValueType.INT16, "rated": 100.0}),
}


EVERYTHING = Layout()


def cell(layout: Layout = EVERYTHING) -> CellPlan:
    """`plc1`: a block of bits (door, estop, permit), one of words (mode, heartbeat); `drive`: one block of motion."""
    wiring = _Wiring()
    bits_of, words_of, inputs = Table.DISCRETE_INPUT, Table.HOLDING_REGISTER, Table.INPUT_REGISTER
    door = {
        name: wiring.wire(
            name,
            PLC,
            bits_of,
            PLC_BITS.index(name),
            DOOR,
            debounce_on_ms=layout.debounce_ms,
            debounce_off_ms=layout.debounce_ms,
        )
        for name in layout.door_signals
    }
    guards = [_door(layout, door)]
    if layout.estop:
        pressed = wiring.wire("ch_a", PLC, bits_of, 4, ESTOP)
        guards.append(
            GuardPlan(ESTOP, MIXER, LABELS, GuardKind.ESTOP, (pressed,), None, None, {}, (R22,), STALE_MS)
        )
    machine: dict[str, SignalId] = {}
    if layout.permit:
        machine["permit_setup"] = wiring.wire("permit_setup", PLC, bits_of, 5)
    wiring.block(PLC, bits_of, len(PLC_BITS))
    if layout.mode:
        machine["mode"] = wiring.wire("mode", PLC, words_of, 0, map=MODES)
    heartbeat = None
    if layout.heartbeat_stale_ms is not None:
        heartbeat = HeartbeatPlan(wiring.wire("heartbeat", PLC, words_of, 1), layout.heartbeat_stale_ms)
    wiring.block(PLC, words_of, 2)
    for name in layout.motion:
        number, more = MOTION[name]
        machine[name] = wiring.wire(name, DRIVE, inputs, number, None, **more)
    wiring.block(DRIVE, inputs, 3)
    rules = layout.device_rules
    devices = {**wiring.device(PLC, rules, heartbeat), **wiring.device(DRIVE, rules)}
    mixer = MachinePlan(MIXER, LABELS, None, "mixer", layout.rundown_ms, machine, tuple(guards), ())
    signals, blocks = tuple(wiring.signals), tuple(wiring.blocks)
    site, agent = SiteId("site"), AgentId("gw")
    return CellPlan(site, agent, LABELS, None, {}, devices, {MIXER: mixer}, signals, blocks, "0" * 64)


def _door(layout: Layout, wired: Mapping[str, SignalId]) -> GuardPlan:
    return GuardPlan(
        DOOR,
        MIXER,
        LABELS,
        GuardKind.INTERLOCKED_DOOR,
        tuple(wired[name] for name in ("ch_a", "ch_b") if name in wired),
        wired.get("locked"),
        wired.get("bypass"),
        {},
        layout.door_rules,
        STALE_MS,
    )


def bits(*values: int) -> bytes:
    """Bits as Modbus packs them, least significant first."""
    packed = bytearray((len(values) + 7) // 8)
    for index, value in enumerate(values):
        packed[index // 8] |= value << index % 8
    return bytes(packed)


def words(*values: int) -> bytes:
    return b"".join((value & 0xFFFF).to_bytes(2, "big") for value in values)


@dataclass
class Plant:
    """What the controllers hold now."""

    ch_a: int = 1
    ch_b: int = 1
    locked: int = 0
    bypass: int = 0
    estop: int = 1
    permit: int = 0
    mode: int = 0
    heartbeat: int = 0
    running: int = 0
    zero_speed: int = 1
    speed: int = 0

    @property
    def closed(self) -> int:
        return self.ch_a & self.ch_b

    @closed.setter
    def closed(self, value: int) -> None:
        self.ch_a = self.ch_b = value

    def block(self, plan: ReadBlock) -> bytes:
        match plan.table:
            case Table.DISCRETE_INPUT:
                return bits(self.ch_a, self.ch_b, self.locked, self.bypass, self.estop, self.permit)
            case Table.HOLDING_REGISTER:
                return words(self.mode, self.heartbeat)
            case _:
                return words(self.running, self.zero_speed, self.speed)


@dataclass
class Rig:
    """An engine, the plant it watches, and everything it has stated, with the memory it committed."""

    plan: CellPlan
    memory: dict[str, Json] = field(default_factory=dict)
    now_ms: float = 0
    boot: str = "boot-1"
    epoch: str = "01RUN0000A"
    plant: Plant = field(default_factory=Plant)
    dead: set[str] = field(default_factory=set)
    drafts: list[Draft] = field(default_factory=list)
    published: list[GuardView] = field(default_factory=list)
    utc_offset_ms: float = 0
    is_synced: bool = True

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A new engine from the committed memory, as after a kill."""
        self.engine = EdgeEngine(
            self.plan,
            epoch=self.epoch,
            boot=self.boot,
            now=ns(self.now_ms),
            wall=self.wall(),
            memory=dict(self.memory),
        )
        self.commit()

    def restart(self, *, epoch: str, down_ms: float = 0, boot: str | None = None) -> None:
        self.epoch = epoch
        self.now_ms += down_ms
        if boot is not None:
            self.boot = boot
        self.start()

    def wall(self) -> WallPair:
        utc = UtcNs(UTC_AT_START + ns(self.now_ms + self.utc_offset_ms))
        return WallPair(ns(self.now_ms), utc, self.is_synced)

    def step_wall(self, to_ms: float, *, is_synced: bool = True) -> None:
        """Somebody, or network time, sets the wall clock: `to_ms` ahead of the time that it began with."""
        self.utc_offset_ms, self.is_synced = to_ms, is_synced
        self.engine.set_wall(self.wall())

    def commit(self) -> None:
        for effect in self.engine.take_effects():
            match effect:
                case RecordEvents(drafts, memory):
                    self.drafts.extend(drafts)
                    for key, value in memory.items():
                        if value is None:
                            self.memory.pop(key, None)
                        else:
                            self.memory[key] = value
                case PublishState(view):
                    self.published.append(view)

    def poll(self, *, fail: Iterable[str] = (), reason: str = "timeout") -> None:
        """One poll of every block, now: answered by what the plant holds, or failed (`dead`: devices, or tables of one)."""
        failing = set(fail)
        for block in self.plan.blocks:
            if block.device in failing or self.dead & {block.device, f"{block.device}/{block.table}"}:
                self.engine.receive_failure(block.id, reason, ns(self.now_ms))
            else:
                self.engine.receive_block(block.id, self.plant.block(block), ns(self.now_ms), ns(self.now_ms))
        self.commit()

    def run(self, ms: float, *, poll_ms: float = POLL_MS, **values: int) -> None:
        """The plant takes these values; then polls every `poll_ms` for `ms` (at the start, not at the end)."""
        self.set(**values)
        end = self.now_ms + ms
        while self.now_ms < end:
            self.poll()
            self.now_ms = min(self.now_ms + poll_ms, end)

    def wait(self, ms: float) -> None:
        """Time passes without any reply or failure."""
        self.now_ms += ms
        self.engine.handle_timer(ns(self.now_ms))
        self.commit()

    def set(self, **values: int) -> None:
        for name, value in values.items():
            setattr(self.plant, name, value)

    def bodies(self, kind: type[_T]) -> list[_T]:
        return [draft.body for draft in self.drafts if isinstance(draft.body, kind)]

    def story(self, rule_name: str) -> list[str]:
        """The life of a rule's occurrences in short: `+P1`, `+P2?` (unknown), `>P1 proven`, `-returned_to_normal`."""
        lines = []
        for draft in self.drafts:
            line = told(draft.body, rule_name)
            if line is not None:
                lines.append(f"{draft.observed // NS_PER_MS} {line}")
        return lines

    def open_rules(self) -> list[str]:
        return sorted(
            f"{item.rule}:{item.priority.value}:{item.basis.value}"
            for part in self.engine.state_report(ns(self.now_ms))
            for item in part.open
        )

    def door(self) -> GuardView:
        return self.engine.guard_view(MIXER, DOOR)


def told(body: Body, rule_name: str) -> str | None:
    match body:
        case ViolationRaised(rule=name) if name == rule_name:
            return f"+{body.priority.value}" + ("?" if body.basis.value == "unknown" else "")
        case ViolationChanged(rule=name) if name == rule_name:
            return f">{body.priority.value} {body.reason}"
        case ViolationCleared(rule=name) if name == rule_name:
            return f"-{body.reason}"
        case _:
            return None
