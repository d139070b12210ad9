"""The board and the live stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import JSONResponse, StreamingResponse

from edge_agent.wire.canonical_form import INTEGER_MAX
from gateway.api.access import identify, need
from gateway.api.context import context_of
from gateway.api.problems import Problem
from gateway.domain.access import Principal, Role
from gateway.domain.board import board_document

router = APIRouter(prefix="/api/v1", tags=["plant"])

POSITION_MAX_DIGITS = 16
"""No journal comes further than 2^53 entries, and no database could be asked for much more."""

STILL_SIGNED_IN_S = 3.0
"""How often a stream asks whether its session is still in force: it ends within 5 s of signing out."""


@router.get("/board", summary="The plant now: sites, areas, machines, guards in fixed places")
async def get_board(request: Request, _: Annotated[Principal, Depends(need(Role.VIEWER))]) -> JSONResponse:
    """Everything at `position`; the live stream goes on from there with `?position=`."""
    context = context_of(request)
    unacknowledged = await asyncio.to_thread(context.unacknowledged)
    return JSONResponse(board_document(context.view(), unacknowledged))


@router.get("/live", summary="Server-Sent Events: what changes, resumable by journal position")
async def get_live(
    request: Request,
    principal: Annotated[Principal, Depends(need(Role.VIEWER))],
    position: Annotated[
        int | None, Query(ge=0, le=INTEGER_MAX, description="begin after this journal position")
    ] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """`guard`, `machine`, `violation`, `alarm`, `agent` carry REST objects; `tick` each second; `reset`: start over."""
    after = position
    if last_event_id:
        is_number = last_event_id.isascii() and last_event_id.isdigit()
        if not is_number or len(last_event_id) > POSITION_MAX_DIGITS:
            raise Problem(HTTPStatus.BAD_REQUEST, "Last-Event-ID is a journal position, a whole number.")
        after = int(last_event_id)
    stream = context_of(request).live.stream(after)
    return StreamingResponse(
        _while_signed_in(request, principal, stream),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _while_signed_in(
    request: Request, principal: Principal, stream: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """The stream, until whoever opened it may no longer read."""
    loop = asyncio.get_running_loop()
    checked_at = loop.time()
    async for payload in stream:
        if loop.time() - checked_at > STILL_SIGNED_IN_S:
            checked_at = loop.time()
            if not await _is_still(request, principal):
                return
        yield payload


async def _is_still(request: Request, principal: Principal) -> bool:
    try:
        now = await identify(request)
    except Problem:
        return False
    return now is not None and (now.name, now.via) == (principal.name, principal.via)
