"""One notice: the decision to tell one person by one channel one thing, as it is committed before it is sent.

    pending ──▶ delivered                    accepted by the receiver
       │  └───▶ dead                         refused for good
       ▼
    withdrawn ──▶ summarised                 over before anybody was told: listed in one summary per person and channel

`alert` is the complete message, rendered when it was decided: every attempt sends the same words under the same key.

Source: the outside contract, section 4 (webhook body); delivery protocol, section 3.8 (summary).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from edge_agent.wire.event import Priority
from gateway.domain.notify import NoticeEvent, Reason


class NoticeState(StrEnum):
    """How far a notice has come."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    WITHDRAWN = "withdrawn"
    SUMMARISED = "summarised"


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a notice is for, as a receiver sees it (`to` of a webhook body)."""

    id: str
    name: str
    role: str | None
    mobile: str | None
    email: str | None


@dataclass(frozen=True, slots=True)
class Alert:
    """The message. Field for field the webhook body of the outside contract; `delivery` is the idempotency key."""

    delivery: str
    event: NoticeEvent
    to: Recipient
    language: str
    title: str
    text: str
    priority: Priority
    site: str | None
    area: str | None
    machine: str | None
    guard: str | None
    rule: str
    occurrence: str
    alarm: int | None
    since: str
    at: str
    url: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A decision. `not_before_ms` (gateway UTC) holds it back; 0: at once."""

    alert: Alert
    channel: str
    reason: Reason
    decided_ms: int
    not_before_ms: int = 0

    @property
    def key(self) -> str:
        """`occurrence/event/n/person/channel`: unique, whatever is decided again."""
        return self.alert.delivery


@dataclass(frozen=True, slots=True)
class NoticeNow:
    """A notice and how far it has come. `attempts` failed so far; `next_try_ms` is when to try (again).

    `outcome` is what the receiver, or the way to it, last said.
    """

    notice: Notice
    state: NoticeState
    attempts: int
    next_try_ms: int
    outcome: str | None = None


class DecisionRows(Protocol):
    """Where decisions are written, in the transaction of what they are about."""

    def add_notice(self, notice: Notice) -> None:
        """Keep a decision; one whose key is there already changes nothing."""
        ...

    def notices_of(self, alarm: int) -> Sequence[NoticeNow]:
        """Every notice of an alarm, in the order of decision."""
        ...

    def withdraw_notice(self, key: str) -> None:
        """It is over before it was told: it waits for the summary instead."""
        ...
