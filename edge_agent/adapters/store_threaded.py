"""The store on a thread of its own: the event loop never waits for a disk.

One worker owns the connection; jobs run one after the other, in the order in which they were asked for, even when whoever
asked is cancelled meanwhile (a stop must not take findings out of the queue that are nowhere else). A failure of
storage reaches whoever asked as `StoreBrokenError`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.delivery import Placed
from edge_agent.domain.findings import Draft
from edge_agent.domain.wall import WallPair
from edge_agent.ports import Committed, Loss, Pruned, Reading, StoreBrokenError, StoreFull, StoreStatus
from edge_agent.wire.event import Json, Position

_Answer = TypeVar("_Answer")


class ThreadedStore:
    """`EventStore` behind the `Outbox` port."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def commit(
        self, drafts: Sequence[Draft], memory: Mapping[str, Json], pair: WallPair, loss: Loss | None = None
    ) -> Committed | StoreFull:
        """See `EventStore.commit`."""
        return await self._ask(lambda: self._store.commit(drafts, memory, pair, loss))

    async def note_waiting(self, waiting: Loss, pair: WallPair) -> None:
        """See `EventStore.note_waiting`."""
        await self._ask(lambda: self._store.note_waiting(waiting, pair))

    async def begin_epoch(self, pair: WallPair) -> Committed | StoreFull:
        """See `EventStore.begin_epoch`."""
        return await self._ask(lambda: self._store.begin_epoch(pair))

    async def place(self, position: Position) -> Placed:
        """See `EventStore.place`."""
        return await self._ask(lambda: self._store.place(position))

    async def read(self, places: Sequence[int]) -> Reading:
        """See `EventStore.read`."""
        return await self._ask(lambda: self._store.read(places))

    async def set_acked(self, acked: int, ever_acked: int) -> Position | None:
        """See `EventStore.set_acked`."""
        return await self._ask(lambda: self._store.set_acked(acked, ever_acked))

    async def status(self) -> StoreStatus:
        """See `EventStore.status`."""
        return await self._ask(self._store.status)

    async def prune(self, acked: int, pair: WallPair) -> Pruned:
        """See `EventStore.prune`."""
        return await self._ask(lambda: self._store.prune(acked, pair))

    async def stop_clean(self, pair: WallPair) -> Committed | StoreFull:
        """See `EventStore.stop_clean`."""
        return await self._ask(lambda: self._store.stop_clean(pair))

    def close(self) -> None:
        """Wait for the job at hand, then close the file."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._store.close()

    async def _ask(self, job: Callable[[], _Answer]) -> _Answer:
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._worker, job))
        except (sqlite3.Error, OSError) as error:
            raise StoreBrokenError(f"the store failed: {error}") from error
