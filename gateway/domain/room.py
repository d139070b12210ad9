"""How much room the journal has left, and when that is little enough for an alarm. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FILLING_PCT: Final = 80
"""From here on the journal is said to be filling up (reliability invariant I-5)."""

RELIEVED_PCT: Final = 70
"""Below this it is said to be over: a margin, so that a journal at the limit does not alarm again and again."""

ROOM_MIN_BYTES: Final = 64 * 1024 * 1024
"""Less room than this is filling up, however small the journal is: what ten agents at their design rate of 0.25 events
a second write in six hours, with the write-ahead log."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the journal takes up, and what the file system has left for it."""

    used_bytes: int
    free_bytes: int

    @property
    def filled_pct(self) -> int:
        """How much of what the journal can ever have it has taken up, in percent."""
        return self.used_bytes * 100 // max(1, self.used_bytes + self.free_bytes)


def is_filling(room: Room, *, was_filling: bool) -> bool:
    """Whether somebody has to make room."""
    if was_filling:
        return room.filled_pct >= RELIEVED_PCT or room.free_bytes < ROOM_MIN_BYTES * 5 // 4
    return room.filled_pct >= FILLING_PCT or room.free_bytes < ROOM_MIN_BYTES
