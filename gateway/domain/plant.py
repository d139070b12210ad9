"""What the plant looks like after an entry of the journal, in plain values.

What an agent last said about a guard is kept as said; whether it may still be shown is `AgentNow.is_trusted`:

    agent silent (never heard, or presence lost) ───────────────▶ not trusted: shown as unknown
    agent back, but events stored before the beat not here yet ─▶ not trusted until they are (`awaiting`)
    otherwise ──────────────────────────────────────────────────▶ trusted

Unknown things keep what was last known as history (`Past`), never as a state.

Source: the outside contract, sections 2 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from edge_agent.wire.event import GUARD_CODES, QUALITY_CODES, Basis, GuardState, Priority, Quality
from edge_agent.wire.status import AgentModel, MachineModel

AgentKey: TypeAlias = tuple[str, str]
"""Site and agent."""
MachineKey: TypeAlias = tuple[str, str]
"""Site and machine (machine ids are unique per site)."""
GuardKey: TypeAlias = tuple[str, str, str]
"""Site, machine and guard."""


@dataclass(frozen=True, slots=True)
class Past:
    """History, not state: what was known from `since` until `until` (RFC 3339), when it became unknown."""

    state: GuardState
    since: str | None
    until: str


@dataclass(frozen=True, slots=True)
class AgentNow:
    """One agent. `seq` of `epoch` is its newest journaled event.

    `silent_ms` is when it fell silent (gateway UTC), until it is trusted again; `awaiting` is the (epoch, seq) that
    its first beat after that already had in store and the journal does not; `settled_at` is the position of the
    entry that brought it.
    """

    site: str
    agent: str
    model: AgentModel | None = None
    online: bool = False
    silent_ms: int | None = None
    epoch: str | None = None
    seq: int = 0
    awaiting: tuple[str, int] | None = None
    settled_at: int = 0

    @property
    def is_trusted(self) -> bool:
        """Whether what it last said may be shown as the state now."""
        return self.online and self.awaiting is None


@dataclass(frozen=True, slots=True)
class MachineNow:
    """One machine as its agent last said. `since` is when its motion last changed (RFC 3339)."""

    site: str
    agent: str
    machine: str
    model: MachineModel | None = None
    moving: bool | None = None
    mode: str | None = None
    since: str | None = None


@dataclass(frozen=True, slots=True)
class GuardNow:
    """One guard as its agent last said. `since` is when the state began (RFC 3339; None: never reported)."""

    site: str
    agent: str
    machine: str
    guard: str
    state: GuardState = GuardState.UNKNOWN
    bypass: bool | None = None
    locked: bool | None = None
    quality: Quality = Quality.STALE
    since: str | None = None
    past: Past | None = None


@dataclass(frozen=True, slots=True)
class OpenViolation:
    """A violation that is not over: an agent's, or the gateway's own (`agent` may then be None)."""

    occurrence: str
    site: str | None
    agent: str | None
    machine: str | None
    guard: str | None
    rule: str
    priority: Priority
    basis: Basis
    hidden_by: str | None


@dataclass(frozen=True, slots=True)
class PlantState:
    """The plant after the entry at `position`."""

    position: int = 0
    agents: Mapping[AgentKey, AgentNow] = field(default_factory=dict)
    machines: Mapping[MachineKey, MachineNow] = field(default_factory=dict)
    guards: Mapping[GuardKey, GuardNow] = field(default_factory=dict)
    violations: Mapping[str, OpenViolation] = field(default_factory=dict)

    def is_trusted(self, site: str, agent: str) -> bool:
        """Whether the agent's last words may be shown as the state now."""
        known = self.agents.get((site, agent))
        return known is not None and known.is_trusted


@dataclass(frozen=True, slots=True)
class Said:
    """What an agent says of a guard."""

    state: GuardState
    bypass: bool | None
    locked: bool | None
    quality: Quality


def read_code(code: str) -> Said:
    """What a state report's four letters say; what is unreadable is unknown."""
    padded = f"{code}----"
    flags: Mapping[str, bool] = {"1": True, "0": False}
    return Said(
        GUARD_CODES.get(padded[0], GuardState.UNKNOWN),
        flags.get(padded[1]),
        flags.get(padded[2]),
        QUALITY_CODES.get(padded[3], Quality.STALE),
    )
