"""What the routes stand on: services and settings, put together by the composition root, found on the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from edge_agent.wire.event import Json
from edge_agent.wire.heads import Head
from gateway.domain.access import Role
from gateway.domain.board import View
from gateway.domain.listing import GapRow
from gateway.domain.plant import AgentKey
from gateway.ports import Accounts, AlarmReads, Clock, StreamReads
from gateway.services.live import Live
from gateway.services.operate import Operate


@dataclass(frozen=True, slots=True)
class Check:
    """One line of readiness. `is_vital`: without it the gateway cannot do its work at all."""

    ok: bool
    detail: str
    is_vital: bool = False


@dataclass(frozen=True, slots=True)
class Gauge:
    """One number for Prometheus; the name gets the prefix `guardwatch_`."""

    name: str
    description: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """How the gateway presents itself: its address, clock and language, and who may read without signing in."""

    base_url: str
    time_zone: str
    language: str
    anonymous: Role | None
    is_alerting: bool

    @property
    def is_https(self) -> bool:
        """Whether browsers reach it encrypted, so that cookies may demand it."""
        return self.base_url.startswith("https://")


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a route may use."""

    site: Site
    clock: Clock
    accounts: Accounts
    live: Live
    alarms: AlarmReads
    operate: Operate
    streams: StreamReads
    agent: Callable[[AgentKey, Sequence[GapRow]], Json]
    view: Callable[[], View]
    unacknowledged: Callable[[], Mapping[str, int]]
    checks: Callable[[], Awaitable[Mapping[str, Check]]]
    gauges: Callable[[], Sequence[Gauge]]
    heads: Callable[[], Sequence[Head]]


def context_of(request: Request) -> Context:
    """The context that the composition root gave the application."""
    return cast("Context", request.app.state.context)
