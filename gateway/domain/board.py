"""The plant as the REST interface shows it: the board, and each guard, machine by itself.

Theory of operation. Pure functions from a `PlantState`, the newest heartbeats and `now` to JSON. The order is fixed:
sites and agents by id, machines as their agent's configuration orders them, guards by id with numbers counted (so
that `door-10` follows `door-9`); nothing that happens moves a tile. Everything not proven is `unknown`, with what was
last known beside it as `last`; `unknown` is never shown or counted as closed.

Source: the outside contract, sections 2 and 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge_agent.wire.event import Basis, GuardState, Json, Priority, Quality
from gateway.domain.instants import iso_utc
from gateway.domain.plant import AgentKey, GuardNow, MachineNow, OpenViolation, PlantState

_DIGITS = re.compile(r"(\d+)")

_NO_AREA: Mapping[str, str] = {"zh": "其他", "en": "Other"}
"""Labels of the place of machines without an area."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The newest heartbeat of an agent: how long ago it was said, and how old each device's data was then."""

    elapsed_ms: int
    ages_ms: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What is shown: a plant, the heartbeats, and the gateway's time.

    `blind_since_ms`: since when nothing that agents say reaches the journal; nothing is trusted from then on.
    """

    plant: PlantState
    beats: Mapping[AgentKey, Beat]
    now_ms: int
    blind_since_ms: int | None = None

    def is_trusted(self, site: str, agent: str) -> bool:
        """Whether what was last heard of an agent's guards is how they stand."""
        return self.blind_since_ms is None and self.plant.is_trusted(site, agent)


def board_document(view: View, unacknowledged: Mapping[str, int]) -> dict[str, Json]:
    """`GET /api/v1/board`. `unacknowledged` counts unacknowledged alarms by priority."""
    plant = view.plant
    sites: dict[str, dict[str, list[MachineNow]]] = {site: {} for site, _ in sorted(plant.agents)}
    for machine in sorted(plant.machines.values(), key=_MachineOrder(plant)):
        area = (machine.model.area if machine.model else None) or ""
        sites.setdefault(machine.site, {}).setdefault(area, []).append(machine)
    guards = _guards_by_machine(plant)
    open_by_machine = _violations_by_machine(plant.violations.values())
    documents: list[Json] = []
    for site, areas in sites.items():
        shown: list[Json] = []
        for area, machines in areas.items():
            documents_of_area: list[Json] = [
                _machine_document(
                    view,
                    machine,
                    guards.get((site, machine.machine), []),
                    open_by_machine.get((site, machine.machine), []),
                )
                for machine in machines
            ]
            shown.append(
                {
                    "area": area or None,
                    "labels": _area_labels(plant, site, area),
                    "machines": documents_of_area,
                }
            )
        documents.append({"site": site, "labels": _site_labels(plant, site), "areas": shown})
    return {
        "as_of": iso_utc(view.now_ms),
        "position": plant.position,
        "sites": documents,
        "counts": {**count(view), "unacknowledged": sum(unacknowledged.values())},
    }


def guard_document(view: View, key: tuple[str, str, str]) -> dict[str, Json] | None:
    """One guard as the board shows it, or None when there is none."""
    guard = view.plant.guards.get(key)
    if guard is None:
        return None
    machine = view.plant.machines.get(key[:2])
    found = _violations_by_machine(view.plant.violations.values()).get(key[:2], [])
    return _guard_document(view, guard, machine, found)


def machine_document(view: View, key: tuple[str, str]) -> dict[str, Json] | None:
    """One machine with its guards as the board shows it, or None when there is none."""
    machine = view.plant.machines.get(key)
    if machine is None:
        return None
    guards = [guard for guard in view.plant.guards.values() if (guard.site, guard.machine) == key]
    found = _violations_by_machine(view.plant.violations.values()).get(key, [])
    return _machine_document(view, machine, sorted(guards, key=_guard_order), found)


def labels_of(
    plant: PlantState, site: str | None, agent: str | None, machine: str | None, guard: str | None
) -> list[tuple[str, Mapping[str, Json]]]:
    """The ids of a place from the outside in, each with its labels: site, machine (else agent), guard."""
    found: list[tuple[str, Mapping[str, Json]]] = []
    if site is None:
        return found
    found.append((site, _site_labels(plant, site)))
    if machine is None:
        if agent is not None:
            known_agent = plant.agents.get((site, agent))
            model = known_agent.model if known_agent else None
            found.append((agent, dict(model.labels) if model else _plain_labels(agent)))
        return found
    known = plant.machines.get((site, machine))
    machine_model = known.model if known else None
    found.append((machine, dict(machine_model.labels) if machine_model else _plain_labels(machine)))
    if guard is not None:
        guard_model = machine_model.guards.get(guard) if machine_model else None
        found.append((guard, dict(guard_model.labels) if guard_model else _plain_labels(guard)))
    return found


def blind_guards(view: View, site: str, agent: str) -> int:
    """How many of an agent's guards are unknown now."""
    return sum(
        1
        for guard in view.plant.guards.values()
        if (guard.site, guard.agent) == (site, agent) and _shown_state(view, guard) is GuardState.UNKNOWN
    )


def _shown_state(view: View, guard: GuardNow) -> GuardState:
    return guard.state if view.is_trusted(guard.site, guard.agent) else GuardState.UNKNOWN


def _machine_document(
    view: View, machine: MachineNow, guards: list[GuardNow], violations: list[OpenViolation]
) -> dict[str, Json]:
    is_trusted = view.is_trusted(machine.site, machine.agent)
    model = machine.model
    shown = [violation for violation in violations if violation.hidden_by is None]
    documents: list[Json] = [_guard_document(view, guard, machine, violations) for guard in guards]
    return {
        "site": machine.site,
        "agent": machine.agent,
        "area": model.area if model else None,
        "machine": machine.machine,
        "labels": dict(model.labels) if model else _plain_labels(machine.machine),
        "kind": model.kind if model else None,
        "moving": machine.moving if is_trusted else None,
        "mode": machine.mode if is_trusted else None,
        "since": machine.since if is_trusted else _silent_since(view, machine.site, machine.agent),
        "alarms": len(shown),
        "priority": _worst(shown),
        "guards": documents,
    }


def _guard_document(
    view: View, guard: GuardNow, machine: MachineNow | None, violations: Iterable[OpenViolation]
) -> dict[str, Json]:
    is_trusted = view.is_trusted(guard.site, guard.agent)
    model = machine.model.guards.get(guard.guard) if machine and machine.model else None
    shown = [item for item in violations if item.guard == guard.guard and item.hidden_by is None]
    return {
        "site": guard.site,
        "machine": guard.machine,
        "guard": guard.guard,
        "labels": dict(model.labels) if model else _plain_labels(guard.guard),
        "kind": model.kind if model else None,
        "state": _shown_state(view, guard).value,
        "bypass": guard.bypass if is_trusted else None,
        "locked": guard.locked if is_trusted else None,
        "since": guard.since if is_trusted else _silent_since(view, guard.site, guard.agent),
        "quality": (guard.quality if is_trusted else Quality.STALE).value,
        "age_ms": _age_ms(view, guard, model.devices if model else ()),
        "alarms": len(shown),
        "priority": _worst(shown),
        "last": _last(view, guard, is_trusted=is_trusted),
    }


def _last(view: View, guard: GuardNow, *, is_trusted: bool) -> Json:
    """What an unknown guard was when it was last known: history, kept apart from the state."""
    if is_trusted and guard.state is not GuardState.UNKNOWN:
        return None
    if guard.state is GuardState.UNKNOWN:
        past = guard.past
        return None if past is None else _history(past.state, past.since, past.until)
    until = _silent_since(view, guard.site, guard.agent)
    return _history(guard.state, guard.since, until or guard.since)


def _history(state: GuardState, since: str | None, until: str | None) -> Json:
    return {"state": state.value, "since": since, "until": until}


def _silent_since(view: View, site: str, agent: str) -> str | None:
    known = view.plant.agents.get((site, agent))
    silent_ms = known.silent_ms if known and known.silent_ms is not None else view.blind_since_ms
    return None if silent_ms is None else iso_utc(silent_ms)


def _age_ms(view: View, guard: GuardNow, devices: tuple[str, ...]) -> int | None:
    """How old the guard's data is: its oldest device at the newest heartbeat, plus the time since that beat."""
    beat = view.beats.get((guard.site, guard.agent))
    if beat is None or not devices:
        return None
    ages = [beat.ages_ms.get(device) for device in devices]
    known = [age for age in ages if age is not None]
    if len(known) < len(ages):
        return None  # one of them never answered: no age can be stated
    return max(known) + beat.elapsed_ms


def _worst(violations: Iterable[OpenViolation]) -> str | None:
    ranked = sorted((item.priority for item in violations), key=lambda priority: priority.rank)
    return ranked[0].value if ranked else None


def _violations_by_machine(
    violations: Iterable[OpenViolation],
) -> dict[tuple[str, str], list[OpenViolation]]:
    found: dict[tuple[str, str], list[OpenViolation]] = {}
    for violation in violations:
        if violation.site is not None and violation.machine is not None:
            found.setdefault((violation.site, violation.machine), []).append(violation)
    return found


def _guards_by_machine(plant: PlantState) -> dict[tuple[str, str], list[GuardNow]]:
    found: dict[tuple[str, str], list[GuardNow]] = {}
    for guard in sorted(plant.guards.values(), key=_guard_order):
        found.setdefault((guard.site, guard.machine), []).append(guard)
    return found


class _MachineOrder:
    """Sort key of machines: site, agent, place in the agent's configuration, id."""

    def __init__(self, plant: PlantState) -> None:
        self._places = {
            key: {name: place for place, name in enumerate(agent.model.machines)} if agent.model else {}
            for key, agent in plant.agents.items()
        }

    def __call__(self, machine: MachineNow) -> tuple[str, str, int, int, tuple[tuple[int, int, str], ...]]:
        places = self._places.get((machine.site, machine.agent), {})
        place = places.get(machine.machine, len(places))
        order = machine.model.order if machine.model else 0
        return (machine.site, machine.agent, place, order, _natural(machine.machine))


def _guard_order(guard: GuardNow) -> tuple[tuple[int, int, str], ...]:
    return _natural(guard.guard)


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Digits as numbers, by their count and then themselves, whatever an agent calls a guard: `door-9` before `door-10`."""
    return tuple(
        (0, len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (1, 0, part)
        for part in _DIGITS.split(text)
        if part
    )


def _site_labels(plant: PlantState, site: str) -> dict[str, Json]:
    for key in sorted(plant.agents):
        model = plant.agents[key].model
        if key[0] == site and model is not None and model.site_labels:
            return dict(model.site_labels)
    return _plain_labels(site)


def _area_labels(plant: PlantState, site: str, area: str) -> dict[str, Json]:
    if not area:
        return dict(_NO_AREA)
    for key in sorted(plant.agents):
        model = plant.agents[key].model
        if key[0] == site and model is not None and area in model.areas:
            return dict(model.areas[area])
    return _plain_labels(area)


def _plain_labels(name: str) -> dict[str, Json]:
    return {"zh": name, "en": name}


def count(view: View) -> dict[str, int]:
    """How many agents, machines, guards in each shown state, and open violations by priority (hidden ones excluded)."""
    plant = view.plant
    states = [_shown_state(view, guard) for guard in plant.guards.values()]
    shown = [item for item in plant.violations.values() if item.hidden_by is None]
    counts = {
        "agents": len(plant.agents),
        "agents_offline": sum(1 for agent in plant.agents.values() if not agent.online),
        "machines": len(plant.machines),
        "guards": len(states),
        **{state.value: states.count(state) for state in GuardState},
        "violations": len(shown),
        "unproven": sum(1 for item in shown if item.basis is Basis.UNKNOWN),
    }
    for priority in Priority:
        counts[priority.value] = sum(1 for item in shown if item.priority is priority)
    return counts
