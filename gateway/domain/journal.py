"""What the gateway's journal holds: one append-only list of entries, each with a position.

Theory of operation. Everything that changes what the gateway knows is an entry: an agent's event, a fact the gateway
found itself (a gap, a lost agent), a reconciliation, an operator's act, a birth certificate, a timer. Alarms, board,
violation log, InfluxDB and the live stream are folds or projections of this list; nothing is decided from anything
else, so replaying it from position 1 gives the same state. An entry carries its own time (`recorded_at`, the
gateway's clock, never running back): folds never read a clock.

Entries are linked: each carries the hash of itself and the link before it, so that a changed, removed, inserted or
reordered one shows, whoever changed the database.

An agent's event is stored as the very bytes it travelled as; every other body as canonical JSON by its annotations
(`edge_agent.wire.structure`), so a field is described once, here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple, TypeAlias, cast

from edge_agent.wire.canonical_form import NESTING_MAX
from edge_agent.wire.chain import canonical
from edge_agent.wire.codec import DecodeError, decode, parse_object
from edge_agent.wire.event import Event, Json, OpenOccurrence, Priority
from edge_agent.wire.structure import plain, structure


class EntryKind(StrEnum):
    """What an entry is; one body each."""

    EDGE_EVENT = "edge_event"
    RECONCILED_RAISE = "reconciled_raise"
    RECONCILED_CHANGE = "reconciled_change"
    RECONCILED_CLEAR = "reconciled_clear"
    FINDING_RAISED = "finding_raised"
    FINDING_CLEARED = "finding_cleared"
    GAP_FOUND = "gap_found"
    GAP_CLOSED = "gap_closed"
    OPERATOR_COMMAND = "operator_command"
    TIMER_FIRED = "timer_fired"
    AGENT_MODELLED = "agent_modelled"
    MACHINE_MODELLED = "machine_modelled"
    MACHINE_REMOVED = "machine_removed"
    PRESENCE_CHANGED = "presence_changed"
    QUARANTINED = "quarantined"
    CLOCK_STEPPED = "clock_stepped"
    CONFIG_REFUSED = "config_refused"


class Mark(StrEnum):
    """What a journaled event does not say of itself: doubts, and that it is old news though its time is not known."""

    CHAIN_BROKEN = "chain_broken"
    UNRECOGNISED = "unrecognised"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class EdgeEvent:
    """An agent's event in its place.

    `occurred_at` is RFC 3339: the event's `at` when its clock was synced, else rebuilt from boot and monotonic time
    against a synced event of that boot, else the time of receipt.
    """

    event: Event
    occurred_at: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class ReconciledRaise:
    """A state report lists an open occurrence that is not open here (delivery protocol §3.7a).

    `occurrence` is the id it goes by here (`OCC.2` when OCC was cleared here); `continues` is the occurrence whose
    alarm passes on to it (§3.7b), or None.
    """

    site: str
    agent: str
    occurrence: str
    listed: OpenOccurrence
    continues: str | None = None


@dataclass(frozen=True, slots=True)
class ReconciledChange:
    """An occurrence open here is listed with another priority, basis or hiding: its change was lost in a final gap.

    `occurrence` is the id it goes by here; `listed` is how it stands now (folds treat it as a `violation_changed`).
    """

    site: str
    agent: str
    occurrence: str
    listed: OpenOccurrence


@dataclass(frozen=True, slots=True)
class ReconciledClear:
    """An occurrence open here is not in the agent's state report (§3.7b); `at` is the report's time."""

    site: str
    agent: str
    occurrence: str
    at: str
    continued_by: str | None = None


class GatewayRule(StrEnum):
    """The gateway's own findings (the outside contract, section 5): violations with `origin: gateway`."""

    MONITORING_LOST = "monitoring_lost"
    STREAM_GAP = "stream_gap"
    EVIDENCE_CONFLICT = "evidence_conflict"
    EPOCH_FORK = "epoch_fork"
    IDENTITY_CONFLICT = "identity_conflict"
    QUARANTINE = "quarantine"
    CLOCK_OFFSET = "clock_offset"
    STORE_FILLING = "store_filling"
    POLL_OVERRUN = "poll_overrun"
    ALERT_FAILING = "alert_failing"
    STORE_DAMAGED = "store_damaged"
    JOURNAL_FILLING = "journal_filling"
    JOURNAL_DAMAGED = "journal_damaged"
    HISTORIAN_STALLED = "historian_stalled"
    HISTORIAN_REFUSED = "historian_refused"


@dataclass(frozen=True, slots=True)
class FindingRaised:
    """The gateway found something wrong itself. `since` is RFC 3339; `site`/`agent` None for its own affairs."""

    occurrence: str
    rule: GatewayRule
    priority: Priority
    site: str | None
    agent: str | None
    since: str
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FindingCleared:
    """What the gateway found is over."""

    occurrence: str
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class GapFound:
    """Events of `epoch` from `from_seq` to `to_seq` (None: open end) have not come. `final`: they never will."""

    site: str
    agent: str
    gap: str
    epoch: str
    from_seq: int
    to_seq: int | None
    final: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GapClosed:
    """A gap was filled (`filled`), or became final."""

    site: str
    agent: str
    gap: str
    filled: bool


class Act(StrEnum):
    """What an operator can do to an alarm."""

    ACKNOWLEDGE = "acknowledge"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class OperatorCommand:
    """Who did what to which alarm, and why. `via` is `session`, `token` or `cli`."""

    act: Act
    alarm: int
    who: str
    role: str
    via: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A deadline of the alarm book passed: `what` (e.g. `repeat`), the `n`-th time, for `alarm`."""

    alarm: int
    what: str
    n: int


@dataclass(frozen=True, slots=True)
class AgentModelled:
    """An agent's birth certificate changed; `model` is the parsed payload of its `model` topic."""

    site: str
    agent: str
    model: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class MachineModelled:
    """A machine's birth certificate changed; `model` is the parsed payload of its `model/{machine}` topic."""

    site: str
    agent: str
    machine: str
    model: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class MachineRemoved:
    """A machine left its agent's configuration."""

    site: str
    agent: str
    machine: str


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """An agent's heartbeat came (`online`) or stayed away; `reason` says how it was noticed.

    `seq` is the last event of `epoch` that the beat said is stored: until it is journaled too, what is known of the
    agent's guards is older than the agent knows, and is not shown as a state. 0: nothing stored, or not said.
    """

    site: str
    agent: str
    online: bool
    epoch: str | None
    reason: str
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A payload was refused and kept raw under `id` in the quarantine."""

    id: int
    topic: str
    site: str | None
    agent: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The gateway's wall clock stepped by `step_ms` against its monotonic clock; its time leaps by `leap_ms` after this.

    Its time never runs back, so a step back leaps by nothing, and one forward by what it was ahead of it. None: an entry
    of an older version, whose time had followed every step forward.
    """

    step_ms: int
    leap_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ConfigRefused:
    """A changed configuration was refused; the running one stays in force."""

    problems: tuple[str, ...]


EntryBody: TypeAlias = (
    EdgeEvent
    | ReconciledRaise
    | ReconciledChange
    | ReconciledClear
    | FindingRaised
    | FindingCleared
    | GapFound
    | GapClosed
    | OperatorCommand
    | TimerFired
    | AgentModelled
    | MachineModelled
    | MachineRemoved
    | PresenceChanged
    | Quarantined
    | ClockStepped
    | ConfigRefused
)

_BODIES: Mapping[EntryKind, type[EntryBody]] = {
    EntryKind.EDGE_EVENT: EdgeEvent,
    EntryKind.RECONCILED_RAISE: ReconciledRaise,
    EntryKind.RECONCILED_CHANGE: ReconciledChange,
    EntryKind.RECONCILED_CLEAR: ReconciledClear,
    EntryKind.FINDING_RAISED: FindingRaised,
    EntryKind.FINDING_CLEARED: FindingCleared,
    EntryKind.GAP_FOUND: GapFound,
    EntryKind.GAP_CLOSED: GapClosed,
    EntryKind.OPERATOR_COMMAND: OperatorCommand,
    EntryKind.TIMER_FIRED: TimerFired,
    EntryKind.AGENT_MODELLED: AgentModelled,
    EntryKind.MACHINE_MODELLED: MachineModelled,
    EntryKind.MACHINE_REMOVED: MachineRemoved,
    EntryKind.PRESENCE_CHANGED: PresenceChanged,
    EntryKind.QUARANTINED: Quarantined,
    EntryKind.CLOCK_STEPPED: ClockStepped,
    EntryKind.CONFIG_REFUSED: ConfigRefused,
}

KIND_OF_BODY: Mapping[type[EntryBody], EntryKind] = {body: kind for kind, body in _BODIES.items()}
"""Which kind a body is stored under."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry. `position` counts from 1 without reuse; `recorded_at_ms` is gateway UTC in milliseconds."""

    position: int
    recorded_at_ms: int
    body: EntryBody


class StoredBody(NamedTuple):
    """How a body lies in the journal table: its kind, its bytes, and for an event what was added on receipt."""

    kind: EntryKind
    payload: bytes
    occurred_at: str | None = None
    marks: tuple[Mark, ...] = ()


def store_body(body: EntryBody) -> StoredBody:
    """A body as it is stored: an agent's event byte for byte, everything else as canonical JSON."""
    if isinstance(body, EdgeEvent):
        return StoredBody(EntryKind.EDGE_EVENT, body.event.payload, body.occurred_at, body.marks)
    document = {item.name: plain(getattr(body, item.name)) for item in fields(body)}
    return StoredBody(KIND_OF_BODY[type(body)], canonical(document))


def load_body(stored: StoredBody) -> EntryBody:
    """The inverse of `store_body`. Raises `ValueError` for bytes that this journal never wrote."""
    if stored.kind is EntryKind.EDGE_EVENT:
        event = decode(stored.payload)
        if isinstance(event, DecodeError) or stored.occurred_at is None:
            raise ValueError(f"a journaled event does not decode: {event}")
        return EdgeEvent(event, stored.occurred_at, stored.marks)
    document = parse_object(stored.payload, BODY_NESTING_MAX)
    if isinstance(document, DecodeError):
        raise ValueError(document.reason)
    return cast("EntryBody", structure(_BODIES[stored.kind], document, stored.kind.value))


BODY_NESTING_MAX = NESTING_MAX + 8
"""What came from outside stands some levels down in an entry of our own."""

LINK_SEED = sha256(b"guardwatch-journal-v1").hexdigest()
"""The link before the first entry."""


def entry_link(before: str, position: int, recorded_at_ms: int, stored: StoredBody) -> str:
    """The link of an entry: lower-case hex SHA-256 over the link before it and everything that is stored of it."""
    marks = " ".join(stored.marks)
    kind = stored.kind.value
    return raw_link(before, position, recorded_at_ms, kind, stored.payload, stored.occurred_at, marks)


def raw_link(  # noqa: PLR0917 - what is stored of an entry
    before: str,
    position: int,
    recorded_at_ms: int,
    kind: str,
    payload: bytes,
    occurred_at: str | None,
    marks: str,
) -> str:
    """The same, of an entry whose kind and marks this version may not know."""
    head = f"{before}\n{position}\n{recorded_at_ms}\n{kind}\n{occurred_at or ''}\n{marks}\n"
    return sha256(head.encode() + payload).hexdigest()
