"""What operators do to alarms: each act is a journal entry with who, in which role, by which way, and why.

An act that comes too late is told who was first, instead of being written down as if it had been the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gateway.domain.access import Principal
from gateway.domain.alarm import Ack, Alarm
from gateway.domain.journal import Act, OperatorCommand
from gateway.ports import Journal, Recording


@dataclass(frozen=True, slots=True)
class Done:
    """The act is in the journal; `alarm` is as it stands now."""

    alarm: Alarm


@dataclass(frozen=True, slots=True)
class TooLate:
    """Somebody was first: `alarm.acknowledged` says who and when."""

    alarm: Alarm


@dataclass(frozen=True, slots=True)
class NoSuchAlarm:
    """There is no alarm of this number."""


Outcome: TypeAlias = Done | TooLate | NoSuchAlarm


class Operate:
    """Operators' acts over the journal. Every method raises `JournalUnavailable` when nothing can be written."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def acknowledge(self, alarm: int, who: Principal, note: str | None = None) -> Outcome:
        """Record that somebody has seen an alarm and owns it; on one that is over, only that it was seen."""

        def work(recording: Recording) -> Outcome:
            known = recording.find_alarm(alarm)
            if known is None:
                return NoSuchAlarm()
            if known.state.ack is Ack.ACKED:
                return TooLate(known)
            return self._act(recording, Act.ACKNOWLEDGE, alarm, who, note)

        return await self._journal.transact(work)

    async def annotate(self, alarm: int, who: Principal, note: str) -> Outcome:
        """Set an alarm's note, whatever its state."""

        def work(recording: Recording) -> Outcome:
            if recording.find_alarm(alarm) is None:
                return NoSuchAlarm()
            return self._act(recording, Act.NOTE, alarm, who, note)

        return await self._journal.transact(work)

    def _act(self, recording: Recording, act: Act, alarm: int, who: Principal, note: str | None) -> Outcome:
        recording.append(OperatorCommand(act, alarm, who.name, who.role.value, who.via.value, note))
        now = recording.find_alarm(alarm)
        return NoSuchAlarm() if now is None else Done(now)
