"""Errors as RFC 9457 problem details, every one of them: validation, unknown paths and methods, refusals, failures.

Problem ── what a route says itself (401, 403, 404, 409, 429 …)
HTTPException ── what the framework says (404, 405, 413 …)
RequestValidationError ── 422, each fault with its place
JournalUnavailable, AccountsUnavailable ── 503
anything else ── 500 with an id that stands in the log too; never a stack

What was refused was not done; the answer says what to do instead.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from edge_agent.wire.event import Json
from gateway.ports import AccountsUnavailable, JournalUnavailable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """An answer that is not what was asked for. `more` adds members to the document."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        more: Mapping[str, Json] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.more = dict(more or {})
        self.headers = dict(headers or {})


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """The document of a problem."""
    document: dict[str, Json] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "instance": request.url.path,
        **problem.more,
    }
    return JSONResponse(document, problem.status.value, headers=problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(JournalUnavailable, _on_unavailable)
    app.add_exception_handler(AccountsUnavailable, _on_unavailable)
    app.add_exception_handler(Exception, _on_failure)


def _on_problem(request: Request, error: Exception) -> JSONResponse:
    return problem_response(request, cast("Problem", error))


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    found = cast("HTTPException", error)
    status = HTTPStatus(found.status_code)
    details = {
        HTTPStatus.NOT_FOUND: "There is nothing at this address.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible here.",
    }
    detail = details.get(status, str(found.detail))
    return problem_response(request, Problem(status, detail, headers=found.headers))


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    found = cast("RequestValidationError", error)
    faults: list[Json] = [
        {"where": ".".join(str(part) for part in fault["loc"]), "what": str(fault["msg"])}
        for fault in found.errors()
    ]
    problem = Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The request does not fit.", more={"errors": faults})
    return problem_response(request, problem)


def _on_unavailable(request: Request, error: Exception) -> JSONResponse:
    problem = Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{error} Nothing was recorded; try again.",
        headers={"Retry-After": "5"},
    )
    return problem_response(request, problem)


def _on_failure(request: Request, error: Exception) -> JSONResponse:
    number = secrets.token_hex(4)
    log.error("request_failed id=%s path=%s", number, request.url.path, exc_info=error)
    problem = Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Something failed here; what was asked may not have been done.",
        more={"error_id": number},
    )
    return problem_response(request, problem)
