"""An event loop on which time is a number: it leaps to the next timer instead of waiting for it.

Theory of operation. asyncio asks its selector to wait until the next timer. Ours waits for nothing: it adds the
timeout to the loop's clock and returns. So days pass in seconds, every run of equal inputs is equal, and a program
that waits for something nobody will ever do asks for an endless wait, which is a deadlock and says so at once.

    nothing scheduled          DeadlockError      a hang, found without waiting for it
    the same instant for ever  LivelockError      a loop that never lets time pass

No thread may touch this loop. Work that the product gives to an executor (its disks) is done here by an `Offload`: one
after the other, each after a latency of virtual time, in the order in which it was asked for.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Protocol, TypeVar

NS_PER_S = 1_000_000_000

TURNS_AT_ONE_INSTANT_MAX = 200_000
"""Turns of the loop without any time passing; a thousand replies at once need some thousands."""

_Result = TypeVar("_Result")


class DeadlockError(AssertionError):
    """Everybody waits, and nothing is scheduled that could wake anybody."""


class LivelockError(AssertionError):
    """The loop turns and turns and time stands still."""


class Offload(Protocol):
    """Who does the work that the product hands to an executor."""

    def __call__(self, work: Callable[[], object], done: asyncio.Future[object]) -> None:
        """Do `work`, at once or later, and settle `done`."""


class _LeapingSelector(selectors.SelectSelector):
    """Leaps instead of waiting."""

    def __init__(self, leap: Callable[[float | None], None]) -> None:
        super().__init__()
        self._leap = leap

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._leap(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. `now_ns` is nanoseconds since its beginning."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._turns = 0
        self._offloads: dict[Executor, Offload] = {}
        super().__init__(_LeapingSelector(self._pass))

    def time(self) -> float:
        """Seconds since the beginning: what asyncio's timers are set by."""
        return self.now_ns / NS_PER_S

    def attach(self, executor: Executor, offload: Offload) -> None:
        """Let `offload` do what is handed to `executor`."""
        self._offloads[executor] = offload

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., object], *args: object
    ) -> asyncio.Future[object]:
        """Done by the executor's `Offload`, else here and now: no thread is ever started."""
        done: asyncio.Future[object] = self.create_future()

        def work() -> object:
            return func(*args)

        offload = self._offloads.get(executor) if executor is not None else None
        (offload or settle)(work, done)
        return done

    def call_soon_threadsafe(self, *args: object, **kwargs: object) -> asyncio.Handle:
        """Refused: whoever calls this has a thread."""
        raise AssertionError("threads are banned in virtual time")

    def _pass(self, timeout: float | None) -> None:
        if timeout is None:
            raise DeadlockError("everybody waits, and nothing is scheduled that could wake anybody")
        if timeout > 0:
            self.now_ns += math.ceil(timeout * NS_PER_S)
            self._turns = 0
            return
        self._turns += 1
        if self._turns > TURNS_AT_ONE_INSTANT_MAX:
            raise LivelockError(f"{self._turns} turns at {self.time():.6f} s")


def settle(work: Callable[[], object], done: asyncio.Future[object]) -> None:
    """Do the work now; its result or its exception is the future's."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 — as an executor does
        if not done.done():
            done.set_exception(error)
    else:
        if not done.done():
            done.set_result(result)


def run_virtual(main: Callable[[], Coroutine[object, object, _Result]]) -> _Result:
    """Run a coroutine function to its end on a fresh virtual loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def virtual_loop() -> VirtualLoop:
    """The loop that is running."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop
