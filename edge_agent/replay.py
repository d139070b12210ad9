"""A recorded trace through a fresh engine: what would have been found, byte-identical each time.

The engine decides by the trace's own times, so a replay is as exact as the day it was recorded. What only the running
agent has, is fixed here: the epoch and boot are constant, labels count from 1970 (`since` is the trace's `t`), and the
events carry `t` (milliseconds, whole) instead of a place in a chain.

Source: the outside contract, section 6 ("Traces").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge_agent.domain.findings import RecordEvents
from edge_agent.domain.plan import CellPlan
from edge_agent.domain.trace import TraceFailure, TraceProblem, TraceSample, read_trace
from edge_agent.domain.units import NS_PER_MS, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from edge_agent.wire.chain import canonical
from edge_agent.wire.codec import body_document
from edge_agent.wire.event import KIND_OF

REPLAY_EPOCH = "00000000000000000000000000"
"""A ULID that no run can draw: occurrences of a replay are never taken for real ones."""

PROBLEMS_MAX = 100
"""A file that is no trace at all is not listed line by line."""

_WALL = WallPair(MonoNs(0), UtcNs(0), synced=False)


class TraceError(ValueError):
    """A line of the trace is bad; the text is `NAME:LINE: what — how to mend it`."""


def trace_problems(plan: CellPlan, lines: Iterable[str], name: str) -> list[str]:
    """What is wrong with a trace, all at once (at most `PROBLEMS_MAX`); empty when it can be replayed."""
    problems: list[str] = []
    for entry in read_trace(plan, lines, name):
        if isinstance(entry, TraceProblem):
            problems.append(entry.text)
            if len(problems) == PROBLEMS_MAX:
                break
    return problems


def replay(plan: CellPlan, lines: Iterable[str], name: str = "trace") -> Iterator[str]:
    """The events of a trace as JSON lines (without line ends). Raises `TraceError` at a bad line."""
    engine: EdgeEngine | None = None
    for entry in read_trace(plan, lines, name):
        if isinstance(entry, TraceProblem):
            raise TraceError(entry.text)
        if engine is None:
            engine = EdgeEngine(plan, epoch=REPLAY_EPOCH, boot="replay", now=entry.now, wall=_WALL, memory={})
        match entry:
            case TraceSample(now, block, data):
                engine.receive_block(block, data, now, now)
            case TraceFailure(now, block, reason):
                engine.receive_failure(block, reason, now)
        yield from _stated(engine)


def _stated(engine: EdgeEngine) -> Iterator[str]:
    for effect in engine.take_effects():
        if isinstance(effect, RecordEvents):
            for draft in effect.drafts:
                kind = KIND_OF[type(draft.body)].value
                document = {"t": draft.observed // NS_PER_MS, "kind": kind, **body_document(draft.body)}
                yield canonical(document).decode()
