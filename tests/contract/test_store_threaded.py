"""The store's thread: what was handed to it is stored, whoever stops waiting for it."""

from __future__ import annotations

import asyncio
import threading

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import SigningKey
from edge_agent.adapters.store_file import IN_MEMORY
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.adapters.store_threaded import ThreadedStore
from tests.contract.test_store import fact, pair


async def test_a_commit_that_waits_for_its_turn_is_made_though_the_agent_is_told_to_stop() -> None:
    """The findings are nowhere else by then: a stop while another job had the disk lost them."""
    run = Run("site", "gw", "boot-1", "1", "c" * 64)
    store = EventStore(IN_MEMORY, run, size_max_mb=16, sign=SigningKey.generate().sign)
    threaded = ThreadedStore(store)
    await threaded.begin_epoch(pair(0))
    disk = threading.Event()
    threaded._worker.submit(disk.wait)
    committing = asyncio.create_task(threaded.commit([fact("seen")], {}, pair(1)))
    await asyncio.sleep(0)
    committing.cancel()
    await asyncio.wait([committing])
    disk.set()
    await threaded.status()
    assert store.tail == 2
    threaded.close()
