"""`check`, `route`, `alert-test`, `alarms`, `status`: what a configuration means, and how things stand."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.wire.event import Json, Priority
from gateway.adapters.clock_system import SystemClock
from gateway.adapters.notifiers import open_notifier
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.plant_reads import load_plant, reading
from gateway.adapters.store_sql.stream_reads import SqlStreamReads
from gateway.app.exits import Exit, fail, refuse, say, say_json
from gateway.app.settled import make_voice
from gateway.domain.board import View, count
from gateway.domain.documents import alarm_document
from gateway.domain.listing import LIMIT_MAX, Query
from gateway.domain.notify import Subject, Target, find_targets
from gateway.domain.plant import MachineNow, PlantState
from gateway.domain.teller import make_test_alert
from gateway.ports import Delivered, JournalUnavailable
from gateway.settings import GatewaySettings, load

LISTED_LETTERS = ("B", "C", "D", "E", "F", "G", "H", "I")
"""Alarms that are not history."""


def check(config: Path, *, as_json: bool) -> Exit:
    """Say what is wrong with a configuration, or what it means. Opens no socket."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    plan = settings.alerting
    summary: dict[str, Json] = {
        "listen": f"{settings.http.host}:{settings.http.port}",
        "base_url": settings.http.base_url,
        "broker": f"{settings.mqtt.host}:{settings.mqtt.port}",
        "journal": settings.journal_url.partition("@")[2] or settings.journal_url,
        "heads": str(settings.evidence.heads_dir) if settings.evidence.heads_dir else None,
        "influxdb": settings.influxdb.url if settings.influxdb else None,
        "time_zone": settings.time_zone.key,
        "anonymous": settings.anonymous.value if settings.anonymous else None,
        "alerting": plan.is_on,
        "people": len(plan.people),
        "channels": [*settings.channels],
        "routes": len(plan.routes),
    }
    if as_json:
        say_json(summary)
        return Exit.OK
    for name, value in summary.items():
        say(f"{name}: {value}")
    if not plan.is_on:
        say("alerting is off: nobody is told of anything — add `routes` to change that")
    return Exit.OK


def route(
    config: Path,
    rule: str,
    place: tuple[str | None, str | None],
    *,
    priority: Priority,
    at: str | None,
    as_json: bool,
) -> Exit:
    """Say who would be told of such an alarm at that time, by which channel, how often."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    local = _local_time(settings, at)
    if local is None:
        return refuse(f"--at {at}: no time — write it like 2026-11-28T03:00")
    machine, guard = place
    found = _find_machine(settings, machine)
    subject = _subject(rule, priority, found, machine, guard)
    targets = find_targets(settings.alerting, subject, local)
    if as_json:
        items: list[Json] = [_target_document(target) for target in targets]
        say_json({"at": local.isoformat(), "items": items})
        return Exit.OK
    if machine is not None and found is None:
        say(f"note: {machine} is not known yet, so its site, area and kind match nothing")
    for target in targets:
        repeat = f"every {target.repeat_s} s" if target.repeat_s else "once"
        say(f"{target.person.id}  by {target.channel}  {repeat}")
    if not targets:
        say("nobody would be told")
    return Exit.OK


def alert_test(config: Path, channel: str, person: str) -> Exit:
    """Send a test message to one person by one channel; say whether the receiver took it."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    way, whom = settings.channels.get(channel), settings.alerting.people.get(person)
    if way is None:
        return refuse(
            f"--channel {channel}: no such channel — known: {', '.join(settings.channels) or 'none'}"
        )
    if whom is None:
        return refuse(f"--to {person}: nobody — known: {', '.join(settings.alerting.people) or 'nobody'}")
    alert = make_test_alert(whom, channel, make_voice(settings), SystemClock().utc_ms())

    async def send() -> object:
        notifier = open_notifier(way)
        try:
            return await notifier.send(alert)
        finally:
            await notifier.close()

    outcome = asyncio.run(send())
    if isinstance(outcome, Delivered):
        say(f"delivered to {person} by {channel}")
        return Exit.OK
    return fail(f"not delivered to {person} by {channel}: {outcome}")


def alarms(config: Path, *, as_json: bool, exit_code: bool) -> Exit:
    """The alarms that are not history, newest first."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    try:
        with reading(settings.journal_url) as readers:
            query = Query({"letter": LISTED_LETTERS}, limit=LIMIT_MAX)
            found = SqlAlarmReads(readers).alarms(query).items
    except JournalUnavailable as error:
        return fail(error)
    if as_json:
        say_json({"items": [alarm_document(alarm) for alarm in found], "next": None})
    for alarm in () if as_json else found:
        place = "/".join(part for part in (alarm.site, alarm.machine or alarm.agent, alarm.guard) if part)
        state = f"{alarm.state.condition.value},{alarm.state.ack.value}"
        say(
            f"A{alarm.id}  {alarm.priority.value}  {alarm.rule}  {place or 'gateway'}  {state}  since {alarm.since}"
        )
    return Exit.FAILED if exit_code and found else Exit.OK


def status(config: Path, *, as_json: bool, exit_code: bool) -> Exit:
    """How the plant stands by the journal: agents, guards by state, open violations, gaps."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    try:
        with reading(settings.journal_url) as readers:
            plant = load_plant(readers).state
            unacknowledged = SqlAlarmReads(readers).unacknowledged()
            gaps = SqlStreamReads(readers).gaps()
    except JournalUnavailable as error:
        return fail(error)
    counts = count(View(plant, {}, SystemClock().utc_ms()))
    open_gaps = sum(
        1 for rows in gaps.values() for gap in rows if gap.filled_at_ms is None and gap.final_at_ms is None
    )
    offline = [f"{agent.site}/{agent.agent}" for agent in plant.agents.values() if not agent.online]
    if as_json:
        say_json(
            {
                "position": plant.position,
                "counts": {**counts, "unacknowledged": sum(unacknowledged.values())},
                "offline": [*offline],
                "open_gaps": open_gaps,
            }
        )
    else:
        _print_status(plant, counts, offline, sum(unacknowledged.values()), open_gaps)
    is_amiss = bool(offline or counts["violations"] or open_gaps or sum(unacknowledged.values()))
    return Exit.FAILED if exit_code and is_amiss else Exit.OK


def _print_status(
    plant: PlantState, counts: dict[str, int], offline: list[str], unacknowledged: int, open_gaps: int
) -> None:
    say(f"journal position {plant.position}")
    say(f"agents {counts['agents']}, silent: {', '.join(offline) or 'none'}")
    states = ("closed", "closed_locked", "open", "bypassed", "fault", "unknown", "out_of_service")
    say(f"guards {counts['guards']}: " + ", ".join(f"{name} {counts[name]}" for name in states))
    priorities = ", ".join(f"{priority.value} {counts[priority.value]}" for priority in Priority)
    say(f"open violations {counts['violations']}: {priorities}; unacknowledged alarms {unacknowledged}")
    say(f"open gaps {open_gaps}")


def _local_time(settings: GatewaySettings, at: str | None) -> datetime | None:
    if at is None:
        return datetime.fromtimestamp(SystemClock().utc_ms() / 1000, UTC).astimezone(settings.time_zone)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return None
    zone = settings.time_zone
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)


def _find_machine(settings: GatewaySettings, machine: str | None) -> MachineNow | None:
    if machine is None:
        return None
    try:
        with reading(settings.journal_url) as readers:
            plant = load_plant(readers).state
    except JournalUnavailable:
        return None
    return next((item for item in plant.machines.values() if item.machine == machine), None)


def _subject(
    rule: str, priority: Priority, found: MachineNow | None, machine: str | None, guard: str | None
) -> Subject:
    model = found.model if found else None
    kinds = {model.kind} if model else set()
    if model is not None and guard is not None and guard in model.guards:
        kinds.add(model.guards[guard].kind)
    return Subject(
        site=found.site if found else None,
        area=model.area if model else None,
        machine=machine,
        guard=guard,
        kinds=frozenset(kinds),
        rule=rule,
        priority=priority,
    )


def _target_document(target: Target) -> Json:
    return {"person": target.person.id, "channel": target.channel, "repeat_s": target.repeat_s}
