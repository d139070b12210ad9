"""Where things are and what they are called: labels, areas and kinds from the birth certificates in the journal.

A fold of its own, without rows: the alarm book and the InfluxDB projection each hold one, because each must be a
function of the journal up to its own position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from edge_agent.wire.event import Json
from edge_agent.wire.structure import MisfitError, plain, structure
from gateway.domain.journal import AgentModelled, EntryBody, MachineModelled, MachineRemoved
from gateway.domain.layer import Layer


@dataclass(frozen=True, slots=True)
class GuardPlace:
    """A guard: its kind and its labels by language."""

    labels: Mapping[str, str]
    kind: str


@dataclass(frozen=True, slots=True)
class MachinePlace:
    """A machine of `site`, as its agent's birth certificate has it; fields beyond these are not kept."""

    labels: Mapping[str, str]
    area: str | None
    kind: str
    guards: Mapping[str, GuardPlace]


@dataclass(frozen=True, slots=True)
class AgentPlace:
    """An agent, its site and the areas it names: labels by language."""

    labels: Mapping[str, str]
    site_labels: Mapping[str, str] | None = None
    areas: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """All there is to say about where a violation is: labels by language (None where unknown), area and kinds."""

    area: str | None = None
    machine_kind: str | None = None
    guard_kind: str | None = None
    site_labels: Mapping[str, str] | None = None
    agent_labels: Mapping[str, str] | None = None
    area_labels: Mapping[str, str] | None = None
    machine_labels: Mapping[str, str] | None = None
    guard_labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Snapshot:
    agents: Mapping[str, AgentPlace]
    machines: Mapping[str, MachinePlace]


class Places:
    """The newest birth certificates, staged and adopted like any fold."""

    def __init__(self) -> None:
        # keys are `site/agent` and `site/machine`: ids hold no slash, and JSON wants text keys
        self._agents: Layer[str, AgentPlace] = Layer()
        self._machines: Layer[str, MachinePlace] = Layer()

    def stage(self, body: EntryBody) -> None:
        """Take in a birth certificate or a removal; other entries say nothing about places."""
        match body:
            case AgentModelled():
                _keep(self._agents, f"{body.site}/{body.agent}", AgentPlace, body.model)
            case MachineModelled():
                _keep(self._machines, f"{body.site}/{body.machine}", MachinePlace, body.model)
            case MachineRemoved():
                self._machines.drop(f"{body.site}/{body.machine}")
            case _:
                pass

    def adopt(self) -> None:
        """The transaction committed."""
        self._agents.adopt()
        self._machines.adopt()

    def discard(self) -> None:
        """The transaction failed."""
        self._agents.discard()
        self._machines.discard()

    def snapshot(self) -> Json:
        """The adopted places as JSON."""
        return plain(_Snapshot(self._agents.adopted(), self._machines.adopted()))

    def restore(self, snapshot: Json) -> None:
        """Adopt what `snapshot` gave. Raises `MisfitError` for what it never gave."""
        kept = cast("_Snapshot", structure(_Snapshot, snapshot, "places"))
        self._agents.replace(kept.agents)
        self._machines.replace(kept.machines)

    def machine(self, site: str | None, machine: str | None) -> MachinePlace | None:
        """A machine's place, if its birth certificate came."""
        return self._machines.get(f"{site}/{machine}")

    def find(self, site: str | None, agent: str | None, machine: str | None, guard: str | None) -> Place:
        """What is known of a place; ids that are None or unknown leave their part empty."""
        agent_place = self._agents.get(f"{site}/{agent}")
        machine_place = self.machine(site, machine)
        area = machine_place.area if machine_place else None
        guard_place = machine_place.guards.get(guard) if machine_place and guard else None
        return Place(
            area=area,
            machine_kind=machine_place.kind if machine_place else None,
            guard_kind=guard_place.kind if guard_place else None,
            site_labels=agent_place.site_labels if agent_place else None,
            agent_labels=agent_place.labels if agent_place else None,
            area_labels=agent_place.areas.get(area) if agent_place and area else None,
            machine_labels=machine_place.labels if machine_place else None,
            guard_labels=guard_place.labels if guard_place else None,
        )


def _keep(
    layer: Layer[str, AgentPlace] | Layer[str, MachinePlace],
    key: str,
    kind: type[AgentPlace | MachinePlace],
    model: Mapping[str, Json],
) -> None:
    try:
        place = structure(kind, dict(model), key)
    except MisfitError:
        return  # an unreadable certificate names nothing; ids stand in for labels
    cast("Layer[str, object]", layer).put(key, place)
