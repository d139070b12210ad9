"""What readiness and metrics are made of: each part of a running gateway says how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from gateway.adapters.accounts_sql import SqlAccounts
from gateway.adapters.intake_paho import PahoIntake
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.api.context import Check, Gauge
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import GatewayRule
from gateway.ports import AccountsUnavailable, Clock, StreamReads
from gateway.services.disk_watch import DiskWatch
from gateway.services.dispatch import Dispatch
from gateway.services.heads import HeadShipping
from gateway.services.historian import HistorianFeed
from gateway.services.ingest import Ingest
from gateway.services.presence import AgentKey, Heard, PresenceWatch
from gateway.services.pulse import Pulse

WRITER = "writer"
"""The loop that vouches for the journal's writer thread."""


class Signs:
    """Asks the parts.

    `disk` is None where a server keeps the journal, `dispatch` while alerting is off, `historian` without InfluxDB, `shipping` without a place for heads.
    """

    def __init__(
        self,
        journal: SqlJournal,
        intake: PahoIntake,
        ingest: Ingest,
        findings: OpenFindings,
        *,
        presence: PresenceWatch,
        clock: Clock,
        accounts: SqlAccounts,
        streams: StreamReads,
        disk: DiskWatch | None,
        dispatch: Dispatch | None,
        historian: HistorianFeed | None,
        shipping: HeadShipping | None,
        pulse: Pulse,
    ) -> None:
        self._journal = journal
        self._intake = intake
        self._ingest = ingest
        self._findings = findings
        self._presence = presence
        self._clock = clock
        self._accounts = accounts
        self._streams = streams
        self._disk = disk
        self._dispatch = dispatch
        self._historian = historian
        self._shipping = shipping
        self._pulse = pulse

    async def checks(self) -> Mapping[str, Check]:
        """Every line of `/readyz`."""
        return {
            **self._vital(),
            "loops": self._loops(),
            "alerting": self._alerting(),
            **self._influxdb(),
            **self._heads(),
            "gaps": await self._gaps(),
            "accounts": await self._accounts_check(),
        }

    def _vital(self) -> dict[str, Check]:
        """What nothing works without. A standby needs no broker, and writes nothing."""
        broker, journal, position = self._intake.problem, self._journal.problem, self._journal.position
        if WRITER in self._pulse.late:
            journal = "a commit does not end: its disk or its server hangs"
        if not self._journal.is_leading:
            return {
                "broker": Check(ok=True, detail="not needed: another gateway leads", is_vital=True),
                "journal": Check(
                    journal is None, journal or f"following the leader, at {position}", is_vital=True
                ),
            }
        return {
            "broker": Check(broker is None, broker or "connected", is_vital=True),
            "journal": Check(journal is None, journal or f"writable, at {position}", is_vital=True),
        }

    def gauges(self) -> list[Gauge]:
        """Numbers for `/metrics` beside those of the plant."""
        return [
            *self._counters(),
            *self._disk_gauges(),
            *agent_gauges(self._presence.heard(), self._clock.monotonic_ms()),
        ]

    def _disk_check(self) -> dict[str, Check]:
        """Nothing where the journal lies on another machine, or was not looked at yet."""
        if self._disk is None or self._disk.room is None:
            return {}
        room = self._disk.room
        is_low = bool(self._findings.open_of(GatewayRule.JOURNAL_FILLING))
        is_damaged = bool(self._findings.open_of(GatewayRule.JOURNAL_DAMAGED))
        detail = f"{room.free_bytes >> 20} MB free, {room.filled_pct} % filled"
        return {"disk": Check(not is_low and not is_damaged, f"{detail}{', damage found' * is_damaged}")}

    def _loops(self) -> Check:
        """What hangs; the supervisor gets no ping then, and will start us again."""
        late = self._pulse.late
        return Check(not late, f"not advancing: {', '.join(late)}" if late else "all advance")

    def _alerting(self) -> Check:
        if self._dispatch is None:
            return Check(ok=False, detail="off: the configuration has no routes, nobody is told")
        failing = self._findings.open_of(GatewayRule.ALERT_FAILING)
        if failing:
            names = ", ".join(sorted(str(item.detail.get("thing", "?")) for item in failing))
            return Check(ok=False, detail=f"not delivering: {names}")
        return Check(ok=True, detail="on")

    def _influxdb(self) -> dict[str, Check]:
        """Nothing where no InfluxDB is configured."""
        if self._historian is None:
            return {}
        problem, position = self._historian.problem, self._historian.position
        behind = f"at {position} of {self._journal.position}"
        if problem is None and self._findings.open_of(GatewayRule.HISTORIAN_STALLED):
            problem = "stalled"
        if problem is None and self._findings.open_of(GatewayRule.HISTORIAN_REFUSED):
            problem = f"{self._historian.refused_count} lines refused for good"
        return {"influxdb": Check(problem is None, f"{problem}; {behind}" if problem else behind)}

    def _heads(self) -> dict[str, Check]:
        """Nothing where no place for heads is configured."""
        if self._shipping is None:
            return {}
        problem = self._shipping.problem
        return {"heads": Check(problem is None, problem or "written outside")}

    async def _gaps(self) -> Check:
        try:
            found = await asyncio.to_thread(self._streams.gaps)
        except Exception as error:  # noqa: BLE001 - readiness must answer whatever the database does
            return Check(ok=False, detail=f"cannot be read: {type(error).__name__}")
        gaps = [gap for rows in found.values() for gap in rows]
        still_open = sum(1 for gap in gaps if gap.filled_at_ms is None and gap.final_at_ms is None)
        return Check(still_open == 0, f"{still_open} open" if still_open else "none open")

    async def _accounts_check(self) -> Check:
        try:
            await self._accounts.session("")
        except AccountsUnavailable as error:
            return Check(ok=False, detail=str(error))
        return Check(ok=True, detail="readable")

    def _disk_gauges(self) -> Iterator[Gauge]:
        room = self._disk.room if self._disk is not None else None
        if room is not None:
            yield Gauge("journal_bytes", "Size of the journal's file and log", room.used_bytes)
            yield Gauge("journal_free_bytes", "Room that its file system has left", room.free_bytes)

    def _counters(self) -> Iterator[Gauge]:
        counters = self._ingest.counters
        outcomes = {
            "admitted": counters.admitted,
            "duplicate": counters.duplicates,
            "dropped": counters.dropped,
            "conflict": counters.conflicts,
            "quarantined": counters.quarantined,
        }
        for outcome, number in outcomes.items():
            yield Gauge(
                "events", "Events received since start, by what became of them", number, {"outcome": outcome}
            )
        yield Gauge(
            "broker_connected", "1 while connected to the broker", float(self._intake.problem is None)
        )
        if self._historian is not None:
            yield Gauge(
                "influxdb_position", "Journal position up to which InfluxDB has all", self._historian.position
            )
            yield Gauge(
                "influxdb_refused_lines",
                "Lines that InfluxDB refused for good",
                self._historian.refused_count,
            )
        if self._dispatch is not None:
            for (channel, outcome), number in self._dispatch.counts.items():
                labels = {"channel": channel, "outcome": outcome}
                yield Gauge("notices", "Sends since start, by channel and outcome", number, labels)


def agent_gauges(heard_of: Mapping[AgentKey, Heard], now_ms: int) -> Iterator[Gauge]:
    """What agents say of their polling, from their newest beats; `now_ms` on the clock that stamped them."""
    for (site, agent), heard in heard_of.items():
        labels = {"site": site, "agent": agent}
        health = heard.health
        yield Gauge("agent_polls_total", "Polls since the agent's start", health.polls, labels)
        yield Gauge("agent_overruns_total", "Polls that missed their next tick", health.overruns, labels)
        for function, number in health.requests.items():
            by_function = {**labels, "fc": function}
            yield Gauge("agent_requests_total", "Modbus requests by function code", number, by_function)
        for name, device in health.devices.items():
            of_device = {**labels, "device": name}
            yield Gauge("device_up", "1 while all of a device's data is good", float(device.up), of_device)
            if device.age_ms is not None:
                age_s = (device.age_ms + now_ms - heard.said_ms) / 1000
                yield Gauge("device_age_seconds", "Age of a device's oldest data", age_s, of_device)
