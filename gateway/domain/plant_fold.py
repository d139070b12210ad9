"""The plant as a fold over the journal.

Theory of operation. `Plant` lays what each entry of a transaction changes over the adopted state (`layer.Layer`) and
merges it after COMMIT. Its records are values: whoever holds one holds it as it was.

A restart (`agent_started`) makes everything of that agent unknown until the new run reports it: the old run cannot
speak for the new one. Events and birth certificates may come in any order; a guard known by events alone has a place
of its own until its machine's certificate names it, or leaves it out.

Source: the outside contract, sections 3 and 5; delivery protocol, sections 2.7 and 3.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from edge_agent.wire.event import (
    AgentStarted,
    Basis,
    Event,
    GuardChanged,
    GuardState,
    Json,
    MachineChanged,
    OpenOccurrence,
    Quality,
    StateReport,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from edge_agent.wire.status import AgentModel, MachineModel
from edge_agent.wire.structure import MisfitError, plain, structure
from gateway.domain.instants import iso_utc
from gateway.domain.journal import (
    AgentModelled,
    EdgeEvent,
    Entry,
    FindingCleared,
    FindingRaised,
    MachineModelled,
    MachineRemoved,
    PresenceChanged,
    ReconciledChange,
    ReconciledClear,
    ReconciledRaise,
)
from gateway.domain.layer import Layer
from gateway.domain.plant import (
    AgentKey,
    AgentNow,
    GuardKey,
    GuardNow,
    MachineKey,
    MachineNow,
    OpenViolation,
    Past,
    PlantState,
    Said,
    read_code,
)

_NOTHING = Said(GuardState.UNKNOWN, None, None, Quality.STALE)
"""What a run that has just begun has said."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """How a state lies in a snapshot."""

    position: int
    agents: tuple[AgentNow, ...]
    machines: tuple[MachineNow, ...]
    guards: tuple[GuardNow, ...]
    violations: tuple[OpenViolation, ...]


class Plant:
    """The fold. `state` is the adopted picture; read it on the event loop, where folds are adopted."""

    def __init__(self) -> None:
        self._adopted_position = 0
        self._position = 0
        self._agents: Layer[AgentKey, AgentNow] = Layer()
        self._machines: Layer[MachineKey, MachineNow] = Layer()
        self._guards: Layer[GuardKey, GuardNow] = Layer()
        self._violations: Layer[str, OpenViolation] = Layer()

    @property
    def state(self) -> PlantState:
        """The plant after the newest committed entry: a view, which the next commit changes."""
        return PlantState(
            self._adopted_position,
            self._agents.adopted(),
            self._machines.adopted(),
            self._guards.adopted(),
            self._violations.adopted(),
        )

    def adopt(self) -> None:
        """The transaction committed."""
        self._adopted_position = self._position
        self._agents.adopt()
        self._machines.adopt()
        self._guards.adopt()
        self._violations.adopt()

    def discard(self) -> None:
        """The transaction failed."""
        self._position = self._adopted_position
        self._agents.discard()
        self._machines.discard()
        self._guards.discard()
        self._violations.discard()

    def snapshot(self) -> Json:
        """The adopted state as JSON."""
        state = self.state
        return plain(
            _Snapshot(
                state.position,
                tuple(state.agents.values()),
                tuple(state.machines.values()),
                tuple(state.guards.values()),
                tuple(state.violations.values()),
            )
        )

    def restore(self, snapshot: Json) -> None:
        """Adopt what `snapshot` gave. Raises `MisfitError` for what it never gave."""
        kept = cast("_Snapshot", structure(_Snapshot, snapshot, "plant"))
        self._position = self._adopted_position = kept.position
        self._agents.replace({(item.site, item.agent): item for item in kept.agents})
        self._machines.replace({(item.site, item.machine): item for item in kept.machines})
        self._guards.replace({(item.site, item.machine, item.guard): item for item in kept.guards})
        self._violations.replace({item.occurrence: item for item in kept.violations})

    def stage(self, entry: Entry, recording: object) -> None:  # noqa: ARG002 - this fold writes no rows
        """Take in one entry."""
        self._position = entry.position
        match entry.body:
            case EdgeEvent() as edge:
                self._take_event(edge, entry)
            case AgentModelled(site, agent, model):
                self._take_agent_model(site, agent, model)
            case MachineModelled(site, agent, machine, model):
                self._take_machine_model(site, agent, machine, model)
            case MachineRemoved(site, _, machine):
                self._remove_machine(site, machine)
            case PresenceChanged() as presence:
                self._take_presence(presence, entry)
            case ReconciledRaise(site, agent, occurrence, listed, _):
                self._violations.put(
                    occurrence,
                    OpenViolation(
                        occurrence,
                        site,
                        agent,
                        listed.machine,
                        listed.guard,
                        listed.rule,
                        listed.priority,
                        listed.basis,
                        listed.hidden_by,
                    ),
                )
            case FindingRaised(occurrence, rule, priority, site, agent):
                self._violations.put(
                    occurrence,
                    OpenViolation(
                        occurrence, site, agent, None, None, rule.value, priority, Basis.PROVEN, None
                    ),
                )
            case ReconciledChange(occurrence=occurrence, listed=listed):
                self._change_violation(occurrence, listed)
            case ReconciledClear(occurrence=occurrence) | FindingCleared(occurrence=occurrence):
                self._violations.drop(occurrence)
            case _:
                pass  # no other entry changes what the plant looks like

    def _take_event(self, edge: EdgeEvent, entry: Entry) -> None:
        event = edge.event
        self._advance(event.site, event.agent, event.epoch, event.seq, entry.position)
        match event.body:
            case GuardChanged() as change:
                self._put_guard(event.site, event.agent, change, edge.occurred_at)
            case MachineChanged(machine, moving, mode, _):
                known_machine = self._know_machine(event.site, event.agent, machine)
                self._put_machine(known_machine, (moving, mode), edge.occurred_at)
            case StateReport() as report:
                self._take_report(event.site, event.agent, report, edge.occurred_at)
            case AgentStarted():
                self._forget(event.site, event.agent, edge.occurred_at)
            case ViolationRaised() as raised if self._violations.get(raised.occurrence) is None:
                self._violations.put(
                    raised.occurrence,
                    OpenViolation(
                        raised.occurrence,
                        event.site,
                        event.agent,
                        raised.machine,
                        raised.guard,
                        raised.rule,
                        raised.priority,
                        raised.basis,
                        raised.hidden_by,
                    ),
                )
            case ViolationChanged() as change:
                violation = self._open(event, change.occurrence)
                if violation is not None:
                    self._change_violation(violation.occurrence, change)
            case ViolationCleared(occurrence=occurrence):
                violation = self._open(event, occurrence)
                if violation is not None:
                    self._violations.drop(violation.occurrence)
            case _:
                pass

    def _open(self, event: Event, occurrence: str) -> OpenViolation | None:
        """The open violation that an agent means, by its own id or as OCC.2, OCC.3, … (delivery protocol §3.7a).

        Another agent's is none of its business, as in the alarm book.
        """
        found = self._violations.get(occurrence) or next(
            (
                item
                for item in self._violations.values()
                if item.occurrence.rpartition(".")[:2] == (occurrence, ".")
            ),
            None,
        )
        return found if found and (found.site, found.agent) == (event.site, event.agent) else None

    def _change_violation(self, occurrence: str, now: ViolationChanged | OpenOccurrence) -> None:
        known = self._violations.get(occurrence)
        if known is not None:
            changed = replace(known, priority=now.priority, basis=now.basis, hidden_by=now.hidden_by)
            self._violations.put(occurrence, changed)

    def _agent(self, site: str, agent: str) -> AgentNow:
        return self._agents.get((site, agent)) or AgentNow(site, agent)

    def _advance(self, site: str, agent: str, epoch: str, seq: int, position: int) -> None:
        """Note the newest event; settle the agent when it is the one waited for, or of a later run."""
        known = self._agent(site, agent)
        awaited = known.awaiting
        # reached, or that run is over, which means that all of it is here
        settled = awaited is not None and (
            seq >= awaited[1] if epoch == awaited[0] else known.epoch == awaited[0]
        )
        now = (
            AgentNow(  # field by field: `replace` takes three times as long, and this is done for every event
                site,
                agent,
                known.model,
                known.online,
                None if settled else known.silent_ms,
                epoch,
                seq,
                None if settled else awaited,
                position if settled else known.settled_at,
            )
        )
        self._agents.put((site, agent), now)

    def _take_presence(self, presence: PresenceChanged, entry: Entry) -> None:
        known = self._agent(presence.site, presence.agent)
        awaiting = None
        if presence.online and presence.epoch is not None and presence.seq > 0:
            is_held = known.epoch == presence.epoch and known.seq >= presence.seq
            awaiting = None if is_held else (presence.epoch, presence.seq)
        silent_ms = known.silent_ms
        if not presence.online:
            silent_ms = entry.recorded_at_ms if known.online else silent_ms or entry.recorded_at_ms
        elif awaiting is None:
            silent_ms = None
        self._agents.put(
            (presence.site, presence.agent),
            replace(known, online=presence.online, silent_ms=silent_ms, awaiting=awaiting),
        )

    def _forget(self, site: str, agent: str, at: str) -> None:
        """A new run began: what the old one said is history, up to when the agent was last heard."""
        silent_ms = self._agent(site, agent).silent_ms
        until = at if silent_ms is None else iso_utc(silent_ms)
        for guard in self._guards_of(site, agent):
            if guard.since is None:
                continue  # never spoken of: there is nothing to forget
            self._put_said(agent, guard, _NOTHING, at, until)
        for machine in tuple(self._machines.values()):
            if (machine.site, machine.agent) == (site, agent) and machine.moving is not None:
                unknown = replace(machine, moving=None, mode=None, since=at)
                self._machines.put((site, machine.machine), unknown)

    def _guards_of(self, site: str, agent: str) -> list[GuardNow]:
        return [guard for guard in tuple(self._guards.values()) if (guard.site, guard.agent) == (site, agent)]

    def _take_agent_model(self, site: str, agent: str, document: Mapping[str, Json]) -> None:
        try:
            model = cast("AgentModel", structure(AgentModel, dict(document), "model"))
        except MisfitError:
            return  # of a younger version: the board goes on with ids for names
        self._agents.put((site, agent), replace(self._agent(site, agent), model=model))

    def _take_machine_model(self, site: str, agent: str, machine: str, document: Mapping[str, Json]) -> None:
        try:
            model = cast("MachineModel", structure(MachineModel, dict(document), "model"))
        except MisfitError:
            return
        known = self._machines.get((site, machine)) or MachineNow(site, agent, machine)
        self._machines.put((site, machine), replace(known, agent=agent, model=model))
        for guard in tuple(self._guards.values()):
            if (guard.site, guard.machine) == (site, machine) and guard.guard not in model.guards:
                self._guards.drop((site, machine, guard.guard))
        for name in model.guards:
            guard_now = self._guards.get((site, machine, name)) or GuardNow(site, agent, machine, name)
            self._guards.put((site, machine, name), replace(guard_now, agent=agent))

    def _remove_machine(self, site: str, machine: str) -> None:
        self._machines.drop((site, machine))
        for guard in tuple(self._guards.values()):
            if (guard.site, guard.machine) == (site, machine):
                self._guards.drop((site, machine, guard.guard))

    def _put_guard(self, site: str, agent: str, change: GuardChanged, at: str) -> None:
        key = (site, change.machine, change.guard)
        known = self._guards.get(key) or GuardNow(site, agent, change.machine, change.guard)
        self._know_machine(site, agent, change.machine)
        self._put_said(agent, known, change, at)

    def _put_said(
        self, agent: str, known: GuardNow, said: Said | GuardChanged, at: str, until: str | None = None
    ) -> None:
        """`at` is when `agent` said it; `until`, when what was known before stopped being known (default `at`)."""
        past = known.past
        if said.state is not GuardState.UNKNOWN:
            past = None
        elif known.state is not GuardState.UNKNOWN:
            past = Past(known.state, known.since, until or at)
        is_new = said.state is not known.state or known.since is None
        now = GuardNow(  # field by field, as in `_advance`
            known.site,
            agent,
            known.machine,
            known.guard,
            said.state,
            said.bypass,
            said.locked,
            said.quality,
            at if is_new else known.since,
            past,
        )
        self._guards.put((known.site, known.machine, known.guard), now)

    def _know_machine(self, site: str, agent: str, machine: str) -> MachineNow:
        known = self._machines.get((site, machine))
        if known is None or known.agent != agent:
            known = replace(known, agent=agent) if known else MachineNow(site, agent, machine)
            self._machines.put((site, machine), known)
        return known

    def _put_machine(self, known: MachineNow, motion: tuple[bool | None, str | None], at: str) -> None:
        moving, mode = motion
        is_new = moving is not known.moving or known.since is None
        since = at if is_new else known.since
        moved = MachineNow(known.site, known.agent, known.machine, known.model, moving, mode, since)
        self._machines.put((known.site, known.machine), moved)

    def _take_report(self, site: str, agent: str, report: StateReport, at: str) -> None:
        for machine, guards in report.guards.items():
            self._know_machine(site, agent, machine)
            for name, code in guards.items():
                known = self._guards.get((site, machine, name)) or GuardNow(site, agent, machine, name)
                self._put_said(agent, known, read_code(code), at)
        for machine, motion in report.machines.items():
            self._put_machine(self._know_machine(site, agent, machine), motion, at)
