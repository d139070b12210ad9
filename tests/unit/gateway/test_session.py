"""Signing in over HTTP, cookies, origins, and the plain pages that work without JavaScript."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from edge_agent.wire.event import Basis, Priority, ViolationRaised
from gateway.api.markup import appearance_of
from gateway.api.words import WORDS
from gateway.domain.access import Role
from gateway.domain.throttle import FREE_FAILURES
from tests.board_rig import BoardRig, board_rig, tell_busy_plant

pytestmark = pytest.mark.thorough

PASSWORD = "correct horse battery"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[BoardRig]:
    async with board_rig(tmp_path) as rig:
        await tell_busy_plant(rig)
        yield rig


@pytest.fixture
async def browser(rig: BoardRig) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that keeps cookies and follows nothing by itself."""
    async with httpx.AsyncClient(base_url=rig.url, timeout=10) as client:
        yield client


async def sign_in(rig: BoardRig, browser: httpx.AsyncClient, role: Role) -> None:
    answer = await browser.post("/api/v1/session", json={"token": rig.token(role)})
    assert answer.status_code == HTTPStatus.OK, answer.text


async def test_a_token_signs_in_and_the_cookie_carries_it(rig: BoardRig, browser: httpx.AsyncClient) -> None:
    await sign_in(rig, browser, Role.MAINTENANCE)
    me = (await browser.get("/api/v1/session")).json()
    assert (me["role"], me["anonymous"], me["time_zone"]) == ("maintenance", False, "Asia/Shanghai")


async def test_name_and_password_sign_in(rig: BoardRig, browser: httpx.AsyncClient) -> None:
    rig.admin.add_user("li-qiang", PASSWORD, Role.SHIFT_MANAGER, 0)
    answer = await browser.post("/api/v1/session", json={"name": "li-qiang", "password": PASSWORD})
    assert answer.json()["name"] == "li-qiang"
    wrong = await browser.post("/api/v1/session", json={"name": "li-qiang", "password": "x" * 12})
    assert wrong.status_code == HTTPStatus.UNAUTHORIZED


async def test_the_cookie_cannot_be_read_by_scripts_nor_sent_by_other_sites(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    answer = await browser.post("/api/v1/session", json={"token": rig.token(Role.VIEWER)})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie


@pytest.mark.parametrize(
    "body", [{}, {"token": "x", "name": "y", "password": "z"}, {"name": "y"}, {"pin": "1"}]
)
async def test_a_sign_in_is_either_a_token_or_name_and_password(
    browser: httpx.AsyncClient, body: dict[str, str]
) -> None:
    answer = await browser.post("/api/v1/session", json=body)
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY


async def test_guessing_is_answered_with_a_pause(rig: BoardRig, browser: httpx.AsyncClient) -> None:
    answers = [
        (await browser.post("/api/v1/session", json={"token": f"gw_{number}"})).status_code
        for number in range(FREE_FAILURES + 2)
    ]
    assert answers[-1] == HTTPStatus.TOO_MANY_REQUESTS
    assert answers[0] == HTTPStatus.UNAUTHORIZED


async def test_signing_out_ends_the_old_cookie_for_good(rig: BoardRig, browser: httpx.AsyncClient) -> None:
    await sign_in(rig, browser, Role.VIEWER)
    old = dict(browser.cookies)
    assert (await browser.delete("/api/v1/session")).status_code == HTTPStatus.NO_CONTENT
    async with httpx.AsyncClient(base_url=rig.url, cookies=old) as thief:
        assert (await thief.get("/api/v1/board")).status_code == HTTPStatus.UNAUTHORIZED


async def test_signing_in_again_ends_the_session_before(rig: BoardRig, browser: httpx.AsyncClient) -> None:
    await sign_in(rig, browser, Role.VIEWER)
    old = dict(browser.cookies)
    await sign_in(rig, browser, Role.MAINTENANCE)
    async with httpx.AsyncClient(base_url=rig.url, cookies=old) as thief:
        assert (await thief.get("/api/v1/board")).status_code == HTTPStatus.UNAUTHORIZED


OWN_PAGE = [{"Sec-Fetch-Site": "same-origin"}, {}]
OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
]


async def test_unsafe_requests_with_a_cookie_must_come_from_our_own_pages(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    await sign_in(rig, browser, Role.MAINTENANCE)
    for headers in OTHER_SITES:
        answer = await browser.post("/api/v1/alarms/1/ack", headers=headers)
        assert answer.status_code == HTTPStatus.FORBIDDEN, headers
        form = await browser.post("/alarms/1/ack", headers=headers)
        assert form.status_code == HTTPStatus.FORBIDDEN, headers
    own = {"Origin": rig.url}
    assert (await browser.post("/api/v1/alarms/1/ack", headers=own)).status_code == HTTPStatus.OK
    for number, headers in enumerate(OWN_PAGE, start=2):
        answer = await browser.post(f"/api/v1/alarms/{number}/ack", headers=headers)
        assert answer.status_code == HTTPStatus.OK, headers


async def test_a_sign_in_from_another_sites_page_is_refused(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    for path in ("/api/v1/session", "/sign-in", "/enter/x"):
        answer = await browser.post(path, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == HTTPStatus.FORBIDDEN, path


async def test_a_bearer_needs_no_origin_because_browsers_do_not_send_it_by_themselves(rig: BoardRig) -> None:
    headers = {"Authorization": f"Bearer {rig.token(Role.MAINTENANCE)}", "Origin": "https://cmms.example"}
    async with httpx.AsyncClient(base_url=rig.url, headers=headers) as client:
        assert (await client.post("/api/v1/alarms/1/ack")).status_code == HTTPStatus.OK


# --- pages -----------------------------------------------------------------------------------------------------------


async def test_a_page_leads_nobody_to_the_sign_in_page_and_back(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    away = await browser.get("/alarms/1")
    assert away.status_code == HTTPStatus.SEE_OTHER
    assert away.headers["location"] == "/sign-in?next=/alarms/1"
    page = await browser.get(away.headers["location"])
    assert 'name="next" value="/alarms/1"' in page.text
    form = {"token": rig.token(Role.VIEWER), "next": "/alarms/1"}
    entered = await browser.post("/sign-in", data=form)
    assert (entered.status_code, entered.headers["location"]) == (HTTPStatus.SEE_OTHER, "/alarms/1")
    assert (await browser.get("/alarms/1")).status_code == HTTPStatus.OK


async def test_a_wrong_sign_in_by_form_says_so_on_the_page(browser: httpx.AsyncClient) -> None:
    page = await browser.post("/sign-in", data={"name": "x", "password": "y"})
    assert page.status_code == HTTPStatus.UNAUTHORIZED
    assert WORDS["en"].text("page.wrong") in page.text


async def test_the_root_leads_to_the_board(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/")
    assert answer.headers["location"] == "/board"


async def test_opening_a_one_time_link_spends_nothing_and_pressing_its_button_does(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    code = rig.admin.create_link("demo", Role.SHIFT_MANAGER, rig.clock.utc_ms())
    for agent in ("facebookexternalhit/1.1", "Slackbot-LinkExpanding 1.0", "DingTalkBot", "MicroMessenger"):
        preview = await browser.get(f"/enter/{code}", headers={"User-Agent": agent})
        assert preview.status_code == HTTPStatus.OK
        assert "set-cookie" not in preview.headers
    entered = await browser.post(f"/enter/{code}")
    assert entered.headers["location"] == "/board"
    assert (await browser.get("/api/v1/session")).json()["role"] == "shift_manager"
    again = await browser.post(f"/enter/{code}")
    assert again.status_code == HTTPStatus.UNAUTHORIZED
    assert WORDS["en"].text("page.link_wrong") in again.text


async def test_an_alarm_page_shows_state_place_and_since_and_no_script(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    await sign_in(rig, browser, Role.MAINTENANCE)
    page = (await browser.get("/a/1")).text
    for text in (
        "Guard open while running",
        "Mixer 18",
        "Manhole door",
        "active, unacknowledged",
        "OPEN·RUN",
    ):
        assert text in page
    assert "<script" not in page
    assert 'action="/alarms/1/ack"' in page


async def test_looking_at_an_alarm_never_acknowledges_it(rig: BoardRig, browser: httpx.AsyncClient) -> None:
    await sign_in(rig, browser, Role.ADMIN)
    for method in ("GET", "HEAD"):
        for path in ("/a/1", "/alarms/1", "/alarms/1/ack"):
            await browser.request(method, path)
    assert (await browser.get("/api/v1/alarms/1")).json()["letter"] == "B"


async def test_an_alarm_is_acknowledged_by_form_and_the_second_is_told_who_was_first(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    await sign_in(rig, browser, Role.MAINTENANCE)
    done = await browser.post("/alarms/1/ack", data={"note": "looking <b>now</b>"})
    assert WORDS["en"].text("alarm.thanks") in done.text
    assert "looking &lt;b&gt;now&lt;/b&gt;" in done.text
    late = await browser.post("/alarms/1/ack", data={})
    assert "Already acknowledged by maintenance-" in late.text
    assert "<form" not in late.text


async def test_a_viewer_is_offered_no_button(rig: BoardRig, browser: httpx.AsyncClient) -> None:
    await sign_in(rig, browser, Role.VIEWER)
    page = (await browser.get("/alarms/1")).text
    assert 'action="/alarms/1/ack"' not in page
    assert (await browser.post("/alarms/1/ack")).status_code == HTTPStatus.FORBIDDEN


async def test_the_language_of_a_page_is_chosen_in_its_address_and_remembered(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    await sign_in(rig, browser, Role.VIEWER)
    page = await browser.get("/alarms/1?lang=zh")
    assert '<html lang="zh-CN">' in page.text
    assert "18号混砂机" in page.text
    assert "防护打开且设备运行" in (await browser.get("/alarms/1")).text
    assert '<html lang="en">' in (await browser.get("/alarms/1?lang=en")).text


async def test_every_page_carries_the_disclaimer_in_both_languages(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    await sign_in(rig, browser, Role.VIEWER)
    for path in ("/board", "/alarms/1", "/sign-in", "/enter/x"):
        page = (await browser.get(path)).text
        assert all(words.text("disclaimer") in page for words in WORDS.values()), path


async def test_the_theme_that_was_chosen_comes_with_the_page(browser: httpx.AsyncClient) -> None:
    for theme, media in (("dark", "all"), ("light", "not all"), ("auto", "(prefers-color-scheme: dark)")):
        page = await browser.get("/sign-in", headers={"Cookie": f"guardwatch_theme={theme}"})
        assert f'href="/static/dark.css" media="{media}"' in page.text


# --- words -----------------------------------------------------------------------------------------------------------


def catalogue(language: str) -> dict[str, str]:
    text = (files("gateway.api") / "board" / "words" / f"{language}.json").read_text("utf-8")
    found: dict[str, str] = json.loads(text)
    return found


def test_both_languages_have_the_same_texts_with_the_same_blanks() -> None:
    zh, en = catalogue("zh"), catalogue("en")
    assert zh.keys() == en.keys()
    blanks = re.compile(r"\{(\w+)\}")
    for key in zh:
        assert set(blanks.findall(zh[key])) == set(blanks.findall(en[key])), key
        assert zh[key].strip()
        assert en[key].strip()


def test_every_text_that_the_board_asks_for_is_there() -> None:
    folder = files("gateway.api") / "board"
    sources = [item.read_text("utf-8") for item in folder.iterdir() if item.name.endswith(".js")]
    asked = {key for source in sources for key in re.findall(r'\bt\("([\w.]+)"', source)}
    assert len(asked) > 40
    assert asked <= catalogue("en").keys()


def test_the_word_safe_is_never_a_state() -> None:
    states = ("state.", "door.", "lock.", "key.", "curtain.", "mat.", "cord.", "estop.", "hands.")
    for language in ("zh", "en"):
        words = [text for key, text in catalogue(language).items() if key.startswith(states)]
        assert not [text for text in words if "safe" in text.lower() or "安全" in text]


def test_state_words_fit_their_tiles() -> None:
    states = ("door.", "lock.", "key.", "curtain.", "mat.", "cord.", "estop.", "hands.")
    for key, text in catalogue("zh").items():
        assert not key.startswith(states) or len(text) <= 5, key
    for key, text in catalogue("en").items():
        assert not key.startswith(states) or len(text) <= 14, key


@pytest.mark.parametrize(
    ("guard", "moving", "look", "word"),
    [
        ({"kind": "interlocked_door", "state": "open", "locked": None, "priority": None}, True, "violation", "door.open_run"),
        ({"kind": "interlocked_door", "state": "open", "locked": None, "priority": None}, None, "open", "door.open_unknown"),
        ({"kind": "locked_door", "state": "closed", "locked": False, "priority": None}, False, "open", "lock.unlocked_stop"),
        ({"kind": "estop", "state": "closed", "locked": None, "priority": None}, True, "closed", "estop.closed"),
        ({"kind": "light_curtain", "state": "unknown", "locked": None, "priority": "P1"}, True, "unknown", "state.unknown"),
    ],
)  # fmt: skip
def test_a_guard_has_the_words_of_its_kind(
    guard: dict[str, str | bool | None], moving: bool | None, look: str, word: str
) -> None:
    assert appearance_of(guard, moving) == (look, word)
    assert word in catalogue("zh")


def test_the_vendored_bundle_is_the_one_that_was_made() -> None:
    for folder in (Path(str(files("gateway.api"))) / "board" / "vendor", Path("tests/browser/vendor")):
        for line in (folder / "SHA256SUMS").read_text().splitlines():
            digest, name = line.split()
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


async def test_an_alarm_since_a_time_that_no_local_clock_can_show_has_its_page(
    rig: BoardRig, browser: httpx.AsyncClient
) -> None:
    """An agent's clock may say anything; the end of the last year is a year later east of Greenwich."""
    place = ("mixer-18", "door-1", None, "guard_open_motion", Priority.P1, Basis.PROVEN)
    await rig.say(ViolationRaised(*place, "occ-far", "9999-12-31T23:59:59Z", None, {"grade": "B"}))
    headers = {"Authorization": f"Bearer {rig.token(Role.VIEWER)}"}
    listed = (await browser.get("/api/v1/alarms?limit=1", headers=headers)).json()["items"]
    page = await browser.get(f"/alarms/{listed[0]['id']}", headers=headers)
    assert page.status_code == HTTPStatus.OK
    assert "9999-12-31T23:59:59.000Z" in page.text
