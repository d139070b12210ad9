"""File schema of the gateway's configuration: every key, its range, its default and why it is that.

Source: the outside contract, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from edge_agent.configfile import Section, fault
from edge_agent.wire.topics import ID_PATTERN
from gateway.domain.access import Role
from gateway.domain.channels import StartTls
from gateway.domain.notify import Language

NAME_MAX_CHARS: Final = 80
"""Longest name or role: it stands in messages and in tables."""


def _id(value: str) -> str:
    if not ID_PATTERN.fullmatch(value):
        raise fault(
            f'"{value[:60]}" is no id',
            "use 1 to 48 lower-case letters, digits and hyphens, not starting with a hyphen",
        )
    return value


def _name(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise fault("the text is blank or unprintable", "write the name that people go by")
    return value


def _one_or_many(value: object) -> object:
    """`rule: estop` says the same as `rule: [estop]`."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _time_of_day(value: str) -> str:
    hours, _, minutes = value.partition(":")
    if not (len(hours) == 2 and len(minutes) == 2 and hours.isdecimal() and minutes.isdecimal()) or not (
        int(hours) < 24 and int(minutes) < 60
    ):
        raise fault(f'"{value[:20]}" is no time of day', 'write hours and minutes in quotes, such as "06:00"')
    return value


def _address(value: str) -> str:
    local, _, domain = value.rpartition("@")
    if (
        not local
        or not domain
        or not value.isascii()
        or not value.isprintable()
        or any(char in value for char in " ,;<>")
    ):
        raise fault(f'"{value[:60]}" is no mail address', "write it like li@plant.example")
    return value


Id: TypeAlias = Annotated[str, AfterValidator(_id)]
Name: TypeAlias = Annotated[str, Field(max_length=NAME_MAX_CHARS), AfterValidator(_name)]
MailAddress: TypeAlias = Annotated[str, Field(max_length=254), AfterValidator(_address)]
Values: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
Priorities: TypeAlias = Annotated[
    tuple[Literal["P1", "P2", "P3", "P4"], ...], BeforeValidator(_one_or_many), Field(min_length=1)
]
Weekday: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TimeOfDay: TypeAlias = Annotated[str, AfterValidator(_time_of_day)]


class HttpSection(Section):
    """Board and REST interface."""

    listen: str = "127.0.0.1:8080"
    """HOST:PORT. Default: this machine only; a plant's network is opened on purpose, behind TLS."""
    base_url: str | None = None
    """Where people reach it, for links in messages; default: made from `listen`."""


class MqttSection(Section):
    """The broker."""

    url: str
    """mqtt://HOST[:1883], mqtts://HOST[:8883], ws:// or wss://."""
    client_id: Annotated[str, Field(min_length=1, max_length=64)] = "guardwatch-gateway"
    """Unique on the broker: two gateways with one id throw each other out."""
    username: str | None = Field(default=None, min_length=1)
    """MQTT user name."""
    password_file: Path | None = None
    """File that holds the password, relative to this file."""
    password: str | None = Field(default=None, min_length=1)
    """Only as ${NAME} from the environment, never written out."""
    ca_file: Path | None = None
    """PEM of the authority that signed the broker's certificate; default: the system's."""
    cert_file: Path | None = None
    """PEM certificate of the gateway, for mutual TLS."""
    key_file: Path | None = None
    """PEM key of `cert_file`."""


class JournalSection(Section):
    """The database that holds everything."""

    url: str = "sqlite:///var/gateway.db"
    """sqlite:///PATH (relative to this file; four slashes: absolute) or postgresql://USER@HOST/NAME."""
    password_file: Path | None = None
    """File that holds the database password."""


class EvidenceSection(Section):
    """Heads: signed statements of how far the record had got, kept where this machine cannot rewrite them."""

    heads_dir: Path | None = None
    """Directory on other storage (a mount, a removable or append-only disk): heads are appended to heads.jsonl in it."""
    every_h: int = Field(default=1, ge=1, le=168)
    """Hours between two heads: what is rewritten within one is noticed only by the next."""
    key_file: Path | None = None
    """The gateway's signing key, made at the first start; default: beside the journal, for PostgreSQL beside this file.
    While it cannot be made or read there are no heads; all else goes on."""


class InfluxSection(Section):
    """InfluxDB 2, a copy of the journal for dashboards. Without this section nothing is copied."""

    url: str
    """http://HOST:8086."""
    org: Annotated[str, Field(min_length=1)]
    """Organisation."""
    bucket: Annotated[str, Field(min_length=1)]
    """Bucket, which must exist."""
    token_file: Path
    """File that holds a token that may write to the bucket."""
    timeout_ms: int = Field(default=10_000, ge=100, le=120_000)
    """How long one write may take. Default 10 s: a busy server takes seconds for a catch-up batch."""


class AuthSection(Section):
    """Who may do what without signing in."""

    anonymous: Literal[Role.VIEWER] | None = None
    """`viewer` opens reading to anyone; default: nobody."""


class Labels(Section):
    """A name in both languages."""

    zh: Name
    """Chinese."""
    en: Name
    """English."""


class PersonSection(Section):
    """Somebody who can be told."""

    name: Labels
    """As it stands in messages."""
    role: Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)] | None = None
    """What `role:…` in a route looks for."""
    language: Language | None = None
    """Language of messages; default: the gateway's."""
    email: MailAddress | None = None
    """For channels of kind smtp."""
    mobile: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """For receivers of webhooks."""


class ShiftSection(Section):
    """A time of day with the people who are on then."""

    starts: TimeOfDay = Field(alias="from")
    """Local time, such as "22:00"."""
    ends: TimeOfDay = Field(alias="to")
    """Local time; before `from`: on the next day."""
    days: tuple[Weekday, ...] = Field(default=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), min_length=1)
    """Days on which it starts; default: all."""
    people: tuple[str, ...] = Field(min_length=1)
    """Ids of people."""


class ChannelSection(Section):
    """What every channel has."""

    heartbeat_to: str | None = Field(default=None, min_length=1)
    """Who gets a test message by this channel every `heartbeat_h` hours, so that a way that is broken is known to be before
    it is needed. Default: nobody."""
    heartbeat_h: int = Field(default=24, ge=1, le=168)
    """Hours between these messages. Default 24."""


class WebhookSection(ChannelSection):
    """One POST of JSON per person."""

    kind: Literal["webhook"]
    """webhook."""
    url: str
    """http:// or https://."""
    secret_file: Path | None = None
    """File with the secret that signs bodies."""


class SmtpSection(ChannelSection):
    """One mail per person."""

    kind: Literal["smtp"]
    """smtp."""
    url: str
    """smtp://HOST[:25] or smtps://HOST[:465]."""
    sender: MailAddress = Field(alias="from")
    """Address in From."""
    username: str | None = Field(default=None, min_length=1)
    """User name, where the server wants one."""
    password_file: Path | None = None
    """File that holds the password."""
    starttls: StartTls = StartTls.AUTO
    """auto: where the server offers it; required; never. Default auto: no server is left out, no offer unused."""
    ca_file: Path | None = None
    """PEM of the authority that signed the server's certificate; default: the system's."""


class MatchSection(Section):
    """Conditions of a route; what is not named matches everything."""

    site: Values | None = None
    area: Values | None = None
    machine: Values | None = None
    guard: Values | None = None
    kind: Values | None = None
    rule: Values | None = None
    priority: Priorities | None = None


class RouteSection(Section):
    """Whom to tell of what."""

    match: MatchSection = MatchSection()
    """Default: everything."""
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ids of people, or role:ROLE."""
    via: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of channels."""
    repeat_s: int | None = Field(default=None, ge=1, le=86_400)
    """Repeat until acknowledged; default: P1 300, P2 1800, others not."""


Channel = Annotated[WebhookSection | SmtpSection, Field(discriminator="kind")]


class GatewayFile(Section):
    """The whole file."""

    http: HttpSection = HttpSection()
    mqtt: MqttSection
    journal: JournalSection = JournalSection()
    evidence: EvidenceSection = EvidenceSection()
    influxdb: InfluxSection | None = None
    time_zone: str = "Asia/Shanghai"
    """IANA name: local times in messages and reports. Default: the plants that this was made for."""
    language: Language = Language.ZH
    """Language of messages to people who name none."""
    auth: AuthSection = AuthSection()
    people: Mapping[Id, PersonSection] = Field(default_factory=dict)
    shifts: Mapping[Id, ShiftSection] = Field(default_factory=dict)
    channels: Mapping[Id, Channel] = Field(default_factory=dict)
    routes: tuple[RouteSection, ...] = ()
