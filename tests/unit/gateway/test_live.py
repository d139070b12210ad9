"""The live stream: ids, resuming, resets, slow clients, and the end."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from edge_agent.wire.event import Json
from gateway.domain.journal import ClockStepped, Entry
from gateway.ports import JournalUnavailable
from gateway.services import live as live_module
from gateway.services.live import Live, Message


class FakeJournal:
    """Entries in a list; commits tell the listeners."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.failing_since_ms: int | None = None
        self.is_away = False
        self.listeners: list[Callable[[Sequence[Entry]], None]] = []

    def commit(self, count: int = 1) -> None:
        for _ in range(count):
            self.entries.append(Entry(len(self.entries) + 1, 0, ClockStepped(1)))
        for listener in tuple(self.listeners):
            listener(self.entries[-count:])

    @property
    def position(self) -> int:
        return len(self.entries)

    def entries_after(self, position: int, limit: int) -> Sequence[Entry]:
        if self.is_away:
            raise JournalUnavailable("away")
        return self.entries[position : position + limit]

    def subscribe(self, listener: Callable[[Sequence[Entry]], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    async def transact(self, work: object) -> object:
        raise NotImplementedError


class FixedClock:
    def utc_ms(self) -> int:
        return 0

    def monotonic_ms(self) -> int:
        return 0


async def two_messages(entry: Entry) -> Sequence[Message]:
    """Every entry changes a guard and its machine; every tenth changes nothing."""
    if entry.position % 10 == 0:
        return []
    return [Message("guard", {"n": entry.position}), Message("machine", {"n": entry.position})]


@dataclass
class Event:
    event: str
    data: Json
    id: int | None


async def events(stream: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The stream as a browser takes it apart, ticks left out."""
    async for payload in stream:
        for block in payload.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            if fields.get("event") not in (None, "tick"):
                place = fields.get("id")
                yield Event(fields["event"], json.loads(fields["data"]), int(place) if place else None)


@asynccontextmanager
async def running(journal: FakeJournal, position: int = 0) -> AsyncIterator[Live]:
    live = Live(journal, FixedClock(), two_messages, position, lambda: journal.failing_since_ms is not None)  # type: ignore[arg-type]
    task = asyncio.create_task(live.run())
    await settled(journal, live)
    yield live
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def settled(journal: FakeJournal, live: Live) -> None:
    """The follower has handled everything."""
    async with asyncio.timeout(5):
        while live.head < len(journal.entries):  # noqa: ASYNC110 - the follower says nothing when it is done
            await asyncio.sleep(0.005)


async def take(stream: AsyncIterator[bytes], count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(5):
        async for event in events(stream):
            found.append(event)
            if len(found) == count:
                return found
    return found


async def test_the_id_stands_only_on_the_last_message_of_a_position() -> None:
    journal = FakeJournal()
    async with running(journal) as live:
        stream = live.stream(0)
        journal.commit(2)
        assert await take(stream, 4) == [
            Event("guard", {"n": 1}, None),
            Event("machine", {"n": 1}, 1),
            Event("guard", {"n": 2}, None),
            Event("machine", {"n": 2}, 2),
        ]


@pytest.mark.parametrize("after", range(25))
async def test_a_resume_at_any_position_misses_nothing_and_doubles_nothing(after: int) -> None:
    journal = FakeJournal()
    journal.commit(20)
    async with running(journal) as live:
        stream = live.stream(after) if after <= 20 else live.stream(20)
        first = await anext(stream)  # the client is registered: what commits from here on is live
        assert first.startswith(b"retry:")
        journal.commit(7)
        await settled(journal, live)
        found = await take(stream, 2 * len([n for n in range(min(after, 20) + 1, 28) if n % 10]))
        positions = [event.id for event in found if event.id]
        assert positions == [n for n in range(min(after, 20) + 1, 28) if n % 10]


async def test_without_a_position_the_stream_begins_with_what_happens_next() -> None:
    journal = FakeJournal()
    journal.commit(3)
    async with running(journal) as live:
        stream = live.stream(None)
        await anext(stream)
        journal.commit()
        assert (await take(stream, 2))[-1].id == 4


async def test_a_position_that_this_journal_never_had_is_told_to_start_over() -> None:
    journal = FakeJournal()
    journal.commit(3)
    async with running(journal) as live:
        assert await take(live.stream(99), 1) == [Event("reset", {"position": 3}, 3)]


async def test_a_position_too_far_behind_is_told_to_start_over_and_goes_on_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_module, "REPLAY_MAX", 5)
    journal = FakeJournal()
    journal.commit(8)
    async with running(journal, position=8) as live:
        stream = live.stream(1)
        assert [event.event for event in await take(stream, 1)] == ["reset"]


async def test_a_client_ahead_of_the_follower_is_given_only_what_is_new_to_it() -> None:
    journal = FakeJournal()
    live = Live(journal, FixedClock(), two_messages, 0, lambda: journal.failing_since_ms is not None)  # type: ignore[arg-type]
    journal.commit(5)  # the follower does not run yet: a board fetched now is at 5
    stream = live.stream(5)
    assert (await anext(stream)).startswith(b"retry:")
    assert b"tick" in await anext(stream)
    task = asyncio.create_task(live.run())
    await settled(journal, live)
    journal.commit()
    assert (await take(stream, 2))[-1].id == 6
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_client_that_does_not_read_is_closed_and_can_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "QUEUE_MAX", 4)
    journal = FakeJournal()
    async with running(journal) as live:
        stream = live.stream(0)
        await anext(stream)
        journal.commit(40)
        await settled(journal, live)
        found = [event async for event in events(stream)]  # ends by itself
        last = max(event.id or 0 for event in found)
        assert last < 40
        again = await take(live.stream(last), 2 * len([n for n in range(last + 1, 41) if n % 10]))
        assert [e.id for e in again if e.id] == [n for n in range(last + 1, 41) if n % 10]


async def test_a_journal_that_cannot_be_read_for_a_moment_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_module, "TICK_S", 0.01)
    journal = FakeJournal()
    async with running(journal) as live:
        stream = live.stream(None)
        await anext(stream)
        journal.is_away = True
        journal.commit(2)
        await asyncio.sleep(0.05)  # some tries that fail
        journal.is_away = False
        assert [event.id for event in await take(stream, 4)] == [None, 1, None, 2]


async def test_closing_ends_every_stream_at_once() -> None:
    journal = FakeJournal()
    async with running(journal) as live:
        stream = live.stream(None)
        await anext(stream)
        assert live.clients == 1
        live.close()
        async with asyncio.timeout(1):
            rest = [payload async for payload in stream]
        assert all(b"event: tick" in payload for payload in rest)
        assert live.clients == 0


async def test_ticks_come_each_second_and_say_the_position() -> None:
    journal = FakeJournal()
    journal.commit(2)
    async with running(journal) as live:
        stream = live.stream(None)
        payloads = [await anext(stream) for _ in range(3)]
        ticks = [json.loads(payload.decode().split("data: ")[1]) for payload in payloads[1:]]
        assert [tick["position"] for tick in ticks] == [2, 2]
        assert not any(b"id:" in payload for payload in payloads)


async def test_no_tick_vouches_for_a_page_while_the_journal_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What agents say then reaches nobody: a page that hears no tick says so itself within 5 s."""
    monkeypatch.setattr("gateway.services.live.TICK_S", 0.01)
    journal = FakeJournal()
    journal.failing_since_ms = 0
    async with running(journal) as live:
        stream = live.stream(None)
        assert b"retry" in await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        journal.failing_since_ms = None
        assert b"event: tick" in await asyncio.wait_for(waiting, 10)


async def test_nothing_is_rendered_while_nobody_looks_and_whoever_comes_sees_what_happens_next() -> None:
    journal = FakeJournal()
    rendered: list[int] = []

    async def render(entry: Entry) -> Sequence[Message]:
        rendered.append(entry.position)
        return await two_messages(entry)

    live = Live(journal, FixedClock(), render, 0, lambda: False)  # type: ignore[arg-type]
    task = asyncio.create_task(live.run())
    journal.commit(50)
    await settled(journal, live)
    assert rendered == []
    stream = live.stream(None)
    await anext(stream)
    journal.commit(1)
    assert [event.id for event in await take(stream, 2)] == [None, 51]
    assert rendered == [51]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
