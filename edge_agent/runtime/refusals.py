"""What devices have refused, kept across restarts: a refused span is not asked for as a whole a second time.

Kept in the store's memory under one key, with the hash of the configuration it belongs to: another configuration begins
anew, since it may have mended the cause.

Source: Modbus Application Protocol 1.1b3, 7 (exception 02, illegal data address).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from edge_agent.domain.plan import CellPlan, ReadBlock
from edge_agent.domain.readsplit import Refusals, span_of, split_refused
from edge_agent.wire.event import Json
from edge_agent.wire.structure import MisfitError, plain, structure

REFUSALS_KEY: Final = "refusals"
"""The memory key."""

ILLEGAL_ADDRESS: Final = "exception:2"
"""How the fieldbus names the refusal of an address. No other exception says that a smaller request would do better."""


class RefusalBook:
    """The refusals of one configuration; `plan` is what to ask for, knowing them."""

    def __init__(self, plan: CellPlan, memory: Mapping[str, Json]) -> None:
        self._refusals = _recalled(memory.get(REFUSALS_KEY), plan.config_hash)
        self.plan = split_refused(plan, self._refusals.spans)

    def add(self, block: ReadBlock) -> dict[str, Json]:
        """One more; the memory to keep."""
        known = self._refusals
        self._refusals = Refusals(known.config_hash, (*known.spans, span_of(block)))
        return {REFUSALS_KEY: plain(self._refusals)}


def told_split(block: ReadBlock, parts: Sequence[ReadBlock]) -> dict[str, Json]:
    """What the journal says of a block that was split."""
    spans: list[Json] = [{"start": part.start, "count": part.count} for part in parts]
    return {
        "device": block.device,
        "table": block.table.value,
        "start": block.start,
        "count": block.count,
        "parts": spans,
    }


def _recalled(memory: Json, config_hash: str) -> Refusals:
    try:
        refusals = cast("Refusals", structure(Refusals, memory, "memory"))
    except MisfitError:
        return Refusals(config_hash, ())
    return refusals if refusals.config_hash == config_hash else Refusals(config_hash, ())
