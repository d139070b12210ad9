"""The gateway's own open findings: a fold of `FindingRaised` and `FindingCleared`.

A finding is a violation of the gateway's (origin `gateway`): something is wrong with what it is told, or not told.
Whether one is open is journal state like any other, so that a restart neither raises twice nor forgets to clear. A
finding is about a *subject*: its rule, its agent, and for some rules a thing of that agent (a gap).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import cast

from edge_agent.wire.event import Json, Priority
from edge_agent.wire.structure import plain, structure
from gateway.domain.journal import Entry, FindingCleared, FindingRaised, GatewayRule

PRIORITY_OF: Mapping[GatewayRule, Priority] = {
    GatewayRule.MONITORING_LOST: Priority.P2,
    GatewayRule.STREAM_GAP: Priority.P2,
    GatewayRule.EVIDENCE_CONFLICT: Priority.P2,
    GatewayRule.EPOCH_FORK: Priority.P3,
    GatewayRule.IDENTITY_CONFLICT: Priority.P2,
    GatewayRule.QUARANTINE: Priority.P3,
    GatewayRule.CLOCK_OFFSET: Priority.P3,
    GatewayRule.STORE_FILLING: Priority.P2,
    GatewayRule.POLL_OVERRUN: Priority.P3,
    GatewayRule.ALERT_FAILING: Priority.P2,
    GatewayRule.STORE_DAMAGED: Priority.P2,
    GatewayRule.JOURNAL_FILLING: Priority.P2,
    GatewayRule.JOURNAL_DAMAGED: Priority.P2,
    GatewayRule.HISTORIAN_STALLED: Priority.P3,
    GatewayRule.HISTORIAN_REFUSED: Priority.P3,
}
"""How urgent each finding is: blindness and doubtful evidence before housekeeping (rule R29 of the rule catalogue:
monitoring and hash chain P2, clock P3; polls that come late delay, they do not blind; InfluxDB is a copy that catches up, never the record)."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a finding is about; `thing` tells several of one agent apart (a gap's id, an event's key), else it is empty."""

    rule: GatewayRule
    site: str | None
    agent: str | None
    thing: str = ""


def raise_finding(
    subject: Subject,
    position: int,
    since: str,
    detail: Mapping[str, Json],
    priority: Priority | None = None,
) -> FindingRaised:
    """The entry that opens a finding; its occurrence is named after the journal position it will take.

    `priority` where it is not the rule's own (`PRIORITY_OF`).
    """
    return FindingRaised(
        occurrence=f"gateway-{position}",
        rule=subject.rule,
        priority=priority or PRIORITY_OF[subject.rule],
        site=subject.site,
        agent=subject.agent,
        since=since,
        detail={**detail, "thing": subject.thing},
    )


class OpenFindings:
    """The fold. `find` and `open_of` belong into a transaction: they see what it staged, so nothing is opened twice."""

    def __init__(self) -> None:
        self._adopted: dict[str, FindingRaised] = {}
        self._staged: dict[str, FindingRaised] | None = None

    def find(self, subject: Subject) -> FindingRaised | None:
        """The open finding about `subject`, or None."""
        return next((item for item in self._now().values() if _subject(item) == subject), None)

    def open_of(
        self, rule: GatewayRule, site: str | None = None, agent: str | None = None
    ) -> list[FindingRaised]:
        """All open findings of a rule, or only those of one agent."""
        return [
            item
            for item in self._now().values()
            if item.rule is rule and (agent is None or (item.site, item.agent) == (site, agent))
        ]

    def adopted_subjects(self) -> list[Subject]:
        """What the committed open findings are about; unlike the others, for the event loop's thread."""
        return [_subject(item) for item in self._adopted.values()]

    def stage(self, entry: Entry, recording: object) -> None:  # noqa: ARG002 - the port's shape; it writes no rows
        """Take in one entry."""
        match entry.body:
            case FindingRaised() as raised:
                self._staged = {**self._now(), raised.occurrence: raised}
            case FindingCleared(occurrence=occurrence) if occurrence in self._now():
                self._staged = {key: item for key, item in self._now().items() if key != occurrence}
            case _:
                pass

    def adopt(self) -> None:
        """The transaction committed."""
        self._adopted, self._staged = self._now(), None

    def discard(self) -> None:
        """The transaction failed."""
        self._staged = None

    def snapshot(self) -> Json:
        """The open findings as JSON."""
        return [
            {item.name: plain(getattr(raised, item.name)) for item in fields(raised)}
            for raised in self._adopted.values()
        ]

    def restore(self, snapshot: Json) -> None:
        """Adopt what `snapshot` gave."""
        found = cast("tuple[FindingRaised, ...]", structure(tuple[FindingRaised, ...], snapshot, "findings"))
        self._adopted, self._staged = {item.occurrence: item for item in found}, None

    def _now(self) -> dict[str, FindingRaised]:
        return self._adopted if self._staged is None else self._staged


def _subject(raised: FindingRaised) -> Subject:
    return Subject(raised.rule, raised.site, raised.agent, str(raised.detail.get("thing", "")))
