"""The live stream: what each journal entry changed, to every open browser, resumable by position.

Theory of operation. One task follows the journal: a commit wakes it, it reads the entries after the last one it
handled, has each rendered once to a *frame* (the Server-Sent Events of that entry), and puts the frame into each
client's queue. A client that comes back names the position it has seen; what it missed is read from the journal and
rendered the same way, so nothing depends on what this process remembers:

    resume at P ─┬─ P ahead of the journal, or too far behind ──▶ `reset` (fetch the board again), then live
                 └─ else the entries P+1 … head from the journal ──▶ then live, without a seam

`id:` stands on the last message of a frame only: a client that lost its connection inside one gets all of it again.
Each second every client gets a `tick`; a client that misses ticks knows that what it shows is history. There are none
while the journal cannot be written. A queue that
is full belongs to a client that does not read: it is closed, and resumes when it can.

Source: the outside contract, section 5 (`GET /api/v1/live`); the WHATWG HTML standard (Server-Sent Events).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from edge_agent.wire.event import Json
from gateway.domain.instants import iso_utc
from gateway.domain.journal import Entry
from gateway.ports import Clock, Journal, JournalUnavailable
from gateway.services.pulse import Advance, unwatched, wait_alive

TICK_S = 1.0
"""The contract's; the board calls itself delayed after three missed ones and disconnected after five."""
QUEUE_MAX = 256
"""Frames that a client may be behind: some minutes of a busy plant, a few MB at most; then it is closed."""
REPLAY_MAX = 5000
"""Entries that a resume replays; fetching the board is cheaper beyond that."""
READ_MAX = 256
"""Entries read from the journal at a time."""
RETRY_MS = 1000
"""How soon a browser comes back by itself."""


@dataclass(frozen=True, slots=True)
class Message:
    """One Server-Sent Event: its type and the REST object it carries."""

    event: str
    data: Json


@dataclass(frozen=True, slots=True)
class _Frame:
    position: int
    payload: bytes


Render = Callable[[Entry], Awaitable[Sequence[Message]]]
"""What an entry changed, as messages; none for an entry that nobody sees."""


class _Client:
    """One open stream: its queue, and the newest position it was given."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.queue: asyncio.Queue[_Frame | None] = asyncio.Queue(QUEUE_MAX)
        self.is_closed = False

    def offer(self, frame: _Frame) -> None:
        if self.is_closed:
            return
        try:
            self.queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.close()

    @property
    def is_drained(self) -> bool:
        """Closed, and everything given that was queued before."""
        return self.is_closed and self.queue.empty()

    def close(self) -> None:
        self.is_closed = True
        with contextlib.suppress(asyncio.QueueFull):
            self.queue.put_nowait(None)


class Live:
    """The fan-out. Run `run` as a task; `stream` is one client; `close` ends all streams."""

    def __init__(
        self, journal: Journal, clock: Clock, render: Render, position: int, is_blind: Callable[[], bool]
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._render = render
        self._is_blind = is_blind
        self._head = position
        self._clients: set[_Client] = set()
        self._committed = asyncio.Event()
        self._is_closing = False

    @property
    def clients(self) -> int:
        """How many streams are open."""
        return len(self._clients)

    @property
    def head(self) -> int:
        """The newest position that every client has been given."""
        return self._head

    async def run(self, advance: Advance = unwatched) -> None:
        """Follow the journal and tick, until cancelled; a journal that cannot be read for a while is waited for."""
        unsubscribe = self._journal.subscribe(lambda _entries: self._committed.set())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(advance), name="live.follow")
                tasks.create_task(self._tick(), name="live.tick")
        finally:
            unsubscribe()
            self.close()

    def close(self) -> None:
        """End every stream now, and each that comes later."""
        self._is_closing = True
        for client in self._clients:
            client.close()

    async def stream(self, after: int | None) -> AsyncIterator[bytes]:
        """One client's bytes. `after` is the position it has seen; None begins with what happens next."""
        client = _Client(self._head)
        self._clients.add(client)
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            if after is not None:
                async for payload in self._catch_up(client, after):
                    yield payload
            if not self._is_blind():
                yield self._tick_payload(client.position)
            while not (self._is_closing or client.is_drained):
                frame = await client.queue.get()
                if frame is None:
                    return
                if frame.position > client.position:
                    client.position = frame.position
                    if frame.payload:
                        yield frame.payload
                elif frame.position == 0:
                    yield self._tick_payload(client.position)
        finally:
            self._clients.discard(client)

    async def _catch_up(self, client: _Client, after: int) -> AsyncIterator[bytes]:
        """What happened between `after` and the place where the client's queue begins."""
        goal = client.position
        if after > goal:
            newest = await asyncio.to_thread(self._journal.entries_after, after - 1, 1)
            if not newest:  # this journal has no such position: it is another one than the client knew
                yield _encode(Message("reset", {"position": goal}), goal)
            else:
                client.position = after
            return
        if goal - after > REPLAY_MAX:
            yield _encode(Message("reset", {"position": goal}), goal)
            return
        client.position = after
        while client.position < goal and not self._is_closing:
            entries = await asyncio.to_thread(self._journal.entries_after, client.position, READ_MAX)
            if not entries:
                return
            for entry in entries:
                if entry.position > goal:
                    break
                payload = await self._payload(entry)
                client.position = entry.position
                if payload:
                    yield payload

    async def _follow(self, advance: Advance) -> None:
        while True:
            self._committed.clear()
            if not self._clients:  # nobody to render for: whoever comes begins after this, or catches up
                self._head = self._journal.position
                await wait_alive(self._committed, None, advance)
                continue
            try:
                has_news = await self._pass_on()
            except (
                JournalUnavailable
            ):  # a server that is away for a moment: nobody is given anything meanwhile
                await asyncio.sleep(TICK_S)
                has_news = True
            advance()
            if not has_news:
                await wait_alive(self._committed, None, advance)

    async def _pass_on(self) -> bool:
        """Give every client what was journaled since; whether there was anything. Raises `JournalUnavailable`."""
        entries = await asyncio.to_thread(self._journal.entries_after, self._head, READ_MAX)
        for entry in entries:
            frame = _Frame(entry.position, await self._payload(entry))
            self._head = entry.position
            for client in tuple(self._clients):
                client.offer(frame)
        return bool(entries)

    async def _tick(self) -> None:
        tick = _Frame(0, b"")
        while True:
            await asyncio.sleep(TICK_S)
            if self._is_blind():
                continue  # what the page shows may be older than what agents say: it is to count as history
            for client in tuple(self._clients):
                client.offer(tick)

    async def _payload(self, entry: Entry) -> bytes:
        messages = await self._render(entry)
        last = len(messages) - 1
        return b"".join(
            _encode(message, entry.position if index == last else None)
            for index, message in enumerate(messages)
        )

    def _tick_payload(self, position: int) -> bytes:
        return _encode(Message("tick", {"as_of": iso_utc(self._clock.utc_ms()), "position": position}), None)


def _encode(message: Message, position: int | None) -> bytes:
    """One event in the wire form of Server-Sent Events; JSON has no raw line breaks, so one data line is enough."""
    data = json.dumps(message.data, ensure_ascii=False, separators=(",", ":"))
    place = "" if position is None else f"id: {position}\n"
    return f"{place}event: {message.event}\ndata: {data}\n\n".encode()
