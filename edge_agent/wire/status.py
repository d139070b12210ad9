"""What travels beside the event stream: ack, health, guard state, birth certificates.

These are retained, so any of them may be old, somebody else's, or a broker's leftover: receivers check every one.
An `Ack` is the only promise in the system (journaled and on disk, up to there); a `Health` carries what the gateway
needs to judge the stream (`acked`, `first`, `gone`) and to see that polls really happen. Health values that are no
integers travel as decimal strings, like everything on this wire.

Source: the outside contract, section 3; the delivery protocol, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import cast

from edge_agent.wire.chain import canonical
from edge_agent.wire.codec import DecodeError, demand_canonical, parse_object
from edge_agent.wire.event import ClockState, GuardState, Json, Position, Quality
from edge_agent.wire.structure import plain, structure

KEEPALIVE_S = 5
"""MQTT keepalive of every agent: a hung one is noticed within twice this (the outside contract, section 3)."""

HEALTH_PERIOD_MS = 2000
"""Health is published this often; three missed beats make an agent's guards unknown (6 s)."""

HEALTH_PAGE_MAX_BYTES = 32 * 1024
"""Above this the rest of `devices` goes to `health/2` and on."""

STATE_REFRESH_S = 20
"""A guard's retained state is published again this often …"""

STATE_EXPIRY_S = 3 * STATE_REFRESH_S
"""… and expires by itself (MQTT Message Expiry) after three refreshes, so that a dead agent leaves no state behind."""


@dataclass(frozen=True, slots=True)
class Ack:
    """From the gateway: everything up to (`epoch`, `seq`), whose hash is `hash`, is journaled and on disk.

    `to` is the epoch it answers; `reset` also moves an agent back; `epoch` None means that nothing is held.
    """

    to: str
    epoch: str | None
    seq: int | None
    hash: str | None
    reset: bool

    @property
    def position(self) -> Position | None:
        """The position it names, or None for "nothing held"."""
        if self.epoch is None or self.seq is None or self.hash is None:
            return None
        return Position(self.epoch, self.seq, self.hash)


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The event before another in its store, by its key alone: of one that cannot be read nobody knows the hash."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class GoneRange:
    """Stored events that can no longer be sent: `from_seq` to `to_seq` of `epoch`, both included.

    Where the beginning of an epoch is gone, its link to the one before is gone with it: then `after` names the event
    before it in the store (None: the store begins here, or an agent that does not say).
    """

    epoch: str
    from_seq: int
    to_seq: int
    after: Predecessor | None = None


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """One device as its agent sees it; `age_ms` since the request of its last good reply, None before the first.

    Since the agent's start: `polls` ended, `errors` reads without a sample, `overruns` polls that missed their next tick.
    """

    up: bool
    age_ms: int | None
    polls: int
    errors: int
    overruns: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """An agent's beat. Of the last will only `online` (False), `epoch` and `boot` are there.

    `acked` is the furthest position the agent saw acked (None: none), `first` the oldest event still in its store.
    `rss_mb`, `clock_offset_ms` are integers or None when unknown; `outbox_pct` is 0–100; it is 100, too, from
    a finding that was lost until the state report that makes it good is stored. `requests` counts what was sent since the start
    by Modbus function code, `"1"` to `"4"`. `beats` rises as long as all loops of the agent advance: it is
    polling, however rarely a poll is due or ends (0: an agent that does not say). `mono_ms`: when it was counted, on the
    monotonic clock of `boot` (None: an agent that does not say); what passed since then is how old it is.
    """

    online: bool
    epoch: str
    boot: str
    at: str | None = None
    seq: int = 0
    acked: Position | None = None
    first: Position | None = None
    gone: tuple[GoneRange, ...] = ()
    outbox_pct: int = 0
    polls: int = 0
    overruns: int = 0
    devices: Mapping[str, DeviceHealth] = field(default_factory=dict)
    clock: ClockState = ClockState.UNSYNCED
    clock_offset_ms: int | None = None
    rss_mb: int | None = None
    requests: Mapping[str, int] = field(default_factory=dict)
    beats: int = 0
    mono_ms: int | None = None


@dataclass(frozen=True, slots=True)
class HealthPage:
    """Page 2 and on of a health whose `devices` do not fit into one payload."""

    epoch: str
    boot: str
    page: int
    devices: Mapping[str, DeviceHealth]


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """A guard now, retained for any third party; `since` and `at` are RFC 3339, `stale_ms` the age that makes it unknown."""

    machine: str
    guard: str
    state: GuardState
    bypass: bool | None
    locked: bool | None
    quality: Quality
    since: str
    at: str
    stale_ms: int
    seq: int


@dataclass(frozen=True, slots=True)
class GuardModel:
    """A guard in a birth certificate. `rules`: rule name → key into the machine's `rule_parameters`; `detect_ms` per rule.

    `devices` feed it: its data is as old as the oldest of theirs.
    """

    labels: Mapping[str, str]
    kind: str
    stale_ms: int
    devices: tuple[str, ...]
    rules: Mapping[str, str]
    detect_ms: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MachineModel:
    """Birth certificate of one machine. `rule_parameters` holds each distinct parameter set once, by key.

    `order` fixes its place on the board (the order of the configuration).
    """

    machine: str
    labels: Mapping[str, str]
    area: str | None
    kind: str
    order: int
    guards: Mapping[str, GuardModel]
    rules: Mapping[str, str]
    detect_ms: Mapping[str, int]
    rule_parameters: Mapping[str, Mapping[str, Json]]
    epoch: str


@dataclass(frozen=True, slots=True)
class AgentModel:
    """Birth certificate of an agent. `areas`: id → labels; `machines`: ids in board order; labels have `zh` and `en`."""

    agent: str
    epoch: str
    version: str
    labels: Mapping[str, str]
    site_labels: Mapping[str, str] | None
    areas: Mapping[str, Mapping[str, str]]
    machines: tuple[str, ...]
    devices: tuple[str, ...]
    config_hash: str
    public_key: str


Status = Ack | Health | HealthPage | GuardStatus | MachineModel | AgentModel


def encode_status(status: Status) -> bytes:
    """Canonical JSON of a status; a last will (offline health) holds only its three fields."""
    if isinstance(status, Health) and not status.online:
        return canonical({"online": False, "epoch": status.epoch, "boot": status.boot})
    return canonical({item.name: plain(getattr(status, item.name)) for item in fields(status)})


def decode_ack(payload: bytes) -> Ack | DecodeError:
    """An ack, or why it is none. Never raises."""
    return cast("Ack | DecodeError", _decode(Ack, payload))


def decode_health(payload: bytes) -> Health | DecodeError:
    """A health or a last will, or why it is none. Never raises."""
    return cast("Health | DecodeError", _decode(Health, payload))


def decode_health_page(payload: bytes) -> HealthPage | DecodeError:
    """Page 2 and on of a health, or why it is none. Never raises."""
    return cast("HealthPage | DecodeError", _decode(HealthPage, payload))


def decode_guard_status(payload: bytes) -> GuardStatus | DecodeError:
    """A retained guard state, or why it is none. Never raises."""
    return cast("GuardStatus | DecodeError", _decode(GuardStatus, payload))


def decode_machine_model(payload: bytes) -> MachineModel | DecodeError:
    """A machine's birth certificate, or why it is none. Never raises."""
    return cast("MachineModel | DecodeError", _decode(MachineModel, payload))


def decode_agent_model(payload: bytes) -> AgentModel | DecodeError:
    """An agent's birth certificate, or why it is none. Never raises."""
    return cast("AgentModel | DecodeError", _decode(AgentModel, payload))


def _decode(kind: type, payload: bytes) -> object:
    document = parse_object(payload)
    if isinstance(document, DecodeError):
        return document
    try:
        demand_canonical(document, kind.__name__)
        canonical(document)  # a lone surrogate has no bytes, neither in a journal nor in an answer
        return structure(kind, document, kind.__name__)
    except ValueError as misfit:
        return DecodeError(str(misfit))
