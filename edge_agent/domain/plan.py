"""The compiled configuration: what to read, what it means, which rules judge it. Frozen; the engine's whole world.

`settings` compiles a configuration file into one `CellPlan`, after every check has passed; from then on nothing
looks anything up by name on the hot path. Signals and blocks are dense lists indexed by their ids. Everything carries
its unit in its name; times are milliseconds here, nanoseconds only inside the engine.

Source of names and kinds: the outside contract, section 2; rules and defaults: ISA-18.2 priorities over the rule
catalogue in the README's map of rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edge_agent.domain.units import AgentId, BlockId, DeviceId, GuardId, MachineId, SignalId, SiteId
from edge_agent.wire.event import Priority


class Table(StrEnum):
    """The four Modbus tables; each has the one function code that reads it (Modbus Application Protocol 1.1b3, 6.1–6.4)."""

    COIL = "co"
    DISCRETE_INPUT = "di"
    HOLDING_REGISTER = "hr"
    INPUT_REGISTER = "ir"

    @property
    def function_code(self) -> int:
        """1 to 4: the agent knows no others."""
        return _FUNCTION_CODES[self]

    @property
    def is_bits(self) -> bool:
        """Whether an item is one bit (else a 16-bit register)."""
        return self in (Table.COIL, Table.DISCRETE_INPUT)


_FUNCTION_CODES = {
    Table.COIL: 1,
    Table.DISCRETE_INPUT: 2,
    Table.HOLDING_REGISTER: 3,
    Table.INPUT_REGISTER: 4,
}


class ValueType(StrEnum):
    """How raw content becomes a value; `bit` for coils, discrete inputs and single bits of registers."""

    BIT = "bit"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT32 = "uint32"
    INT32 = "int32"
    FLOAT32 = "float32"
    UINT64 = "uint64"
    INT64 = "int64"
    FLOAT64 = "float64"

    @property
    def registers(self) -> int:
        """How many 16-bit registers one value spans."""
        return _REGISTERS[self]


_REGISTERS = {
    ValueType.BIT: 1,
    ValueType.UINT16: 1,
    ValueType.INT16: 1,
    ValueType.UINT32: 2,
    ValueType.INT32: 2,
    ValueType.FLOAT32: 2,
    ValueType.UINT64: 4,
    ValueType.INT64: 4,
    ValueType.FLOAT64: 4,
}


class Endian(StrEnum):
    """Order of words in a value, or of bytes in a word."""

    BIG = "big"
    LITTLE = "little"


class Grade(StrEnum):
    """Evidence grade: A the safety channel itself, B a separate auxiliary contact, C PLC-derived."""

    A = "A"
    B = "B"
    C = "C"


class GuardKind(StrEnum):
    """Kinds of guard (ISO 12100 / ISO 14119 / IEC 61496 terms)."""

    INTERLOCKED_DOOR = "interlocked_door"
    LOCKED_DOOR = "locked_door"
    TRAPPED_KEY = "trapped_key"
    LIGHT_CURTAIN = "light_curtain"
    SAFETY_MAT = "safety_mat"
    PULL_CORD = "pull_cord"
    ESTOP = "estop"
    TWO_HAND = "two_hand"


class RuleName(StrEnum):
    """The rules this version judges, by their contract names (R01, R09, R17, R22, R29)."""

    GUARD_OPEN_MOTION = "guard_open_motion"
    CHANNEL_DISCREPANCY = "channel_discrepancy"
    BYPASS_ACTIVE = "bypass_active"
    ESTOP = "estop"
    MONITORING_LOST = "monitoring_lost"


@dataclass(frozen=True, slots=True)
class Coding:
    """How raw content becomes a value. Apart from the signals, because thousands of them share a handful.

    Analog value = raw × scale + offset, in `unit`; `rated` and `limit` are in it too.
    `mask`: the raw value is only those bits of a whole item, shifted down to the lowest of them; `bit` is then None.
    `map`: raw integer → word (a mode); a raw value it lacks is unknown. `true_when`, `false_when`: the raw integers that
    make a coded bit; without one of the lists all that is not in the other, with both all else is unknown. `sentinel`:
    raw values by which the device says that it does not know (65535 of a broken sensor); they are unknown too.
    A change to true counts after `debounce_on_ms`, one to false after `debounce_off_ms`; all else has both equal.
    `counter_max` is where a counter wraps, if not at the end of its type.
    """

    word_order: Endian = Endian.BIG
    byte_order: Endian = Endian.BIG
    invert: bool = False
    debounce_on_ms: int = 0
    debounce_off_ms: int = 0
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    map: Mapping[int, str] | None = field(default=None, hash=False)
    rated: float | None = None
    limit: float | None = None
    sentinel: tuple[int, ...] = ()
    mask: int | None = None
    true_when: tuple[int, ...] = ()
    false_when: tuple[int, ...] = ()
    counter_max: int | None = None


PLAIN = Coding()
"""Raw content is the value."""


@dataclass(frozen=True, slots=True)
class SignalPlan:
    """One interpreted point. `name` is the configuration's (`running`, `ch_a`, `locked`, `bypass`, `mode`, …).

    `machine`/`guard` are None for what belongs to a device. `number` is the 0-based PDU address, `bit` 0 = least
    significant (None where the whole item is the value). `poll_ms` is how often it is read. `module`: the part of the
    device that must be proven present (`DevicePlan.presence`).
    """

    id: SignalId
    name: str
    machine: MachineId | None
    guard: GuardId | None
    device: DeviceId
    table: Table
    number: int
    bit: int | None
    type: ValueType
    poll_ms: int
    coding: Coding = PLAIN
    grade: Grade = Grade.C
    module: str | None = None

    @property
    def is_bit(self) -> bool:
        """Whether one bit is the value: a coil, a discrete input, or a bit of a register."""
        return self.type is ValueType.BIT

    @property
    def end(self) -> int:
        """The address after its last item."""
        return self.number + self.type.registers

    @property
    def path(self) -> str:
        """`machine/guard/name`, without the parts it has not: how evidence names it."""
        return "/".join(part for part in (self.machine, self.guard, self.name) if part)


@dataclass(frozen=True, slots=True)
class RulePlan:
    """One rule on one guard, machine or device, its parameters resolved.

    `on_delay_ms` is the first stage's delay (R01: T_allow), `off_delay_ms` how long the cause must be gone,
    `unknown_delay_ms` the U-raise, `hold_gap_ms` how long a HELD sum outlives a gap. `parameters` holds the rule's
    own further stages (e.g. `permitless_ms`, `unreset_ms`), units in their names. `detect_ms` is the worst case from
    the physical change to the finding: poll + debounce + on-delay + poll + 50 (the outside contract, section 2).
    """

    name: RuleName
    priority: Priority
    on_delay_ms: int
    off_delay_ms: int
    unknown_delay_ms: int | None
    latch: bool
    hold_gap_ms: int
    parameters: Mapping[str, int] = field(hash=False)
    detect_ms: int


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """One guard: its one or two channels (1 = closed), what else is wired, its rules.

    `signals` holds everything else wired to the guard by its configuration name. `locked` and `bypass` are also
    named apart because the guard's displayed state needs them.
    """

    id: GuardId
    machine: MachineId
    labels: Mapping[str, str]
    kind: GuardKind
    channels: tuple[SignalId, ...]
    locked: SignalId | None
    bypass: SignalId | None
    signals: Mapping[str, SignalId]
    rules: tuple[RulePlan, ...]
    stale_ms: int

    @property
    def path(self) -> str:
        """`machine/guard`."""
        return f"{self.machine}/{self.id}"


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One machine: motion sources, mode and permits by name in `signals`, and its guards in board order.

    `rundown_ms` is None when not configured (then coasting is none).
    """

    id: MachineId
    labels: Mapping[str, str]
    area: str | None
    kind: str
    rundown_ms: int | None
    signals: Mapping[str, SignalId]
    guards: tuple[GuardPlan, ...]
    rules: tuple[RulePlan, ...]

    @property
    def has_motion_source(self) -> bool:
        """Whether anything says if it moves; without one it gets no motion rules."""
        return any(name in self.signals for name in ("running", "zero_speed", "speed"))


@dataclass(frozen=True, slots=True)
class HeartbeatPlan:
    """A free-running counter in the device: unchanged for `stale_ms`, the device's data is frozen."""

    signal: SignalId
    stale_ms: int


WHOLE_DEVICE = "device"
"""The presence check of this name covers every signal of its device."""


@dataclass(frozen=True, slots=True)
class PresencePlan:
    """A proof that something is there: while `signal` is not true, nothing that it covers may be believed.

    `name` is `WHOLE_DEVICE`, or the module that signals name by `SignalPlan.module`.
    """

    name: str
    signal: SignalId


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One Modbus device (unit) behind a link. Devices with the same `url` share one link, one request in flight.

    `timeout_ms` is for one request; values become unknown `stale_ms` after the request of their last good reply;
    at most `max_rps` requests per second. `poll_ms` and `stale_ms` hold for signals without a rate of their own; what
    counts for a request stands in its block. The link rests `connect_pause_ms` after connecting and `pause_ms` before
    each further request to this device; `connections` is how many connections the link may open.
    """

    id: DeviceId
    url: str
    unit: int
    poll_ms: int
    timeout_ms: int
    stale_ms: int
    max_rps: int
    heartbeat: HeartbeatPlan | None
    rules: tuple[RulePlan, ...]
    blocks: tuple[BlockId, ...]
    pause_ms: int = 0
    connect_pause_ms: int = 0
    connections: int = 1
    presence: tuple[PresencePlan, ...] = ()

    @property
    def is_rtu_framed(self) -> bool:
        """Whether its link carries RTU frames, which nothing but silence tells apart (Modbus over Serial Line 1.02, 2.5.1)."""
        return self.url.startswith("modbus+rtu")


@dataclass(frozen=True, slots=True)
class ReadBlock:
    """One read request: `count` items of `table` from `start`, and the signals that live in its answer.

    It goes out every `poll_ms`; its content becomes unknown `stale_ms` after the request of its last good reply.
    """

    id: BlockId
    device: DeviceId
    table: Table
    start: int
    count: int
    signals: tuple[SignalId, ...]
    poll_ms: int
    stale_ms: int

    @property
    def length_bytes(self) -> int:
        """Exact number of data bytes of a good answer (bits are packed, eight to a byte)."""
        return (self.count + 7) // 8 if self.table.is_bits else self.count * 2


@dataclass(frozen=True, slots=True)
class CellPlan:
    """Everything one agent watches. `signals[i].id == i`, `blocks[i].id == i`."""

    site: SiteId
    agent: AgentId
    labels: Mapping[str, str]
    site_labels: Mapping[str, str] | None
    areas: Mapping[str, Mapping[str, str]]
    devices: Mapping[DeviceId, DevicePlan]
    machines: Mapping[MachineId, MachinePlan]
    signals: tuple[SignalPlan, ...]
    blocks: tuple[ReadBlock, ...]
    config_hash: str
    state_report_s: int = 3600
    shared: frozenset[SignalId] = field(default_factory=frozenset)
