"""Each alarm as a plain page: state, place, since, who was told, and the button; complete without JavaScript.

GET never acknowledges: previews and scanners open links too.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from gateway.api.access import need
from gateway.api.alarms import NOTE_MAX_CHARS, AlarmNumber
from gateway.api.context import Context, context_of
from gateway.api.markup import AlarmPage, alarm_page, appearance_of
from gateway.api.problems import Problem
from gateway.api.visit import look_of, page_response, read_form, visitor
from gateway.api.words import Words
from gateway.domain.access import Principal, Role, Via
from gateway.domain.alarm import Ack, Alarm
from gateway.domain.board import guard_document, labels_of, machine_document
from gateway.domain.instants import iso_utc, parse_utc_ms
from gateway.domain.notice import NoticeNow, NoticeState
from gateway.services.operate import Done, NoSuchAlarm, TooLate

router = APIRouter(include_in_schema=False)


@router.get("/alarms/{number}")
@router.get("/a/{number}")
async def get_alarm_page(
    request: Request, principal: Annotated[Principal, Depends(visitor)], number: AlarmNumber
) -> HTMLResponse:
    """One alarm."""
    return await _alarm_response(request, principal, number, None)


@router.post("/alarms/{number}/ack")
async def post_alarm_ack(
    request: Request, principal: Annotated[Principal, Depends(need(Role.MAINTENANCE))], number: AlarmNumber
) -> HTMLResponse:
    """Acknowledge by form; the page comes back and says what was recorded."""
    form = await read_form(request)
    words = look_of(request).words
    note = form.get("note", "").strip()[:NOTE_MAX_CHARS] or None
    context = context_of(request)
    outcome = await context.operate.acknowledge(number, principal, note)
    said: str | None = None
    match outcome:
        case Done():
            said = words.text("alarm.thanks")
        case TooLate(alarm):
            said = _already(context, words, alarm)
        case NoSuchAlarm():
            pass
    return await _alarm_response(request, principal, number, said)


async def _alarm_response(
    request: Request, principal: Principal, number: int, said: str | None
) -> HTMLResponse:
    context, look = context_of(request), look_of(request)
    alarm = await asyncio.to_thread(context.alarms.alarm, number)
    if alarm is None:
        raise Problem(HTTPStatus.NOT_FOUND, look.words.text("alarm.unknown"))
    told = [_told(look.words, now) for now in await asyncio.to_thread(context.alarms.notices, number)]
    page = _describe(context, look.words, alarm, principal)
    return page_response(request, alarm_page(look, replace(page, said=said, told=told)))


def _describe(context: Context, words: Words, alarm: Alarm, principal: Principal) -> AlarmPage:
    is_unseen = alarm.state.ack is Ack.UNACKED
    may = principal.role.includes(Role.MAINTENANCE)
    return AlarmPage(
        number=alarm.id,
        priority=alarm.priority.value,
        headline=words.rule(alarm.rule),
        place=_place(context, words, alarm),
        facts=_facts(context, words, alarm),
        told=(),
        guard=_guard_now(context, words, alarm),
        as_of=words.text("alarm.as_of", time=_moment(context, context.clock.utc_ms())),
        said=None,
        can_acknowledge=is_unseen and may,
        needs_sign_in=is_unseen and not may and principal.via is Via.ANONYMOUS,
    )


def _facts(context: Context, words: Words, alarm: Alarm) -> list[tuple[str, str]]:
    facts = [
        (words.text("alarm.state"), words.text(f"letter.{alarm.letter.value}")),
        (words.text("alarm.since"), _moment(context, parse_utc_ms(alarm.since))),
    ]
    if alarm.cleared_at:
        facts.append((words.text("alarm.over"), _moment(context, parse_utc_ms(alarm.cleared_at))))
    facts.append((words.text("alarm.basis"), words.text(f"alarm.basis_{alarm.basis.value}")))
    seen = alarm.acknowledged
    who = words.text("alarm.nobody")
    if seen is not None:
        who = words.text("alarm.acked_by", who=seen.who, time=_moment(context, seen.at_ms))
    facts.append((words.text("alarm.acked"), who))
    if alarm.note:
        facts.append((words.text("alarm.note"), alarm.note))
    return facts


def _place(context: Context, words: Words, alarm: Alarm) -> str:
    labels = labels_of(context.view().plant, alarm.site, alarm.agent, alarm.machine, alarm.guard)
    parts = [words.label(item, name) for name, item in labels]
    if alarm.device:
        parts.append(alarm.device)
    return " · ".join(parts) or words.text("place.gateway")


def _guard_now(context: Context, words: Words, alarm: Alarm) -> tuple[str, str, str] | None:
    if alarm.site is None or alarm.machine is None or alarm.guard is None:
        return None
    view = context.view()
    guard = guard_document(view, (alarm.site, alarm.machine, alarm.guard))
    machine = machine_document(view, (alarm.site, alarm.machine))
    if guard is None or machine is None:
        return None
    appearance, word = appearance_of(guard, machine["moving"])
    return appearance, words.label(guard["labels"], alarm.guard), words.text(word)


def _told(words: Words, now: NoticeNow) -> str:
    state = "pending"
    if now.state is NoticeState.DELIVERED:
        state = "sent"
    elif now.state is NoticeState.DEAD:
        state = "failed"
    return f"{now.notice.alert.to.name} · {now.notice.channel} · {words.text(f'told.{state}')}"


def _already(context: Context, words: Words, alarm: Alarm) -> str | None:
    seen = alarm.acknowledged
    if seen is None:
        return None
    return words.text("alarm.already", who=seen.who, time=_moment(context, seen.at_ms))


def _moment(context: Context, utc_ms: int) -> str:
    """A time on the plant's clock; in UTC where that has no such year."""
    try:
        moment = datetime.fromtimestamp(utc_ms / 1000, UTC).astimezone(ZoneInfo(context.site.time_zone))
    except (ValueError, OverflowError):
        return iso_utc(utc_ms)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
