"""The pump: replies in, engine steps, commits, then whatever must not happen before the commit.

A good answer is judged on the spot, while nothing waits before it and no deadline is due; one that says nothing new costs
a comparison. Only what is found wakes the pump, which is the next to run. Findings gather in the engine while a commit is on its
way to the disk; the next step takes them all and needs one commit for them (group commit without a timer, so a lone change
waits for nothing). What cannot be judged at once waits in the inbox, and all that comes after it. Each is judged at the time at which it came, however
long the disk held it up: a violation that began and ended during a slow commit is still seen, with its true duration.
Guard states are shown only after the commit that holds their events. When the disk is full the agent goes on judging: findings wait here, up to a limit, then are
counted, and the count is stored with the next commit that succeeds. How much waits is noted beside the store as it grows,
so that a kill loses no more than it says.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from edge_agent.domain.delivery import ReportPolicy, Sender
from edge_agent.domain.findings import Draft, GuardView, PublishState, RecordEvents
from edge_agent.domain.plan import ReadBlock
from edge_agent.domain.units import NS_PER_S, BlockId, MonoNs
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from edge_agent.ports import BlockOk, Clock, Committed, Loss, Outbox, StoreFull
from edge_agent.runtime.polling import Reply
from edge_agent.wire.event import Json, Observation

INBOX_MAX: Final = 65_536
"""Replies waiting for the engine, about 200 bytes each: a minute of a thousand devices, thinned out. Links wait beyond it,
so that a slow disk slows polling instead of filling memory."""

THIN_FROM: Final = 1024
"""Replies waiting from which on repetitions are thinned out …"""

THIN_SHARE: Final = 2
"""… to this many within the time after which they would be stale: as if the device were polled less often."""

UNSTORED_MAX: Final = 5000
"""Findings held in memory while the disk is full: about 10 MB; what comes after is counted as lost."""

COMMIT_EVENTS_MAX: Final = 1000
"""Findings after which a commit is made though replies wait: minting takes some kilobytes for each, and it is not given back."""

STALL_S: Final = 0.05
"""An alarm that rings so late says that the whole process stood still …"""

LOOK_S: Final = 0.001
"""… and that what came meanwhile is to be let in first: a sleep so short that the event loop looks at its sockets once."""

BEHIND_NS: Final = 2 * NS_PER_S
"""When what came so long ago has still to be judged, what is shown is not how it is: no heartbeat vouches for it."""

NAP_S: Final = 1.0
"""The longest the pump sleeps: a due state report is seen within this, and the watchdog is told."""

FULL_RETRY_NS: Final = NS_PER_S
"""While the disk is full, what waits is tried again this often; judging goes on at its own pace."""

IDLE_COMMIT_NS: Final = 60 * NS_PER_S
"""An idle pump asks the store this often whether its hourly checkpoint is due."""


@dataclass(slots=True)
class _Unstored:
    """What could not be committed yet."""

    drafts: list[Draft] = field(default_factory=list)
    memory: dict[str, Json] = field(default_factory=dict)
    views: list[GuardView] = field(default_factory=list)
    loss: Loss | None = None
    report: bool = False
    unseen: int = 0
    """Blocks that the report could say nothing of."""

    @property
    def is_empty(self) -> bool:
        """Whether a commit would change nothing."""
        return not (self.drafts or self.memory or self.views or self.loss)


class Pump:
    """Owns the engine. `on_commit` and `on_views` are told, in this order, what has become true; `on_split`, what to remember."""

    def __init__(
        self,
        engine: EdgeEngine,
        outbox: Outbox,
        clock: Clock,
        pair: WallPair,
        *,
        on_commit: Callable[[Committed], None],
        on_views: Callable[[list[GuardView]], None],
        on_split: Callable[[ReadBlock, Sequence[ReadBlock]], None],
    ) -> None:
        self.engine = engine
        self.pair = pair
        self.is_full = False
        self.outbox_pct = 0
        self.is_unhealed = False
        """Findings were lost, and no report that was made after it is stored."""
        self._is_untold = False
        """No event tells it, either: done as soon as there is room."""
        self._reported: tuple[int, int] | None = None
        """A report is stored: the chain's last place then, and how many blocks it could say nothing of."""
        self._is_ending = False
        self._outbox = outbox
        self._clock = clock
        self._on_commit = on_commit
        self._on_views = on_views
        self._on_split = on_split
        self._inbox: deque[Reply] = deque()
        self._newest: dict[BlockId, Reply] = {}
        self._has_stalled = False
        self._room = asyncio.Event()
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at_s = 0.0
        self._alarm_due = MonoNs(0)
        self._found_at: MonoNs | None = None
        self._committing_since: MonoNs | None = None
        self._unstored = _Unstored()
        self._noted: Loss | None = None
        self._idle_commit_at = MonoNs(0)
        self._retry_at = MonoNs(0)
        self._log = logging.getLogger("guardwatch.pump")

    def take(self, block: BlockId, data: bytes, requested_at: MonoNs, now: MonoNs) -> bool:
        """Judge a good answer on the spot; False when it has to go through `accept`."""
        if self._inbox:
            return False
        engine = self.engine
        if engine.receive_unchanged(block, data, requested_at, now):
            return True
        if not engine.is_current(now) or engine.found_count >= COMMIT_EVENTS_MAX:
            return False
        engine.receive_block(block, data, requested_at, now)
        if engine.has_found:
            self._found_at = self._found_at or now
            self._wake.set()
        elif self._alarm is not None:
            deadline = engine.next_deadline()
            if deadline is not None and deadline < self._alarm_due:
                self._wake.set()  # to set the alarm anew
        return True

    def split(self, block: ReadBlock) -> Sequence[ReadBlock]:
        """What to ask for instead of `block`, which was refused; nothing when there is nothing smaller.

        Answers to the whole block that wait still are judged first, while it has its old shape.
        """
        self._feed(self._clock.mono())
        parts = self.engine.split_block(block.id)
        if parts == (block,):
            return ()
        span = f"{block.table.value}/{block.start}, {block.count} items"
        self._log.warning("%s refuses %s: asking in smaller parts", block.device, span)
        self._on_split(block, parts)
        return parts

    def pieces(self, block: ReadBlock) -> Sequence[ReadBlock]:
        """What of `block`, which was refused, can be asked for alone."""
        return self.engine.pieces(block.id)

    async def accept(self, reply: Reply) -> None:
        """Take in any reply; waits while the inbox is full."""
        if len(self._inbox) >= THIN_FROM and isinstance(reply.outcome, BlockOk):
            self.engine.expect(reply.block, reply.requested_at)
            if self._is_repetition(reply):
                return
        while len(self._inbox) >= INBOX_MAX:
            self._room.clear()
            await self._room.wait()
        self._inbox.append(reply)
        self._newest[reply.block] = reply
        self._wake.set()

    def _is_repetition(self, reply: Reply) -> bool:
        """Whether an answer that says the same waits already, and is hardly older."""
        waiting = self._newest.get(reply.block)
        if waiting is None or reply.outcome != waiting.outcome:
            return False
        return reply.requested_at - waiting.requested_at < self.engine.stale_ns(reply.block) // THIN_SHARE

    def is_behind(self, now: MonoNs) -> bool:
        """Whether judging and storing lag so far behind reading that what is shown must not be vouched for."""
        waiting = [self._inbox[0].received_at] if self._inbox else []
        waiting += [since for since in (self._found_at, self._committing_since) if since is not None]
        return bool(waiting) and now - min(waiting) > BEHIND_NS

    @property
    def is_mute(self) -> bool:
        """Whether what was found is not all in the store: what a gateway can show is not what this agent knows."""
        return self.is_full or self.is_unhealed

    def observe(self, what: str, detail: dict[str, Json]) -> None:
        """A fact for the journal that is not the engine's."""
        self._unstored.drafts.append(Draft(self._clock.mono(), Observation(what, detail)))
        self._wake.set()

    def remember(self, memory: dict[str, Json]) -> None:
        """Memory of the runtime's own, kept with the next commit."""
        self._unstored.memory |= memory
        self._wake.set()

    def set_wall(self, pair: WallPair) -> None:
        """Label with this pair from now on."""
        self.pair = pair
        self.engine.set_wall(pair)

    async def run(self, sender: Sender, reports: ReportPolicy, advance: Callable[[], None]) -> None:
        """Step until `end`."""
        while not self._is_ending:
            await self._sleep()
            if self._has_stalled:
                await self._catch_up()
            if self.is_full and self._clock.mono() < self._retry_at:
                self._feed(self._clock.mono())
                await self._note_waiting()
            else:
                await self.step(sender, reports)
            advance()

    def end(self) -> None:
        """Let `run` return, not before the commit at hand is over: what it holds is nowhere else if the disk refuses it."""
        self._is_ending = True
        self._wake.set()

    async def step(self, sender: Sender, reports: ReportPolicy) -> None:
        """Everything in the inbox through the engine, then one commit; a burst of a whole plant needs several."""
        now = self._clock.mono()
        while not self._feed(now, found_max=COMMIT_EVENTS_MAX):
            await self._commit()
        self._note_stored(reports, now)
        unseen = self.engine.unseen_count
        is_due = reports.is_due(
            sender, now, is_settled=self.engine.is_settled, unseen=unseen, outbox_pct=self.outbox_pct
        )
        if is_due and not self._unstored.report:
            parts = self.engine.state_report(now)
            self._unstored.drafts.extend(Draft(now, part) for part in parts)
            self._unstored.report, self._unstored.unseen = True, unseen
        await self._commit()
        self._note_stored(reports, now)

    def _note_stored(self, reports: ReportPolicy, now: MonoNs) -> None:
        """What the commits since the last call mean for reports."""
        if self._reported is not None:
            last_part, unseen = self._reported
            reports.reported(last_part, now, unseen)
        self._reported = None
        if self.is_unhealed and not self._is_untold:
            reports.overflow()

    def _feed(self, now: MonoNs, found_max: int | None = None) -> bool:
        """Judge what waits, and what is due when nothing does; False when it stopped at `found_max` findings."""
        while self._inbox and (found_max is None or self.engine.found_count < found_max):
            reply = self._inbox.popleft()
            if self._newest[reply.block] is reply:
                del self._newest[reply.block]
            match reply.outcome:
                case BlockOk(data):
                    self.engine.receive_block(reply.block, data, reply.requested_at, reply.received_at)
                case failed:
                    self.engine.receive_failure(reply.block, failed.reason, reply.received_at)
        self._room.set()
        deadline = self.engine.next_deadline()
        if not self._inbox and deadline is not None and deadline <= now:
            self.engine.handle_timer(now)
        unstored = self._unstored
        for effect in self.engine.take_effects():
            match effect:
                case RecordEvents(drafts, memory):
                    unstored.drafts.extend(drafts)
                    unstored.memory |= memory
                case PublishState(view):
                    unstored.views.append(view)
        if self.is_full and self._committing_since is None:  # else `_keep` does, if the disk refuses it
            self._bound(unstored)
        return not self._inbox

    def _bound(self, unstored: _Unstored) -> None:
        """Count what goes beyond the limit instead of keeping it: only what the disk has refused is ever lost."""
        excess = unstored.drafts[UNSTORED_MAX:]
        if not excess:
            return
        del unstored.drafts[UNSTORED_MAX:]
        since = unstored.loss.since if unstored.loss else excess[0].observed
        dropped = (unstored.loss.dropped if unstored.loss else 0) + len(excess)
        unstored.loss = Loss(dropped, since, excess[-1].observed)

    async def _commit(self) -> None:
        """Commit what there is; when the disk is full it waits on."""
        now = self._clock.mono()
        is_to_tell = self._is_untold and self.outbox_pct < 100
        if self._unstored.is_empty and now < self._idle_commit_at and not (self.is_full or is_to_tell):
            return
        self._idle_commit_at = MonoNs(now + IDLE_COMMIT_NS)
        taken = self._unstored
        self._unstored = _Unstored()
        self._committing_since, self._found_at = self._found_at or now, None
        outcome = await self._outbox.commit(taken.drafts, taken.memory, self.pair, taken.loss)
        self._committing_since = None
        if isinstance(outcome, StoreFull):
            self._keep(taken)
            await self._note_waiting()
            return
        if self.is_full:
            self._log.warning("store has room again")
            self.is_full = False
            self._noted = None
        self._is_untold, self.is_unhealed = outcome.is_untold, outcome.is_unhealed
        if taken.report:
            self._reported = outcome.tail, taken.unseen
        if outcome.events:
            self._on_commit(outcome)
        if taken.views:
            self._on_views(taken.views)

    async def _note_waiting(self) -> None:
        """What the full disk refused is in memory alone: before anything else, say beside the store how much that is."""
        drafts, lost = self._unstored.drafts, self._unstored.loss
        times = [draft.observed for draft in drafts] + ([lost.since, lost.until] if lost else [])
        if not times:
            return
        waiting = Loss(len(drafts) + (lost.dropped if lost else 0), min(times), max(times))
        if waiting != self._noted:
            self._noted = waiting
            await self._outbox.note_waiting(waiting, self.pair)

    def _keep(self, taken: _Unstored) -> None:
        """Put back what the full disk refused, before what came meanwhile."""
        newer = self._unstored
        taken.drafts.extend(newer.drafts)
        taken.memory |= newer.memory
        taken.views.extend(newer.views)
        self._unstored = taken
        self._bound(taken)
        self._retry_at = MonoNs(self._clock.mono() + FULL_RETRY_NS)
        if not self.is_full:
            self._log.error("disk full: findings wait in memory")
            self.is_full = True

    async def _sleep(self) -> None:
        """Until there is something to do: a reply, an observation, the engine's deadline; at most `NAP_S`."""
        if not self._wake.is_set():
            self._set_alarm()
            await self._wake.wait()
        self._wake.clear()

    async def _catch_up(self) -> None:
        """The process stood still: what has been answered meanwhile is not lost because we are late to hear of it."""
        self._has_stalled = False
        await asyncio.sleep(LOOK_S)
        for reply in self._inbox:
            if isinstance(reply.outcome, BlockOk):
                self.engine.expect(reply.block, reply.requested_at)

    def _set_alarm(self) -> None:
        """Be woken by the engine's deadline. An alarm set for earlier stays: it finds nothing, and is set anew."""
        loop = asyncio.get_running_loop()
        deadline = self.engine.next_deadline()
        wait_s = NAP_S
        if deadline is not None:
            wait_s = min(NAP_S, max(0, deadline - self._clock.mono()) / NS_PER_S)
        at_s = loop.time() + wait_s
        if self._alarm is not None:
            if self._alarm_at_s <= at_s:
                return
            self._alarm.cancel()
        self._alarm_at_s = at_s
        self._alarm_due = MonoNs(self._clock.mono() + int(wait_s * NS_PER_S))
        self._alarm = loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        self._has_stalled = asyncio.get_running_loop().time() - self._alarm_at_s > STALL_S
        self._alarm = None
        self._wake.set()
