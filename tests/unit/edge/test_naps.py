"""Naps that share their timers end when they are over, each for itself."""

from __future__ import annotations

import asyncio

from edge_agent.runtime.naps import Naps
from tests.simulation.virtual_loop import run_virtual, virtual_loop


def test_a_nap_ends_within_a_millisecond_of_its_time_and_never_before() -> None:
    ended: dict[int, float] = {}

    async def main() -> None:
        naps, loop = Naps(), virtual_loop()

        async def sleep(order: int) -> None:
            await asyncio.sleep(order * 0.000_37)
            begun = loop.time()
            await naps.nap(20)
            ended[order] = (loop.time() - begun) * 1000

        await asyncio.gather(*(sleep(order) for order in range(50)))

    run_virtual(main)
    assert len(ended) == 50
    assert all(20 - 1e-3 <= took_ms < 21 for took_ms in ended.values())


def test_who_naps_no_more_keeps_nobody_from_waking() -> None:
    woken: list[int] = []

    async def main() -> None:
        naps = Naps()

        async def sleep(order: int) -> None:
            await naps.nap(20)
            woken.append(order)

        sleepers = [asyncio.create_task(sleep(order)) for order in range(3)]
        await asyncio.sleep(0.01)
        sleepers[0].cancel()
        await asyncio.sleep(0.02)

    run_virtual(main)
    assert woken == [1, 2]
