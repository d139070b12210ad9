"""The gateway's heads: how far its journal and the agents' chains in it have got, signed, to be kept elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_agent.wire.heads import AgentHead, Head, HeldEvent, JournalHead
from gateway.domain.instants import iso_utc


@dataclass(frozen=True, slots=True)
class Reach:
    """The last entry of a journal, the newest event of each agent in it, and the newest checkpoint of each."""

    position: int
    link: str
    held: tuple[HeldEvent, ...]
    checkpoints: tuple[AgentHead, ...]


def make_heads(reach: Reach, now_ms: int, public_key: str, sign: Callable[[bytes], str]) -> Sequence[Head]:
    """The journal's head, signed, then the agents' own; `now_ms` is UTC in milliseconds."""
    unsigned = JournalHead(reach.position, reach.link, iso_utc(now_ms), reach.held, public_key)
    return (replace(unsigned, signature=sign(unsigned.message)), *reach.checkpoints)
