"""The one way to make a link of a URL, for every verb that reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from edge_agent.adapters.fieldbus_mbap import MbapLink
from edge_agent.ports import Fieldbus
from edge_agent.settings.link import READABLE, BadUrl, parse_link


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Fieldbus]:
    """A link for a while. Raises `BadUrl` before anything is opened."""
    link = parse_link(url)
    if link.scheme not in READABLE:
        raise BadUrl(f"{url}: this version reads {', '.join(READABLE)} only", "use a gateway")
    parts = urlsplit(link.url)
    made = MbapLink(parts.hostname or "", parts.port or 502)
    try:
        yield made
    finally:
        await made.close()
