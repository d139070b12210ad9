"""What the agent shows beside its stream: birth certificates, guard states, health; the newest of each.

Retained topics are levels, so of several states of one guard only the last is worth sending: they wait here by topic,
in the order in which they were first put, and take at most half of the broker's slots, so that events keep moving.
Health goes first, one at a time: on a line that is slow, beats behind beats would vouch for what was long ago. What waits is put into words only when it goes out: after a connect that is every guard and machine of
a large plant. Which topics were ever published is remembered in the store: a guard or machine that has left the
configuration gets its topic cleared (an empty retained message), however long ago that was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

from edge_agent.domain.birth import agent_model, machine_model
from edge_agent.domain.findings import GuardView
from edge_agent.domain.plan import CellPlan
from edge_agent.domain.units import GuardId, MachineId
from edge_agent.ports import Publication
from edge_agent.wire.event import Json
from edge_agent.wire.status import (
    HEALTH_PAGE_MAX_BYTES,
    STATE_REFRESH_S,
    DeviceHealth,
    GuardStatus,
    Health,
    HealthPage,
    encode_status,
)
from edge_agent.wire.topics import Channel, topic

REFRESHES_PER_S_MAX: Final = 50
"""Retained states published again a second, at most (the outside contract, section 3)."""

TOPIC_KEY_PREFIX: Final = "topic/"
"""Memory keys of topics that were published begin so."""


_Guard: TypeAlias = tuple[MachineId, GuardId]

_Asked: TypeAlias = tuple[str, int]
"""When a guard's state was to be published (RFC 3339), and after which event."""


class Desk:
    """Pending status publications of one agent, newest of each topic."""

    def __init__(self, plan: CellPlan, *, version: str, public_key: str) -> None:
        self._plan = plan
        self._version = version
        self._public_key = public_key
        self._pending: dict[str | _Guard, Callable[[], bytes] | _Asked] = {}
        self._views: dict[_Guard, GuardView] = {}
        self._refresh: Iterator[_Guard] = iter(())
        self._removed: set[str] = set()
        self._cleared: list[str] = []
        self._unanswered: set[str] = set()
        self.in_flight = 0

    @property
    def expiry_s(self) -> int:
        """Three times the pace at which every guard gets its turn."""
        return 3 * max(STATE_REFRESH_S, -(-len(self._views) // REFRESHES_PER_S_MAX))

    @property
    def refreshes_per_s(self) -> int:
        """How many states to publish again each second."""
        return min(REFRESHES_PER_S_MAX, -(-len(self._views) // STATE_REFRESH_S))

    def topic(self, channel: Channel, *rest: str) -> str:
        """A topic of this agent."""
        return topic(self._plan.site, self._plan.agent, channel, *rest)

    def greet(self, epoch: str, health: Health, at: str, seq: int, *, are_current: bool) -> None:
        """A new connection: everything is to be said again, health first, then who we are, then how it stands.

        Unless the states `are_current`, each of them waits for its change or its refresh.
        """
        self._pending.clear()
        self._unanswered.clear()
        self.in_flight = 0
        self.put_health(health)
        self._pending[self.topic(Channel.MODEL)] = partial(self._agent_model, epoch)
        for order, machine in enumerate(self._plan.machines):
            self._pending[self.topic(Channel.MODEL, machine)] = partial(
                self._machine_model, machine, order, epoch
            )
        for name in sorted(self._removed):
            self._pending[name] = bytes
        if are_current:
            self._pending.update(dict.fromkeys(self._views, (at, seq)))

    def put_views(self, views: Iterable[GuardView], at: str, seq: int) -> None:
        """Guards changed; `seq` is the last event committed, `at` (RFC 3339) now."""
        asked = at, seq
        for view in views:
            guard = view.machine, view.guard
            self._views[guard] = view
            self._pending[guard] = asked

    def refresh(self, at: str, seq: int) -> None:
        """One second's share of publishing every state again, before it expires."""
        asked = at, seq
        for _ in range(self.refreshes_per_s):
            guard = next(self._refresh, None)
            if guard is None:
                self._refresh = iter(list(self._views))
                guard = next(self._refresh)
            self._pending[guard] = asked

    def put_health(self, health: Health) -> None:
        """A beat; devices that do not fit go to further pages."""
        head, pages = paginate(health)
        beats: dict[str | _Guard, Callable[[], bytes] | _Asked] = {
            self.topic(Channel.HEALTH): partial(encode_status, head),
            **{self.topic(Channel.HEALTH, str(page.page)): partial(encode_status, page) for page in pages},
        }
        for name in beats:
            self._pending.pop(name, None)
        self._pending = beats | self._pending

    def forget(self, names: Iterable[str]) -> None:
        """Topics of guards and machines that are no longer configured: to be cleared at the next connect."""
        self._removed.update(names)

    def take_cleared(self) -> dict[str, Json]:
        """What need not be remembered any more, because the broker has cleared it."""
        cleared, self._cleared = self._cleared, []
        return {TOPIC_KEY_PREFIX + name: None for name in cleared}

    def take(self, free_slots: int, receive_maximum: int) -> list[Publication]:
        """What to publish now; counted as in flight until `answered`."""
        share = max(1, receive_maximum // 2) - self.in_flight
        waiting = (name for name in self._pending if name not in self._unanswered)
        names = list(islice(waiting, max(0, min(share, free_slots))))
        taken = [self._publication(name, self._pending.pop(name)) for name in names]
        self._unanswered.update(name for name in names if isinstance(name, str))
        self.in_flight += len(taken)
        return taken

    def answered(self, publication: Publication, *, is_refused: bool) -> None:
        """The broker answered one of them."""
        self.in_flight = max(0, self.in_flight - 1)
        self._unanswered.discard(publication.topic)
        if publication.topic in self._removed and not is_refused:
            self._removed.discard(publication.topic)
            self._cleared.append(publication.topic)

    def own_topics(self) -> set[str]:
        """The retained topics of the present configuration that may have to be cleared one day."""
        names: set[str] = set()
        for machine in self._plan.machines.values():
            names.add(self.topic(Channel.MODEL, machine.id))
            names |= {self.topic(Channel.STATE, machine.id, guard.id) for guard in machine.guards}
        return names

    def _publication(self, name: str | _Guard, source: Callable[[], bytes] | _Asked) -> Publication:
        """What waited, in words."""
        if isinstance(name, str):
            assert callable(source)
            return Publication(name, source(), retained=True)
        assert isinstance(source, tuple)
        payload = encode_status(_guard_status(self._views[name], *source))
        return Publication(self.topic(Channel.STATE, *name), payload, retained=True, expiry_s=self.expiry_s)

    def _agent_model(self, epoch: str) -> bytes:
        return encode_status(agent_model(self._plan, epoch, self._version, self._public_key))

    def _machine_model(self, machine: MachineId, order: int, epoch: str) -> bytes:
        return encode_status(machine_model(self._plan.machines[machine], self._plan.signals, order, epoch))


def _guard_status(view: GuardView, at: str, seq: int) -> GuardStatus:
    return GuardStatus(
        machine=view.machine,
        guard=view.guard,
        state=view.state,
        bypass=view.bypass,
        locked=view.locked,
        quality=view.quality,
        since=view.since,
        at=at,
        stale_ms=view.stale_ms,
        seq=seq,
    )


def stale_topics(memory: Mapping[str, Json], own: set[str]) -> tuple[set[str], dict[str, Json]]:
    """Remembered topics that are no longer ours, and what to remember of those that are new."""
    known = {key.removeprefix(TOPIC_KEY_PREFIX) for key in memory if key.startswith(TOPIC_KEY_PREFIX)}
    return known - own, {TOPIC_KEY_PREFIX + name: True for name in sorted(own - known)}


def paginate(health: Health) -> tuple[Health, list[HealthPage]]:
    """A health as page 1, and the pages for devices that it has no room for (`HEALTH_PAGE_MAX_BYTES` each)."""
    rest = dict(sorted(health.devices.items()))
    room = HEALTH_PAGE_MAX_BYTES - len(encode_status(_with_devices(health, {})))
    head = _with_devices(health, _take_devices(rest, room))
    pages: list[HealthPage] = []
    bare = len(encode_status(HealthPage(health.epoch, health.boot, 1_000_000, {})))
    while rest:
        devices = _take_devices(rest, HEALTH_PAGE_MAX_BYTES - bare)
        pages.append(HealthPage(health.epoch, health.boot, len(pages) + 2, devices))
    return head, pages


def _with_devices(health: Health, devices: Mapping[str, DeviceHealth]) -> Health:
    values = {item.name: getattr(health, item.name) for item in fields(health)}
    return Health(**(values | {"devices": devices}))


_DEVICE_BYTES: Final = 170
"""A device's entry beside its id: names, braces, and integers of 2^53 at most."""


def _take_devices(rest: dict[str, DeviceHealth], room: int) -> dict[str, DeviceHealth]:
    """Move as many devices out of `rest` as fit into `room` bytes."""
    taken: dict[str, DeviceHealth] = {}
    for name in list(rest):
        room -= len(name) + _DEVICE_BYTES
        if room < 0 and taken:
            break
        taken[name] = rest.pop(name)
    return taken
