"""What one journal entry changed, as the REST objects that the live stream carries.

An entry renders to the same messages whether it is followed as it commits or replayed to a client that comes back:
the objects as they stand, with what the entry itself states laid over them (a door that opened and closed while
somebody was away is shown opening and closing). Nothing is laid over what is not trusted now: news about the past
never makes an unknown guard known.

Source: the outside contract, section 5 (`GET /api/v1/live`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from edge_agent.wire.event import (
    GuardChanged,
    Json,
    MachineChanged,
    StateReport,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from gateway.domain.board import View, guard_document, machine_document
from gateway.domain.documents import alarm_document, violation_document
from gateway.domain.journal import (
    AgentModelled,
    EdgeEvent,
    Entry,
    FindingCleared,
    FindingRaised,
    GapClosed,
    GapFound,
    MachineModelled,
    MachineRemoved,
    OperatorCommand,
    PresenceChanged,
    ReconciledChange,
    ReconciledClear,
    ReconciledRaise,
    TimerFired,
)
from gateway.domain.plant import GuardKey
from gateway.ports import AlarmReads
from gateway.services.live import Message

AgentDocument = Callable[[str, str], Json]
"""The REST object of one agent (blocking)."""


class Changes:
    """Renders entries. `view` gives the plant as it stands, on the event loop."""

    def __init__(self, view: Callable[[], View], alarms: AlarmReads, agent: AgentDocument) -> None:
        self._view = view
        self._alarms = alarms
        self._agent = agent

    async def render(self, entry: Entry) -> Sequence[Message]:
        """The messages of one entry, in order: what is seen first, what follows from it after."""
        view = self._view()
        messages = list(_plant_messages(view, entry))
        for occurrence in _occurrences(entry):
            messages += await asyncio.to_thread(self._violation_messages, occurrence, entry)
        match entry.body:
            case OperatorCommand(alarm=number) | TimerFired(alarm=number):
                messages += await asyncio.to_thread(self._alarm_messages, number)
            case _:
                pass
        for site, agent in _agents(view, entry):
            messages.append(Message("agent", await asyncio.to_thread(self._agent, site, agent)))
        return messages

    def _violation_messages(self, occurrence: str, entry: Entry) -> list[Message]:
        violation = self._alarms.violation(occurrence)
        if violation is None:
            return []
        body = entry.body.event.body if isinstance(entry.body, EdgeEvent) else entry.body
        shown = violation
        if isinstance(body, ViolationRaised | ReconciledRaise | FindingRaised):
            shown = replace(violation, cleared_at=None, duration_ms=None)
        messages = [Message("violation", violation_document(shown))]
        if violation.alarm is not None:
            messages += self._alarm_messages(violation.alarm)
        return messages

    def _alarm_messages(self, number: int) -> list[Message]:
        alarm = self._alarms.alarm(number)
        return [] if alarm is None else [Message("alarm", alarm_document(alarm))]


def _occurrences(entry: Entry) -> Iterator[str]:
    """Which rows of the violation log an entry touched."""
    match entry.body:
        case EdgeEvent(event):
            if isinstance(event.body, ViolationRaised | ViolationChanged | ViolationCleared):
                yield event.body.occurrence
        case (
            ReconciledRaise(occurrence=occurrence)
            | ReconciledChange(occurrence=occurrence)
            | ReconciledClear(occurrence=occurrence)
        ):
            yield occurrence
        case FindingRaised(occurrence=occurrence) | FindingCleared(occurrence=occurrence):
            yield occurrence
        case _:
            return


def _agents(view: View, entry: Entry) -> Iterator[tuple[str, str]]:
    """Which agents an entry says something about."""
    match entry.body:
        case (
            PresenceChanged(site=site, agent=agent)
            | AgentModelled(site=site, agent=agent)
            | GapFound(site=site, agent=agent)
            | GapClosed(site=site, agent=agent)
        ):
            yield site, agent
        case EdgeEvent(event):
            known = view.plant.agents.get((event.site, event.agent))
            if event.seq == 1 or (known is not None and known.settled_at == entry.position):
                yield event.site, event.agent
        case _:
            return


def _plant_messages(view: View, entry: Entry) -> Iterator[Message]:
    match entry.body:
        case EdgeEvent():
            yield from _event_messages(view, entry.body, entry)
        case PresenceChanged(site=site, agent=agent):
            yield from _all_of(view, site, agent)
        case MachineModelled(site=site, machine=machine):
            yield from _machine(view, (site, machine))
        case MachineRemoved():
            yield Message("reset", {"position": entry.position})
        case FindingRaised() | FindingCleared():
            return  # the gateway's findings stand for agents, not for guards
        case ReconciledRaise(site=site, listed=listed) | ReconciledChange(site=site, listed=listed):
            yield from _place(view, site, listed.machine, listed.guard)
        case _:
            return


def _event_messages(view: View, edge: EdgeEvent, entry: Entry) -> Iterator[Message]:
    event = edge.event
    known = view.plant.agents.get((event.site, event.agent))
    if event.seq == 1 or (known is not None and known.settled_at == entry.position):
        yield from _all_of(view, event.site, event.agent)
        return
    match event.body:
        case GuardChanged() as change:
            yield from _guard_as_told(view, edge, change)
        case MachineChanged() as change:
            yield from _machine_as_told(view, edge, change)
        case StateReport(guards=guards, machines=machines):
            for machine in machines.keys() | guards.keys():
                yield from _machine(view, (event.site, machine))
        case ViolationRaised() | ViolationChanged() | ViolationCleared() as change:
            yield from _place(view, event.site, change.machine, change.guard)
        case _:
            return


def _guard_as_told(view: View, edge: EdgeEvent, change: GuardChanged) -> Iterator[Message]:
    event = edge.event
    key: GuardKey = (event.site, change.machine, change.guard)
    document = guard_document(view, key)
    if document is None:
        return
    if view.plant.is_trusted(event.site, event.agent):
        told: dict[str, Json] = {
            "state": change.state.value,
            "bypass": change.bypass,
            "locked": change.locked,
        }
        told |= {"quality": change.quality.value}
        if document["state"] != change.state.value:
            told |= {"since": edge.occurred_at, "last": None}
        document |= told
    yield Message("guard", document)


def _machine_as_told(view: View, edge: EdgeEvent, change: MachineChanged) -> Iterator[Message]:
    document = machine_document(view, (edge.event.site, change.machine))
    if document is None:
        return
    if view.plant.is_trusted(edge.event.site, edge.event.agent):
        if document["moving"] is not change.moving:
            document["since"] = edge.occurred_at
        document |= {"moving": change.moving, "mode": change.mode}
    yield Message("machine", document)


def _place(view: View, site: str, machine: str | None, guard: str | None) -> Iterator[Message]:
    """The guard of a violation, or its machine: their counts of open violations changed."""
    if machine is None:
        return
    if guard is None:
        yield from _machine(view, (site, machine))
        return
    document = guard_document(view, (site, machine, guard))
    if document is not None:
        yield Message("guard", document)
    yield from _machine(view, (site, machine))


def _machine(view: View, key: tuple[str, str]) -> Iterator[Message]:
    document = machine_document(view, key)
    if document is not None:
        yield Message("machine", document)


def _all_of(view: View, site: str, agent: str) -> Iterator[Message]:
    """Every machine of an agent, and each of its guards by itself."""
    for machine in view.plant.machines.values():
        if (machine.site, machine.agent) != (site, agent):
            continue
        document = machine_document(view, (site, machine.machine))
        if document is None:
            continue
        guards = document["guards"]
        if isinstance(guards, list):
            yield from (Message("guard", guard) for guard in guards)
        yield Message("machine", document)
