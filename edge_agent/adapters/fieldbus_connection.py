"""One connection to one endpoint: bytes in, at most one answer awaited. Used once.

A request ends in the outcome that its answer is, or in the reason why there is none: `timeout`, `bad_frame`, `link`. The
answer's future is the only thing made for a request, besides the bytes: whoever reads a thousand devices waits for it
directly. One timer serves all requests of the connection: it is left running while answers come, and looks at the deadline in force
when it fires, so that a request costs no timer of its own. When a deadline is over, the sockets are looked at once more:
after a stall of the process the timer comes first, and the answer may have been there in time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, cast

from edge_agent.adapters.fieldbus_framing import Fed, Framing
from edge_agent.adapters.fieldbus_request import Request
from edge_agent.ports import BlockFailed, BlockOutcome

CLOCK_STEP_S: Final = 0.001
"""An event loop's timer may fire this much early: uvloop counts in milliseconds."""

NOISE_MAX_S: Final = 1.0
"""What comes may prolong a silence by so much in one read; the next one goes on with it. The watchdog wants every loop to turn."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How a connection waits.

    `silence_s`: on RTU framing, the silence that ends a frame. `silent_max`: timeouts in a row, over all units, after which it
    is closed; None: never (a serial line has nobody to connect to anew).
    """

    silence_s: float = 0.0
    silent_max: int | None = None


class Connection(asyncio.Protocol):
    """See the module.

    `lost` is done when it has ended, with what ended it; `was_aborted`: we did. `is_disturbed`: something came that nobody
    had asked for. `is_redialled`: closed in order to be connected anew at once.
    """

    def __init__(self, framing: Framing, timing: Timing) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception | None] = self._loop.create_future()
        self.has_answered = False
        self.was_aborted = False
        self.is_redialled = False
        self.is_disturbed = False
        self._framing = framing
        self._timing = timing
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None
        self._answer: asyncio.Future[BlockOutcome] | None = None
        self._timeouts = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._late_for = 0.0
        self._silence: asyncio.TimerHandle | None = None
        self._noisy_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's call: it is up."""
        self._transport = cast("asyncio.Transport", transport)
        self._framing.reset()
        self._noisy_at = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The event loop's call: it has ended."""
        self._transport = None
        for timer in (self._timer, self._silence):
            if timer is not None:
                timer.cancel()
        if not self.lost.done():  # first, so that who is told that the link is gone can ask it why
            self.lost.set_result(exc)
        self._fail("link")

    @property
    def is_up(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: Request, timeout_s: float) -> asyncio.Future[BlockOutcome]:
        """Send one request; the future always gets an outcome, at the latest at the timeout."""
        assert self._transport is not None
        loop = self._loop
        self._request = request
        self._answer = answer = loop.create_future()
        self._transport.write(self._framing.begin(request))
        self._noisy_at = now = loop.time()
        self._deadline = deadline = now + timeout_s
        if self._timer is None or deadline < self._timer_at:
            self._arm(deadline)
        return answer

    def data_received(self, data: bytes) -> None:
        """The event loop's call: something came."""
        if self._answer is None:
            self.is_disturbed = True
            self._noisy_at = self._loop.time()
        fed = self._framing.feed(data)
        if isinstance(fed, bytes):
            self._believe(fed)
        elif fed is Fed.SILENCE and self._answer is not None:
            self._await_silence()
        elif fed is Fed.BROKEN:
            self._fail("bad_frame")
            self.abort()

    def abort(self) -> None:
        """Close without goodbye."""
        if self._transport is not None:
            self.was_aborted = True
            self._transport.abort()
        self._fail("link")

    def redial(self) -> None:
        """Close, to be connected anew at once."""
        self.is_redialled = True
        self.abort()

    async def hush(self, quiet_s: float, *, is_from_now: bool) -> bool:
        """Wait, discarding what comes, until nothing has come for `quiet_s`; False if the line is noisy, or it ended."""
        now = self._loop.time()
        end = now + quiet_s + NOISE_MAX_S
        if is_from_now:
            self._noisy_at = now
        while self.is_up and now < end:
            wait_s = self._noisy_at + quiet_s - now
            if wait_s <= 0:
                return True
            await asyncio.wait((self.lost,), timeout=min(wait_s, end - now) + CLOCK_STEP_S)
            now = self._loop.time()
        return False

    def _believe(self, body: bytes) -> None:
        self.has_answered = True
        self._timeouts = 0
        if self._request is not None:
            self._settle(self._request.judge(body))

    def _await_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._silence = self._loop.call_later(self._timing.silence_s + CLOCK_STEP_S, self._end_frame)

    def _end_frame(self) -> None:
        self._silence = None
        if self._answer is None:
            return
        body = self._framing.finish()
        if isinstance(body, bytes):
            self._believe(body)
        else:
            self._fail("bad_frame")

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        now = self._loop.time()
        if now < self._deadline:
            self._arm(self._deadline)
            return
        if self._late_for != self._deadline:
            self._late_for = self._deadline
            self._arm(now + CLOCK_STEP_S)
            return
        self._timeouts += 1
        is_mid_frame = self._framing.is_mid_frame
        is_useless = self._framing.give_up()
        self._fail("bad_frame" if is_mid_frame else "timeout")
        if is_useless or self._timeouts == self._timing.silent_max:
            self.redial()

    def _fail(self, reason: str) -> None:
        """There is no answer, for this reason."""
        self._settle(BlockFailed(reason))

    def _settle(self, outcome: BlockOutcome) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        awaited, self._answer = self._answer, None
        if awaited is not None and not awaited.done():
            awaited.set_result(outcome)
