"""What could not be stored: counted where there is room for a count, told as soon as there is room for an event.

    above `size_max_mb`   counted in `fact`, in the transaction that stores what still may be stored
    disk full             noted beside the store (`store_note`), in place: what waits in memory would be lost by a kill

What was told is not made good by that: only a state report that was made after the loss says how things stand. Until one is
stored the loss is *unhealed*, over restarts too.

A note stands until the transaction that stores or tells what it is about, which names its number in `fact`: one that
was taken up is never counted again, whenever the process is killed. After it the note is emptied too, because it may
outlive its store (moved aside, deleted), and a store its note (copied without): then numbers go on from `fact`.

Source: the outside contract, section 3 (`outbox_overflow`); reliability invariant I-5.
"""

from __future__ import annotations

import json
from typing import Final

from edge_agent.adapters.store_note import StoreNote
from edge_agent.adapters.store_tables import KeyedTexts
from edge_agent.domain.wall import WallPair
from edge_agent.ports import Loss
from edge_agent.wire.event import OutboxOverflow

_COUNTED: Final = "overflow"
_TAKEN: Final = "loss_taken"
_UNHEALED: Final = "unhealed"


class LossBook:
    """The losses of one store; `note` is None where there is no file."""

    def __init__(self, facts: KeyedTexts, note: StoreNote | None) -> None:
        self._facts = facts
        self._note = note
        self._left: OutboxOverflow | None = None
        taken = int(facts.get(_TAKEN, "0"))
        if note is None:
            return
        if note.loss.number > taken and note.loss.dropped:
            self._left = OutboxOverflow(note.loss.dropped, note.loss.since, note.loss.until)
        note.count_on(taken)

    def owed(self, loss: Loss | None, pair: WallPair) -> OutboxOverflow | None:
        """All that nobody was told yet: counted before, left by a former run, and `loss`."""
        counted = self._facts.get(_COUNTED, "")
        owed = OutboxOverflow(*json.loads(counted)) if counted else None
        owed = _join(owed, self._left)
        return owed if loss is None else _join(owed, _worded(loss, pair))

    @property
    def is_untold(self) -> bool:
        """Whether there is a loss that no event tells."""
        return self._left is not None or self._facts.get(_COUNTED, "") != ""

    @property
    def is_unhealed(self) -> bool:
        """Whether there is a loss that no state report follows."""
        return self.is_untold or self._facts.get(_UNHEALED, "") != ""

    def facts(
        self, counted: OutboxOverflow | None, *, is_told: bool, is_healed: bool
    ) -> dict[str, str | None]:
        """What the transaction keeps that tells everything owed (`is_told`), or counts it on (`counted`).

        `is_healed`: it stores a state report that was made after all of it.
        """
        kept = None if counted is None else json.dumps([counted.dropped, counted.since, counted.until])
        facts: dict[str, str | None] = {}
        if (kept is None) is not (self._facts.get(_COUNTED, "") == "") or kept is not None:
            facts[_COUNTED] = kept
        if self._note is not None and self._note.loss.number > int(self._facts.get(_TAKEN, "0")):
            facts[_TAKEN] = str(self._note.loss.number)
        if is_healed and self._facts.get(_UNHEALED, ""):
            facts[_UNHEALED] = None
        elif is_told and not is_healed:
            facts[_UNHEALED] = "1"
        return facts

    def settle(self) -> None:
        """That transaction is on disk. Raises `StoreBrokenError`."""
        self._left = None
        if self._note is not None and self._note.loss.dropped:
            self._note.note_no_loss()

    def endanger(self, loss: Loss, pair: WallPair) -> None:
        """So much waits in memory for room on the disk. Raises `StoreBrokenError`."""
        if self._note is not None:
            lost = _join(self._left, _worded(loss, pair))
            assert lost is not None, "there is a loss"
            self._note.note_loss(lost.dropped, lost.since, lost.until)


def _worded(loss: Loss, pair: WallPair) -> OutboxOverflow:
    return OutboxOverflow(loss.dropped, pair.label(loss.since), pair.label(loss.until))


def _join(first: OutboxOverflow | None, then: OutboxOverflow | None) -> OutboxOverflow | None:
    if first is None or then is None:
        return first or then
    return OutboxOverflow(first.dropped + then.dropped, first.since, then.until)
