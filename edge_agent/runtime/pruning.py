"""Pruning, between everything else: a step at a time in the store's own thread, with room for commits between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from edge_agent.domain.delivery import Sender
from edge_agent.ports import Clock, Outbox

PRUNE_PERIOD_S: Final = 1.0
"""How often is looked whether there is anything to prune."""

PRUNE_PAUSE_S: Final = 0.05
"""Between two steps when there is: 5000 rows a second, and commits wait for one step at most."""


async def prune_for_ever(outbox: Outbox, sender: Sender, clock: Clock, advance: Callable[[], None]) -> None:
    """Prune, and tell the sender where the chain begins."""
    while True:
        pruned = await outbox.prune(sender.acked, clock.pair())
        sender.prune(pruned.first)
        advance()
        await asyncio.sleep(PRUNE_PAUSE_S if pruned.is_more else PRUNE_PERIOD_S)
