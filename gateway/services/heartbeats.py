"""Silence is monitored: a test message leaves through every channel that names somebody for it, every so many hours.

Each belongs to a slot of the gateway's time (its length is the period), and its key names the slot: decided once a slot,
however often the gateway is started in it. It goes the way of every notice: tried again, and `alert_failing` when it does
not get through, so that a dead channel is found on a quiet day and not with the first alarm.

Source: reliability practice of alerting systems (a dead man's switch; alertmanager's Watchdog alert).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NoReturn

from gateway.domain.notice import Notice
from gateway.domain.notify import AlertPlan, Heartbeat, NoticeEvent, Reason
from gateway.domain.teller import Voice, make_test_alert
from gateway.ports import Clock, Journal, JournalUnavailable, Recording
from gateway.services.pulse import Advance, unwatched, wait_alive

LOOK_S: Final = 60.0
"""How often a new slot is looked for: nothing against a period of hours."""

HOUR_MS: Final = 3_600_000


class Heartbeats:
    """Run `run` as a task. `wake` is called when there is a new notice."""

    def __init__(
        self, journal: Journal, clock: Clock, plan: AlertPlan, voice: Voice, wake: Callable[[], None]
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._plan = plan
        self._voice = voice
        self._wake = wake
        self._slots: dict[str, int] = {}

    async def run(self, advance: Advance = unwatched) -> NoReturn:
        """Decide what is due, for ever."""
        never = asyncio.Event()
        while True:
            await self._beat()
            advance()
            await wait_alive(never, LOOK_S, advance)

    async def _beat(self) -> None:
        now_ms = self._clock.utc_ms()
        slots = {item.channel: now_ms // (item.every_h * HOUR_MS) for item in self._plan.heartbeats}
        due = [item for item in self._plan.heartbeats if self._slots.get(item.channel) != slots[item.channel]]
        if not due:
            return

        def decide(recording: Recording) -> None:
            for item in due:
                recording.add_notice(self._notice(item, slots[item.channel], recording.now_ms))

        try:
            await self._journal.transact(decide)
        except JournalUnavailable:
            return  # the next look decides it
        self._slots = slots
        self._wake()

    def _notice(self, item: Heartbeat, slot: int, now_ms: int) -> Notice:
        alert = make_test_alert(self._plan.people[item.person], item.channel, self._voice, now_ms)
        name = f"heartbeat-{item.every_h}h-{slot}"
        key = f"{name}/{NoticeEvent.TEST}/1/{item.person}/{item.channel}"
        return Notice(replace(alert, delivery=key, occurrence=name), item.channel, Reason.HEARTBEAT, now_ms)
