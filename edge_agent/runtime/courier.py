"""The courier: carries what the sender names to the broker, and brings back what the broker and the gateway say.

One task handles the uplink's reports in order, asks the store where an ack lies, and sends. It holds the payloads and
positions of the latest commits, so that a live event goes out, and its ack is placed, without a look at the disk. Statuses go
out a few at a time with a turn of the event loop in between: neither an answer nor an event waits for a thousand of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Final

from edge_agent.domain.delivery import (
    EVENTS_AHEAD_MAX,
    NOT_PLACED,
    AckOutcome,
    Match,
    Placed,
    ReportPolicy,
    Sender,
    Span,
)
from edge_agent.domain.units import NS_PER_S
from edge_agent.ports import (
    AckArrived,
    Answered,
    Clock,
    Committed,
    LinkDown,
    LinkUp,
    Outbox,
    Publication,
    Uplink,
    UplinkReport,
)
from edge_agent.runtime.desk import Desk
from edge_agent.wire.codec import DecodeError
from edge_agent.wire.event import Position
from edge_agent.wire.status import Ack, decode_ack
from edge_agent.wire.topics import Channel

_NAP_S: Final = 1.0
"""The longest sleep: the watchdog is told at least this often."""

_STATUSES_AT_ONCE: Final = 8
"""Statuses put into words and published in one turn: a millisecond, with the pages of a health six."""

_log = logging.getLogger("guardwatch.delivery")


class Courier:
    """Owns the sender. `on_up` is awaited at each connect, `on_fork` when the gateway holds another history."""

    def __init__(
        self,
        sender: Sender,
        reports: ReportPolicy,
        outbox: Outbox,
        uplink: Uplink,
        desk: Desk,
        *,
        clock: Clock,
        on_up: Callable[[], Awaitable[None]],
        on_fork: Callable[[Ack], Awaitable[None]],
        on_damage: Callable[[Span], None],
    ) -> None:
        self.sender = sender
        self._reports = reports
        self._outbox = outbox
        self._uplink = uplink
        self._desk = desk
        self._clock = clock
        self._on_up = on_up
        self._on_fork = on_fork
        self._on_damage = on_damage
        self._inbox: deque[UplinkReport] = deque()
        self._wake = asyncio.Event()
        self._generation = 0
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._places: OrderedDict[Position, int] = OrderedDict()
        self._last_reason = ""
        self._is_status_next = True

    def report(self, report: UplinkReport) -> None:
        """What the uplink says, in order; called on the event loop."""
        if isinstance(report, LinkUp | LinkDown):
            self._generation += 1
        self._inbox.append(report)
        self._wake.set()

    def extend(self, committed: Committed) -> None:
        """More is stored: it can be sent."""
        for place, event in enumerate(committed.events, committed.first):
            self._cache[place] = event.payload
            self._places[Position(event.epoch, event.seq, event.hash)] = place
        for kept in (self._cache, self._places):
            while len(kept) > EVENTS_AHEAD_MAX:
                kept.popitem(last=False)
        self.sender.extend(committed.tail)
        self._wake.set()

    def poke(self) -> None:
        """Something is on the desk."""
        self._wake.set()

    async def run(self, advance: Callable[[], None]) -> None:
        """Send for ever."""
        while True:
            await self._sleep()
            await self.step()
            advance()

    async def step(self) -> None:
        """Everything reported, then everything that may go out now."""
        while self._inbox:
            await self._handle(self._inbox.popleft())
        self.sender.handle_timer(self._clock.mono())
        await self._send()

    async def _handle(self, report: UplinkReport) -> None:
        match report:
            case LinkUp(receive_maximum):
                _log.warning("connected receive_maximum=%d", receive_maximum)
                self._last_reason = ""
                self._is_status_next = True
                self.sender.connect(receive_maximum, self._clock.mono())
                self._reports.connect()
                await self._on_up()
            case LinkDown(reason):
                if reason != self._last_reason:
                    _log.warning("not connected: %s", reason[:200])
                self._last_reason = reason
                self.sender.disconnect()
            case AckArrived(payload):
                await self._handle_ack(payload)
            case Answered(publication, refusal, is_heard):
                self._handle_answer(publication, refusal, is_heard=is_heard)

    def _handle_answer(self, publication: Publication, refusal: str | None, *, is_heard: bool) -> None:
        if refusal is not None and refusal != self._last_reason:
            _log.error("refused topic=%s reason=%s", publication.topic, refusal)
            self._last_reason = refusal
        if publication.place is None:
            self._desk.answered(publication, is_refused=refusal is not None)
            if is_heard and publication.topic == self._desk.topic(Channel.HEALTH):
                self.sender.note_listener(
                    self._clock.mono()
                )  # states have other readers: they tell nothing about the gateway
        self.sender.receive_puback(publication.place, self._clock.mono(), is_delivered=is_heard)

    async def _handle_ack(self, payload: bytes) -> None:
        ack = decode_ack(payload)
        if isinstance(ack, DecodeError):
            _log.warning("unreadable ack: %s", ack.reason[:200])
            return
        placed = await self._placed(ack.position)
        outcome = self.sender.receive_ack(ack, placed, self._clock.mono())
        if outcome is AckOutcome.FORKED:
            _log.error("the gateway holds another history of this epoch: a new epoch begins")
            await self._on_fork(ack)
        elif outcome is AckOutcome.BACK:
            _log.warning("the gateway asks for what follows place=%d", self.sender.acked)

    async def _placed(self, position: Position | None) -> Placed:
        if position is None:
            return NOT_PLACED
        place = self._places.get(position)
        return await self._outbox.place(position) if place is None else Placed(Match.HELD, place)

    async def _send(self) -> None:
        """What may go now. Statuses have half of the broker's slots; where there is one slot only, every second turn of it."""
        if self._is_status_next or self.sender.receive_maximum > 1:
            self._send_statuses()
            await self._send_events()
        else:
            await self._send_events()
            self._send_statuses()

    async def _send_events(self) -> None:
        places = self.sender.take_sends(self._clock.mono())
        missing = [place for place in places if place not in self._cache]
        generation = self._generation
        payloads = {place: self._cache[place] for place in places if place in self._cache}
        if missing:
            reading = await self._outbox.read(missing)
            payloads |= reading.payloads
            for span in reading.damaged:
                self.sender.lose(span)
                self._on_damage(span)
        if generation != self._generation:
            return  # another connection by now: the sender goes back by itself
        events_topic = self._desk.topic(Channel.EVENTS)
        for place in places:
            if place in payloads:
                self._is_status_next = True
                self._uplink.publish(Publication(events_topic, payloads[place], retained=False, place=place))
            else:
                self.sender.release_slot()  # gone: nothing was sent

    def _send_statuses(self) -> None:
        receive_maximum = self.sender.receive_maximum
        if not receive_maximum:
            return
        taken = self._desk.take(min(self.sender.free_slots, _STATUSES_AT_ONCE), receive_maximum)
        for publication in taken:
            self._is_status_next = False
            self.sender.count_publish()
            self._uplink.publish(publication)
        if len(taken) == _STATUSES_AT_ONCE:
            self._wake.set()  # perhaps there are more

    async def _sleep(self) -> None:
        if self._wake.is_set():
            self._wake.clear()
            await asyncio.sleep(0)  # whoever has waited meanwhile comes first
            return
        deadline = self.sender.next_deadline(self._clock.mono())
        wait_s = _NAP_S
        if deadline is not None:
            wait_s = min(_NAP_S, max(0, deadline - self._clock.mono()) / NS_PER_S)
        timer = asyncio.get_running_loop().call_later(wait_s, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()
