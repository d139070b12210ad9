"""The violation log: filtered, paged, exported."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi import Query as Parameter
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from edge_agent.wire.event import Basis, Json, Priority
from gateway.api.access import need
from gateway.api.context import context_of
from gateway.api.export import Format, csv_lines, format_of, ndjson_lines, xlsx_file
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
from gateway.domain.documents import VIOLATION_FIELDS, violation_document
from gateway.domain.listing import LIMIT_MAX, Query
from gateway.ports import AlarmReads

router = APIRouter(prefix="/api/v1", tags=["violations"])

_ALLOWED = {
    "priority": [priority.value for priority in Priority],
    "basis": [basis.value for basis in Basis],
    "state": ["active", "cleared"],
}


@router.get("/violations", summary="The violation log, newest first; exports with ?format= or Accept")
async def get_violations(  # noqa: PLR0917 - one parameter for each filter of the contract
    request: Request,
    _: Annotated[Principal, Depends(need(Role.VIEWER))],
    site: CommaList = None,
    area: CommaList = None,
    machine: CommaList = None,
    guard: CommaList = None,
    rule: CommaList = None,
    priority: CommaList = None,
    basis: CommaList = None,
    state: CommaList = None,
    since_from: Annotated[Time, Parameter(alias="from")] = None,
    since_to: Annotated[Time, Parameter(alias="to")] = None,
    limit: Limit | None = None,
    cursor: Cursor = None,
    export_as: Annotated[Format | None, Parameter(alias="format")] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """`from`/`to` are half-open on `since`. A page as JSON; an export holds every match, or the first `limit`."""
    given = {"site": site, "area": area, "machine": machine, "guard": guard, "rule": rule}
    given |= {"priority": priority, "basis": basis, "state": state}
    query = Query(
        read_filters(given, _ALLOWED),
        read_time("from", since_from),
        read_time("to", since_to),
        read_cursor(cursor),
    )
    reads = context_of(request).alarms
    chosen = format_of(export_as, accept)
    if chosen is not Format.JSON:
        return await _export(reads, query, chosen, limit)
    page = await asyncio.to_thread(reads.violations, replace(query, limit=limit or LIMIT_DEFAULT))
    return JSONResponse(page_document([violation_document(item) for item in page.items], page.next))


async def _export(reads: AlarmReads, query: Query, chosen: Format, limit: int | None) -> Response:
    documents = _documents(reads, query, limit)
    headers = {"Content-Disposition": f'attachment; filename="violations.{chosen.value}"'}
    if chosen is Format.XLSX:
        content = await asyncio.to_thread(xlsx_file, VIOLATION_FIELDS, documents)
        return Response(content, media_type=chosen.media_type, headers=headers)
    lines = csv_lines(VIOLATION_FIELDS, documents) if chosen is Format.CSV else ndjson_lines(documents)
    return StreamingResponse(iterate_in_threadpool(lines), media_type=chosen.media_type, headers=headers)


def _documents(reads: AlarmReads, query: Query, limit: int | None) -> Iterator[dict[str, Json]]:
    """Every match, page by page (blocking)."""
    left = limit
    while True:
        page = reads.violations(replace(query, limit=min(LIMIT_MAX, left or LIMIT_MAX)))
        yield from (violation_document(item) for item in page.items)
        left = None if left is None else left - len(page.items)
        if page.next is None or left == 0:
            return
        query = replace(query, after=page.next)
