"""Users, tokens, one-time links, sessions: on the real database, with a clock that the test moves."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select

from gateway.adapters.accounts_admin import LINK_LIFETIME_MS, AccountAdmin, AccountError
from gateway.adapters.accounts_sql import (
    HASHING_MAX,
    REFUSED_KEPT,
    SESSION_IDLE_MS,
    SESSION_MAX_MS,
    SqlAccounts,
)
from gateway.adapters.accounts_tables import AUDIT, LINKS, SESSIONS, TOKENS, USERS, open_accounts
from gateway.domain.access import Principal, Refusal, Role, SignedIn, Via
from gateway.domain.throttle import FREE_FAILURES, KEYS_MAX, PAUSE_MAX_MS, PAUSE_MIN_MS, Throttle

PASSWORD = "correct horse battery"


class HandClock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def utc_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms


class Rig:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = HandClock()
        self.admin = AccountAdmin(engine, "cli:test")
        self.accounts = SqlAccounts(engine, self.clock)

    def acts(self) -> list[str]:
        with self.engine.begin() as connection:
            return [row.act for row in connection.execute(select(AUDIT).order_by(AUDIT.c.id))]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A journal's URL: accounts lie beside a file, and in a server's database."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/gateway.db"


@pytest.fixture
def rig(url: str) -> Iterator[Rig]:
    """An empty accounts database."""
    engine = open_accounts(url)
    yield Rig(engine)
    engine.dispose()


def entered(outcome: SignedIn | Refusal) -> SignedIn:
    assert isinstance(outcome, SignedIn)
    return outcome


async def test_a_user_signs_in_with_the_right_password(rig: Rig) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.SHIFT_MANAGER, rig.clock.now_ms)
    signed_in = entered(await rig.accounts.sign_in_with_password("li-qiang", PASSWORD, "10.0.0.1"))
    assert await rig.accounts.session(signed_in.secret) == Principal(
        "li-qiang", Role.SHIFT_MANAGER, Via.SESSION
    )


async def test_a_strangers_guesses_do_not_fill_the_disk_with_refusals(rig: Rig) -> None:
    rows = [(1, "sign_in"), (2, "sign_in_refused"), (3, "sign_in_refused"), (REFUSED_KEPT + 2, "sign_in")]
    with rig.engine.begin() as connection:
        for number, act in rows:
            values = {"id": number, "at_ms": 0, "who": "x", "act": act, "detail": ""}
            connection.execute(insert(AUDIT), values)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER SEQUENCE access_audit_id_seq RESTART WITH {REFUSED_KEPT + 3}")
    assert await rig.accounts.sign_in_with_password("nobody", PASSWORD, "10.0.0.1") is Refusal.WRONG
    assert rig.acts() == ["sign_in", "sign_in", "sign_in_refused"]


async def test_guesses_that_come_all_at_once_are_paused_like_those_one_after_the_other(rig: Rig) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.VIEWER, rig.clock.now_ms)
    guesses = [rig.accounts.sign_in_with_password("li-qiang", f"guess {n}", "10.0.0.1") for n in range(20)]
    outcomes = await asyncio.gather(*guesses)
    assert outcomes.count(Refusal.WRONG) <= FREE_FAILURES + HASHING_MAX


@pytest.mark.parametrize(
    ("name", "password"), [("li-qiang", "wrong password"), ("nobody", PASSWORD), ("", "")]
)
async def test_wrong_password_and_unknown_name_are_told_no_difference(
    rig: Rig, name: str, password: str
) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.VIEWER, rig.clock.now_ms)
    assert await rig.accounts.sign_in_with_password(name, password, "10.0.0.1") is Refusal.WRONG
    assert rig.acts()[-1] == "sign_in_refused"


@pytest.mark.thorough
async def test_guessing_is_paused_per_account_and_address(rig: Rig) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.VIEWER, rig.clock.now_ms)
    for _ in range(FREE_FAILURES + 1):
        assert await rig.accounts.sign_in_with_password("li-qiang", "x" * 12, "10.0.0.1") is Refusal.WRONG
    assert await rig.accounts.sign_in_with_password("li-qiang", PASSWORD, "10.0.0.1") is Refusal.THROTTLED
    entered(await rig.accounts.sign_in_with_password("li-qiang", PASSWORD, "10.0.0.2"))
    rig.clock.now_ms += PAUSE_MIN_MS
    entered(await rig.accounts.sign_in_with_password("li-qiang", PASSWORD, "10.0.0.1"))


async def test_a_disabled_user_cannot_sign_in_and_their_sessions_are_over(rig: Rig) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.VIEWER, rig.clock.now_ms)
    signed_in = entered(await rig.accounts.sign_in_with_password("li-qiang", PASSWORD, "a"))
    rig.admin.disable_user("li-qiang", rig.clock.now_ms)
    assert await rig.accounts.session(signed_in.secret) is None
    assert await rig.accounts.sign_in_with_password("li-qiang", PASSWORD, "a") is Refusal.WRONG


async def test_a_token_is_a_bearer_and_signs_in_until_it_is_revoked(rig: Rig) -> None:
    token = rig.admin.create_token("wall-1", Role.MAINTENANCE, rig.clock.now_ms)
    assert token.startswith("gw_")
    assert await rig.accounts.bearer(token) == Principal("wall-1", Role.MAINTENANCE, Via.TOKEN)
    signed_in = entered(await rig.accounts.sign_in_with_token(token, "a"))
    assert await rig.accounts.session(signed_in.secret) == Principal("wall-1", Role.MAINTENANCE, Via.SESSION)
    rig.admin.revoke_token("wall-1", rig.clock.now_ms)
    assert await rig.accounts.bearer(token) is None
    assert await rig.accounts.session(signed_in.secret) is None
    assert await rig.accounts.sign_in_with_token(token, "a") is Refusal.WRONG


async def test_a_link_signs_in_once(rig: Rig) -> None:
    code = rig.admin.create_link("demo", Role.SHIFT_MANAGER, rig.clock.now_ms)
    signed_in = entered(await rig.accounts.sign_in_with_link(code, "a"))
    assert signed_in.principal == Principal("demo", Role.SHIFT_MANAGER, Via.SESSION)
    assert await rig.accounts.sign_in_with_link(code, "a") is Refusal.WRONG


async def test_a_link_that_nobody_used_in_a_day_is_void(rig: Rig) -> None:
    code = rig.admin.create_link("demo", Role.VIEWER, rig.clock.now_ms)
    rig.clock.now_ms += LINK_LIFETIME_MS
    assert await rig.accounts.sign_in_with_link(code, "a") is Refusal.WRONG


async def test_signing_out_ends_the_session_on_the_server(rig: Rig) -> None:
    token = rig.admin.create_token("wall-1", Role.VIEWER, rig.clock.now_ms)
    signed_in = entered(await rig.accounts.sign_in_with_token(token, "a"))
    await rig.accounts.sign_out(signed_in.secret)
    assert await rig.accounts.session(signed_in.secret) is None
    assert rig.acts()[-1] == "sign_out"


async def test_a_session_ends_when_nobody_used_it_for_a_shift(rig: Rig) -> None:
    token = rig.admin.create_token("wall-1", Role.VIEWER, rig.clock.now_ms)
    signed_in = entered(await rig.accounts.sign_in_with_token(token, "a"))
    rig.clock.now_ms += SESSION_IDLE_MS - 1
    assert await rig.accounts.session(signed_in.secret) is not None
    rig.clock.now_ms += SESSION_IDLE_MS - 1  # the use before counted
    assert await rig.accounts.session(signed_in.secret) is not None
    rig.clock.now_ms += SESSION_IDLE_MS + 1
    assert await rig.accounts.session(signed_in.secret) is None


async def test_every_session_ends_after_a_week_however_much_it_is_used(rig: Rig) -> None:
    token = rig.admin.create_token("wall-1", Role.VIEWER, rig.clock.now_ms)
    signed_in = entered(await rig.accounts.sign_in_with_token(token, "a"))
    began_ms = rig.clock.now_ms
    while rig.clock.now_ms - began_ms <= SESSION_MAX_MS - SESSION_IDLE_MS:
        rig.clock.now_ms += SESSION_IDLE_MS // 2
        assert await rig.accounts.session(signed_in.secret) is not None
    rig.clock.now_ms = began_ms + SESSION_MAX_MS + 1
    assert await rig.accounts.session(signed_in.secret) is None


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_no_secret_lies_readable_in_the_database(rig: Rig, tmp_path: Path) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.VIEWER, rig.clock.now_ms)
    token = rig.admin.create_token("wall-1", Role.VIEWER, rig.clock.now_ms)
    code = rig.admin.create_link("demo", Role.VIEWER, rig.clock.now_ms)
    secret = entered(await rig.accounts.sign_in_with_token(token, "a")).secret
    content = (tmp_path / "accounts.db").read_bytes()
    assert not [text for text in (PASSWORD, token, code, secret) if text.encode() in content]
    assert (tmp_path / "accounts.db").stat().st_mode & 0o077 == 0


async def test_every_act_leaves_one_audit_row(rig: Rig) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.VIEWER, rig.clock.now_ms)
    token = rig.admin.create_token("wall-1", Role.VIEWER, rig.clock.now_ms)
    secret = entered(await rig.accounts.sign_in_with_token(token, "a")).secret
    await rig.accounts.sign_out(secret)
    rig.admin.revoke_token("wall-1", rig.clock.now_ms)
    rig.admin.create_link("demo", Role.VIEWER, rig.clock.now_ms)
    rig.admin.disable_user("li-qiang", rig.clock.now_ms)
    assert rig.acts() == [
        "user_add viewer",
        "token_create viewer",
        "sign_in",
        "sign_out",
        "token_revoke",
        "link_create",
        "user_disable",
    ]


async def test_control_characters_of_a_name_do_not_reach_the_audit(rig: Rig) -> None:
    await rig.accounts.sign_in_with_password("x\n\x1b[31mroot", "y", "a")
    with rig.engine.begin() as connection:
        who = connection.execute(select(AUDIT.c.who)).scalar_one()
    assert who.isprintable()


@pytest.mark.parametrize("name", ["", " x", "-x", "x" * 65, "a\nb", "=cmd"])
def test_strange_names_are_refused(rig: Rig, name: str) -> None:
    with pytest.raises(AccountError, match="is no name"):
        rig.admin.create_token(name, Role.VIEWER, 0)


def test_a_short_password_is_refused(rig: Rig) -> None:
    with pytest.raises(AccountError, match="12 to 256 characters"):
        rig.admin.add_user("li-qiang", "short", Role.VIEWER, 0)


def test_a_name_is_never_given_twice(rig: Rig) -> None:
    rig.admin.create_token("wall-1", Role.VIEWER, 0)
    rig.admin.revoke_token("wall-1", 1)
    with pytest.raises(AccountError, match="is taken"):
        rig.admin.create_token("wall-1", Role.VIEWER, 2)


def test_ending_what_does_not_exist_is_said(rig: Rig) -> None:
    with pytest.raises(AccountError, match="no user"):
        rig.admin.disable_user("nobody", 0)
    with pytest.raises(AccountError, match="no token"):
        rig.admin.revoke_token("nothing", 0)


def test_lists_show_no_secrets(rig: Rig) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.ADMIN, 0)
    token = rig.admin.create_token("wall-1", Role.VIEWER, 0)
    assert rig.admin.users()[0].keys() == {"name", "role", "created_at", "disabled"}
    assert token not in repr(rig.admin.tokens())


async def test_two_processes_may_write_at_once(rig: Rig, url: str) -> None:
    beside = open_accounts(url)
    other = AccountAdmin(beside, "cli:other")
    for number in range(10):
        rig.admin.create_token(f"a{number}", Role.VIEWER, 0)
        other.create_token(f"b{number}", Role.VIEWER, 0)
    with rig.engine.begin() as connection:
        assert connection.execute(select(func.count()).select_from(TOKENS)).scalar_one() == 20
    beside.dispose()


async def test_sessions_that_are_over_are_swept_at_the_next_sign_in(rig: Rig) -> None:
    token = rig.admin.create_token("wall-1", Role.VIEWER, rig.clock.now_ms)
    await rig.accounts.sign_in_with_token(token, "a")
    rig.clock.now_ms += SESSION_MAX_MS + 1
    await rig.accounts.sign_in_with_token(token, "a")
    with rig.engine.begin() as connection:
        counts = [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (SESSIONS, USERS, LINKS)
        ]
    assert counts == [1, 0, 0]


def test_pauses_double_up_to_five_minutes_and_success_forgets() -> None:
    throttle, now = Throttle(), 0
    pauses = []
    for _ in range(FREE_FAILURES + 12):
        throttle.note_failure("k", now)
        start = now
        while not throttle.may_try("k", now):
            now += 500
        pauses.append(now - start)
    assert pauses[: FREE_FAILURES + 3] == [0] * FREE_FAILURES + [1000, 2000, 4000]
    assert max(pauses) == pauses[-1] == PAUSE_MAX_MS
    throttle.note_success("k")
    throttle.note_failure("k", now)
    assert throttle.may_try("k", now)


def test_the_memory_for_failures_is_bounded() -> None:
    throttle = Throttle()
    for number in range(KEYS_MAX + 5):
        throttle.note_failure(f"k{number}", 0)
    assert len(throttle._failures) == KEYS_MAX
