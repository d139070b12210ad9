"""What people read: one title and one text per notice, in zh or en, that can be acted on without opening anything.

Theory of operation. `render` takes words (a flat catalogue, key to template) and a `Story` (what happened, where, since
when) and gives text; it decides nothing. The order never varies: priority word, what is true, where, since, action,
what happens next, data quality if it is not good, alarm number, link, and that this is no safety function. What is
true is said in the words of the guard's kind, because a light curtain does not stand open. The word safe is never a
state. Times are local, with their zone.

Words are looked up from the most to the least particular key: `true.RULE.KIND`, `true.RULE`, `true.other`. A label
that is missing in the language falls back to the other language, then to the id.

Source: ISA-18.2 message content as the project's UX rules settle it; the outside contract, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Final, TypeAlias

from edge_agent.wire.event import Basis, Json, Priority
from gateway.domain.notify import Language, NoticeEvent
from gateway.domain.places import Place

Words: TypeAlias = Mapping[str, str]
"""One language's catalogue: key to template (`str.format`)."""

SUMMARY_LINES_MAX: Final = 20
"""Violations that a summary names one by one; more only count (a message is read on a phone)."""


@dataclass(frozen=True, slots=True)
class Where:
    """Ids of a place beside what is known of it; ids stand in where labels are unknown."""

    site: str | None = None
    agent: str | None = None
    machine: str | None = None
    guard: str | None = None
    device: str | None = None
    known: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True)
class Story:
    """What a notice has to tell. `since`, `cleared_at` are RFC 3339; `seen_by` is who acknowledged, if anybody."""

    event: NoticeEvent
    priority: Priority
    rule: str
    basis: Basis
    where: Where
    since: str
    alarm: int
    url: str
    evidence: Mapping[str, Json] = field(default_factory=dict)
    repeat_s: int | None = None
    cleared_at: str | None = None
    duration_ms: int | None = None
    seen_by: str | None = None
    is_latching: bool = False


@dataclass(frozen=True, slots=True)
class LateOne:
    """An alarm that was over before anybody was told; `title` is what the notice withdrawn would have said."""

    alarm: int
    priority: Priority
    title: str
    since: str
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message's title (one line) and text."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: language, words and local time zone."""

    language: Language
    words: Words
    zone: tzinfo


def render(story: Story, reader: Reader) -> Rendered:
    """Title and text of one alarm's notice."""
    words = reader.words
    happened = tell_what(story, reader)
    word = words[f"priority.{story.priority}"]
    head = words[f"head.{story.event}"].format(priority=story.priority, word=word)
    title = words["title"].format(head=head, where=" ".join(_names(story.where, reader)[-2:]), what=happened)
    lines = [
        words["line.head"].format(head=head, what=happened),
        words["line.where"].format(where=" · ".join(_names(story.where, reader))),
        words["line.since"].format(since=local_time(story.since, reader)),
    ]
    lines += _ending(story, reader) if story.event is NoticeEvent.CLEARED else _asking(story, reader)
    if story.basis is Basis.UNKNOWN:
        lines.append(words["line.unproven"])
    return Rendered(_one_line(title), _closed(lines, story.alarm, story.url, words))


def render_summary(late: Sequence[LateOne], url: str, reader: Reader) -> Rendered:
    """One message for alarms that were over before they were heard of, in order of raising."""
    words, count = reader.words, len(late)
    first = late[0]
    urgent = min((one.priority for one in late), key=lambda priority: priority.rank)
    lines = [words["summary.head"].format(count=count)]
    for one in late[:SUMMARY_LINES_MAX]:
        since, lasted = local_time(one.since, reader), _duration(one.duration_ms, words)
        line = words["summary.line"]
        lines.append(line.format(title=one.title, since=since, lasted=lasted, alarm=one.alarm))
    if count > SUMMARY_LINES_MAX:
        lines.append(words["summary.more"].format(count=count - SUMMARY_LINES_MAX))
    title = words["summary.title"].format(priority=urgent, count=count)
    return Rendered(_one_line(title), _closed(lines, first.alarm, url, words))


def render_test(url: str, reader: Reader) -> Rendered:
    """A message that proves a channel."""
    text = "\n".join([reader.words["test.text"], url, reader.words["disclaimer"]])
    return Rendered(reader.words["test.title"], text)


def tell_what(story: Story, reader: Reader) -> str:
    """What is (or was) true, in the words of the guard's kind."""
    known = story.where.known
    kind = known.guard_kind or ("device" if story.where.device else None)
    template = find_words(reader.words, "true", story.rule, kind)
    told = template.format(
        rule=story.rule,
        device=story.where.device or "-",
        agent=_label(known.agent_labels, story.where.agent, reader) or "-",
        guards=_guard_count(story.evidence),
        channel=story.evidence.get("channel", "-"),
    )
    return reader.words["unproven"].format(what=told) if story.basis is Basis.UNKNOWN else told


def find_words(words: Words, topic: str, rule: str, kind: str | None = None) -> str:
    """The most particular template: `topic.rule.kind`, else `topic.rule`, else `topic.other`."""
    return words.get(f"{topic}.{rule}.{kind}") or words.get(f"{topic}.{rule}") or words[f"{topic}.other"]


def local_time(moment: str, reader: Reader) -> str:
    """An RFC 3339 time as the plant's clock shows it, with its offset from UTC; an unreadable one as it came."""
    try:
        return datetime.fromisoformat(moment).astimezone(reader.zone).isoformat(" ", "seconds")
    except (ValueError, OverflowError):
        return moment


def _asking(story: Story, reader: Reader) -> list[str]:
    words = reader.words
    lines = [words["line.action"].format(action=find_words(words, "action", story.rule))]
    if story.repeat_s is not None:
        lines.append(words["line.next"].format(period=_duration(story.repeat_s * 1000, words)))
    return lines


def _ending(story: Story, reader: Reader) -> list[str]:
    words = reader.words
    lines = []
    if story.cleared_at is not None:
        lasted = _duration(story.duration_ms, words)
        lines.append(words["line.over"].format(at=local_time(story.cleared_at, reader), lasted=lasted))
    lines.append(words["line.seen"].format(who=story.seen_by) if story.seen_by else words["line.unseen"])
    if story.is_latching:
        lines.append(words["line.latched"])
    return lines


def _closed(lines: list[str], alarm: int, url: str, words: Words) -> str:
    return "\n".join([*lines, words["line.number"].format(alarm=alarm), url, words["disclaimer"]])


def _names(where: Where, reader: Reader) -> list[str]:
    """From the large to the small, each by its label; the gateway itself where there is none."""
    known = where.known
    names = [
        _label(known.site_labels, where.site, reader),
        _label(known.area_labels, known.area, reader),
        _label(known.agent_labels, where.agent, reader) if where.machine is None else None,
        where.device if where.machine is None else None,
        _label(known.machine_labels, where.machine, reader),
        _label(known.guard_labels, where.guard, reader),
    ]
    return [name for name in names if name] or [reader.words["where.gateway"]]


def _label(labels: Mapping[str, str] | None, id_: str | None, reader: Reader) -> str | None:
    if labels and id_ is not None:
        return labels.get(reader.language) or next(iter(labels.values()), id_)
    return id_


def _guard_count(evidence: Mapping[str, Json]) -> str:
    counted, listed = evidence.get("guards_count"), evidence.get("guards")
    if isinstance(counted, int):
        return str(counted)
    return str(len(listed)) if isinstance(listed, list) else "?"


def _duration(duration_ms: int | None, words: Words) -> str:
    """A duration in at most two units, never rounded up."""
    if duration_ms is None:
        return words["duration.unknown"]
    whole = timedelta(milliseconds=duration_ms)
    minutes, seconds = divmod(whole.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if whole.days:
        return words["duration.days"].format(days=whole.days, hours=hours)
    if hours:
        return words["duration.hours" if minutes else "duration.whole_hours"].format(
            hours=hours, minutes=minutes
        )
    if minutes:
        key = "duration.minutes" if seconds else "duration.whole_minutes"
        return words[key].format(minutes=minutes, seconds=seconds)
    return words["duration.seconds"].format(seconds=seconds)


def _one_line(text: str) -> str:
    """Labels come from files and wires: no control character may end a mail header."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
