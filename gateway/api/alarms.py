"""The alarms: list, one, acknowledge."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from edge_agent.wire.event import Json, Priority
from gateway.api.access import need
from gateway.api.context import context_of
from gateway.api.problems import Problem
from gateway.api.queries import (
    LIMIT_DEFAULT,
    CommaList,
    Cursor,
    Limit,
    page_document,
    read_cursor,
    read_filters,
)
from gateway.domain.access import Principal, Role
from gateway.domain.alarm import Letter
from gateway.domain.documents import alarm_document, told_documents
from gateway.domain.listing import Query
from gateway.services.operate import Done, NoSuchAlarm, TooLate

router = APIRouter(prefix="/api/v1/alarms", tags=["alarms"])

NOTE_MAX_CHARS = 500
"""A remark, not a report."""

AlarmNumber = Annotated[int, Path(ge=1, le=2**53 - 1)]

_ALLOWED = {
    "letter": [letter.value for letter in Letter],
    "priority": [priority.value for priority in Priority],
}


class Acknowledge(BaseModel):
    """What may be said with an acknowledgement."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(max_length=NOTE_MAX_CHARS)] | None = None


@router.get("", summary="All alarms, newest first")
async def get_alarms(  # noqa: PLR0917 - one parameter for each filter
    request: Request,
    _: Annotated[Principal, Depends(need(Role.VIEWER))],
    letter: CommaList = None,
    priority: CommaList = None,
    site: CommaList = None,
    machine: CommaList = None,
    guard: CommaList = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
) -> JSONResponse:
    """`letter` is ISA-18.2's: `B,C` are true now, `B,D,E` nobody has acknowledged."""
    given = {"letter": letter, "priority": priority, "site": site, "machine": machine, "guard": guard}
    query = Query(read_filters(given, _ALLOWED), after=read_cursor(cursor), limit=limit)
    page = await asyncio.to_thread(context_of(request).alarms.alarms, query)
    return JSONResponse(page_document([alarm_document(item) for item in page.items], page.next))


@router.get("/{number}", summary="One alarm, and who was told")
async def get_alarm(
    request: Request, _: Annotated[Principal, Depends(need(Role.VIEWER))], number: AlarmNumber
) -> JSONResponse:
    """The alarm, with `told`: who was to be told by which channel, and what became of it."""
    reads = context_of(request).alarms
    alarm = await asyncio.to_thread(reads.alarm, number)
    if alarm is None:
        raise _unknown(number)
    notices = await asyncio.to_thread(reads.notices, number)
    told: list[Json] = [*told_documents(notices)]
    return JSONResponse({**alarm_document(alarm), "told": told})


@router.post("/{number}/ack", summary="Acknowledge: seen and owned, not mended")
async def post_ack(
    request: Request,
    principal: Annotated[Principal, Depends(need(Role.MAINTENANCE))],
    number: AlarmNumber,
    body: Acknowledge | None = None,
) -> JSONResponse:
    """The alarm as it stands. 409 names who was first; an alarm that is over is only recorded as seen."""
    outcome = await context_of(request).operate.acknowledge(number, principal, body.note if body else None)
    match outcome:
        case Done(alarm):
            return JSONResponse(alarm_document(alarm))
        case TooLate(alarm):
            document = alarm_document(alarm)
            raise Problem(
                HTTPStatus.CONFLICT,
                f"Already acknowledged by {document['acked_by']} at {document['acked_at']}.",
                more={"acked_by": document["acked_by"], "acked_at": document["acked_at"], "alarm": document},
            )
        case NoSuchAlarm():
            raise _unknown(number)


def _unknown(number: int) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"There is no alarm {number}.")
