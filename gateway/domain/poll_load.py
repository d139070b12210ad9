"""Does an agent keep up with its polls? Judged over the last minute of its beats.

An agent counts polls that were still going on when the next was due (overruns): its bus, its devices or its machine are
slower than its configuration asks. One now and then is a hiccup; a steady share means that guards are looked at less
often than the configuration says, so `detect_ms` is not kept. Counters are of one run: another run, or a minute without
a beat, begins a new window, and until a window is full the verdict stays what it was.

Each device is judged by itself as well: one bus that cannot keep up is not made good by thirty that can. (Of an agent
whose devices fill several pages of health only those of the first page; the total counts all.)

Times are milliseconds of the gateway's monotonic clock.

Source: the outside contract, section 3 (health: `polls`, `overruns`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.wire.status import DeviceHealth, Health

WINDOW_MS: Final = 60_000
"""What is judged: long enough for a hiccup to vanish in it."""

OVERRUN_PCT: Final = 5
"""More overruns than this among the polls of a window are a finding …"""

RELIEVED_PCT: Final = 1
"""… until a whole window has fewer than this, so that one that hovers does not chatter."""


OVERRUNS_LEAST: Final = 3
"""Fewer late polls of one device are hiccups, however seldom it is polled."""


@dataclass(frozen=True, slots=True)
class _Beat:
    """The counters of one beat, and when it was said."""

    at_ms: int
    polls: int
    overruns: int
    devices: Mapping[str, DeviceHealth]


@dataclass(frozen=True, slots=True)
class PollLoad:
    """The beats of one run that reach back over the window, oldest first: some thirty."""

    epoch: str | None = None
    beats: tuple[_Beat, ...] = ()

    @property
    def polls(self) -> int:
        """Polls that ended within the window."""
        return self.beats[-1].polls - self.beats[0].polls if self.beats else 0

    @property
    def overruns(self) -> int:
        """Those of them that overran."""
        return self.beats[-1].overruns - self.beats[0].overruns if self.beats else 0

    def by_device(self) -> Iterator[tuple[str, int, int]]:
        """Each device that was polled within the window: its id, its polls, its overruns."""
        first, last = self.beats[0].devices, self.beats[-1].devices
        for name, now in last.items():
            before = first.get(name)
            if before is not None and now.polls > before.polls:
                yield name, now.polls - before.polls, now.overruns - before.overruns

    @property
    def late_devices(self) -> list[str]:
        """The devices that overran too often themselves."""
        return (
            [name for name, polls, late in self.by_device() if _is_too_late(polls, late)]
            if self.beats
            else []
        )

    @property
    def is_full(self) -> bool:
        """Whether a whole window has been heard."""
        return bool(self.beats) and self.beats[-1].at_ms - self.beats[0].at_ms >= WINDOW_MS


def note_beat(load: PollLoad, health: Health, now_ms: int) -> PollLoad:
    """The load after one more beat of a living agent."""
    beats = load.beats
    if health.epoch != load.epoch or (beats and now_ms - beats[-1].at_ms >= WINDOW_MS):
        beats = ()
    first = max((n for n, beat in enumerate(beats) if now_ms - beat.at_ms >= WINDOW_MS), default=0)
    return PollLoad(
        health.epoch, (*beats[first:], _Beat(now_ms, health.polls, health.overruns, health.devices))
    )


def is_overrunning(load: PollLoad, *, was_overrunning: bool) -> bool:
    """Whether too many polls come late, of the agent or of one of its devices."""
    if not load.is_full:
        return was_overrunning
    if was_overrunning:
        devices = ((polls, late) for _, polls, late in load.by_device())
        return any(
            late * 100 >= polls * RELIEVED_PCT for polls, late in ((load.polls, load.overruns), *devices)
        )
    return _is_too_late(load.polls, load.overruns) or bool(load.late_devices)


def _is_too_late(polls: int, late: int) -> bool:
    return late >= OVERRUNS_LEAST and late * 100 > polls * OVERRUN_PCT
