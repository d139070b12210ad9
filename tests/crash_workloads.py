"""The work that crash points are tried on: short runs of both stores, and what must be true after any of them.

As a program (`python -m tests.crash_workloads`) it is a nursery: everything is imported once, then each line on standard
input, `WORKLOAD FOLDER`, forks a child that stops itself before it begins, so that a tracer can take hold of it. The
nursery prints the child's process id, and how the child ended: its exit code, or minus the signal.

A child writes a line to `acked.txt` for each commit after it returned: what must be there from then on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import SigningKey
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.findings import Draft
from edge_agent.domain.units import NS_PER_S, MonoNs, UtcNs
from edge_agent.domain.verification import verify_chain
from edge_agent.domain.wall import WallPair
from edge_agent.ports import Committed, StoreBrokenError
from edge_agent.wire.event import Observation
from edge_agent.wire.heads import Heads
from gateway.adapters.store_sql.chain_check import verify_journal
from gateway.adapters.store_sql.engine import open_readers
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.adapters.store_sql.journal_file import JournalFile
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import EdgeEvent
from gateway.ports import JournalLost, JournalUnavailable
from tests.scripted_agent import Store, note, ulid
from tests.stored import read_entries

ACKED = "acked.txt"
COMMITS = 4
FAILED = 1
"""The exit code of a child whose store said that it is broken: what the products end with."""

FULL = 3
"""The exit code of a child whose store said that there is no room now: the products go on, and try again."""

_RUN = Run("site", "gw", "boot-1", "1.0", "c" * 64)
_KEY = SigningKey.generate()


@dataclass(frozen=True)
class Workload:
    """`prepare` makes what was there before; `run` works and says what is acked; `check` names what is wrong after it.

    `file` is the database, inside the folder.
    """

    file: str
    prepare: Callable[[Path], None]
    run: Callable[[Path], None]
    check: Callable[[Path, list[str]], list[str]]


def _say(folder: Path, *lines: str) -> None:
    """One write, which a kill of the process cannot take back."""
    with (folder / ACKED).open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def _pair(seconds: int) -> WallPair:
    mono = MonoNs(seconds * NS_PER_S)
    return WallPair(mono, UtcNs(1_790_000_000 * NS_PER_S + mono), True)


def _open_store(folder: Path) -> EventStore:
    return EventStore(folder / "gw.db", _RUN, size_max_mb=16, sign=_KEY.sign)


def _run_agent(folder: Path) -> None:
    store = _open_store(folder)
    last = 0

    def keep(outcome: object) -> None:
        nonlocal last
        assert isinstance(outcome, Committed), "this disk has room"
        last = outcome.tail
        _say(folder, *(f"{place} {event.hash}" for place, event in enumerate(outcome.events, outcome.first)))

    keep(store.begin_epoch(_pair(1)))
    for number in range(COMMITS):
        drafts = [
            Draft(MonoNs(number * NS_PER_S), Observation("crash_point", {"text": "x" * 3000, "n": number}))
        ]
        keep(store.commit(drafts, {"last": store.tail + 1}, _pair(2 + number)))
        store.set_acked(last - 1, last - 1)
    keep(store.stop_clean(_pair(9)))
    store.close()


def _prepare_agent(folder: Path) -> None:
    _run_agent(folder)
    (folder / ACKED).unlink()


def _check_agent(folder: Path, acked: list[str]) -> list[str]:
    path = folder / "gw.db"
    problems: list[str] = []
    if acked:
        with closing(sqlite3.connect(path)) as database:
            held = {f"{place} {digest}" for place, digest in database.execute("SELECT n, hash FROM event")}
        problems += [f"lost: {line}" for line in acked if line not in held]
    store = _open_store(folder)  # as the next run of the agent does
    begun = store.begin_epoch(_pair(20))
    assert isinstance(begun, Committed), "this disk has room"
    told = [event.body for event in begun.events if isinstance(event.body, Observation)]
    problems += [f"cries wolf: {body.detail}" for body in told]
    if store.memory.get("last", 0) not in {0, *store.read(list(range(1, store.tail + 1))).payloads}:
        problems.append("corrupt: memory is not of one commit with its events")
    store.close()
    with closing(sqlite3.connect(path)) as database:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        problems.append(f"corrupt: {verdict}")
    flaw = verify_chain(read_entries(path), None).flaw
    return problems if flaw is None else [*problems, f"corrupt: {flaw}"]


class _Clock:
    """The gateway's time of a workload."""

    def utc_ms(self) -> int:
        return 1_790_000_000_000

    def monotonic_ms(self) -> int:
        return 1_000


def _url(folder: Path) -> str:
    return f"sqlite:///{folder}/gateway.db"


async def _journal(folder: Path, epoch: str) -> None:
    journal = await SqlJournal.open(_url(folder), _Clock(), {"findings": OpenFindings()})
    await journal.lead()
    store = Store(agent=epoch[-4:].lower())
    events = [store.start(epoch), *(store.add(note("x" * 3000)) for _ in range(COMMITS))]
    for event in events:
        body = EdgeEvent(event, event.at)
        entry = await journal.transact(lambda recording, body=body: recording.append(body))  # type: ignore[misc]
        _say(folder, f"{entry.position} {event.hash}")
    await journal.close()


def _run_gateway(folder: Path) -> None:
    asyncio.run(_journal(folder, ulid(2)))


def _prepare_gateway(folder: Path) -> None:
    asyncio.run(_journal(folder, ulid(1)))
    (folder / ACKED).unlink()


def _check_gateway(folder: Path, acked: list[str]) -> list[str]:
    asyncio.run(_journal(folder, ulid(3)))  # as the next run of the gateway does
    problems = [f"cries wolf: {item.text}" for item in JournalFile(folder / "gateway.db").untold_damage()]
    readers = open_readers(_url(folder))
    try:
        with readers.connect() as connection:
            (verdict,) = connection.exec_driver_sql("PRAGMA integrity_check").one()
            rows = connection.exec_driver_sql("SELECT position, hash FROM journal").all()
        report = verify_journal(readers, Heads(), lambda entries, _: iter(entries))
    finally:
        readers.dispose()
    held = {f"{position} {digest}" for position, digest in rows}
    problems += [f"lost: {line}" for line in acked if line not in held]
    if verdict != "ok":
        problems.append(f"corrupt: {verdict}")
    if report.flaw is not None:
        problems.append(f"corrupt: {report.flaw}")
    return problems


def _nothing(_: Path) -> None:
    """There was no store before."""


WORKLOADS: Mapping[str, Workload] = {
    "agent": Workload("gw.db", _prepare_agent, _run_agent, _check_agent),
    "agent-new": Workload("gw.db", _nothing, _run_agent, _check_agent),
    "gateway": Workload("gateway.db", _prepare_gateway, _run_gateway, _check_gateway),
    "gateway-new": Workload("gateway.db", _nothing, _run_gateway, _check_gateway),
}


def _work(workload: Workload, folder: Path) -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        workload.run(folder)
    except (StoreBrokenError, JournalLost) as error:
        _say(folder, f"# {type(error).__name__}: {error}")
        return FAILED
    except JournalUnavailable as error:
        _say(folder, f"# {type(error).__name__}: {error}")
        return FULL
    return 0


def nurse() -> None:
    """Fork a child for each line of standard input, until there are no more."""
    for line in sys.stdin:
        name, folder = line.split()
        child = os.fork()
        if child == 0:
            os._exit(_work(WORKLOADS[name], Path(folder)))
        os.waitpid(child, os.WUNTRACED)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    nurse()
