"""The gateway put together: settings become adapters, adapters become services, services become named tasks.

    broker ─▶ ingest ─▶ journal ─┬─ folds: plant, alarm book, open findings
                presence ────────┤
                                 ├─▶ timers, dispatch ─▶ people
                                 ├─▶ historian ─▶ InfluxDB
                                 └─▶ live ─▶ HTTP ◀─ board, API

All run in one task group: when one fails, all end, and the process with them (crash-only; the supervisor starts it
again, and nothing is lost because nothing was promised that is not on disk).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from edge_agent.wire.event import Json
from edge_agent.wire.heads import Head
from gateway.adapters.accounts_sql import SqlAccounts
from gateway.adapters.accounts_tables import open_accounts
from gateway.adapters.clock_system import SystemClock
from gateway.adapters.heads_file import HeadsFile
from gateway.adapters.historian_influx import InfluxHistorian
from gateway.adapters.intake_paho import PahoIntake
from gateway.adapters.notifiers import open_notifier
from gateway.adapters.signatures import KeyFileError, load_or_create_key
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.head_reads import read_reach
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.adapters.store_sql.plant_reads import PLANT_FOLD
from gateway.adapters.store_sql.stream_reads import SqlStreamReads
from gateway.api.application import build_application, with_limits
from gateway.api.context import Context, Site
from gateway.api.server import ApiServer
from gateway.app.settled import broker_access, make_voice
from gateway.app.signs import WRITER, Signs
from gateway.domain.board import Beat, View
from gateway.domain.book import AlarmBook
from gateway.domain.documents import Signs as AgentSigns
from gateway.domain.documents import agent_document, gap_document
from gateway.domain.findings import OpenFindings
from gateway.domain.heads import make_heads
from gateway.domain.journal import ConfigRefused
from gateway.domain.listing import GapRow
from gateway.domain.plant import AgentKey
from gateway.domain.plant_fold import Plant
from gateway.domain.teller import Teller
from gateway.ports import Fold, JournalUnavailable
from gateway.services.changes import Changes
from gateway.services.clock_watch import follow_clock, watch_clock
from gateway.services.disk_watch import DiskWatch
from gateway.services.dispatch import Dispatch
from gateway.services.heads import HeadShipping, HeadsNotMade
from gateway.services.heartbeats import Heartbeats
from gateway.services.historian import TURN_MS, HistorianFeed
from gateway.services.historian_watch import HistorianWatch
from gateway.services.ingest import Ingest
from gateway.services.live import Live
from gateway.services.operate import Operate
from gateway.services.presence import PresenceWatch
from gateway.services.pulse import COMMIT_MS, Advance, Pulse, feed_watchdog, probe
from gateway.services.timers import Timers
from gateway.settings import GatewaySettings

log = logging.getLogger("guardwatch.gateway")

PROBLEMS_TOLD_MAX = 50
"""Problems of a refused configuration that go into the journal; the rest is in the log."""


@dataclass(frozen=True, slots=True)
class _Alerting:
    """What tells people; there is none without routes."""

    timers: Timers
    dispatch: Dispatch
    heartbeats: Heartbeats


class Gateway:
    """One gateway. `await Gateway.open(…)`, then `run` until `stop`."""

    def __init__(self, settings: GatewaySettings, journal: SqlJournal, stack: AsyncExitStack) -> None:
        self._settings = settings
        self.journal = journal
        self._stack = stack

    @classmethod
    async def open(cls, settings: GatewaySettings, stack: AsyncExitStack) -> Gateway:
        """Open the database and put everything together; `stack` closes what was opened, last first.

        Raises `StoreError`, `JournalUnavailable` or `AccountsUnavailable`.
        """
        clock, plant, findings = SystemClock(), Plant(), OpenFindings()
        teller = _make_teller(settings)
        book = AlarmBook(teller)
        folds: dict[str, Fold] = {PLANT_FOLD: plant, "findings": findings, "book": book}
        journal = await SqlJournal.open(settings.journal_url, clock, folds)
        stack.push_async_callback(journal.close)
        clock.not_before(journal.last_recorded_ms)
        try:
            load_or_create_key(settings.evidence.key_file)
        except KeyFileError as error:  # evidence of what is seen is no reason to see nothing
            log.error("%s: until then there are no heads", error)  # noqa: TRY400 - it says what to do
        gateway = cls(settings, journal, stack)
        gateway._compose(clock, plant, findings, book, teller)
        return gateway

    def _compose(
        self,
        clock: SystemClock,
        plant: Plant,
        findings: OpenFindings,
        book: AlarmBook,
        teller: Teller | None,
    ) -> None:
        journal = self.journal
        self._clock, self._plant = clock, plant
        self._accounts = accounts = self._open_accounts(clock)
        self.pulse = Pulse()
        self.intake = PahoIntake(broker_access(self._settings.mqtt))
        self.presence = PresenceWatch(journal, clock, findings)
        self.ingest = Ingest(journal, self.intake, clock, findings, self.presence)
        self.disk = None if journal.file is None else DiskWatch(journal, journal.file, clock, findings)
        self.alerting = None if teller is None else self._make_alerting(clock, findings, book, teller)
        self._streams = SqlStreamReads(journal.readers)
        alarms = SqlAlarmReads(journal.readers)
        self.historian = self._make_historian(clock, findings, alarms)
        self.historian_watch = HistorianWatch(journal, clock, findings, self.historian)
        self.shipping = self._make_shipping()
        changes = Changes(self.view, alarms, self._agent_by_key)
        self.live = Live(
            journal,
            clock,
            changes.render,
            journal.position,
            lambda: self.presence.blind_since_ms() is not None,
        )
        signs = Signs(
            journal,
            self.intake,
            self.ingest,
            findings,
            presence=self.presence,
            clock=clock,
            accounts=accounts,
            streams=self._streams,
            disk=self.disk,
            dispatch=self.alerting.dispatch if self.alerting else None,
            historian=self.historian,
            shipping=self.shipping,
            pulse=self.pulse,
        )
        context = Context(
            site=_site(self._settings),
            clock=clock,
            accounts=accounts,
            live=self.live,
            alarms=alarms,
            operate=Operate(journal),
            streams=self._streams,
            agent=self._agent,
            view=self.view,
            unacknowledged=alarms.unacknowledged,
            checks=signs.checks,
            gauges=signs.gauges,
            heads=self.heads,
        )
        self.server = ApiServer(with_limits(build_application(context), context), self.live)

    def _open_accounts(self, clock: SystemClock) -> SqlAccounts:
        engine = open_accounts(self._settings.journal_url)
        self._stack.callback(engine.dispose)
        return SqlAccounts(engine, clock)

    def _make_alerting(
        self, clock: SystemClock, findings: OpenFindings, book: AlarmBook, teller: Teller
    ) -> _Alerting:
        notifiers = {name: open_notifier(channel) for name, channel in self._settings.channels.items()}
        for notifier in notifiers.values():
            self._stack.push_async_callback(notifier.close)
        dispatch = Dispatch(self.journal, clock, findings, notifiers)
        timers = Timers(self.journal, clock, book, teller, dispatch.wake)
        plan, voice = self._settings.alerting, make_voice(self._settings)
        return _Alerting(timers, dispatch, Heartbeats(self.journal, clock, plan, voice, dispatch.wake))

    def _make_shipping(self) -> HeadShipping | None:
        """None where the configuration has no place for heads."""
        evidence = self._settings.evidence
        if evidence.heads_dir is None:
            return None
        return HeadShipping(self.heads, HeadsFile(evidence.heads_dir), evidence.every_h)

    def _make_historian(
        self, clock: SystemClock, findings: OpenFindings, alarms: SqlAlarmReads
    ) -> HistorianFeed | None:
        """None where the configuration has no InfluxDB."""
        influx = self._settings.influxdb
        if influx is None:
            return None
        historian = InfluxHistorian(influx.url, influx.org, influx.bucket, influx.token, influx.timeout_ms)
        self._stack.callback(historian.close)
        return HistorianFeed(
            self.journal, clock, historian, alarms.violation, self.presence.newest, findings=findings
        )

    async def run(self, listener: socket.socket, stop: asyncio.Event, notify: Callable[[str], None]) -> None:
        """Serve at once, lead as soon as nobody else does; work until `stop` is set, then drain.

        The supervisor is told (`notify`) that we are ready, and from then on that every loop advances. Raises what a
        task raised, as a group.
        """
        pulse = self.pulse
        async with asyncio.TaskGroup() as tasks:
            server = tasks.create_task(self.server.serve(sockets=[listener]), name="http")
            workers = [
                tasks.create_task(self.live.run(pulse.join("live")), name="live"),
                tasks.create_task(self._lead(), name="lead"),
                tasks.create_task(probe(self.journal.touch, pulse.join(WRITER, COMMIT_MS)), name=WRITER),
                tasks.create_task(feed_watchdog(pulse, notify), name="watchdog"),
            ]
            notify("READY=1")
            await stop.wait()
            self.server.stop()
            for worker in workers:
                worker.cancel()
            await asyncio.wait([server, *workers])

    async def _lead(self) -> None:
        """Everything that only one gateway of a database may do, once this one leads."""
        following = asyncio.create_task(follow_clock(self._clock), name="clock")
        try:
            await self.journal.lead()
        finally:
            following.cancel()
        self.intake.open()
        self._stack.push_async_callback(self.intake.close)
        work: dict[str, Coroutine[None, None, object]] = {
            "lease": self.journal.keep_leading(),
            "ingest": self.ingest.run(self._join("ingest")),
            "ingest.watch": self.ingest.watch(self._join("ingest.watch")),
            "presence": self.presence.run(self._join("presence")),
            "clock": watch_clock(self.journal, self._clock, self._accounts, self._join("clock")),
            "historian.watch": self.historian_watch.run(self._join("historian.watch")),
        }
        if self.disk is not None:
            work["disk"] = self.disk.run(self._join("disk"))
        if self.alerting is not None:
            work["timers"] = self.alerting.timers.run(self._join("timers"))
            work["dispatch"] = self.alerting.dispatch.run(self._join)
            work["heartbeats"] = self.alerting.heartbeats.run(self._join("heartbeats"))
        if self._settings.influxdb is not None and self.historian is not None:
            turn_ms = TURN_MS + self._settings.influxdb.timeout_ms
            work["historian"] = self.historian.run(self.pulse.join("historian", turn_ms))
        if self.shipping is not None:
            work["heads"] = self.shipping.run(self._join("heads"))
        async with asyncio.TaskGroup() as tasks:
            for name, job in work.items():
                tasks.create_task(job, name=name)

    def _join(self, name: str) -> Advance:
        return self.pulse.join(name, COMMIT_MS)

    async def note_refused(self, problems: Sequence[object]) -> None:
        """A changed configuration was refused: the journal says so, the running one stays in force."""
        told = tuple(str(problem)[:500] for problem in problems[:PROBLEMS_TOLD_MAX])
        try:
            await self.journal.transact(lambda recording: recording.append(ConfigRefused(told)))
        except JournalUnavailable:
            return  # it is in the log

    def view(self) -> View:
        """The plant with its newest heartbeats, now."""
        now_ms = self._clock.monotonic_ms()
        beats: dict[AgentKey, Beat] = {}
        for key in self._plant.state.agents:
            heard = self.presence.health_of(*key)
            if heard is not None:
                ages = {name: device.age_ms for name, device in heard.health.devices.items()}
                beats[key] = Beat(max(0, now_ms - heard.said_ms), ages)
        return View(self._plant.state, beats, self._clock.utc_ms(), self.presence.blind_since_ms())

    def heads(self) -> Sequence[Head]:
        """The journal's head and the agents', made now (blocking). Raises `JournalUnavailable`, `HeadsNotMade`."""
        reach = read_reach(self.journal.readers)
        try:
            key = load_or_create_key(self._settings.evidence.key_file)
        except KeyFileError as error:
            raise HeadsNotMade(str(error)) from error
        return make_heads(reach, self._clock.utc_ms(), key.public_key, key.sign)

    def _agent(self, key: AgentKey, gaps: Sequence[GapRow]) -> Json:
        heard = self.presence.health_of(*key)
        signs = AgentSigns(self.presence.lag_ms(*key))
        if heard is not None:
            health = heard.health
            signs = AgentSigns(signs.lag_ms, health.clock_offset_ms, health.overruns, health.outbox_pct)
        return agent_document(self.view(), key, [gap_document(gap) for gap in gaps], signs)

    def _agent_by_key(self, site: str, agent: str) -> Json:
        return self._agent((site, agent), self._streams.gaps().get((site, agent), ()))


def _make_teller(settings: GatewaySettings) -> Teller | None:
    return Teller(settings.alerting, make_voice(settings)) if settings.alerting.is_on else None


def _site(settings: GatewaySettings) -> Site:
    return Site(
        base_url=settings.http.base_url,
        time_zone=settings.time_zone.key,
        language=settings.language.value,
        anonymous=settings.anonymous,
        is_alerting=settings.alerting.is_on,
    )
