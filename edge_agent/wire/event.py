"""What an agent can state: one envelope, and one frozen body per kind.

Theory of operation. An `Event` is an envelope (who, where in the chain, when) and a body. Bodies are plain frozen
dataclasses; their annotations are the schema that `codec` decodes by, so a field is described once. A kind that this
version does not know, or whose content does not fit, becomes `Unrecognised`: it keeps its place in the stream, is
journaled and alarmed, never dropped. Times in bodies are RFC 3339 strings in UTC: labels; durations are integers in
milliseconds and were measured on the monotonic clock. Numbers that are no integers travel as decimal strings.

Source of names and fields: the outside contract, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
"""What an event may hold: JSON without floats."""

WIRE_VERSION = 1
"""`v` of every event; a gateway reads every version ever shipped."""


class EventKind(StrEnum):
    """The kinds of the event stream."""

    AGENT_STARTED = "agent_started"
    STATE_REPORT = "state_report"
    GUARD_CHANGED = "guard_changed"
    MACHINE_CHANGED = "machine_changed"
    VIOLATION_RAISED = "violation_raised"
    VIOLATION_CHANGED = "violation_changed"
    VIOLATION_CLEARED = "violation_cleared"
    DEVICE_LOST = "device_lost"
    DEVICE_RESTORED = "device_restored"
    OBSERVATION = "observation"
    CHECKPOINT = "checkpoint"
    OUTBOX_OVERFLOW = "outbox_overflow"


class GuardState(StrEnum):
    """State of a guard. `unknown` is never shown or scored as closed; `out_of_service` is laid over by the gateway."""

    UNKNOWN = "unknown"
    CLOSED = "closed"
    CLOSED_LOCKED = "closed_locked"
    OPEN = "open"
    BYPASSED = "bypassed"
    FAULT = "fault"
    OUT_OF_SERVICE = "out_of_service"


class Quality(StrEnum):
    """Whether a value may be believed; anything but `good` and `conflict` makes it unknown to the rules."""

    GOOD = "good"
    STALE = "stale"
    COMM_BAD = "comm_bad"
    CONFIG_BAD = "config_bad"
    FROZEN = "frozen"
    CONFLICT = "conflict"
    SIMULATED = "simulated"


class ClockState(StrEnum):
    """Whether the wall clock of the agent was synchronised when it labelled the event."""

    SYNCED = "synced"
    UNSYNCED = "unsynced"


class Priority(StrEnum):
    """Alarm priority, P1 critical to P4 low (ISA-18.2)."""

    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"

    @property
    def rank(self) -> int:
        """1 for P1 … 4 for P4: smaller is more urgent."""
        return int(self.value[1])


class Basis(StrEnum):
    """`proven` by good data, or `unknown`: raised because the dangerous reading could not be excluded."""

    PROVEN = "proven"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Position:
    """One place in a store's chain: the event `seq` of `epoch`, and its hash (64 hex digits)."""

    epoch: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """Seq 1 of every epoch. `after` is the position before it in the store, None in a new store."""

    after: Position | None
    version: str
    config_hash: str
    clean_stop: bool


@dataclass(frozen=True, slots=True)
class OpenOccurrence:
    """One open violation, as a state report lists it."""

    occurrence: str
    rule: str
    machine: str | None
    guard: str | None
    device: str | None
    priority: Priority
    basis: Basis
    since: str
    hidden_by: str | None


@dataclass(frozen=True, slots=True)
class StateReport:
    """Every guard's and machine's state, and every open occurrence, in `parts` consecutive events of one commit.

    `guards`: machine → guard → four letters: state (`GUARD_CODES`), bypass, locked (`1`, `0`, `-` unknown or absent),
    quality (`QUALITY_CODES`). `machines`: machine → [moving (true/false/null), mode or null].
    """

    part: int
    parts: int
    guards: Mapping[str, Mapping[str, str]]
    machines: Mapping[str, tuple[bool | None, str | None]]
    open: tuple[OpenOccurrence, ...]


GUARD_CODES: Mapping[str, GuardState] = {
    "u": GuardState.UNKNOWN,
    "c": GuardState.CLOSED,
    "l": GuardState.CLOSED_LOCKED,
    "o": GuardState.OPEN,
    "b": GuardState.BYPASSED,
    "f": GuardState.FAULT,
}
"""First letter of a guard's short code in a state report."""

QUALITY_CODES: Mapping[str, Quality] = {
    "g": Quality.GOOD,
    "s": Quality.STALE,
    "c": Quality.COMM_BAD,
    "k": Quality.CONFIG_BAD,
    "f": Quality.FROZEN,
    "x": Quality.CONFLICT,
    "m": Quality.SIMULATED,
}
"""Fourth letter of a guard's short code in a state report."""


@dataclass(frozen=True, slots=True)
class GuardChanged:
    """A guard's displayed state changed. `bypass` and `locked` are None when unknown or not wired."""

    machine: str
    guard: str
    state: GuardState
    was: GuardState | None
    bypass: bool | None
    locked: bool | None
    quality: Quality


@dataclass(frozen=True, slots=True)
class MachineChanged:
    """A machine's motion (None = unknown) or mode (None = unknown or not wired) changed; `was` is the motion before."""

    machine: str
    moving: bool | None
    mode: str | None
    was: bool | None


@dataclass(frozen=True, slots=True)
class ViolationRaised:
    """A rule found a violation. `occurrence` is unique for ever; `evidence` is what it was judged by."""

    machine: str | None
    guard: str | None
    device: str | None
    rule: str
    priority: Priority
    basis: Basis
    occurrence: str
    since: str
    hidden_by: str | None
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ViolationChanged:
    """An open occurrence changed its priority, basis or hiding; `was` is the priority before."""

    occurrence: str
    rule: str
    machine: str | None
    guard: str | None
    device: str | None
    priority: Priority
    was: Priority
    basis: Basis
    hidden_by: str | None
    reason: str
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ViolationCleared:
    """An occurrence ended. The three durations are equal unless something was unknown meanwhile."""

    occurrence: str
    rule: str
    machine: str | None
    guard: str | None
    device: str | None
    priority: Priority
    since: str
    reason: str
    duration_ms: int
    duration_min_ms: int
    duration_max_ms: int


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """A device's data went stale; `guards` (as `machine/guard`) are blinded by it."""

    device: str
    reason: str
    guards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeviceRestored:
    """All of a device's data is good again."""

    device: str
    reason: str
    guards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """A fact for the journal only: `what` names it, `detail` holds the rest, beside it in the JSON object."""

    what: str
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement that the chain up to `upto` (= seq − 1) ends in `upto_hash`; `signature` is base64 Ed25519."""

    upto: int
    upto_hash: str
    signature: str


@dataclass(frozen=True, slots=True)
class OutboxOverflow:
    """`dropped` findings could not be stored between `since` and `until`."""

    dropped: int
    since: str
    until: str


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A well-linked event whose kind or content this version does not know; `reason` says what did not fit."""

    reason: str


Body: TypeAlias = (
    AgentStarted
    | StateReport
    | GuardChanged
    | MachineChanged
    | ViolationRaised
    | ViolationChanged
    | ViolationCleared
    | DeviceLost
    | DeviceRestored
    | Observation
    | Checkpoint
    | OutboxOverflow
)

BODY_KINDS: Mapping[EventKind, type[Body]] = {
    EventKind.AGENT_STARTED: AgentStarted,
    EventKind.STATE_REPORT: StateReport,
    EventKind.GUARD_CHANGED: GuardChanged,
    EventKind.MACHINE_CHANGED: MachineChanged,
    EventKind.VIOLATION_RAISED: ViolationRaised,
    EventKind.VIOLATION_CHANGED: ViolationChanged,
    EventKind.VIOLATION_CLEARED: ViolationCleared,
    EventKind.DEVICE_LOST: DeviceLost,
    EventKind.DEVICE_RESTORED: DeviceRestored,
    EventKind.OBSERVATION: Observation,
    EventKind.CHECKPOINT: Checkpoint,
    EventKind.OUTBOX_OVERFLOW: OutboxOverflow,
}
"""Which body each kind has."""

KIND_OF: Mapping[type[Body], EventKind] = {body: kind for kind, body in BODY_KINDS.items()}
"""The inverse of `BODY_KINDS`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of an agent's stream, with the very bytes it travels and is stored as.

    `at` is RFC 3339 UTC; `mono_ms` is CLOCK_BOOTTIME of boot `boot` in milliseconds; `prev` and `hash` link the
    chain; `payload` is the canonical JSON including `hash`. `wall` is there only where a synchronised clock lies behind
    the highest `at` of the store (it was once far ahead): what it says.
    """

    site: str
    agent: str
    epoch: str
    seq: int
    boot: str
    mono_ms: int
    at: str
    clock: ClockState
    kind: str
    prev: str
    hash: str
    body: Body | Unrecognised
    payload: bytes
    wall: str | None = None

    @property
    def position(self) -> Position:
        """Its place in the chain."""
        return Position(self.epoch, self.seq, self.hash)
