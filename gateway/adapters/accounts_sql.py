"""Who is signed in: passwords, tokens, one-time links, sessions, each act with an audit row.

Theory of operation. Every secret is 256 random bits, shown once and stored as its SHA-256 (nothing to brute-force);
passwords are argon2id with the library's costs (64 MiB, 160 ms), computed in a thread, two at a time, so that a flood
of guesses cannot take the machine's memory. An unknown name costs the same as a wrong password. A session is looked up
at each request, joined with what it rests on: disabling a user or revoking a token ends its sessions at once.

    sign-in refused ── throttled (a pause runs for this account and address)
                    └─ wrong     (unknown, disabled, spent or expired: the person is told no difference)
    AccountsUnavailable ── the database cannot be used: requests answer 503, monitoring goes on
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from gateway.adapters.accounts_tables import AUDIT, LINKS, SESSIONS, TOKENS, USERS
from gateway.domain.access import Principal, Refusal, Role, SignedIn, Via
from gateway.domain.throttle import Throttle
from gateway.ports import AccountsUnavailable, Clock

T = TypeVar("T")

SESSION_IDLE_MS = 12 * 3600 * 1000
"""A session unused for a shift is over (ASVS 7.3.1)."""
SESSION_MAX_MS = 7 * 24 * 3600 * 1000
"""Every session ends after a week (ASVS 7.3.2)."""
SEEN_STEP_MS = 60_000
"""How exactly the last use is kept: a write per minute and session, not per request."""
HASHING_MAX = 2
"""Passwords hashed at one time: 64 MiB each."""
PASSWORD_MAX_CHARS = 256
"""Longer is no password, but work."""

_REFUSED = "sign_in_refused"
REFUSED_KEPT = 100_000
"""Refused sign-ins go from the audit when so many rows came after them: strangers write them, some 40 MB at most."""

_hasher = PasswordHasher()


def new_secret(prefix: str = "") -> str:
    """256 random bits as URL-safe text."""
    return prefix + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """What is stored of a random secret: SHA-256 hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str) -> str:
    """Argon2id with the library's parameters."""
    return _hasher.hash(password)


_DUMMY_HASH = hash_password(new_secret())
"""Verified against when there is no such user, so that the answer takes as long."""


def write_audit(connection: Connection, at_ms: int, who: str, act: str, detail: str = "") -> None:
    """One audit row in the transaction of the act; texts are stored without control characters."""
    row = {"at_ms": at_ms, "who": _printable(who), "act": act, "detail": _printable(detail)}
    connection.execute(insert(AUDIT), row)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text[:200])


class SqlAccounts:
    """`gateway.ports.Accounts` over SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._readers = engine.execution_options(is_reading=True)
        self._clock = clock
        self._throttle = Throttle()
        self._hashing = asyncio.Semaphore(HASHING_MAX)

    async def sign_in_with_password(self, name: str, password: str, address: str) -> SignedIn | Refusal:
        """A session for a user, or why not."""
        key = f"{name[:80]}@{address}"
        if not self._throttle.may_try(key, self._clock.monotonic_ms()):
            return Refusal.THROTTLED
        found = await self._read(lambda db: db.execute(select(USERS).where(USERS.c.name == name)).first())
        usable = found is not None and not found.is_disabled
        async with self._hashing:
            if not self._throttle.may_try(key, self._clock.monotonic_ms()):
                return Refusal.THROTTLED  # others failed while this one waited
            is_right = await asyncio.to_thread(
                _verify, found.password_hash if found is not None and usable else _DUMMY_HASH, password
            )
        if found is None or not usable or not is_right:
            return await self._refuse(key, name, "password", address)
        self._throttle.note_success(key)
        principal = Principal(name, Role(found.role), Via.SESSION)
        return await self._write(lambda db: self._open_session(db, principal, address, user=name))

    async def sign_in_with_token(self, token: str, address: str) -> SignedIn | Refusal:
        """A session that lasts as long as the token does, or why not."""
        return await self._sign_in_with_secret(
            token, address, lambda db, secret: self._session_of_token(db, secret, address)
        )

    async def sign_in_with_link(self, code: str, address: str) -> SignedIn | Refusal:
        """A session for a one-time link, which is spent by it, or why not."""
        return await self._sign_in_with_secret(
            code, address, lambda db, secret: self._session_of_link(db, secret, address)
        )

    async def session(self, secret: str) -> Principal | None:
        """Who a session's secret belongs to now."""
        return await self._session(hash_secret(secret))

    async def bearer(self, token: str) -> Principal | None:
        """Who an API token belongs to."""
        found = await self._read(lambda db: _live_token(db, hash_secret(token)))
        return None if found is None else Principal(found.name, found.role, Via.TOKEN)

    async def shift(self, leap_ms: int) -> None:
        """Gateway time leaps: sessions and links that last go on lasting as long."""
        lasting = update(SESSIONS).where(~_is_over(self._clock.utc_ms() - leap_ms))
        used = {column.name: column + leap_ms for column in (SESSIONS.c.created_at_ms, SESSIONS.c.seen_at_ms)}
        unused = update(LINKS).where(LINKS.c.expires_at_ms > self._clock.utc_ms() - leap_ms)

        def work(db: Connection) -> None:
            db.execute(lasting.values(used))
            db.execute(unused.values(expires_at_ms=LINKS.c.expires_at_ms + leap_ms))

        await self._write(work)

    async def sign_out(self, secret: str) -> None:
        """End a session; unknown ones are ended already."""

        def work(db: Connection) -> None:
            known = SESSIONS.c.secret_hash == hash_secret(secret)
            found = db.execute(select(SESSIONS.c.name).where(known)).first()
            if found is not None:
                db.execute(delete(SESSIONS).where(known))
                write_audit(db, self._clock.utc_ms(), found.name, "sign_out")

        await self._write(work)

    async def _sign_in_with_secret(
        self, secret: str, address: str, work: Callable[[Connection, str], SignedIn | None]
    ) -> SignedIn | Refusal:
        key = f"secret@{address}"
        if not self._throttle.may_try(key, self._clock.monotonic_ms()):
            return Refusal.THROTTLED
        signed_in = await self._write(lambda db: work(db, hash_secret(secret)))
        if signed_in is None:
            return await self._refuse(key, "?", "secret", address)
        self._throttle.note_success(key)
        return signed_in

    async def _refuse(self, key: str, who: str, how: str, address: str) -> Refusal:
        self._throttle.note_failure(key, self._clock.monotonic_ms())
        now_ms = self._clock.utc_ms()

        def work(db: Connection) -> None:
            write_audit(db, now_ms, who, _REFUSED, f"{how} from {address}")
            newest = select(func.max(AUDIT.c.id)).scalar_subquery()
            db.execute(delete(AUDIT).where(AUDIT.c.id <= newest - REFUSED_KEPT, AUDIT.c.act == _REFUSED))

        await self._write(work)
        return Refusal.WRONG

    def _session_of_token(self, db: Connection, secret: str, address: str) -> SignedIn | None:
        found = _live_token(db, secret)
        if found is None:
            return None
        return self._open_session(
            db, Principal(found.name, found.role, Via.SESSION), address, token=found.name
        )

    def _session_of_link(self, db: Connection, secret: str, address: str) -> SignedIn | None:
        now_ms = self._clock.utc_ms()
        is_good = (
            (LINKS.c.secret_hash == secret) & LINKS.c.used_at_ms.is_(None) & (LINKS.c.expires_at_ms > now_ms)
        )
        if db.execute(update(LINKS).where(is_good).values(used_at_ms=now_ms)).rowcount == 0:
            return None
        found = db.execute(select(LINKS.c.name, LINKS.c.role).where(LINKS.c.secret_hash == secret)).one()
        return self._open_session(db, Principal(found.name, Role(found.role), Via.SESSION), address)

    def _open_session(
        self,
        db: Connection,
        principal: Principal,
        address: str,
        *,
        user: str | None = None,
        token: str | None = None,
    ) -> SignedIn:
        secret, now_ms = new_secret(), self._clock.utc_ms()
        db.execute(delete(SESSIONS).where(_is_over(now_ms)))
        row = {"secret_hash": hash_secret(secret), "name": principal.name, "role": principal.role.value}
        row2 = {"user": user, "token": token, "created_at_ms": now_ms, "seen_at_ms": now_ms}
        db.execute(insert(SESSIONS), row | row2)
        write_audit(db, now_ms, principal.name, "sign_in", f"{principal.role.value} from {address}")
        return SignedIn(secret, principal, SESSION_MAX_MS // 1000)

    async def _session(self, secret: str) -> Principal | None:
        """The session's principal; its last use is written once a minute."""
        now_ms = self._clock.utc_ms()
        query = (
            select(SESSIONS, USERS.c.is_disabled, USERS.c.role.label("user_role"), TOKENS.c.revoked_at_ms)
            .outerjoin(USERS, SESSIONS.c.user == USERS.c.name)
            .outerjoin(TOKENS, SESSIONS.c.token == TOKENS.c.name)
            .where(SESSIONS.c.secret_hash == secret, ~_is_over(now_ms))
        )
        found = await self._read(lambda db: db.execute(query).first())
        if found is None or found.is_disabled or found.revoked_at_ms is not None:
            return None
        if now_ms - found.seen_at_ms > SEEN_STEP_MS:
            touch = update(SESSIONS).where(SESSIONS.c.secret_hash == secret).values(seen_at_ms=now_ms)
            await self._write(lambda db: db.execute(touch))
        return Principal(found.name, Role(found.user_role or found.role), Via.SESSION)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._run, self._readers, work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._run, self._engine, work)

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        try:
            with engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise AccountsUnavailable("the accounts cannot be used now") from error


def _is_over(now_ms: int) -> ColumnElement[bool]:
    return (SESSIONS.c.seen_at_ms < now_ms - SESSION_IDLE_MS) | (
        SESSIONS.c.created_at_ms < now_ms - SESSION_MAX_MS
    )


class _Token:
    """A token that is in force."""

    def __init__(self, name: str, role: Role) -> None:
        self.name = name
        self.role = role


def _live_token(db: Connection, secret: str) -> _Token | None:
    found = db.execute(
        select(TOKENS.c.name, TOKENS.c.role).where(
            TOKENS.c.secret_hash == secret, TOKENS.c.revoked_at_ms.is_(None)
        )
    ).first()
    return None if found is None else _Token(found.name, Role(found.role))


def _verify(password_hash: str, password: str) -> bool:
    if len(password) > PASSWORD_MAX_CHARS:
        return False
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
