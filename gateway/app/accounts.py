"""`user`, `token`: who may sign in, written beside a running gateway."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge_agent.wire.event import Json
from gateway.adapters.accounts_admin import AccountAdmin, AccountError
from gateway.adapters.accounts_tables import open_accounts
from gateway.adapters.clock_system import SystemClock
from gateway.app.exits import Exit, fail, refuse, say, say_json
from gateway.domain.access import Role
from gateway.ports import AccountsUnavailable
from gateway.settings import GatewaySettings, load


def add_user(config: Path, name: str, role: Role, password_file: Path | None) -> Exit:
    """A new user; the password is asked for, or read from a file or standard input (`-`)."""

    def work(admin: AccountAdmin, now_ms: int) -> None:
        admin.add_user(name, _read_password(password_file), role, now_ms)

    return _act(config, work)


def disable_user(config: Path, name: str) -> Exit:
    """End a user and their sessions."""
    return _act(config, lambda admin, now_ms: admin.disable_user(name, now_ms))


def list_users(config: Path, *, as_json: bool) -> Exit:
    """All users."""
    return _act(config, lambda admin, _: _print_table(admin.users(), as_json=as_json))


def create_link(config: Path, name: str, role: Role, base_url: str | None) -> Exit:
    """A link that signs in once; prints it and nothing else."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    address = (base_url or settings.http.base_url).rstrip("/")
    return _act_on(
        settings, lambda admin, now_ms: say(f"{address}/enter/{admin.create_link(name, role, now_ms)}")
    )


def create_token(config: Path, name: str, role: Role) -> Exit:
    """A new API token; prints it and nothing else."""
    return _act(config, lambda admin, now_ms: say(admin.create_token(name, role, now_ms)))


def revoke_token(config: Path, name: str) -> Exit:
    """End a token and what rests on it."""
    return _act(config, lambda admin, now_ms: admin.revoke_token(name, now_ms))


def list_tokens(config: Path, *, as_json: bool) -> Exit:
    """All tokens, without their secrets."""
    return _act(config, lambda admin, _: _print_table(admin.tokens(), as_json=as_json))


def _act(config: Path, work: Callable[[AccountAdmin, int], None]) -> Exit:
    settings = load(config, os.environ)
    return refuse(*settings) if isinstance(settings, list) else _act_on(settings, work)


def _act_on(settings: GatewaySettings, work: Callable[[AccountAdmin, int], None]) -> Exit:
    try:
        engine = open_accounts(settings.journal_url)
    except AccountsUnavailable as error:
        return fail(error)
    try:
        work(AccountAdmin(engine, f"cli:{getpass.getuser()}"), SystemClock().utc_ms())
    except AccountError as error:
        return refuse(error)
    finally:
        engine.dispose()
    return Exit.OK


def _read_password(source: Path | None) -> str:
    if source is None:
        if not sys.stdin.isatty():
            raise AccountError("no terminal to ask for a password — use --password-file FILE, or - for stdin")
        first = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != first:
            raise AccountError("the two passwords differ — try again")
        return first
    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text("utf-8")
    except OSError as error:
        raise AccountError(f"{source}: {error.strerror} — name a readable file") from None
    return text.rstrip("\r\n")


def _print_table(rows: Sequence[Mapping[str, Json]], *, as_json: bool) -> None:
    if as_json:
        say_json({"items": [dict(row) for row in rows]})
        return
    for row in rows:
        say("  ".join(f"{name}={value}" for name, value in row.items() if value not in (None, False)))
