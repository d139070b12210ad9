"""An endpoint that is connected to again and again, and read block by block: the link of Modbus/TCP, plain or in TLS.

Theory of operation. A keeper task holds at most one connection: it connects, waits until the connection ends, pauses, connects
again. One request is in flight. What an answer must be, in the order in which it is looked at:

    framing whole                       else `bad_frame`: the connection is closed
    the transaction id in flight        else dropped: a late or doubled answer to something given up
    the unit asked                      else `wrong_unit`
    the function asked                  else `wrong_function`, or its exception: `exception:N`
    byte count and length exact         else `short`

A timeout leaves the connection up (the id tells a late answer apart) unless half a frame has come, or `SILENT_MAX`
came in a row without any answer: then nobody may be at the other end any more (a controller that lost power sends no
goodbye), and only a new connection finds out. It is made at once, and the next read waits for it: dead units behind a
gateway that lives cost their neighbours nothing. A close by the peer is noticed at once, not at the timeout. Reads fail with
`link` while there is no connection; what is wrong with it stands in `trouble`. RTU framing has no transaction id and needs
more: `fieldbus_confirmed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from edge_agent.adapters.fieldbus_connection import Connection, Timing
from edge_agent.adapters.fieldbus_framing import Framing
from edge_agent.adapters.fieldbus_request import Request
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.ports import BlockFailed, BlockOutcome

RECONNECT_FIRST_S: Final = 0.5
"""First pause after a connection failed: a device that restarts is back within seconds …"""

RECONNECT_MAX_S: Final = 2.0
"""… doubling up to this until it answers: with the time that connecting may take, a healed link is read within 5 s."""

SILENT_MAX: Final = 3
"""Timeouts in a row, over all units of the link, after which the connection is made anew."""

REQUESTS_MAX: Final = 4096
"""Encoded requests kept; far more than one link's plan has. A tool that looks around makes new ones all the time."""

_log = logging.getLogger("guardwatch.agent")


class Dial(Protocol):
    """How to connect to one endpoint. `closed_early`: what it probably means when the peer closes before any answer."""

    @property
    def name(self) -> str:
        """The endpoint, for people."""
        ...

    @property
    def closed_early(self) -> str:
        """See the class."""
        ...

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        """A connection that is up. Raises OSError (ssl.SSLError too) or TimeoutError; leaves nothing open then."""
        ...


class StreamLink:
    """See the module. `read` is called by one task at a time."""

    def __init__(
        self, dial: Dial, framing: Framing, timing: Timing | None = None, *, connect_pause_ms: int = 0
    ) -> None:
        self._trouble: str | None = None
        self._dial = dial
        self._framing = framing
        self._timing = timing or Timing(silent_max=SILENT_MAX)
        self._connect_pause_s = connect_pause_ms / 1000
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._cache: dict[tuple[int, int], Request] = {}
        self._counts = dict.fromkeys((table.function_code for table in Table), 0)

    @property
    def requests(self) -> Mapping[int, int]:
        """Requests sent since the start, by function code."""
        return MappingProxyType(self._counts)

    @property
    def trouble(self) -> str | None:
        """Why there is no connection, or why the last one ended before any answer; None when all is well."""
        connection = self._connection
        return None if connection is not None and connection.has_answered else self._trouble

    def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> Awaitable[BlockOutcome]:
        """Read one block; every failure is an outcome (see the module)."""
        connection = self._connection
        if connection is None or not connection.is_up:
            return self._connect_and_read(unit, block, timeout_ms)
        return self._ask(connection, unit, block, timeout_ms)

    async def ask(self, connection: Connection, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        """One request on this connection; `link` when it is not up any more."""
        if not connection.is_up:
            return BlockFailed("link")
        return await self._ask(connection, unit, block, timeout_ms)

    async def _connect_and_read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        connection = await self.connected(timeout_ms)
        return (
            BlockFailed("link") if connection is None else await self.ask(connection, unit, block, timeout_ms)
        )

    def _ask(
        self, connection: Connection, unit: int, block: ReadBlock, timeout_ms: int
    ) -> asyncio.Future[BlockOutcome]:
        request = self._cache.get((unit, id(block))) or self._encode(unit, block)
        self._counts[request.function] += 1
        return connection.ask(request, timeout_ms / 1000)

    async def connected(self, timeout_ms: int) -> Connection | None:
        """The connection; waits for an attempt that is being made, and not for the next one."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected(), name=f"link {self._dial.name}")
        if self._connection is not None and not self._connection.is_up:
            self._tried.clear()  # the keeper has yet to notice that it is lost, and will
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                await self._tried.wait()
        connection = self._connection
        return connection if connection is not None and connection.is_up else None

    async def close(self) -> None:
        """Close the connection and stop reconnecting."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _encode(self, unit: int, block: ReadBlock) -> Request:
        """Encode a request that has not been sent before; it keeps its block, so that the block's id stays its own."""
        if len(self._cache) >= REQUESTS_MAX:
            self._cache.clear()
        request = Request.of(unit, block, self._framing.encode(unit, block))
        self._cache[unit, id(block)] = request
        return request

    async def _keep_connected(self) -> None:
        pause_s = RECONNECT_FIRST_S
        while True:
            self._tried.clear()
            connection = await self._try()
            if connection is not None:
                self._connection = connection
                self._tried.set()
                error = await connection.lost
                self._connection = None
                self._note_end(connection, error)
                if connection.has_answered:
                    pause_s = RECONNECT_FIRST_S
                if connection.is_redialled:
                    continue
            self._tried.set()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_MAX_S)

    async def _try(self) -> Connection | None:
        try:
            connection = await self._dial.connect(lambda: Connection(self._framing, self._timing))
        except TimeoutError:
            self._say("cannot connect: no answer")
        except (ConnectionResetError, ConnectionAbortedError):
            self._say(self._dial.closed_early)
        except OSError as error:
            self._say(explain(error))
        else:
            try:
                await asyncio.sleep(self._connect_pause_s)
            except asyncio.CancelledError:
                connection.abort()
                raise
            return connection
        return None

    def _note_end(self, connection: Connection, error: Exception | None) -> None:
        if isinstance(error, ssl.SSLError):
            self._say(explain(error))
        elif connection.has_answered:
            self._trouble = None
        elif not connection.was_aborted:
            self._say(self._dial.closed_early)

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning("%s: %s", self._dial.name, trouble)
        self._trouble = trouble


def explain(error: OSError) -> str:
    """What a failed connection means, and for certificates how to mend it."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS refused: {error.verify_message} — check ca_file, and the host name in the URL"
        case ssl.SSLError():
            reason = (error.reason or str(error)).lower().replace("_", " ")
            return f"TLS refused: {reason} — check cert_file and key_file, and what the device accepts"
        case _:
            return f"cannot connect: {error.strerror or error}"
