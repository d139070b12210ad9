"""The link of RTU framing: nothing in an answer says which request it belongs to, so the line must be known to be in step.

Theory of operation. One late answer, taken for the answer to the next request, puts every following one off by one: wrong
values, each with a good CRC, for ever. So an answer is believed only while the line is *in step*: every request so far
has had its one answer, and nothing else has come. It is out of step

    at first, and after each new connection      somebody else's answer may still be under way
    after a timeout, a wrong CRC, an answer of another unit, function or length
    when something came that was not asked for   an answer doubled, two devices with one address, noise
    when a read was cancelled

Then a TCP connection is closed and made anew (a serial line has none), and the link stays silent and discards what comes
until the line has been quiet for `quiet_s`, the longest timeout of its units: the device had at least its timeout twice to get
rid of its answer. The read that failed waits for that itself, so that the time is its device's, not its neighbours'. The next read
is provisional: it is made twice and believed only if both answers are equal byte for byte, else it is `unconfirmed`, and
all begins again. So the first answer after a timeout by itself opens and closes nothing. Where the block has more than one
item, the first of the two reads leaves out the last ones, a different number each time, and the whole is asked for only after that
was answered. So before the whole of a late round can be taken for another's, its shorter one must be: one that was asked for
rounds ago, with the same length, while the answers of the rounds between, each of another length, fitted none. A unit that
failed is *doubted* beyond the silence, until a provisional read of its own has confirmed it: its answer may be later than
timeout and silence together, and arrive when the line is long in step with the others. (A device answers in order; one that
did not could still deceive.)

A block that changes all the time never gives two equal answers. After `CHANGING_MAX` such rounds in a row, each of two requests,
two good answers and then silence, the count of answers has proved what their content could not: the next read is
believed, those before it are not.

Frames end with 3.5 characters of silence (Modbus over Serial Line 1.02, 2.5.1.1), so an answer is believed, and the next
request sent, only after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

from edge_agent.adapters.fieldbus_connection import Connection
from edge_agent.adapters.fieldbus_stream import StreamLink
from edge_agent.domain.plan import ReadBlock
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome

CHANGING_MAX: Final = 3
"""Rounds of two good but different answers that prove the line in step: an answer three times late in the same way is none."""

SHORTER_MAX: Final = 3
"""Lengths that the shorter of two reads takes in turn: what is still unanswered of the last rounds fits none of this one."""

_UNCONFIRMED: Final = BlockFailed("unconfirmed")


_Ask: TypeAlias = Callable[[ReadBlock], Coroutine[None, None, BlockOutcome]]


class ConfirmedLink:
    """See the module. `read` is called by one task at a time; `is_dialled`: failure closes the connection."""

    def __init__(self, stream: StreamLink, *, quiet_s: float, is_dialled: bool) -> None:
        self._stream = stream
        self._quiet_s = quiet_s
        self._is_dialled = is_dialled
        self._in_step: Connection | None = None
        self._doubted: dict[int, int] = {}
        self._rounds: Counter[int] = Counter()

    @property
    def requests(self) -> Mapping[int, int]:
        """Requests sent since the start, by function code."""
        return self._stream.requests

    @property
    def trouble(self) -> str | None:
        """Why there is no connection; None when all is well."""
        return self._stream.trouble

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        """Read one block; every failure is an outcome (see the module)."""
        connection = await self._stream.connected(timeout_ms)
        if connection is None:
            return BlockFailed("link")
        is_in_step = self._in_step is connection and not connection.is_disturbed
        if not is_in_step and not await connection.hush(self._quiet_s, is_from_now=False):
            return BlockFailed("bad_frame" if connection.is_up else "link")
        is_sure = is_in_step and unit not in self._doubted
        self._in_step = None
        self._doubted.setdefault(unit, 0)
        connection.is_disturbed = False
        ask = partial(self._stream.ask, connection, unit, timeout_ms=timeout_ms)
        outcome = await (ask(block) if is_sure else self._read_twice(ask, connection, unit, block))
        if is_answer(outcome):
            self._in_step = connection
            del self._doubted[unit]
        else:
            is_changing = outcome == _UNCONFIRMED and connection.is_up and not connection.is_disturbed
            await self._recover(connection, unit, is_changing=is_changing, timeout_ms=timeout_ms)
        return outcome

    async def close(self) -> None:
        """Close the connection and stop reconnecting."""
        await self._stream.close()

    async def _read_twice(
        self, ask: _Ask, connection: Connection, unit: int, block: ReadBlock
    ) -> BlockOutcome:
        """The outcome of a provisional read."""
        self._rounds[unit] += 1
        part = await ask(shortened(block, self._rounds[unit]))
        if not is_answer(part):
            return part
        if connection.is_disturbed:
            return _UNCONFIRMED
        whole = await ask(block)
        if not is_answer(whole):
            return whole
        if isinstance(whole, BlockOk):
            is_same = isinstance(part, BlockOk) and whole.data.startswith(part.data)
        else:  # what the device refuses of the whole it may give of a part
            is_same = whole == part or whole == await ask(block)
        return whole if is_same else _UNCONFIRMED

    async def _recover(
        self, connection: Connection, unit: int, *, is_changing: bool, timeout_ms: int
    ) -> None:
        """Stay silent until nothing can be under way any more; two good answers that differ are no reason to close."""
        current: Connection | None = connection
        if self._is_dialled and not is_changing:
            connection.redial()
            current = await self._stream.connected(timeout_ms)
        if current is None:
            return
        current.is_disturbed = False
        is_quiet = await current.hush(self._quiet_s, is_from_now=True)
        is_proof = is_changing and is_quiet and not current.is_disturbed
        self._doubted[unit] = self._doubted[unit] + 1 if is_proof else 0
        if self._doubted[unit] == CHANGING_MAX:
            del self._doubted[unit]
            self._in_step = current


def shortened(block: ReadBlock, number: int) -> ReadBlock:
    """The block without its last items (bits: bytes), another length for each `number` in turn; itself where there is none."""
    unit_items = 8 if block.table.is_bits else 1
    shorter = (block.count - 1) // unit_items
    if shorter == 0:
        return block
    return replace(block, count=(shorter - number % min(shorter, SHORTER_MAX)) * unit_items)


def is_answer(outcome: BlockOutcome) -> bool:
    """Whether the device answered: with data, or with a refusal of its own."""
    return isinstance(outcome, BlockOk) or outcome.reason.startswith("exception:")
