"""Which agents are alive, and what their beats say about clock and store: judged twice a second, journaled on change.

Beats are heard in memory (`hear`) and never journaled themselves; only what follows from them is: an agent came or
went (`PresenceChanged`), and the findings monitoring_lost, clock_offset, store_filling, poll_overrun. At the gateway's start no
agent is taken to be online, whatever the journal last said: a beat must rise first; and until the journal says so, too,
nobody counts as judged.

A living agent may still have more to say than has come. Its beats tell how far its store is, and only one that the journal
is even with vouches for what is shown: when the last such beat is as old as a silent agent is believed, what it said last is
no state any more, and its presence is journaled anew with the event to wait for. One whose store is full says nothing at all about what it sees: it counts
as offline until there is room again and, if it lost findings, a report that makes them good.

Source: the outside contract, section 3 (health); `domain.presence` has the limits and their sources.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias, TypeVar

from edge_agent.wire.event import Json
from edge_agent.wire.status import DeviceHealth, Health, HealthPage
from gateway.domain import presence as rules
from gateway.domain.findings import OpenFindings, Subject, raise_finding
from gateway.domain.instants import iso_utc
from gateway.domain.journal import FindingCleared, GatewayRule, PresenceChanged
from gateway.domain.poll_load import is_overrunning
from gateway.domain.presence import Presence
from gateway.ports import Clock, Journal, JournalUnavailable, Recording
from gateway.services.pulse import Advance, unwatched

T = TypeVar("T")

AgentKey: TypeAlias = tuple[str, str]
"""Site and agent."""

FULL_PCT = 100
"""An outbox this full takes no events, or lost some that no report makes good yet: what its agent sees is not in the journal."""

TICK_S = 0.5
"""How often silence is looked for: a twelfth of the shortest limit."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest health of an agent, all pages together, and when it was said (gateway's monotonic milliseconds)."""

    health: Health
    said_ms: int


@dataclass(frozen=True, slots=True)
class _Told:
    """A presence as the journal has it; `seq` is the event of `epoch` to wait for before its states are believed."""

    online: bool
    epoch: str | None
    seq: int = 0


@dataclass(slots=True)
class _Agent:
    """One agent in memory. `told`: what was last journaled of it; `reached`: (epoch, seq) journaled.

    `even_ms`: when the last beat was said that vouched for what is shown: the journal was, or became, even with it.
    """

    presence: Presence
    told: _Told | None = None
    pages: dict[int, HealthPage] = field(default_factory=dict)
    reached: tuple[str, int] = ("", 0)
    behind_since_ms: int | None = None
    even_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _News:
    """What the journal does not say yet of one agent. `tell`: its presence; `findings`: those that begin or end."""

    presence: Presence
    tell: _Told | None
    findings: tuple[tuple[Subject, bool], ...]


class PresenceWatch:
    """The service. `hear`, `hear_page`, `reached` are fed by ingest; `run` belongs into the process's task group."""

    def __init__(self, journal: Journal, clock: Clock, findings: OpenFindings) -> None:
        self._journal = journal
        self._clock = clock
        self._findings = findings
        self._agents: dict[AgentKey, _Agent] = {}
        self._judged_ms = clock.monotonic_ms() - rules.UNJUDGED_MS - 1
        """By this process nobody has been judged yet: what the journal says of them is what was."""

    async def run(self, advance: Advance = unwatched) -> NoReturn:
        """Judge twice a second, for ever."""
        await self.start(advance)
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()
            advance()

    async def start(self, advance: Advance = unwatched) -> None:
        """Take up the agents that the journal knows: none of them is online until its beats rise."""

        def read(recording: Recording) -> list[AgentKey]:
            for site, agent in recording.online_agents():
                recording.append(
                    PresenceChanged(site, agent, online=False, epoch=None, reason="the gateway started")
                )
            return list(recording.known_agents())

        now = self._clock.monotonic_ms()
        for key in await self._persist(read, advance):
            agent = self._agents.setdefault(key, _Agent(Presence(alive_ms=now)))
            agent.told = _Told(online=False, epoch=None)
        self._judged_ms = now

    async def _persist(self, work: Callable[[Recording], T], advance: Advance) -> T:
        """A gateway that starts without room on its disk waits for it, and serves what it has."""
        while True:
            try:
                return await self._journal.transact(work)
            except JournalUnavailable:
                await asyncio.sleep(TICK_S)
                advance()

    def hear(self, key: AgentKey, health: Health, *, retained: bool) -> None:
        """Take in one beat or last will."""
        now = self._clock.monotonic_ms()
        agent = self._agents.setdefault(key, _Agent(Presence(alive_ms=now)))
        if health.online and health.epoch != agent.presence.epoch:
            agent.pages.clear()
        agent.presence = rules.hear(agent.presence, health, now, retained=retained)
        if health.online and _is_behind(health, agent.reached):
            agent.behind_since_ms = agent.behind_since_ms or now
        elif health.online:
            _note_even(agent, health)

    def hear_page(self, key: AgentKey, page: HealthPage) -> None:
        """Take in page 2 or on of a health; pages of another run mean nothing."""
        agent = self._agents.get(key)
        if agent is not None and page.epoch == agent.presence.epoch:
            agent.pages[page.page] = page

    def reached(self, key: tuple[str, str, str], seq: int) -> None:
        """The journal holds everything of (site, agent, epoch) up to `seq`."""
        site, name, epoch = key
        agent = self._agents.get((site, name))
        if agent is None:
            return
        agent.reached = (epoch, seq)
        health = agent.presence.health
        if health is not None and not _is_behind(health, agent.reached):
            _note_even(agent, health)

    def newest(self) -> Mapping[AgentKey, Health]:
        """The newest health of each agent that was heard, as it came: what the stream is judged by."""
        return {key: agent.presence.health for key, agent in self._agents.items() if agent.presence.health}

    def health_of(self, site: str, agent: str) -> Heard | None:
        """The newest health of one agent, with the devices of all its pages; None before the first."""
        found = self._agents.get((site, agent))
        if found is None or found.presence.health is None or found.presence.said_ms is None:
            return None
        devices: dict[str, DeviceHealth] = dict(found.presence.health.devices)
        for page in found.pages.values():
            devices.update(page.devices)
        return Heard(replace(found.presence.health, devices=devices), found.presence.said_ms)

    def heard(self) -> Mapping[AgentKey, Heard]:
        """The newest health of every agent that was heard, with the devices of all its pages."""
        found = {key: self.health_of(*key) for key in self._agents}
        return {key: heard for key, heard in found.items() if heard is not None}

    def lag_ms(self, site: str, agent: str) -> int:
        """For how long the agent has had events that are not journaled here; 0 when it has none."""
        found = self._agents.get((site, agent))
        if found is None or found.behind_since_ms is None:
            return 0
        return self._clock.monotonic_ms() - found.behind_since_ms

    def blind_since_ms(self) -> int | None:
        """Since when (gateway UTC) what agents say does not reach what is shown; None while it does.

        Nothing can be journaled, or nobody has looked at the beats for `UNJUDGED_MS`.
        """
        failing_since_ms = self._journal.failing_since_ms
        unjudged_ms = self._clock.monotonic_ms() - self._judged_ms
        if failing_since_ms is None and unjudged_ms > rules.UNJUDGED_MS:
            return self._clock.utc_ms() - unjudged_ms
        return failing_since_ms

    async def tick(self) -> None:
        """Judge every agent; journal what changed."""
        now = self._clock.monotonic_ms()
        is_open = frozenset(self._findings.adopted_subjects())
        news: dict[AgentKey, _News] = {}
        for key, agent in self._agents.items():
            agent.presence = rules.watch(agent.presence, now)
            found = _judge(key, agent, now, is_open)
            if found.tell is not None or found.findings:
                news[key] = found
        if not news:
            self._judged_ms = now
            return

        def note(recording: Recording) -> None:
            for key, found in news.items():
                _note_presence(recording, key, found, now)
                self._note_findings(recording, found, now)

        try:
            await self._journal.transact(note)
        except JournalUnavailable:
            return  # nothing was stored and `told` is as before: the next tick says it again
        for key, found in news.items():
            self._agents[key].told = found.tell or self._agents[key].told
        self._judged_ms = now

    def _note_findings(self, recording: Recording, news: _News, now: int) -> None:
        for subject, holds in news.findings:
            found = self._findings.find(subject)
            if holds and found is None:
                since = recording.now_ms
                if subject.rule is GatewayRule.MONITORING_LOST:
                    since -= now - news.presence.alive_ms
                detail = _detail(subject.rule, news.presence)
                recording.append(raise_finding(subject, recording.next_position, iso_utc(since), detail))
            elif not holds and found is not None:
                recording.append(FindingCleared(found.occurrence, iso_utc(recording.now_ms), "over"))


def _is_behind(health: Health, reached: tuple[str, int]) -> bool:
    """Whether the agent has stored events that neither the journal is known to hold nor the agent saw acked."""
    epoch, seq = reached
    held = seq if epoch == health.epoch else 0
    acked = health.acked.seq if health.acked is not None and health.acked.epoch == health.epoch else 0
    return health.seq > max(held, acked)


def _note_even(agent: _Agent, health: Health) -> None:
    """The journal holds all that this beat names; one of a full store vouches for nothing even so."""
    agent.behind_since_ms = None
    if health.outbox_pct < FULL_PCT:
        agent.even_ms = agent.presence.said_ms


def _judge(key: AgentKey, agent: _Agent, now: int, is_open: frozenset[Subject]) -> _News:
    """What there is to say of one agent. A lost one is found again, and its beats judged, only when proven alive."""
    presence, health = agent.presence, agent.presence.health
    is_lost = rules.is_lost(presence, now)
    tell: _Told | None = None
    if presence.online and health is not None and health.outbox_pct < FULL_PCT:
        tell = _Told(online=True, epoch=presence.epoch, seq=_awaited(agent, health, now))
    elif agent.told is not None or is_lost or presence.online:  # an unproven one is given its time
        tell = _Told(online=False, epoch=None)
    holds = {Subject(GatewayRule.MONITORING_LOST, *key): is_lost} if is_lost or presence.online else {}
    if presence.online and health is not None:
        filling = Subject(GatewayRule.STORE_FILLING, *key)
        holds[filling] = rules.is_store_filling(health, was_filling=filling in is_open)
        holds[Subject(GatewayRule.CLOCK_OFFSET, *key)] = rules.is_clock_off(health)
        late = Subject(GatewayRule.POLL_OVERRUN, *key)
        holds[late] = is_overrunning(presence.load, was_overrunning=late in is_open)
    changed = tuple((subject, wanted) for subject, wanted in holds.items() if wanted != (subject in is_open))
    return _News(presence, tell if tell != agent.told else None, changed)


def _awaited(agent: _Agent, health: Health, now: int) -> int:
    """The event that must be journaled before what the agent says is believed (again)."""
    told = agent.told
    if told is None or not told.online or told.epoch != health.epoch:
        return health.seq
    since_ms = agent.behind_since_ms if agent.even_ms is None else agent.even_ms
    is_late = (
        agent.behind_since_ms is not None and since_ms is not None and now - since_ms >= rules.OFFLINE_MS
    )
    return max(told.seq, health.seq) if is_late else told.seq


def _note_presence(recording: Recording, key: AgentKey, news: _News, now: int) -> None:
    presence = news.presence
    if news.tell is None:
        return
    if news.tell.online:
        recording.append(PresenceChanged(*key, True, presence.epoch, "its beats rise", news.tell.seq))
        return
    if presence.online:
        reason = "its store is full, or was and its report is due: it cannot say what it sees"
        recording.append(PresenceChanged(*key, online=False, epoch=presence.epoch, reason=reason))
        return
    silent_ms = now - presence.alive_ms
    reason = (
        f"no rising beat for {silent_ms} ms"
        if silent_ms >= rules.OFFLINE_MS
        else "its last will, or a new run"
    )
    recording.append(PresenceChanged(*key, online=False, epoch=presence.epoch, reason=reason))


def _detail(rule: GatewayRule, presence: Presence) -> Mapping[str, Json]:
    health = presence.health
    match rule:
        case GatewayRule.CLOCK_OFFSET if health is not None:
            return {"clock_offset_ms": health.clock_offset_ms}
        case GatewayRule.STORE_FILLING if health is not None:
            return {"outbox_pct": health.outbox_pct}
        case GatewayRule.POLL_OVERRUN:
            load = presence.load
            return {"polls": load.polls, "overruns": load.overruns, "devices": [*load.late_devices]}
        case _:
            return {"epoch": presence.epoch}
