"""The pages: board, sign-in, one-time links.

A page asks who is there like every route; who is nobody is led to the sign-in page and back. GET never changes state:
signing in, by a link too, and signing out are forms that POST, and come from our own pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway.api.access import BEARER_MAX_CHARS, address_of, drop_session, need, public, set_session
from gateway.api.context import context_of
from gateway.api.markup import board_page, link_page, sign_in_page
from gateway.api.session import NAME_MAX_CHARS, PASSWORD_MAX_CHARS, end_old_session
from gateway.api.visit import following_path, look_of, page_response, read_form, visitor
from gateway.domain.access import Principal, Refusal, Role, SignedIn

router = APIRouter(include_in_schema=False)

_REFUSALS: Mapping[Refusal, str] = {Refusal.WRONG: "page.wrong", Refusal.THROTTLED: "page.throttled"}
_STATUS: Mapping[Refusal, HTTPStatus] = {
    Refusal.WRONG: HTTPStatus.UNAUTHORIZED,
    Refusal.THROTTLED: HTTPStatus.TOO_MANY_REQUESTS,
}


@router.get("/", dependencies=[Depends(public)])
async def get_root() -> RedirectResponse:
    """Everybody's home is the board."""
    return RedirectResponse("/board", HTTPStatus.TEMPORARY_REDIRECT)


@router.get("/board")
async def get_board(request: Request, _: Annotated[Principal, Depends(visitor)]) -> HTMLResponse:
    """The board's shell."""
    return page_response(request, board_page(look_of(request)))


@router.get("/sign-in", dependencies=[Depends(public)])
async def get_sign_in(request: Request) -> HTMLResponse:
    """The sign-in page."""
    return page_response(
        request, sign_in_page(look_of(request), following_path(request.query_params.get("next")), None)
    )


@router.post("/sign-in", dependencies=[Depends(public)])
async def post_sign_in(request: Request) -> Response:
    """Sign in by form: a token, or a name and password."""
    form = await read_form(request)
    context, look = context_of(request), look_of(request)
    following = following_path(form.get("next"))
    token = form.get("token", "")[:BEARER_MAX_CHARS]
    outcome: SignedIn | Refusal
    if token:
        outcome = await context.accounts.sign_in_with_token(token, address_of(request))
    else:
        name, password = form.get("name", "")[:NAME_MAX_CHARS], form.get("password", "")
        password = password[: PASSWORD_MAX_CHARS + 1]
        outcome = await context.accounts.sign_in_with_password(name, password, address_of(request))
    if isinstance(outcome, Refusal):
        page = sign_in_page(look, following, look.words.text(_REFUSALS[outcome]))
        return page_response(request, page, _STATUS[outcome])
    return await _enter(request, outcome, following)


@router.get("/enter/{code}", dependencies=[Depends(public)])
async def get_enter(request: Request) -> HTMLResponse:
    """A one-time link: shows a button, spends nothing."""
    return page_response(request, link_page(look_of(request), None))


@router.post("/enter/{code}", dependencies=[Depends(public)])
async def post_enter(request: Request, code: Annotated[str, Path(max_length=BEARER_MAX_CHARS)]) -> Response:
    """Spend a one-time link."""
    look = look_of(request)
    outcome = await context_of(request).accounts.sign_in_with_link(code, address_of(request))
    if isinstance(outcome, Refusal):
        text = "page.link_wrong" if outcome is Refusal.WRONG else "page.throttled"
        return page_response(request, link_page(look, look.words.text(text)), _STATUS[outcome])
    return await _enter(request, outcome, "/board")


@router.post("/sign-out")
async def post_sign_out(request: Request, _: Annotated[Principal, Depends(need(Role.VIEWER))]) -> Response:
    """End the session, by form."""
    await end_old_session(request)
    response = RedirectResponse("/board", HTTPStatus.SEE_OTHER)
    drop_session(request, response)
    return response


async def _enter(request: Request, signed_in: SignedIn, following: str) -> Response:
    await end_old_session(request)
    response = RedirectResponse(following, HTTPStatus.SEE_OTHER)
    set_session(request, response, signed_in)
    return response
