"""An event loop on which time is a number: it leaps to the next timer instead of waiting for it.

Theory of operation. asyncio runs what is ready, then waits for its selector until the next timer. Ours waits for
nothing: when nothing is ready, its clock is the next timer's. So days pass in seconds, every run of equal inputs is
equal, and a program that waits for something nobody will ever do is a deadlock and says so at once.

    nothing scheduled          DeadlockError      a hang, found without waiting for it
    the same instant for ever  LivelockError      a loop that never lets time pass, or a storm that hardly does

No thread may touch this loop. Work that the product gives to an executor (its disks) is done here by an `Offload`: one
after the other, each after a latency of virtual time, in the order in which it was asked for.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, copy_context
from typing import Protocol, TypeVar

NS_PER_S = 1_000_000_000

TURNS_AT_ONE_INSTANT_MAX = 200_000
"""Turns of the loop without any time passing; a thousand replies at once need some thousands."""

INSTANTS_IN_ONE_SECOND_MAX = 500_000
"""Instants within one virtual second; a busy one needs some ten thousand."""

_Result = TypeVar("_Result")


class DeadlockError(AssertionError):
    """Everybody waits, and nothing is scheduled that could wake anybody."""


class LivelockError(AssertionError):
    """The loop turns and turns, and time stands still or creeps."""


class Offload(Protocol):
    """Who does the work that the product hands to an executor."""

    def __call__(self, work: Callable[[], object], done: asyncio.Future[object]) -> None:
        """Do `work`, at once or later, and settle `done`."""


class _Timer(asyncio.TimerHandle):
    """As asyncio's, without what only its debug mode needs, which is most of what a timer costs."""

    __slots__ = ()

    def __init__(
        self,
        when_s: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: VirtualLoop,
        context: Context | None,
    ) -> None:
        self._when, self._scheduled = when_s, False
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. `now_ns` is nanoseconds since its beginning.

    Timers of one instant fire in the order in which they were set. Nothing is asked of a selector: there is nobody
    outside who could have news.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self._turns = self._leaps = 0
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._offloads: dict[Executor | None, Offload] = {}
        super().__init__()

    def time(self) -> float:
        """Seconds since the beginning: what asyncio's timers are set by."""
        return self.now_ns / NS_PER_S

    def attach(self, executor: Executor | None, offload: Offload) -> None:
        """Let `offload` do what is handed to `executor` (None: the one of `asyncio.to_thread`)."""
        self._offloads[executor] = offload

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., object], *args: object
    ) -> asyncio.Future[object]:
        """Done by the executor's `Offload`, else here and now: no thread is ever started."""
        done: asyncio.Future[object] = self.create_future()

        def work() -> object:
            return func(*args)

        (self._offloads.get(executor) or settle)(work, done)
        return done

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, to the nanosecond."""
        return self._set_timer(self.now_ns + math.ceil(delay * NS_PER_S), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, to the nanosecond: what lies ahead by less than that is still ahead."""
        is_ahead = when > self.time()
        when_ns = max(math.ceil(when * NS_PER_S), self.now_ns + is_ahead)
        return self._set_timer(when_ns, callback, args, context)

    def call_at_ns(self, when_ns: int, callback: Callable[..., object]) -> None:
        """At an exact instant."""
        self._set_timer(when_ns, callback, (), None)

    def _set_timer(
        self, when_ns: int, callback: Callable[..., object], args: tuple[object, ...], context: Context | None
    ) -> asyncio.TimerHandle:
        handle = _Timer(when_ns / NS_PER_S, callback, args, self, context)
        self._timers_set += 1
        heapq.heappush(self._timers, (when_ns, self._timers_set, handle))
        return handle

    def _run_once(self) -> None:
        """One turn: what is ready now; when nothing is, leap to the next timer (asyncio's loop calls this for ever)."""
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if ready or (timers and timers[0][0] <= self.now_ns):
            self._turns += 1
            if self._turns > TURNS_AT_ONE_INSTANT_MAX:
                self._turns = 0
                raise LivelockError(f"time stands still at {self.time():.6f} s: {[*ready, *timers][:2]}")
        elif timers:
            self._leap(timers[0][0])
        else:
            raise DeadlockError("everybody waits, and nothing is scheduled that could wake anybody")
        while timers and timers[0][0] <= self.now_ns:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _leap(self, to_ns: int) -> None:
        """To the next timer."""
        if to_ns // NS_PER_S != self.now_ns // NS_PER_S:
            self._leaps = 0
        self._leaps += 1
        if self._leaps > INSTANTS_IN_ONE_SECOND_MAX:
            self._leaps = 0
            raise LivelockError(f"time creeps at {self.time():.6f} s: {self._timers[:2]}")
        self.now_ns, self._turns = to_ns, 0

    def call_soon_threadsafe(self, *args: object, **kwargs: object) -> asyncio.Handle:
        """Refused: whoever calls this has a thread."""
        raise AssertionError("threads are banned in virtual time")


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
