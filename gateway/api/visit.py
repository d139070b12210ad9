"""What all pages share: who visits, in which language and theme they read, forms, and where to go next."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qs, quote

from fastapi import Request
from starlette.responses import HTMLResponse

from gateway.api.access import identify
from gateway.api.context import context_of
from gateway.api.markup import THEMES, Look
from gateway.api.problems import Problem
from gateway.api.words import WORDS
from gateway.domain.access import Principal, Role

_YEAR_S = 365 * 24 * 3600
_LANGUAGE_COOKIE, _THEME_COOKIE = "guardwatch_language", "guardwatch_theme"


class Visitor:
    """A dependency for pages: who has at least viewer's rights; others are sent to sign in."""

    role = Role.VIEWER

    async def __call__(self, request: Request) -> Principal:
        """The principal. Raises `Problem` 303 to the sign-in page."""
        principal = await identify(request)
        if principal is None:
            raise Problem(
                HTTPStatus.SEE_OTHER,
                "Sign in first.",
                headers={"Location": f"/sign-in?next={quote(request.url.path)}"},
            )
        return principal


visitor = Visitor()


def look_of(request: Request) -> Look:
    """Language and theme: asked for in the address, else remembered, else the plant's."""
    context = context_of(request)
    wanted = (request.query_params.get("lang"), request.cookies.get(_LANGUAGE_COOKIE), context.site.language)
    language = next(name for name in (*wanted, "en") if name is not None and name in WORDS)
    theme = request.cookies.get(_THEME_COOKIE, "auto")
    return Look(WORDS[language], theme if theme in THEMES else "auto")


def page_response(request: Request, content: str, status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    """A page; a language chosen in its address is remembered."""
    response = HTMLResponse(content, status)
    chosen = request.query_params.get("lang")
    if chosen is not None and chosen in WORDS:
        response.set_cookie(_LANGUAGE_COOKIE, chosen, max_age=_YEAR_S, path="/", samesite="lax")
    return response


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the first value of each; what is no form is empty."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    body = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qs(body, max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def following_path(wanted: str | None) -> str:
    """Where to go after signing in: a path of ours, never another site's."""
    if not wanted or not wanted.startswith("/") or wanted[1:2] in {"/", "\\"} or not wanted.isprintable():
        return "/board"
    return wanted
