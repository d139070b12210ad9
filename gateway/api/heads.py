"""Heads for another host to fetch and keep: the simplest way in which they leave the box."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi import Query as Parameter
from starlette.responses import JSONResponse, Response

from edge_agent.wire.heads import head_document, head_line
from gateway.api.access import need
from gateway.api.context import context_of
from gateway.api.export import Format, format_of
from gateway.api.problems import Problem
from gateway.domain.access import Principal, Role
from gateway.ports import JournalUnavailable
from gateway.services.heads import HeadsNotMade

router = APIRouter(prefix="/api/v1", tags=["evidence"])


@router.get(
    "/heads", summary="Signed statements of how far the journal and the agents' chains have got, made now"
)
async def get_heads(
    request: Request,
    _: Annotated[Principal, Depends(need(Role.VIEWER))],
    export_as: Annotated[Format | None, Parameter(alias="format")] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """As a list, or with `?format=ndjson` as lines for `verify --head`: fetch them regularly and append them to a file."""
    try:
        heads = await asyncio.to_thread(context_of(request).heads)
    except JournalUnavailable as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"The journal cannot be read: {error}") from error
    except HeadsNotMade as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
    if format_of(export_as, accept) is Format.NDJSON:
        lines = "".join(f"{head_line(head)}\n" for head in heads)
        return Response(lines, media_type=Format.NDJSON.media_type)
    return JSONResponse({"items": [head_document(head) for head in heads], "next": None})
