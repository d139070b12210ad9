"""Real Chromium, and a page that fails its test when it complains."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from simulators.servers import find_chromium
from tests.server_process import require

OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A browser of the test's own."""
    binary = require(find_chromium(), "chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(binary.path),
            args=["--no-sandbox"],
            env={**binary.environment()},
        )
        yield browser
        await browser.close()


@pytest.fixture
async def open_page(chromium: Browser) -> AsyncIterator[OpenPage]:
    """Opens a page with cookies and a viewport; what it logs as an error fails the test at its end."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    async def open_it(
        url: str,
        *,
        language: str = "en",
        theme: str = "light",
        width: int = 1366,
        height: int = 768,
        script: bool = True,
        tolerate: str = "",
    ) -> Page:
        context = await chromium.new_context(
            viewport={"width": width, "height": height}, java_script_enabled=script
        )
        contexts.append(context)
        base = "/".join(url.split("/")[:3])
        await context.add_cookies(
            [
                {"name": "guardwatch_language", "value": language, "url": base},
                {"name": "guardwatch_theme", "value": theme, "url": base},
            ]
        )
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda line: (
                complaints.append(line.text)
                if line.type == "error" and not (tolerate and tolerate in line.text)
                else None
            ),
        )
        await page.goto(url)
        return page

    yield open_it
    for context in contexts:
        await context.close()
    await asyncio.sleep(0)
    assert complaints == []
