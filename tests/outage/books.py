"""The books of an outage: what the doors did, what the agent's store holds, what the journal says. Plain SQLite and JSON.

Every turn of a door is one `guard_changed`, told between that turn and the next one of the same door; every opening at a
running machine is raised once, after T_allow, and cleared once, after the door was closed. Whatever else the journal
says of doors is made up, said twice, or out of order.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.chaos.accounting import Committed, Finding, Journaled, StatedGap, Verdict, account_stream
from tests.outage.hall import Turn, is_watched

T_ALLOW_MS: Final = 1000
"""Default of an interlocked door without locking."""

BLUR_MS: Final = 500
"""How far a told time may lie beside the truth: a reply's way on a loaded machine."""

AT_ONCE_MS: Final = 5_000
"""What takes longer into the journal was held up."""


@dataclass(frozen=True, slots=True)
class Told:
    """An agent's event as the journal has it: of which door, what, when (the agent's clock), and when it was journaled."""

    key: tuple[str, int]
    hash: str
    kind: str
    door: str
    state: str
    occurrence: str
    at_ms: int
    recorded_ms: int


@dataclass(frozen=True, slots=True)
class Journal:
    """What the gateway's database says."""

    told: Sequence[Told]
    gaps: int
    quarantined: int
    own_findings: frozenset[str]
    """Rules of the gateway's own findings."""
    raised: int
    """Rows of agents' violations in its log."""


def read_journal(path: Path) -> Journal:
    """Read it whole."""
    with closing(_open(path)) as journal:
        rows = journal.execute(
            "SELECT payload, recorded_at_ms FROM journal WHERE kind='edge_event' ORDER BY position"
        )
        told = [_told(json.loads(payload), recorded_ms) for payload, recorded_ms in rows]
        gaps = journal.execute("SELECT count(*) FROM gaps").fetchone()[0]
        quarantined = journal.execute("SELECT count(*) FROM quarantine").fetchone()[0]
        own = journal.execute("SELECT DISTINCT rule FROM violations WHERE origin='gateway'").fetchall()
        raised = journal.execute("SELECT count(*) FROM violations WHERE origin!='gateway'").fetchone()[0]
    return Journal(told, gaps, quarantined, frozenset(rule for (rule,) in own), raised)


def read_store(path: Path) -> list[Committed]:
    """The agent's whole chain."""
    with closing(_open(path)) as store:
        rows = store.execute("SELECT epoch, seq, hash FROM event ORDER BY n").fetchall()
    return [Committed(epoch, seq, digest, 0.0) for epoch, seq, digest in rows]


def newest(path: Path, table: str, order: str) -> tuple[str, int] | None:
    """The newest event's key in a store or a journal that is in use; None while there is none, or none to be read."""
    query = f"SELECT epoch, seq FROM {table} WHERE epoch IS NOT NULL ORDER BY {order} DESC LIMIT 1"
    try:
        with closing(_open(path)) as database:
            row = database.execute(query).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else (row[0], row[1])


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def _told(event: Mapping[str, object], recorded_ms: int) -> Told:
    seq, mono_ms = event["seq"], event["mono_ms"]
    assert isinstance(seq, int)
    assert isinstance(mono_ms, int)
    return Told(
        (str(event["epoch"]), seq),
        str(event["hash"]),
        str(event["kind"]),
        f"{event.get('machine')}/{event.get('guard')}",
        str(event.get("state")),
        str(event.get("occurrence")),
        mono_ms,
        recorded_ms,
    )


def account(
    turns: Mapping[str, Sequence[Turn]], journal: Journal, store: Sequence[Committed]
) -> list[Finding]:
    """Everything that does not add up, when the agent has stopped and all is drained."""
    findings = account_stream(
        [store], [Journaled(*item.key, item.hash) for item in journal.told], list[StatedGap]()
    )
    states: dict[str, list[Told]] = defaultdict(list)
    violations: dict[str, list[Told]] = defaultdict(list)
    for item in journal.told:
        if item.kind == "guard_changed":
            states[item.door].append(item)
        elif item.kind.startswith("violation_"):
            violations[item.door].append(item)
    for door, done in turns.items():
        findings += _states(done, states.pop(door, []))
        findings += _violations(door, done, violations.pop(door, []))
    for strange in (*states.values(), *violations.values()):
        findings += [_finding(Verdict.UNEXPECTED, item, "of no door of the hall") for item in strange]
    if journal.gaps or journal.quarantined:
        text = f"{journal.gaps} gaps, {journal.quarantined} payloads in quarantine"
        findings.append(Finding(Verdict.UNEXPECTED, None, text))
    raises = sum(item.kind == "violation_raised" for item in journal.told)
    if journal.raised != raises:
        text = f"{raises} violations were raised, the log has {journal.raised}"
        findings.append(Finding(Verdict.LOST, None, text))
    return findings


def _states(done: Sequence[Turn], told: Sequence[Told]) -> Iterator[Finding]:
    """Each turn told once, in its time."""
    waiting = list(reversed(told))
    for turn, until_ms in _with_ends(done):
        while waiting and waiting[-1].at_ms < turn.at_ms - BLUR_MS:
            yield _finding(Verdict.UNEXPECTED, waiting.pop(), "is no turn of that door")
        state = "closed" if turn.is_closed else "open"
        if waiting and waiting[-1].state == state and waiting[-1].at_ms <= until_ms + BLUR_MS:
            waiting.pop()
        else:
            yield Finding(Verdict.LOST, turn.at_ms / 1000, f"{turn} was not told")
    for item in waiting:
        yield _finding(Verdict.UNEXPECTED, item, "is no turn of that door")


def _violations(door: str, done: Sequence[Turn], told: Sequence[Told]) -> Iterator[Finding]:
    """Each opening at a running machine raised once, in its time, and cleared once when it was over."""
    waiting = list(reversed(told))
    openings = [(turn, end) for turn, end in _with_ends(done) if is_watched(door) and not turn.is_closed]
    for turn, until_ms in openings:
        raised = _take(waiting, "violation_raised", turn.at_ms + T_ALLOW_MS, until_ms)
        if raised is None:
            yield Finding(Verdict.LOST, turn.at_ms / 1000, f"{turn} was not raised")
        elif until_ms != _NEVER:
            cleared = _take(waiting, "violation_cleared", until_ms, _NEVER)
            if cleared is None or cleared.occurrence != raised.occurrence:
                yield Finding(Verdict.LOST, until_ms / 1000, f"{raised.occurrence} at {door} was not cleared")
    for item in waiting:
        yield _finding(Verdict.UNEXPECTED, item, "fits no opening of that door")


_NEVER: Final = 1 << 62


def _take(waiting: list[Told], kind: str, from_ms: int, until_ms: int) -> Told | None:
    """The next that was told, if it is of this kind and within this time."""
    if not waiting or waiting[-1].kind != kind:
        return None
    return waiting.pop() if from_ms - BLUR_MS <= waiting[-1].at_ms <= until_ms + BLUR_MS else None


def _with_ends(done: Sequence[Turn]) -> Iterator[tuple[Turn, int]]:
    """Each turn, and when the next one of its door came."""
    for turn, following in pairwise(done):
        yield turn, following.at_ms
    yield done[-1], _NEVER


def _finding(verdict: Verdict, item: Told, text: str) -> Finding:
    return Finding(verdict, item.at_ms / 1000, f"{item.kind} {item.door} {item.state} {item.key} {text}")


@dataclass(frozen=True, slots=True)
class Drain:
    """How what had waited came: times of the gateway's clock and of the agent's, brought together by the caller."""

    waiting: int
    """Events that had waited for the link."""
    drained_s: float
    """From the link's return to the last of them in the journal."""
    live: int
    """Events found out while they were drained."""
    live_late_s: float
    """How late the latest of these was."""

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.waiting / self.drained_s


def measure(journal: Journal, *, cut_ms: int, up_ms: int, offset_ms: int) -> Drain:
    """`cut_ms`, `up_ms`: when the link went and came, on the agent's clock; `offset_ms`: UTC minus that clock.

    Live is what was found out between the link's return and the journaling of the last event that had waited.
    """
    waited = [item for item in journal.told if cut_ms < item.at_ms <= up_ms]
    drained_at_ms = max(item.recorded_ms for item in waited) - offset_ms
    live = [item for item in journal.told if up_ms < item.at_ms <= drained_at_ms]
    return Drain(
        waiting=len(waited),
        drained_s=(drained_at_ms - up_ms) / 1000,
        live=len(live),
        live_late_s=max((item.recorded_ms - offset_ms - item.at_ms for item in live), default=0) / 1000,
    )


def shown_on(board: Mapping[str, object]) -> dict[str, str]:
    """The states that a board (REST document) shows, by door."""
    shown = {}
    for site in _list(board["sites"]):
        for area in _list(site["areas"]):
            for machine in _list(area["machines"]):
                for guard in _list(machine["guards"]):
                    shown[f"{machine['machine']}/{guard['guard']}"] = str(guard["state"])
    return shown


def _list(value: object) -> list[Mapping[str, object]]:
    assert isinstance(value, list)
    return value


def expected_board(turns: Mapping[str, Sequence[Turn]]) -> dict[str, str]:
    """What a board must show when all is well."""
    return {door: "closed" if done[-1].is_closed else "open" for door, done in turns.items()}


def what_is_wrong(turns: Mapping[str, Sequence[Turn]], board: Mapping[str, str], journal: Path) -> list[str]:
    """What board and violation log show otherwise than it is, when nothing moves any more."""
    expected = expected_board(turns)
    standing = {door for door, state in expected.items() if is_watched(door) and state == "open"}
    wrong = [
        f"in the end the board shows {door} {board.get(door)}"
        for door, state in expected.items()
        if board.get(door) != state
    ]
    active = open_in_log(journal)
    wrong += [f"in the end no violation tells of {door}" for door in sorted(standing - active)]
    return wrong + [f"in the end {what} is still a violation" for what in sorted(active - standing)]


def open_in_log(path: Path) -> set[str]:
    """The doors of violations that the gateway's log has as active; its own findings by their rule."""
    query = "SELECT origin, machine, guard, rule FROM violations WHERE cleared_at IS NULL"
    with closing(_open(path)) as journal:
        rows = journal.execute(query).fetchall()
    return {rule if origin == "gateway" else f"{machine}/{guard}" for origin, machine, guard, rule in rows}
