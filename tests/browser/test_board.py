"""The board in real Chromium: live, cut off, partly blind, empty; two languages, two themes, three screens."""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from playwright.async_api import Page, Route, expect

from edge_agent.wire.event import GuardState, MachineChanged, Priority
from edge_agent.wire.status import AgentModel, GuardModel, MachineModel
from edge_agent.wire.structure import plain
from gateway.api.markup import appearance_of
from gateway.domain.access import Role
from gateway.domain.journal import AgentModelled, EntryBody, MachineModelled
from tests.board_rig import AGENT, SITE, BoardRig, board_rig, tell_busy_plant, tell_quiet_plant
from tests.browser.conftest import OpenPage
from tests.server_process import free_port

pytestmark = pytest.mark.browser

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
DISCONNECTED_MS = 6_000
"""The promise: five seconds after the last tick, and one for the watch."""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[BoardRig]:
    """A gateway that lets anyone read."""
    async with board_rig(tmp_path, Role.VIEWER) as rig:
        yield rig


async def sign_in(page: Page, rig: BoardRig, role: Role) -> None:
    await page.goto(f"{rig.url}/sign-in")
    await page.locator('input[name="token"]').fill(rig.token(role))
    await page.locator('form:has(input[name="token"]) button').click()
    await live(page)


async def live(page: Page) -> None:
    await expect(page.locator('[data-link="live"]')).to_be_visible()


def tile(page: Page, guard: str, machine: str = "mixer-18"):  # type: ignore[no-untyped-def]
    return page.locator(f'[data-guard="{SITE}/{machine}/{guard}"]')


async def looks(page: Page) -> dict[str, str]:
    """Each tile's look."""
    found = await page.eval_on_selector_all(
        ".guard", "tiles => tiles.map(tile => [tile.dataset.guard, tile.dataset.look])"
    )
    return dict(found)


# --- live ------------------------------------------------------------------------------------------------------------


async def test_a_change_appears_without_reloading(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_quiet_plant(rig)
    page = await open_page(f"{rig.url}/board")
    await live(page)
    await expect(tile(page, "door-1")).to_contain_text("closed")
    await rig.change("mixer-18", "door-1", GuardState.OPEN)
    await expect(tile(page, "door-1")).to_contain_text("OPEN·RUN")
    await expect(tile(page, "door-1")).to_have_attribute("data-look", "violation")
    await rig.say(MachineChanged("mixer-18", False, "auto", True))
    await expect(tile(page, "door-1")).to_contain_text("open·stop")


async def test_every_state_has_its_own_look_word_and_icon(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/board")
    await live(page)
    await expect(tile(page, "door-1")).to_have_attribute("data-look", "violation")
    found = await looks(page)
    assert set(found.values()) == {"closed", "open", "violation", "bypass", "fault", "unknown"}
    await expect(tile(page, "estop")).to_contain_text("not pressed")
    await expect(tile(page, "curtain", "palletiser-03")).to_contain_text("BYPASSED")
    icons = await page.eval_on_selector_all(
        ".guard", "tiles => tiles.map(t => [t.dataset.look, t.querySelector('.icon').className])"
    )
    by_look: dict[str, set[str]] = {}
    for look, icon in icons:
        by_look.setdefault(look, set()).add(icon)
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(by_look.values(), 2))


async def test_tiles_keep_their_places_whatever_happens(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_quiet_plant(rig)
    page = await open_page(f"{rig.url}/board")
    await live(page)
    places = "tiles => tiles.map(t => t.dataset.guard)"
    before = await page.eval_on_selector_all(".guard", places)
    for state in (GuardState.OPEN, GuardState.FAULT, GuardState.BYPASSED, GuardState.UNKNOWN):
        await rig.change("belt-11", "cover", state)
        await rig.raise_violation("crusher-02", "door-2", "guard_left_open", Priority.P4)
    await expect(tile(page, "cover", "belt-11")).to_have_attribute("data-look", "unknown")
    assert await page.eval_on_selector_all(".guard", places) == before


async def test_a_machine_that_is_new_appears(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_quiet_plant(rig)
    page = await open_page(f"{rig.url}/board")
    await live(page)
    await rig.change("crane-01", "gate", GuardState.OPEN)
    await expect(tile(page, "gate", "crane-01")).to_be_visible()


# --- cut off, blind, empty -------------------------------------------------------------------------------------------


@asynccontextmanager
async def served_elsewhere(folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The busy plant, served by a process that can be stopped or killed."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.board_rig", str(folder), str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    try:
        yield url, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_board_cut_off_shows_nothing_as_a_state(
    tmp_path: Path, open_page: OpenPage, how: signal.Signals
) -> None:
    async with served_elsewhere(tmp_path) as (url, process):
        page = await open_page(f"{url}/board", tolerate="Failed to load resource")
        await live(page)
        await expect(tile(page, "door-2")).to_contain_text("closed")
        os.kill(process.pid, how)
        await expect(page.locator('[data-link="disconnected"]')).to_be_visible(timeout=DISCONNECTED_MS)
        assert set((await looks(page)).values()) == {"unknown"}
        words = await page.eval_on_selector_all(".guard .word", "all => all.map(word => word.textContent)")
        assert words
        assert all(word.startswith("? last ") and word[-8:].count(":") == 2 for word in words)
        assert not await page.locator(".motion-run, .motion-stop").count()
        await expect(page.locator(".band")).to_contain_text("history")
        assert "disconnected" in await page.title()
        assert "favicon-off" in str(await page.locator("#favicon").get_attribute("href"))


async def test_a_board_that_is_reached_again_is_fetched_whole_before_it_is_live(
    tmp_path: Path, open_page: OpenPage
) -> None:
    async with served_elsewhere(tmp_path) as (url, process):
        page = await open_page(f"{url}/board", tolerate="Failed to load resource")
        await live(page)
        os.kill(process.pid, signal.SIGSTOP)
        await expect(page.locator('[data-link="disconnected"]')).to_be_visible(timeout=DISCONNECTED_MS)
        async with page.expect_response(lambda response: response.url.endswith("/api/v1/board")):
            os.kill(process.pid, signal.SIGCONT)
        await live(page)
        await expect(tile(page, "door-2")).to_contain_text("closed")
        await expect(page.locator(".band")).to_have_count(0)


async def test_acknowledging_is_impossible_while_cut_off(tmp_path: Path, open_page: OpenPage) -> None:
    async with board_rig(tmp_path, Role.VIEWER) as rig:
        await tell_busy_plant(rig)
        page = await open_page(f"{rig.url}/board", tolerate="Failed to load resource")
        await sign_in(page, rig, Role.MAINTENANCE)
        button = page.locator("[data-alarm] button").first
        await expect(button).to_be_enabled()
        await page.context.set_offline(offline=True)
        rig.live.close()
        await expect(page.locator('[data-link="disconnected"]')).to_be_visible(timeout=DISCONNECTED_MS)
        await expect(button).to_be_disabled()


async def test_a_lost_agent_blinds_its_own_tiles_and_says_so_on_top(
    rig: BoardRig, open_page: OpenPage
) -> None:
    await tell_quiet_plant(rig)
    page = await open_page(f"{rig.url}/board")
    await live(page)
    await rig.presence(online=False)
    await expect(page.locator(".blind")).to_contain_text("14 guards unknown")
    assert set((await looks(page)).values()) == {"unknown"}
    await expect(tile(page, "door-1")).to_contain_text("? last closed")
    await rig.presence(online=True)
    await expect(page.locator(".blind")).to_have_count(0)
    await expect(tile(page, "door-1")).to_have_attribute("data-look", "closed")


async def test_an_empty_board_says_why_and_what_to_do(rig: BoardRig, open_page: OpenPage) -> None:
    page = await open_page(f"{rig.url}/board")
    await live(page)
    await expect(page.locator(".empty")).to_contain_text("guardwatch-agent run")
    await expect(page.locator("#alarms")).to_contain_text("No unacknowledged alarms (as of ")


# --- acting ----------------------------------------------------------------------------------------------------------


async def test_an_alarm_is_acknowledged_with_one_press(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/board")
    await expect(page.locator('[data-alarm="1"]')).to_contain_text("Sign in to acknowledge")
    await sign_in(page, rig, Role.MAINTENANCE)
    await page.locator('[data-alarm="1"] button').click()
    await expect(page.locator('[data-alarm="1"]')).to_contain_text("Acknowledged")
    await expect(page.locator("#alarms-head")).to_contain_text("(2)")
    alarm = rig.alarms.alarm(1)
    assert alarm is not None
    assert alarm.letter == "C"


async def test_who_comes_second_is_told_who_was_first(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/board", tolerate="409")
    await sign_in(page, rig, Role.MAINTENANCE)
    first = await rig.accounts.bearer(rig.token(Role.SHIFT_MANAGER))
    assert first is not None

    async def somebody_is_faster(route: Route) -> None:
        await rig.context(None).operate.acknowledge(1, first)
        await route.continue_()

    await page.route("**/api/v1/alarms/1/ack", somebody_is_faster)
    await page.locator('[data-alarm="1"] button').click()
    done = page.locator('[data-alarm="1"] .done')
    await expect(done).to_contain_text(f"already acknowledged by {first.name}")


async def test_the_keyboard_alone_finds_and_acknowledges_a_p1(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/board")
    await sign_in(page, rig, Role.MAINTENANCE)
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(tile(page, "door-1")).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await expect(tile(page, "door-2")).to_be_focused()
    await page.locator('[data-alarm="1"] button').focus()
    await page.keyboard.press("Enter")
    await expect(page.locator('[data-alarm="1"]')).to_contain_text("Acknowledged")


async def test_an_alarm_page_works_without_javascript(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/sign-in?next=/a/1", script=False, width=390, height=844)
    await page.locator('input[name="token"]').fill(rig.token(Role.MAINTENANCE))
    await page.locator('form:has(input[name="token"]) button').click()
    button = page.locator("button.own")
    box = await button.bounding_box()
    assert box is not None
    assert box["height"] >= 56
    assert box["y"] + box["height"] <= 844
    await button.click()
    await expect(page.locator(".done")).to_contain_text("recorded")


# --- languages, themes, screens --------------------------------------------------------------------------------------


async def test_language_and_theme_are_switched_at_once_and_remembered(
    rig: BoardRig, open_page: OpenPage
) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/board")
    await live(page)
    await page.locator("[data-language]").click()
    await expect(tile(page, "door-1")).to_contain_text("打开·运行")
    assert await page.locator("html").get_attribute("lang") == "zh-CN"
    await page.locator("[data-theme]").click()
    await expect(page.locator("[data-theme]")).to_have_attribute("data-theme", "dark")
    assert await page.locator("#dark").get_attribute("media") == "all"
    await page.reload()
    await expect(tile(page, "door-1")).to_contain_text("打开·运行")
    assert await page.locator("#dark").get_attribute("media") == "all"


async def violations_of(page: Page) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA and its best practices."""
    # as a file of the page's own origin would be, without weakening the page's policy
    await page.evaluate(AXE.read_text("utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found, passed = await page.evaluate(
        "tags => axe.run(document, {runOnly: tags}).then(r => [JSON.stringify(r.violations), r.passes.length])",
        tags,
    )
    assert passed > 10  # it did look
    return [
        f"{item['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
        for item in json.loads(found)
        for node in item["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_barrier_is_found_on_any_page(rig: BoardRig, open_page: OpenPage, theme: str) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/board", theme=theme)
    await live(page)
    await expect(tile(page, "door-1")).to_be_visible()
    assert await violations_of(page) == []
    for path in ("/sign-in", "/alarms/1", "/enter/code"):
        await page.goto(f"{rig.url}{path}")
        assert await violations_of(page) == [], path


async def test_no_barrier_is_found_on_a_board_cut_off(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/board", tolerate="Failed to load resource")
    await live(page)
    await page.context.set_offline(offline=True)
    rig.live.close()
    await expect(page.locator('[data-link="disconnected"]')).to_be_visible(timeout=DISCONNECTED_MS)
    assert await violations_of(page) == []


async def test_nothing_is_cut_off_or_scrolls_sideways(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_busy_plant(rig)
    clipped = """() => [...document.querySelectorAll('.guard, .word, .name, h4, .motion, .strip li, .top')]
        .filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
        .map(e => e.className + ' ' + e.textContent)"""
    for language, width in itertools.product(("zh", "en"), (320, 390, 1366, 1920)):
        page = await open_page(f"{rig.url}/board", language=language, width=width)
        await live(page)
        await expect(tile(page, "door-1")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (language, width)
        assert await page.evaluate(clipped) == [], (language, width)
        await page.close()


async def test_targets_on_a_phone_are_large_enough_for_gloves(rig: BoardRig, open_page: OpenPage) -> None:
    await tell_busy_plant(rig)
    page = await open_page(f"{rig.url}/board", width=390, height=844)
    await sign_in(page, rig, Role.MAINTENANCE)
    sizes = await page.eval_on_selector_all(
        "button:visible, .button:visible",
        "all => all.map(b => [b.className, b.getBoundingClientRect().height])",
    )
    assert len(sizes) > 6
    assert [item for item in sizes if item[1] < 48] == []
    assert [item for item in sizes if "primary" in item[0] and item[1] < 56] == []


# --- at size ---------------------------------------------------------------------------------------------------------


def large_plant(machines: int, guards: int) -> list[EntryBody]:
    names = [f"machine-{number}" for number in range(machines)]
    labels = {"zh": "机", "en": "Machine"}
    agent = AgentModel(AGENT, "e", "1", labels, None, {}, tuple(names), ("plc1",), "c", "k")
    bodies: list[EntryBody] = [AgentModelled(SITE, AGENT, cast("dict", plain(agent)))]  # type: ignore[type-arg]
    for order, name in enumerate(names):
        doors = {
            f"door-{number}": GuardModel(labels, "interlocked_door", 2000, ("plc1",), {}, {})
            for number in range(guards)
        }
        model = MachineModel(name, labels, None, "mixer", order, doors, {}, {}, {}, "e")
        bodies.append(MachineModelled(SITE, AGENT, name, cast("dict", plain(model))))  # type: ignore[type-arg]
    return bodies


async def test_a_thousand_guards_changing_at_once_all_arrive_and_ticks_repaint_none(
    rig: BoardRig, open_page: OpenPage
) -> None:
    await rig.append(*large_plant(100, 10))
    await rig.presence(online=True)
    page = await open_page(f"{rig.url}/board", width=1920, height=1080)
    await live(page)
    await expect(page.locator(".guard")).to_have_count(1000)
    for machine in range(100):
        for door in range(10):
            await rig.change(f"machine-{machine}", f"door-{door}", GuardState.OPEN)
    await expect(page.locator('.guard[data-look="open"]')).to_have_count(1000, timeout=30_000)
    await page.evaluate(
        """() => { window.painted = 0; new MutationObserver(all => { window.painted += all.length; })
             .observe(document.querySelector('.site'), {subtree: true, childList: true, characterData: true,
               attributes: true, attributeFilter: ['data-look', 'title']}); }"""
    )
    before = await page.locator("time").inner_text()
    await expect(page.locator("time")).not_to_have_text(before)
    assert await page.evaluate("window.painted") == 0


async def test_the_board_and_the_plain_pages_speak_of_guards_alike(
    rig: BoardRig, open_page: OpenPage
) -> None:
    page = await open_page(f"{rig.url}/board")
    await live(page)
    kinds = (
        "interlocked_door",
        "locked_door",
        "trapped_key",
        "light_curtain",
        "safety_mat",
        "pull_cord",
        "estop",
        "two_hand",
    )
    cases = [
        ({"kind": kind, "state": state.value, "locked": locked, "priority": priority}, moving)
        for kind, state, locked, priority, moving in itertools.product(
            kinds, GuardState, (True, False, None), ("P1", None), (True, False, None)
        )
    ]
    found = await page.evaluate(
        """cases => import('/static/display.js').then(({lookOf}) =>
             cases.map(([guard, moving]) => { const {look, word} = lookOf(guard, moving); return [look, word]; }))""",
        cases,
    )
    expected = [list(appearance_of(guard, moving)) for guard, moving in cases]
    assert found == expected
