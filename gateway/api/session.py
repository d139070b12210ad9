"""Signing in and out: with a token, a name and password, or a one-time link."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse, Response

from edge_agent.wire.event import Json
from gateway.api.access import (
    BEARER_MAX_CHARS,
    address_of,
    drop_session,
    need,
    public,
    session_secret,
    set_session,
)
from gateway.api.context import Context, context_of
from gateway.api.problems import Problem
from gateway.domain.access import Principal, Refusal, Role, SignedIn, Via

router = APIRouter(prefix="/api/v1", tags=["session"])

NAME_MAX_CHARS = 128
"""Names are at most half of this; the rest is for what people type by mistake."""
PASSWORD_MAX_CHARS = 256
"""Longer is no password, but work."""


class SignIn(BaseModel):
    """Either `token`, or `name` and `password`."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=BEARER_MAX_CHARS)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)] | None = None
    password: Annotated[str, Field(min_length=1, max_length=PASSWORD_MAX_CHARS)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> SignIn:
        if (self.token is None) == (self.name is None or self.password is None):
            raise ValueError("give token, or name and password")
        return self


@router.post("/session", summary="Sign in; sets a session cookie", dependencies=[Depends(public)])
async def post_session(request: Request, body: SignIn) -> JSONResponse:
    """A session, in an HttpOnly, SameSite cookie. 401 for wrong credentials, 429 while a pause runs."""
    context = context_of(request)
    address = address_of(request)
    if body.token is not None:
        outcome = await context.accounts.sign_in_with_token(body.token, address)
    else:
        outcome = await context.accounts.sign_in_with_password(body.name or "", body.password or "", address)
    signed_in = accept(outcome)
    await end_old_session(request)
    response = JSONResponse(session_document(context, signed_in.principal))
    set_session(request, response, signed_in)
    return response


@router.get("/session", summary="Who am I?")
async def get_session(
    request: Request, principal: Annotated[Principal, Depends(need(Role.VIEWER))]
) -> JSONResponse:
    """Name, role, and how the plant tells time and language."""
    return JSONResponse(session_document(context_of(request), principal))


@router.delete("/session", status_code=HTTPStatus.NO_CONTENT, summary="Sign out")
async def delete_session(request: Request, _: Annotated[Principal, Depends(need(Role.VIEWER))]) -> Response:
    """The session is over on the server, not only in the browser."""
    await end_old_session(request)
    response = Response(status_code=HTTPStatus.NO_CONTENT)
    drop_session(request, response)
    return response


def accept(outcome: SignedIn | Refusal) -> SignedIn:
    """The session that was opened. Raises `Problem` 401 or 429."""
    match outcome:
        case SignedIn():
            return outcome
        case Refusal.THROTTLED:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many failed attempts; wait some minutes.",
                headers={"Retry-After": "60"},
            )
        case Refusal.WRONG:
            raise Problem(HTTPStatus.UNAUTHORIZED, "This sign-in was not accepted.")


async def end_old_session(request: Request) -> None:
    """End the session that the request came with, if any: signing in rotates it."""
    secret = session_secret(request)
    if secret is not None:
        await context_of(request).accounts.sign_out(secret)


def session_document(context: Context, principal: Principal) -> dict[str, Json]:
    """`GET /api/v1/session`."""
    return {
        "name": principal.name,
        "role": principal.role.value,
        "anonymous": principal.via is Via.ANONYMOUS,
        "time_zone": context.site.time_zone,
        "language": context.site.language,
        "alerting": context.site.is_alerting,
    }
