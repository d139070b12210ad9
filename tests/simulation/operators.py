"""People at the board: they acknowledge what calls, note what they saw, and get in each other's way.

What an act was told stands: `Done` is in the journal for good, and of several who acknowledge one call of an alarm one
is `Done` and the others hear who was first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.domain.access import Principal, Role, Via
from gateway.domain.alarm import Ack
from gateway.ports import JournalUnavailable
from gateway.services.operate import Done, NoSuchAlarm, Operate, Outcome, TooLate
from simulators.draw import Draw

if TYPE_CHECKING:
    from tests.simulation.world import World

CLERKS: Final = (
    Principal("zhao-min", Role.SHIFT_MANAGER, Via.SESSION),
    Principal("sun-li", Role.MAINTENANCE, Via.TOKEN),
    Principal("he-yong", Role.SAFETY_OFFICER, Via.SESSION),
)


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody was told of an act: `outcome` is None for a note."""

    at_ns: int
    alarm: int
    who: str
    raised_n: int
    is_done: bool
    first: str | None
    note: str | None


class Operators:
    """The people; `acts` is everything that they were promised."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.acts: list[Act] = []
        self.struck: Counter[str] = Counter()

    async def operate(self, draw: Draw) -> None:
        """Somebody does something, or two do it at once."""
        parts = self._world.gateway.parts
        if parts is None or not self._world.gateway.is_running:
            return
        alarms = parts.book._state.alarms.adopted()
        unseen = sorted(alarm.id for alarm in alarms.values() if alarm.state.ack is Ack.UNACKED)
        if alarms and draw.chance(0.2):
            number, who = draw.choice(sorted(alarms)), draw.choice(CLERKS)
            text = f"seen at {self._world.loop.now_ns}"
            self.struck["note"] += 1
            await self._tell(parts.operate, number, who, text)
        elif unseen:
            number = draw.choice(unseen)
            is_race = draw.chance(self._world.swarm.race_share)
            self.struck["race" if is_race else "acknowledgement"] += 1
            people = CLERKS[: draw.between(2, 3)] if is_race else (draw.choice(CLERKS),)
            await asyncio.gather(*(self._tell(parts.operate, number, who, None) for who in people))

    async def _tell(self, operate: Operate, alarm: int, who: Principal, note: str | None) -> None:
        try:
            if note is None:
                outcome: Outcome = await operate.acknowledge(alarm, who)
            else:
                outcome = await operate.annotate(alarm, who, note)
        except (JournalUnavailable, asyncio.CancelledError):
            return  # the gateway died under the act, or had no room: nothing was promised
        now_ns = self._world.loop.now_ns
        match outcome:
            case Done(known):
                self.acts.append(Act(now_ns, alarm, who.name, known.raised_n, True, None, note))
            case TooLate(known):
                first = known.acknowledged.who if known.acknowledged else None
                self.acts.append(Act(now_ns, alarm, who.name, known.raised_n, False, first, note))
            case NoSuchAlarm():
                pass  # it became history meanwhile
