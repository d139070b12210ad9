"""People, shifts, channels and routes: they must name each other, and every P1 and P2 must reach somebody.

Source: the outside contract, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import Final

from edge_agent.configfile import PathKey
from edge_agent.wire.event import Priority
from gateway.domain.channels import Channel, SmtpChannel, WebhookChannel
from gateway.domain.notify import ROLE_PREFIX, AlertPlan, Heartbeat, Match, Person, Route, Shift
from gateway.settings.connections import Findings
from gateway.settings.schema import (
    GatewayFile,
    MatchSection,
    PersonSection,
    RouteSection,
    ShiftSection,
    SmtpSection,
    WebhookSection,
)

SMTP_PORTS: Final[Mapping[str, int]] = {"smtp": 25, "smtps": 465}
"""Usual ports (RFC 5321, RFC 8314)."""

MUST_REACH: Final = (Priority.P1, Priority.P2)
"""Priorities that some route must match whole: no hole in the routes may swallow one (the outside contract, section 4)."""

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def compile_alerting(file: GatewayFile, findings: Findings) -> AlertPlan:
    """The plan of who is told; without routes alerting is off."""
    people = {key: _person(key, section) for key, section in file.people.items()}
    shifts = tuple(_shift(key, section, people, findings) for key, section in file.shifts.items())
    for number, section in enumerate(file.routes):
        _check_route(number, section, file, findings)
    routes = tuple(_route(section) for section in file.routes)
    for priority in MUST_REACH:
        if routes and not any(_takes_all(route.match, priority) for route in routes):
            findings.add(
                ("routes",),
                f"no route takes every {priority}",
                f"add one that matches by priority alone: {{match: {{priority: [{priority}]}}, to: …, via: …}}",
                at_key=True,
            )
    return AlertPlan(people, shifts, routes, _heartbeats(file, findings))


def compile_channels(file: GatewayFile, findings: Findings) -> dict[str, Channel]:
    """Every channel whose address and secrets are good."""
    found: dict[str, Channel] = {}
    for name, section in file.channels.items():
        path = ("channels", name)
        channel = (
            _webhook(path, section, findings)
            if isinstance(section, WebhookSection)
            else _smtp(path, section, findings)
        )
        if channel is not None:
            found[name] = channel
    return found


def _heartbeats(file: GatewayFile, findings: Findings) -> tuple[Heartbeat, ...]:
    found = []
    for name, section in file.channels.items():
        person = section.heartbeat_to
        if person is None:
            continue
        path = ("channels", name, "heartbeat_to")
        known = file.people.get(person)
        if known is None:
            _demand_person(path, person, file.people, findings)
        elif isinstance(section, SmtpSection) and known.email is None:
            findings.add(path, f"{person} has no `email`", f"add email to people.{person}")
        else:
            found.append(Heartbeat(name, person, section.heartbeat_h))
    return tuple(found)


def _person(key: str, section: PersonSection) -> Person:
    names = {"zh": section.name.zh, "en": section.name.en}
    return Person(key, names, section.role, section.language, section.email, section.mobile)


def _shift(key: str, section: ShiftSection, people: Mapping[str, Person], findings: Findings) -> Shift:
    for index, person in enumerate(section.people):
        _demand_person(("shifts", key, "people", index), person, people, findings)
    if section.starts == section.ends:
        findings.add(
            ("shifts", key, "to"), "`to` equals `from`: the shift has no length", "correct one of them"
        )
    return Shift(
        key,
        time.fromisoformat(section.starts),
        time.fromisoformat(section.ends),
        frozenset(_DAYS.index(day) for day in section.days),
        frozenset(section.people),
    )


def _demand_person(path: PathKey, person: str, people: Mapping[str, object], findings: Findings) -> None:
    if person not in people:
        known = ", ".join(sorted(people)) or "nobody yet"
        findings.add(path, f'"{person[:60]}" is nobody under `people`', f"known: {known}")


def _check_route(number: int, section: RouteSection, file: GatewayFile, findings: Findings) -> None:
    told = [
        (index, person)
        for index, name in enumerate(section.to)
        for person in _members(("routes", number, "to", index), name, file, findings)
    ]
    for index, name in enumerate(section.via):
        channel = file.channels.get(name)
        if channel is None:
            # a channel that was cut out because it did not fit has its own problem already
            if not isinstance(findings.document.value(("channels", name)), dict):
                known = ", ".join(sorted(file.channels)) or "none yet"
                what = f'"{name[:60]}" is no channel under `channels`'
                findings.add(("routes", number, "via", index), what, f"known: {known}")
        elif isinstance(channel, SmtpSection):
            for at, person in told:
                if file.people[person].email is None:
                    what = f"{person} has no `email`, but is told by {name}"
                    findings.add(("routes", number, "to", at), what, f"add email to people.{person}")


def _members(path: PathKey, name: str, file: GatewayFile, findings: Findings) -> list[str]:
    if not name.startswith(ROLE_PREFIX):
        if not isinstance(findings.document.value(("people", name)), dict):
            _demand_person(path, name, file.people, findings)
        return [name] if name in file.people else []
    role = name.removeprefix(ROLE_PREFIX)
    members = [key for key, person in file.people.items() if person.role == role]
    if not members:
        known = (
            ", ".join(sorted({person.role for person in file.people.values() if person.role})) or "none yet"
        )
        findings.add(path, f'nobody has the role "{role[:60]}"', f"roles of people: {known}")
    return members


def _route(section: RouteSection) -> Route:
    return Route(_match(section.match), section.to, section.via, section.repeat_s)


def _match(section: MatchSection) -> Match:
    def values(found: tuple[str, ...] | None) -> frozenset[str] | None:
        return None if found is None else frozenset(str(value) for value in found)

    return Match(
        site=values(section.site),
        area=values(section.area),
        machine=values(section.machine),
        guard=values(section.guard),
        kind=values(section.kind),
        rule=values(section.rule),
        priority=values(section.priority),
    )


def _takes_all(match: Match, priority: Priority) -> bool:
    """Whether a match takes every alarm of a priority: by priority alone, or without conditions."""
    others = (match.site, match.area, match.machine, match.guard, match.kind, match.rule)
    return all(other is None for other in others) and (match.priority is None or priority in match.priority)


def _webhook(path: PathKey, section: WebhookSection, findings: Findings) -> WebhookChannel | None:
    url = (*path, "url")
    parts = findings.url(url, section.url, ("http", "https"), "https://alerts.plant.example/guardwatch")
    secret = findings.secret((*path, "secret_file")) if section.secret_file is not None else None
    return None if parts is None else WebhookChannel(section.url, secret)


def _smtp(path: PathKey, section: SmtpSection, findings: Findings) -> SmtpChannel | None:
    parts = findings.url((*path, "url"), section.url, tuple(SMTP_PORTS), "smtp://127.0.0.1:25")
    password = findings.secret((*path, "password_file")) if section.password_file is not None else None
    if (section.username is None) != (section.password_file is None):
        given, missing = ("username", "password_file") if section.username else ("password_file", "username")
        findings.add((*path, given), f"`{given}` stands without `{missing}`", f"add {missing}", at_key=True)
    ca_file = findings.file((*path, "ca_file"), section.ca_file)
    if parts is None or parts.hostname is None:
        return None
    return SmtpChannel(
        host=parts.hostname,
        port=parts.port or SMTP_PORTS[parts.scheme],
        is_tls=parts.scheme == "smtps",
        sender=section.sender,
        username=section.username,
        password=password,
        starttls=section.starttls,
        ca_file=ca_file,
    )
