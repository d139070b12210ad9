"""Who is asking, and may they? Every route declares `need(role)` or `public`; a test walks them all.

A request is somebody's by a bearer token, else by the session cookie, else, where the configuration says so, it is an
anonymous viewer's. A wrong bearer token is refused, never taken for an anonymous request.

Unsafe methods that rest on a cookie (or have nobody yet, like signing in) must come from our own pages: browsers state
where a request comes from in `Sec-Fetch-Site` or `Origin`; a request with neither comes from no browser of the last
years and cannot ride on one's cookie (the reasoning of Go's `http.CrossOriginProtection`; `SameSite=Lax` stands behind
it). Bearer tokens are not sent by browsers on their own and need no such check.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import Request, Response

from gateway.api.context import Context, context_of
from gateway.api.problems import Problem
from gateway.domain.access import Principal, Role, SignedIn, Via

_COOKIE = "guardwatch_session"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
BEARER_MAX_CHARS = 256
"""No token of ours is longer."""


class Need:
    """A dependency that lets in who has at least this role, and gives the principal."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Principal:
        """The principal. Raises `Problem` 401 or 403."""
        principal = await identify(request)
        if principal is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "Sign in, or send a token that is in force.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if request.method not in _SAFE_METHODS and principal.via is not Via.TOKEN:
            demand_own_origin(request)
        if not principal.role.includes(self.role):
            if principal.via is Via.ANONYMOUS:
                raise Problem(HTTPStatus.UNAUTHORIZED, "Sign in to do this.")
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"This needs the role {self.role.value}; you are {principal.role.value}.",
            )
        return principal


async def public(request: Request) -> None:
    """Declares a route open to everyone; unsafe methods must still come from our own pages."""
    if request.method not in _SAFE_METHODS:
        demand_own_origin(request)


def need(role: Role) -> Callable[[Request], Awaitable[Principal]]:
    """The dependency of a route that needs `role`."""
    return Need(role)


async def identify(request: Request) -> Principal | None:
    """Whose request this is; None for nobody's. Raises `Problem` 401 for a bearer token that is not in force."""
    context = context_of(request)
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        found = None
        if scheme.lower() == "bearer" and 0 < len(token) <= BEARER_MAX_CHARS:
            found = await context.accounts.bearer(token.strip())
        if found is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "The token is not in force.",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        return found
    secret = session_secret(request)
    if secret is not None:
        found = await context.accounts.session(secret)
        if found is not None:
            return found
    anonymous = context.site.anonymous
    return None if anonymous is None else Principal("anonymous", anonymous, Via.ANONYMOUS)


def session_secret(request: Request) -> str | None:
    """The secret in the session cookie, if there is one."""
    return request.cookies.get(_cookie_name(context_of(request)))


def set_session(request: Request, response: Response, signed_in: SignedIn) -> None:
    """Give the browser its session."""
    context = context_of(request)
    response.set_cookie(
        _cookie_name(context),
        signed_in.secret,
        max_age=signed_in.lifetime_s,
        path="/",
        secure=context.site.is_https,
        httponly=True,
        samesite="lax",
    )


def drop_session(request: Request, response: Response) -> None:
    """Take the session from the browser."""
    context = context_of(request)
    response.delete_cookie(
        _cookie_name(context), path="/", secure=context.site.is_https, httponly=True, samesite="lax"
    )


def address_of(request: Request) -> str:
    """Where a request comes from, for throttling and the audit."""
    return request.client.host if request.client else "?"


def demand_own_origin(request: Request) -> None:
    """Raises `Problem` 403 when a browser says that the request comes from another site's page."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site in {"same-origin", "none"}:
        return
    if site is None and origin is None:
        return
    if site is None and origin is not None and _host_of(origin) == request.headers.get("host"):
        return
    raise Problem(HTTPStatus.FORBIDDEN, "The request comes from another site's page.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # a bracket that nothing closes
        return None


def _cookie_name(context: Context) -> str:
    return f"__Host-{_COOKIE}" if context.site.is_https else _COOKIE
