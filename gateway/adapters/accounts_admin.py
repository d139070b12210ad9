"""What the command line does to accounts, beside a running gateway: users, tokens, one-time links.

Each act is one short transaction with its audit row. Names are unique; nothing is deleted, because old records name
them: a user is disabled, a token revoked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, Row, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from edge_agent.wire.event import Json
from gateway.adapters.accounts_sql import (
    PASSWORD_MAX_CHARS,
    hash_password,
    hash_secret,
    new_secret,
    write_audit,
)
from gateway.adapters.accounts_tables import LINKS, TOKENS, USERS
from gateway.domain.access import Role
from gateway.domain.instants import iso_utc

TOKEN_PREFIX = "gw_"  # noqa: S105 - what tokens begin with, so that scanners for leaked secrets know them
PASSWORD_MIN_CHARS = 12
"""Long enough to stand without rules about its letters (ASVS 6.2.1 asks for 8, recommends 15)."""
LINK_LIFETIME_MS = 24 * 3600 * 1000
"""A one-time link that nobody used in a day is void."""

_NAME = re.compile(r"[^\W_][\w.@ -]{0,63}")


class AccountError(Exception):
    """What was asked cannot be done; the text says why and how to mend it."""


@dataclass(frozen=True, slots=True)
class AccountAdmin:
    """Acts of the command line on one accounts database; `who` stands in the audit."""

    engine: Engine
    who: str

    def add_user(self, name: str, password: str, role: Role, now_ms: int) -> None:
        """A new user. Raises `AccountError`."""
        _check_name(name)
        if not PASSWORD_MIN_CHARS <= len(password) <= PASSWORD_MAX_CHARS:
            raise AccountError(
                f"a password has {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters, this one has"
                f" {len(password)} — several words make a good one"
            )
        row = {"name": name, "password_hash": hash_password(password), "role": role.value}
        row2: dict[str, object] = {"created_at_ms": now_ms, "is_disabled": False}
        self._insert(USERS, row | row2, name, now_ms, f"user_add {role.value}")

    def disable_user(self, name: str, now_ms: int) -> None:
        """End a user and their sessions. Raises `AccountError` for an unknown one."""
        with self.engine.begin() as connection:
            done = connection.execute(update(USERS).where(USERS.c.name == name).values(is_disabled=True))
            if done.rowcount == 0:
                raise AccountError(f"there is no user {name!r} — `user list` names them")
            write_audit(connection, now_ms, self.who, "user_disable", name)

    def users(self) -> Sequence[Mapping[str, Json]]:
        """All users, without secrets."""
        return [
            {
                "name": row.name,
                "role": row.role,
                "created_at": iso_utc(row.created_at_ms),
                "disabled": bool(row.is_disabled),
            }
            for row in self._rows(USERS)
        ]

    def create_token(self, name: str, role: Role, now_ms: int) -> str:
        """A new API token: its only copy. Raises `AccountError`."""
        _check_name(name)
        token = new_secret(TOKEN_PREFIX)
        row: dict[str, object] = {"name": name, "secret_hash": hash_secret(token), "role": role.value}
        self._insert(TOKENS, row | {"created_at_ms": now_ms}, name, now_ms, f"token_create {role.value}")
        return token

    def revoke_token(self, name: str, now_ms: int) -> None:
        """End a token and the sessions that rest on it. Raises `AccountError` for an unknown one."""
        with self.engine.begin() as connection:
            live = (TOKENS.c.name == name) & TOKENS.c.revoked_at_ms.is_(None)
            if connection.execute(update(TOKENS).where(live).values(revoked_at_ms=now_ms)).rowcount == 0:
                raise AccountError(f"no token {name!r} is in force — `token list` names them")
            write_audit(connection, now_ms, self.who, "token_revoke", name)

    def tokens(self) -> Sequence[Mapping[str, Json]]:
        """All tokens, without secrets."""
        return [
            {
                "name": row.name,
                "role": row.role,
                "created_at": iso_utc(row.created_at_ms),
                "revoked_at": None if row.revoked_at_ms is None else iso_utc(row.revoked_at_ms),
            }
            for row in self._rows(TOKENS)
        ]

    def create_link(self, name: str, role: Role, now_ms: int) -> str:
        """The code of a link that signs in once, within a day. Raises `AccountError`."""
        _check_name(name)
        code = new_secret()
        row = {"secret_hash": hash_secret(code), "name": name, "role": role.value}
        with self.engine.begin() as connection:
            connection.execute(insert(LINKS), row | {"expires_at_ms": now_ms + LINK_LIFETIME_MS})
            write_audit(connection, now_ms, self.who, "link_create", f"{name} {role.value}")
        return code

    def _insert(self, target: Table, row: dict[str, object], name: str, now_ms: int, act: str) -> None:
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(target), row)
                write_audit(connection, now_ms, self.who, act, name)
        except IntegrityError:
            raise AccountError(f"{name!r} is taken — choose another name; old ones stay on record") from None

    def _rows(self, target: Table) -> Sequence[Row[tuple[object, ...]]]:
        with self.engine.begin() as connection:
            return connection.execute(select(target).order_by(target.c.created_at_ms)).all()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise AccountError(
            f"{name!r} is no name — 1 to 64 letters, digits, spaces or . @ - _, beginning with a letter or digit"
        )
