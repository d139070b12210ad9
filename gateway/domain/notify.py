"""Who is told of what, by which channel, and why: routes over people, without clock or I/O.

Theory of operation. An alarm is a `Subject`; every route that matches it counts; a route names people (or a role:
whoever of it is on shift), channels, and how often to repeat. The result is one target per person and channel. Each
decision carries its reason, and is committed in the alarm's own transaction before anything is sent:

    raised, or more urgent ─▶ every matching target        FIRST, MORE_URGENT
    its place is known now ─▶ those not told yet           PLACE_KNOWN
    repeat timer of N s    ─▶ matching targets of N s      UNACKNOWLEDGED (until somebody acknowledges)
    over                   ─▶ exactly those who were told  OVER

A field that the subject lacks matches no value; a route without conditions matches everything. Nobody of a role on
shift means all of that role: a hole in the shift plan must not swallow a P1.

Source: the outside contract, section 4; the shape of the pipeline (decide with a reason, then act, then record) is
alertmanager's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final

from edge_agent.wire.event import Priority

REPEAT_S_DEFAULT: Final[Mapping[Priority, int]] = {Priority.P1: 300, Priority.P2: 1800}
"""Repeat of unacknowledged alarms where the route names none (the outside contract, section 4); others have none."""

ROLE_PREFIX: Final = "role:"
"""`role:shift_manager` in a route's `to` stands for people of that role."""


class NoticeEvent(StrEnum):
    """What a notice says (`event` of a webhook body). `summary`: several were over before they were heard of."""

    RAISED = "raised"
    REPEATED = "repeated"
    CLEARED = "cleared"
    SUMMARY = "summary"
    TEST = "test"


class Reason(StrEnum):
    """Why somebody is told."""

    FIRST = "first"
    MORE_URGENT = "more_urgent"
    PLACE_KNOWN = "place_known"
    UNACKNOWLEDGED = "unacknowledged"
    OVER = "over"
    OVER_ON_ARRIVAL = "over_on_arrival"
    HEARTBEAT = "heartbeat"


class Language(StrEnum):
    """Languages of messages."""

    ZH = "zh"
    EN = "en"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can be told. `name` by language; `language` None: the gateway's."""

    id: str
    name: Mapping[str, str]
    role: str | None = None
    language: Language | None = None
    email: str | None = None
    mobile: str | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """A time of day (local, may pass midnight) on some weekdays (0 = Monday), with the people who are on then."""

    name: str
    starts: time
    ends: time
    days: frozenset[int]
    people: frozenset[str]

    def covers(self, local: datetime) -> bool:
        """Whether `local` falls into it; a shift over midnight belongs to the day on which it starts."""
        now, day = local.time(), local.weekday()
        if self.starts < self.ends:
            return day in self.days and self.starts <= now < self.ends
        if now >= self.starts:
            return day in self.days
        return now < self.ends and (local - timedelta(days=1)).weekday() in self.days


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions of a route; None matches everything, a set matches its members."""

    site: frozenset[str] | None = None
    area: frozenset[str] | None = None
    machine: frozenset[str] | None = None
    guard: frozenset[str] | None = None
    kind: frozenset[str] | None = None
    rule: frozenset[str] | None = None
    priority: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """`to` holds ids of people and `role:…`; `repeat_s` None: the priority's default."""

    match: Match
    to: tuple[str, ...]
    via: tuple[str, ...]
    repeat_s: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What routes look at. `kinds`: the guard's and the machine's; a rule's own name or its priority never are None."""

    site: str | None
    area: str | None
    machine: str | None
    guard: str | None
    kinds: frozenset[str]
    rule: str
    priority: Priority


@dataclass(frozen=True, slots=True)
class Target:
    """One person by one channel; `repeat_s` None: told once."""

    person: Person
    channel: str
    repeat_s: int | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A test message by a channel, to one person, every so many hours."""

    channel: str
    person: str
    every_h: int


@dataclass(frozen=True, slots=True)
class AlertPlan:
    """Everything there is to know about telling people; without routes alerting is off."""

    people: Mapping[str, Person] = field(default_factory=dict)
    shifts: tuple[Shift, ...] = ()
    routes: tuple[Route, ...] = ()
    heartbeats: tuple[Heartbeat, ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether anybody can be told at all."""
        return bool(self.routes)


def route_matches(match: Match, subject: Subject) -> bool:
    """Whether every condition holds; a field the subject lacks matches no value."""
    return (
        (match.site is None or subject.site in match.site)
        and (match.area is None or subject.area in match.area)
        and (match.machine is None or subject.machine in match.machine)
        and (match.guard is None or subject.guard in match.guard)
        and (match.kind is None or not match.kind.isdisjoint(subject.kinds))
        and (match.rule is None or subject.rule in match.rule)
        and (match.priority is None or subject.priority.value in match.priority)
    )


def repeat_s(route: Route, priority: Priority) -> int | None:
    """How often a route repeats an unacknowledged alarm of this priority, in seconds; None: not at all."""
    return route.repeat_s if route.repeat_s is not None else REPEAT_S_DEFAULT.get(priority)


def find_targets(plan: AlertPlan, subject: Subject, local: datetime) -> list[Target]:
    """One target per person and channel over all matching routes, in their order; the shortest repeat wins."""
    targets: dict[tuple[str, str], Target] = {}
    for route in plan.routes:
        if not route_matches(route.match, subject):
            continue
        period = repeat_s(route, subject.priority)
        for person in _people_of(plan, route, local):
            for channel in route.via:
                before = targets.get((person.id, channel))
                shortest = period if before is None else _shorter(before.repeat_s, period)
                targets[person.id, channel] = Target(person, channel, shortest)
    return list(targets.values())


def _shorter(one: int | None, other: int | None) -> int | None:
    given = [period for period in (one, other) if period is not None]
    return min(given) if given else None


def find_repeats(plan: AlertPlan, subject: Subject) -> frozenset[int]:
    """Every repeat period (s) that matching routes ask for, whoever is on shift."""
    periods = (
        repeat_s(route, subject.priority) for route in plan.routes if route_matches(route.match, subject)
    )
    return frozenset(period for period in periods if period is not None)


def _people_of(plan: AlertPlan, route: Route, local: datetime) -> Iterator[Person]:
    for name in route.to:
        if name.startswith(ROLE_PREFIX):
            yield from _people_in_role(plan, name.removeprefix(ROLE_PREFIX), local)
        else:
            yield plan.people[name]


def _people_in_role(plan: AlertPlan, role: str, local: datetime) -> list[Person]:
    everybody = [person for person in plan.people.values() if person.role == role]
    on_shift = {person for shift in plan.shifts if shift.covers(local) for person in shift.people}
    return [person for person in everybody if person.id in on_shift] or everybody
