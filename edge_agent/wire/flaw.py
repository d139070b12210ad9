"""What can have been done to a chain, in one word, and where: both `verify` commands use these words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Deed(StrEnum):
    """What was done to a chain, as far as the chain shows it."""

    FLIPPED = "flipped"
    """An entry's bytes are not those that were written."""
    REMOVED = "removed"
    """An entry is nowhere."""
    INSERTED = "inserted"
    """An entry stands where none was."""
    REORDERED = "reordered"
    """Entries stand in another order than they were written."""
    TRUNCATED = "truncated"
    """What is kept beside the chain, or the chain itself, says that more followed."""
    ROLLED_BACK = "rolled back"
    """The chain is whole and ends before something that a head has seen: an older copy, or a clean cut."""
    FORGED = "forged"
    """The hashes fit, a signature or a link that its author cannot make does not."""
    RESEALED = "re-signed"
    """The chain is whole and is not the one that a head has seen: it was written anew and sealed again."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first bad entry: where, what was done, and how that shows."""

    where: str
    deed: Deed
    detail: str
