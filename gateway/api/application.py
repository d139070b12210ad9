"""The HTTP application: all routes, with the limits around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Request
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from gateway.api import (
    alarm_pages,
    alarms,
    heads,
    health,
    pages,
    plant,
    problems,
    register,
    session,
    violations,
)
from gateway.api.access import need, public
from gateway.api.context import Context
from gateway.api.limits import Limits
from gateway.api.problems import Problem
from gateway.api.static_files import load_static_files
from gateway.domain.access import Principal, Role

GZIP_MIN_BYTES = 2048
"""Smaller answers fit into one or two packets anyway."""
GZIP_LEVEL = 4
"""A board of 1000 guards in a few milliseconds, to a tenth of its size."""


def build_application(context: Context) -> FastAPI:
    """The application over `context`; routes are complete, nothing runs yet."""
    app = FastAPI(
        title="Guardwatch",
        summary="Guard monitoring: a monitor, never a safety function",
        version="1",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    problems.install(app)
    for module in (health, session, plant, register, violations, alarms, heads, pages, alarm_pages):
        app.include_router(module.router)
    app.add_api_route("/api/openapi.json", _openapi_route(app), include_in_schema=False)
    app.add_api_route(
        "/static/{path:path}", _static_route(), include_in_schema=False, dependencies=[Depends(public)]
    )
    app.add_middleware(GZipMiddleware, minimum_size=GZIP_MIN_BYTES, compresslevel=GZIP_LEVEL)
    return app


def with_limits(app: FastAPI, context: Context) -> ASGIApp:
    """The application as it is served: inside the limits, its own failures included."""
    return Limits(app, is_https=context.site.is_https)


def _openapi_route(app: FastAPI) -> Callable[[Principal], Awaitable[JSONResponse]]:
    async def get_openapi(_: Annotated[Principal, Depends(need(Role.VIEWER))]) -> JSONResponse:
        """The description of the interface."""
        return JSONResponse(app.openapi())

    return get_openapi


def _static_route() -> Callable[[Request, str], Awaitable[Response]]:
    found = load_static_files()

    async def get_static(request: Request, path: Annotated[str, Path(max_length=100)]) -> Response:
        """One of the board's own files, checked again at each use."""
        file = found.get(path)
        if file is None:
            raise Problem(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
        headers = {"Cache-Control": "no-cache", "ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    return get_static
