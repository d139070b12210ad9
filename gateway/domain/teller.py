"""What an alarm's change means for people: decisions, rendered and written in the alarm's own transaction.

Theory of operation. The alarm book tells of each `Change`; the teller asks `notify` who is to be told, renders each
message and writes one notice per person and channel. Keys (`occurrence/event/n/person/channel`) are unique, so deciding
the same thing again changes nothing, and nobody is told twice.

Late news. A raise older than `occurred.LATE_MS` on arrival comes from a backlog, and its end may be in the next batch: its
notices are held back for `HOLD_MS`. When the end comes before that, or in the same transaction, they are withdrawn
and end up in one summary per person and channel (`summarise`), not one by one. Everything else leaves at once.

None of this is state of the book: routes may change between runs, the journal does not.

Source: the outside contract, section 4; delivery protocol, section 3.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Final

from edge_agent.wire.event import Priority
from gateway.domain.alarm import Alarm
from gateway.domain.instants import iso_utc
from gateway.domain.message import (
    LateOne,
    Reader,
    Story,
    Where,
    Words,
    render,
    render_summary,
    render_test,
)
from gateway.domain.notice import Alert, DecisionRows, Notice, NoticeNow, NoticeState, Recipient
from gateway.domain.notify import (
    AlertPlan,
    Language,
    NoticeEvent,
    Person,
    Reason,
    Subject,
    Target,
    find_repeats,
    find_targets,
)
from gateway.domain.occurred import is_late
from gateway.domain.places import Place
from gateway.domain.violation import Violation

HOLD_MS: Final = 2_000
"""How long notices of a late raise wait for its end: several batches of a backlog, little for a P1 that still stands."""

SUMMARY_AFTER_MS: Final = 5_000
"""How long withdrawn notices are collected before one summary tells of them."""


class Turn(StrEnum):
    """What happened to an alarm."""

    RAISED = "raised"
    MORE_URGENT = "more_urgent"
    PLACE_KNOWN = "place_known"
    CLEARED = "cleared"
    REPEAT_DUE = "repeat_due"


@dataclass(frozen=True, slots=True)
class Change:
    """One alarm's turn, with the violation it stands for and its place; `now_ms` is the entry's time.

    `period_s` is the repeat period that is due, for the `n`-th time since the alarm called last; `is_late`: it is known to
    be old news, though perhaps not since when.
    """

    turn: Turn
    alarm: Alarm
    violation: Violation
    place: Place
    now_ms: int
    period_s: int | None = None
    n: int = 1
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class _Telling:
    """What a notice says, why, and its `n` of the key."""

    event: NoticeEvent
    reason: Reason
    n: int
    not_before_ms: int = 0


@dataclass(frozen=True, slots=True)
class Voice:
    """How the gateway speaks: its own language, words of every language, local time, the address of its pages."""

    language: Language
    words: Mapping[Language, Words]
    zone: tzinfo
    base_url: str


class Teller:
    """Decides and writes notices. `discard` and `adopt` follow the transaction."""

    def __init__(self, plan: AlertPlan, voice: Voice) -> None:
        self._plan = plan
        self._voice = voice
        self._fresh: dict[int, list[str]] = {}
        """Alarms raised in the transaction at hand, with the keys of all that was decided of them: it can still be
        taken back, and nobody needs to look for more."""

    def tell(self, change: Change, rows: DecisionRows) -> None:
        """Write every notice that follows from `change`."""
        match change.turn:
            case Turn.RAISED:
                self._fresh[change.alarm.id] = []
                self._tell_raised(change, Reason.FIRST, rows)
            case Turn.MORE_URGENT:
                self._tell_raised(change, Reason.MORE_URGENT, rows)
            case Turn.PLACE_KNOWN:
                self._tell_raised(change, Reason.PLACE_KNOWN, rows)
            case Turn.REPEAT_DUE:
                self._tell_again(change, rows)
            case Turn.CLEARED:
                self._tell_cleared(change, rows)

    def repeats(self, alarm: Alarm, place: Place) -> frozenset[int]:
        """The periods (s) in which an unacknowledged alarm is to be told again."""
        return find_repeats(self._plan, _subject(alarm, place))

    def adopt(self) -> None:
        """The transaction committed: what it decided may be on its way."""
        self._fresh.clear()

    def discard(self) -> None:
        """The transaction failed: it decided nothing."""
        self._fresh.clear()

    def summarise(self, withdrawn: Sequence[tuple[NoticeNow, Violation]], now_ms: int) -> list[Notice]:
        """One notice per person and channel that tells of all their withdrawn ones, given in order of decision."""
        groups: dict[tuple[str, str], list[tuple[NoticeNow, Violation]]] = {}
        for item in withdrawn:
            groups.setdefault((item[0].notice.alert.to.id, item[0].notice.channel), []).append(item)
        return [self._summary(items, now_ms) for items in groups.values()]

    def _tell_raised(self, change: Change, reason: Reason, rows: DecisionRows) -> None:
        held_until = change.now_ms + HOLD_MS if _is_late(change) else 0
        telling = _Telling(NoticeEvent.RAISED, reason, change.alarm.raised_n, held_until)
        fresh = self._fresh.get(change.alarm.id, [])
        for target in self._targets(change):
            notice = self._notice(change, target, telling)
            rows.add_notice(notice)
            fresh.append(notice.key)

    def _tell_again(self, change: Change, rows: DecisionRows) -> None:
        waiting = {
            (now.notice.alert.to.id, now.notice.channel)
            for now in rows.notices_of(change.alarm.id)
            if now.state is NoticeState.PENDING
        }
        for target in self._targets(change):
            # a channel that still tries to say it once is not given the same to say again
            if target.repeat_s == change.period_s and (target.person.id, target.channel) not in waiting:
                telling = _Telling(NoticeEvent.REPEATED, Reason.UNACKNOWLEDGED, change.n)
                rows.add_notice(self._notice(change, target, telling))

    def _tell_cleared(self, change: Change, rows: DecisionRows) -> None:
        if change.alarm.id in self._fresh:
            for notice_key in self._fresh[change.alarm.id]:
                rows.withdraw_notice(notice_key)
            return
        told: dict[tuple[str, str], Notice] = {}
        for now in rows.notices_of(change.alarm.id):
            if now.state not in (NoticeState.PENDING, NoticeState.DELIVERED):
                continue
            key = (now.notice.alert.to.id, now.notice.channel)
            if self._can_withdraw(now, change):
                rows.withdraw_notice(now.notice.key)
            else:
                told[key] = now.notice
        telling = _Telling(NoticeEvent.CLEARED, Reason.OVER, change.alarm.raised_n)
        for notice in told.values():
            target = Target(self._person(notice.alert.to, notice.alert.language), notice.channel, None)
            rows.add_notice(self._notice(change, target, telling))

    def _can_withdraw(self, now: NoticeNow, change: Change) -> bool:
        if now.state is not NoticeState.PENDING or now.notice.alert.event is not NoticeEvent.RAISED:
            return False
        return now.notice.not_before_ms > change.now_ms

    def _person(self, to: Recipient, language: str) -> Person:
        """The person as of now, or as they were told when they are configured no more."""
        known = self._plan.people.get(to.id)
        return known or Person(to.id, {language: to.name}, to.role, Language(language), to.email, to.mobile)

    def _targets(self, change: Change) -> list[Target]:
        local = datetime.fromtimestamp(change.now_ms / 1000, UTC).astimezone(self._voice.zone)
        return find_targets(self._plan, _subject(change.alarm, change.place), local)

    def _notice(self, change: Change, target: Target, telling: _Telling) -> Notice:
        alarm, violation = change.alarm, change.violation
        reader = read_as(target.person, self._voice)
        story = Story(
            event=telling.event,
            priority=alarm.priority,
            rule=alarm.rule,
            basis=alarm.basis,
            where=Where(alarm.site, alarm.agent, alarm.machine, alarm.guard, alarm.device, change.place),
            since=alarm.since,
            alarm=alarm.id,
            url=self._url(alarm.id),
            evidence=violation.evidence,
            repeat_s=target.repeat_s,
            cleared_at=alarm.cleared_at,
            duration_ms=violation.duration_ms,
            seen_by=alarm.acknowledged.who if alarm.acknowledged else None,
            is_latching=alarm.state.is_latching,
        )
        rendered = render(story, reader)
        alert = Alert(
            delivery=f"{violation.occurrence}/{telling.event}/{telling.n}/{target.person.id}/{target.channel}",
            event=telling.event,
            to=recipient(target.person, reader.language),
            language=reader.language.value,
            title=rendered.title,
            text=rendered.text,
            priority=alarm.priority,
            site=alarm.site,
            area=alarm.area,
            machine=alarm.machine,
            guard=alarm.guard,
            rule=alarm.rule,
            occurrence=violation.occurrence,
            alarm=alarm.id,
            since=alarm.since,
            at=iso_utc(change.now_ms),
            url=story.url,
        )
        return Notice(alert, target.channel, telling.reason, change.now_ms, telling.not_before_ms)

    def _summary(self, items: list[tuple[NoticeNow, Violation]], now_ms: int) -> Notice:
        first = items[0][0].notice
        person = self._person(first.alert.to, first.alert.language)
        late = [_late_one(now.notice.alert, violation) for now, violation in items]
        rendered = render_summary(late, first.alert.url, read_as(person, self._voice))
        alert = replace(
            first.alert,
            delivery=f"{first.alert.occurrence}/{NoticeEvent.SUMMARY}/1/{person.id}/{first.channel}",
            event=NoticeEvent.SUMMARY,
            priority=min((one.priority for one in late), key=lambda priority: priority.rank),
            title=rendered.title,
            text=rendered.text,
            at=iso_utc(now_ms),
        )
        return Notice(alert, first.channel, Reason.OVER_ON_ARRIVAL, now_ms)

    def _url(self, alarm: int) -> str:
        return f"{self._voice.base_url}/a/{alarm}"


def make_test_alert(person: Person, channel: str, voice: Voice, now_ms: int) -> Alert:
    """A message that proves that `channel` reaches `person`; it belongs to no alarm."""
    reader = read_as(person, voice)
    rendered = render_test(voice.base_url, reader)
    moment = iso_utc(now_ms)
    return Alert(
        delivery=f"test-{now_ms}/{NoticeEvent.TEST}/1/{person.id}/{channel}",
        event=NoticeEvent.TEST,
        to=recipient(person, reader.language),
        language=reader.language.value,
        title=rendered.title,
        text=rendered.text,
        priority=Priority.P4,
        site=None,
        area=None,
        machine=None,
        guard=None,
        rule="test",
        occurrence=f"test-{now_ms}",
        alarm=None,
        since=moment,
        at=moment,
        url=voice.base_url,
    )


def read_as(person: Person, voice: Voice) -> Reader:
    """The person's language, or the gateway's."""
    language = person.language or voice.language
    return Reader(language, voice.words[language], voice.zone)


def recipient(person: Person, language: Language) -> Recipient:
    """A person as receivers see one: the name in the language of the message."""
    name = person.name.get(language) or next(iter(person.name.values()), person.id)
    return Recipient(person.id, name, person.role, person.mobile, person.email)


def _subject(alarm: Alarm, place: Place) -> Subject:
    kinds = frozenset(kind for kind in (place.guard_kind, place.machine_kind) if kind is not None)
    return Subject(alarm.site, alarm.area, alarm.machine, alarm.guard, kinds, alarm.rule, alarm.priority)


def _late_one(alert: Alert, violation: Violation) -> LateOne:
    return LateOne(alert.alarm or 0, alert.priority, alert.title, alert.since, violation.duration_ms)


def _is_late(change: Change) -> bool:
    return change.is_late or is_late(change.violation.occurred_at, iso_utc(change.now_ms))
