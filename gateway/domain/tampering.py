"""What was done to a journal where its links break: read off how the entries from there on link to each other.

An entry E stands where the chain has come to link L and expects position P. An entry *follows* a link at a position
when its own link is made of those two and its content; nobody looks at the position that it claims, so entries that
were numbered anew after a removal are recognised too.

    its link is L                     E stands there twice                                                 inserted
    the next follows L at P           E does not belong here: moved from further on, if anything follows E; else inserted
    something later follows L at P    what belongs here was moved away                                       reordered
    the next follows E, further on    what came before E is nowhere                                          removed
    the next follows E at P + 1       E itself was changed                                                   flipped

Pure; reads the rest of the journal, since this is the end of the verification anyway.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from edge_agent.wire.flaw import Deed
from gateway.domain.journal import StoredBody, entry_link

REMOVED_MAX: Final = 1000
"""So many removed entries are recognised although the rest was numbered anew; more are told as flipped."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it lies in the table."""

    position: int
    recorded_at_ms: int
    stored: StoredBody
    link: str


Numbered: TypeAlias = tuple[str, StoredEntry | None]
"""Where an entry stands (`entry 17`, `line 18`), and the entry; None where none can be read."""


def deed_of(link: str, position: int, entry: StoredEntry, rest: Iterator[Numbered]) -> Deed:
    """What was done, where `entry` does not follow `link` at `position`; takes what comes after it from `rest`."""
    if entry.link == link:
        return Deed.INSERTED
    following = next((found for _, found in rest if found is not None), None)
    if following is None:
        return Deed.REMOVED if entry.position > position else Deed.FLIPPED
    later = itertools.chain([following], (found for _, found in rest if found is not None))
    if _follows(following, link, position):
        return _deed_of_stranger(entry, later)
    shown = entry.position
    is_next = any(_follows(following, entry.link, shown + step) for step in range(1, REMOVED_MAX))
    if shown == position and (not is_next or _follows(following, entry.link, shown + 1)):
        return Deed.FLIPPED
    if any(_follows(found, link, position) for found in later):
        return Deed.REORDERED
    return Deed.REMOVED if shown >= position else Deed.INSERTED


def _deed_of_stranger(entry: StoredEntry, later: Iterator[StoredEntry]) -> Deed:
    """`entry` was put before what belongs here: as a copy or anew, or it is missing where it stood."""
    is_moved = False
    for found in later:
        if found.link == entry.link:
            return Deed.INSERTED
        is_moved |= _follows(found, entry.link, found.position) or _follows(
            found, entry.link, entry.position + 1
        )
    return Deed.REORDERED if is_moved else Deed.INSERTED


def _follows(entry: StoredEntry, link: str, position: int) -> bool:
    return entry_link(link, position, entry.recorded_at_ms, entry.stored) == entry.link
