"""The agents, what their guards were over time, and what was refused of them."""

from __future__ import annotations

import asyncio
import base64
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi import Query as Parameter
from starlette.responses import JSONResponse

from edge_agent.wire.event import Json
from gateway.api.access import need
from gateway.api.context import context_of
from gateway.api.problems import Problem
from gateway.api.queries import (
    LIMIT_DEFAULT,
    CommaList,
    Cursor,
    Limit,
    Time,
    page_document,
    read_cursor,
    read_filters,
    read_time,
)
from gateway.domain.access import Principal, Role
from gateway.domain.instants import iso_utc
from gateway.domain.listing import Query, RefusedPayload

router = APIRouter(prefix="/api/v1", tags=["agents"])

TIMELINE_DEFAULT_MS = 24 * 3600 * 1000
"""A day, when no beginning is given."""
TIMELINE_MAX_MS = 92 * TIMELINE_DEFAULT_MS
"""A quarter at once; longer ones are asked for in parts."""


@router.get("/agents", summary="Every agent: its stream, gaps and health")
async def get_agents(request: Request, _: Annotated[Principal, Depends(need(Role.VIEWER))]) -> JSONResponse:
    """All agents, by site and id."""
    context = context_of(request)
    gaps = await asyncio.to_thread(context.streams.gaps)
    keys = sorted(context.view().plant.agents)
    items: list[Json] = [context.agent(key, gaps.get(key, ())) for key in keys]
    return JSONResponse(page_document(items, None))


@router.get("/guards/{site}/{machine}/{guard}/timeline", summary="What a guard was, unknown time included")
async def get_timeline(  # noqa: PLR0917 - the path's and the query's names
    request: Request,
    _: Annotated[Principal, Depends(need(Role.VIEWER))],
    site: str,
    machine: str,
    guard: str,
    since: Annotated[Time, Parameter(alias="from")] = None,
    until: Annotated[Time, Parameter(alias="to")] = None,
) -> JSONResponse:
    """Intervals without holes; the last one ends where the last confirmed word on the guard does, never after."""
    context = context_of(request)
    now_ms = context.clock.utc_ms()
    until_ms, since_ms = read_time("to", until), read_time("from", since)
    to_ms = now_ms if until_ms is None else min(until_ms, now_ms)
    from_ms = max(0, to_ms - TIMELINE_DEFAULT_MS) if since_ms is None else since_ms
    if not 0 <= from_ms < to_ms <= from_ms + TIMELINE_MAX_MS:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "`to` is after `from`, and at most 92 days after; neither in the future nor before 1970.",
        )
    if (site, machine, guard) not in context.view().plant.guards:
        raise Problem(HTTPStatus.NOT_FOUND, "There is no such guard.")
    intervals = await asyncio.to_thread(context.streams.timeline, (site, machine, guard), from_ms, to_ms)
    items: list[Json] = [
        {"from": iso_utc(item.from_ms), "to": iso_utc(item.to_ms), "state": item.state.value}
        for item in intervals
    ]
    document: dict[str, Json] = {"site": site, "machine": machine, "guard": guard}
    document |= {"from": iso_utc(from_ms), "to": iso_utc(to_ms), "as_of": iso_utc(now_ms)}
    return JSONResponse(document | page_document(items, None))


@router.get("/quarantine", summary="Payloads that were refused, raw, with the reason")
async def get_quarantine(
    request: Request,
    _: Annotated[Principal, Depends(need(Role.VIEWER))],
    site: CommaList = None,
    agent: CommaList = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
) -> JSONResponse:
    """Newest first; `payload` is base64, `text` is there when it is UTF-8."""
    equal = read_filters({"site": site, "agent": agent}, {})
    query = Query(equal, after=read_cursor(cursor), limit=limit)
    page = await asyncio.to_thread(context_of(request).streams.quarantine, query)
    return JSONResponse(page_document([_refused_document(item) for item in page.items], page.next))


def _refused_document(refused: RefusedPayload) -> Json:
    try:
        text: str | None = refused.payload.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return {
        "id": refused.id,
        "received_at": iso_utc(refused.received_at_ms),
        "topic": refused.topic,
        "site": refused.site,
        "agent": refused.agent,
        "reason": refused.reason,
        "payload": base64.b64encode(refused.payload).decode(),
        "text": text,
    }
