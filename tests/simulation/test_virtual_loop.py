"""The virtual loop itself: fast, exact, and quick to say that somebody hangs."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Coroutine

import pytest

from tests.simulation import virtual_loop as virtual_loop_module
from tests.simulation.virtual_loop import DeadlockError, LivelockError, run_virtual, virtual_loop


def test_a_day_passes_without_waiting_and_timers_fire_in_order() -> None:
    fired: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append((name, asyncio.get_running_loop().time()))

    async def day() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("evening", 86_400.0))
            group.create_task(sleeper("noon", 43_200.0))
            group.create_task(sleeper("now", 0.25))

    run_virtual(day)

    assert [name for name, _ in fired] == ["now", "noon", "evening"]
    assert [at for _, at in fired] == pytest.approx([0.25, 43_200.0, 86_400.0], abs=1e-6)


def test_a_timeout_cuts_what_takes_too_long() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await asyncio.sleep(1000.0)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == pytest.approx(3.0, abs=1e-6)


def test_a_moment_too_short_for_the_clock_passes_all_the_same() -> None:
    async def main() -> None:
        loop = virtual_loop()
        await asyncio.sleep(106.02283)
        end_s = math.nextafter(loop.time(), math.inf)
        while loop.time() < end_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end_s):
                    await asyncio.Event().wait()

    run_virtual(main)


def test_waiting_for_what_nobody_will_do_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run_virtual(main)


def test_a_loop_that_lets_no_time_pass_is_a_livelock() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 — the fault itself
            await asyncio.sleep(0)

    with pytest.raises(LivelockError):
        run_virtual(main)


def test_a_storm_in_which_time_creeps_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_loop_module, "INSTANTS_IN_ONE_SECOND_MAX", 1000)

    async def turn(pause_s: float) -> None:
        for _ in range(3000):
            await asyncio.sleep(pause_s)

    run_virtual(lambda: turn(0.0011))
    with pytest.raises(LivelockError):
        run_virtual(lambda: turn(0.0001))


def test_threads_are_banned() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon_threadsafe(print)

    with pytest.raises(AssertionError, match="threads are banned"):
        run_virtual(main)


def test_work_for_a_thread_is_done_in_place() -> None:
    async def main() -> tuple[int, int]:
        before = virtual_loop().now_ns
        answer = await asyncio.to_thread(lambda: 6 * 7)
        return answer, virtual_loop().now_ns - before

    assert run_virtual(main) == (42, 0)


def test_an_exception_of_such_work_reaches_who_asked() -> None:
    async def main() -> None:
        lost: dict[str, int] = {}
        await asyncio.to_thread(lost.__getitem__, "missing")

    with pytest.raises(KeyError):
        run_virtual(main)


def test_equal_programs_run_equally() -> None:
    def story() -> Coroutine[object, object, list[str]]:
        async def main() -> list[str]:
            lines: list[str] = []

            async def walker(name: str, step: float) -> None:
                for number in range(5):
                    await asyncio.sleep(step)
                    lines.append(f"{name}{number}@{virtual_loop().now_ns}")

            await asyncio.gather(walker("a", 0.3), walker("b", 0.2), walker("c", 0.1))
            return lines

        return main()

    assert run_virtual(story) == run_virtual(story)
