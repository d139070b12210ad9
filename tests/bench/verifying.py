"""How long `verify` takes for a long record of each kind, and how much memory: a million entries belong below a minute.

One chain (guards that move, a violation now and then, a checkpoint each `SEALED_EVERY` events) is written as an agent's
store, as a gateway's journal and as its bundle. The real commands verify them, with heads, one process each; user time
is what counts on a machine that others use too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from edge_agent.wire.chain import checkpoint_message, seed_hash
from edge_agent.wire.codec import Stamp, seal
from edge_agent.wire.event import AgentStarted, Body, Checkpoint, ClockState
from edge_agent.wire.heads import HeldEvent, head_line
from edge_agent.wire.sealed import Sealed, unseal
from gateway.adapters.bundle_file import bundle_lines
from gateway.adapters.clock_system import SystemClock
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.heads import Reach, make_heads
from gateway.domain.journal import (
    LINK_SEED,
    AgentModelled,
    EdgeEvent,
    EntryBody,
    EntryKind,
    entry_link,
    store_body,
)
from gateway.domain.tampering import StoredEntry
from tests.forgeries import AGENT, AGENT_KEY, GATEWAY_KEY, SITE
from tests.scripted_agent import cleared, guard_open, raised, ulid

ENTRIES = 200_000
"""By default; the promise is for a million."""

SEALED_EVERY = 500
BATCH = 10_000


def run(entries: int) -> None:
    """Print seconds, rate and memory of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_record(place, entries)
        kinds = {
            "agent's store": ["edge_agent", "verify", "gw-01.db", "--head", "heads.jsonl"],
            "gateway's journal": ["gateway", "verify", "gateway.yaml", "--head", "heads.jsonl"],
            "bundle": ["gateway", "verify", "record.bundle", "--head", "heads.jsonl"],
        }
        print(f"{'':18}{'entries':>9}{'user s':>9}{'wall s':>9}{'s per 10^6':>12}{'MiB':>6}")
        for name, command in kinds.items():
            user_s, wall_s, peak_mib = _measure(place, command)
            per_million = user_s * 1e6 / entries
            print(
                f"{name:18}{entries:9}{user_s:9.1f}{wall_s:9.1f}{per_million:12.1f}{peak_mib:6.0f}",
                flush=True,
            )


def _measure(folder: Path, command: list[str]) -> tuple[float, float, float]:
    """User seconds, wall seconds and peak MiB of one command, which must find its record whole."""
    started = time.perf_counter()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=folder, env=environ)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime, time.perf_counter() - started, usage.ru_maxrss / 1024


def write_record(folder: Path, count: int) -> None:
    """The three kinds, the heads and the key, in a folder."""
    asyncio.run(_make_journal(folder / "gateway.db"))
    (folder / "gateway.yaml").write_text(
        "mqtt: {url: mqtt://127.0.0.1:1}\njournal: {url: sqlite:///gateway.db}\n"
    )
    (folder / "gw-01.db.key").write_text(AGENT_KEY.public_key)
    store, journal = sqlite3.connect(folder / "gw-01.db"), sqlite3.connect(folder / "gateway.db")
    store.execute("CREATE TABLE event (n INTEGER PRIMARY KEY, payload BLOB)")
    store.execute("CREATE TABLE fact (key TEXT PRIMARY KEY, value TEXT)")
    entries = _entries(count)
    with (folder / "entries").open("w", encoding="utf-8") as lines:
        while batch := list(islice(entries, BATCH)):
            last = batch[-1]
            journal.executemany(_INSERT, map(_journal_row, batch))
            events = [entry for entry in batch if entry.stored.kind is EntryKind.EDGE_EVENT]
            rows = [(entry.position, entry.stored.payload) for entry in events]
            store.executemany("INSERT INTO event VALUES (?, ?)", rows)
            lines.writelines(f"{line}\n" for line in islice(bundle_lines(batch, 0, ""), 1, None))
    end = unseal(last.stored.payload)
    assert isinstance(end, Sealed), "the last entry is an event"
    store.execute("INSERT INTO fact VALUES ('end', ?)", (json.dumps([count, end.hash]),))
    for database in (store, journal):
        database.commit()
        database.close()
    _write_bundle(folder, count, last.link)
    held = HeldEvent(SITE, AGENT, end.stamp.epoch, end.stamp.seq, end.hash, end.stamp.at)
    heads = make_heads(Reach(count, last.link, (held,), ()), 0, GATEWAY_KEY.public_key, GATEWAY_KEY.sign)
    (folder / "heads.jsonl").write_text("".join(f"{head_line(head)}\n" for head in heads))


_INSERT = """\
INSERT INTO journal (position, recorded_at_ms, kind, payload, occurred_at, marks, link, event_kind)
VALUES (?, ?, ?, ?, ?, '', ?, ?)"""


def _journal_row(entry: StoredEntry) -> tuple[object, ...]:
    stored = entry.stored
    is_start = b'"kind":"agent_started"' in stored.payload
    kind = "agent_started" if is_start else None
    head = (entry.position, entry.recorded_at_ms, stored.kind.value, stored.payload)
    return (*head, stored.occurred_at, entry.link, kind)


def _write_bundle(folder: Path, count: int, link: str) -> None:
    """The entries, after the line that says how many they are."""
    with (folder / "record.bundle").open("wb") as bundle, (folder / "entries").open("rb") as written:
        bundle.write(next(bundle_lines((), count, link)).encode() + b"\n")
        while piece := written.read(1 << 20):
            bundle.write(piece)
    (folder / "entries").unlink()


async def _make_journal(path: Path) -> None:
    await (await SqlJournal.open(f"sqlite:///{path}", SystemClock(), {})).close()


def _entries(count: int) -> Iterator[StoredEntry]:
    """A birth certificate, then one run of events."""
    link = LINK_SEED
    model = AgentModelled(SITE, AGENT, {"public_key": AGENT_KEY.public_key})
    for position, body in enumerate(chain[EntryBody]([model], _events(count - 1)), 1):
        stored = store_body(body)
        link = entry_link(link, position, position, stored)
        yield StoredEntry(position, position, stored, link)


def _events(count: int) -> Iterator[EdgeEvent]:
    epoch, prev = ulid(1), seed_hash(SITE, AGENT, ulid(1))
    for seq in range(1, count + 1):
        second = seq // 1000
        at = f"2026-11-22T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.{seq % 1000:03d}000Z"
        stamp = Stamp(SITE, AGENT, epoch, seq, "boot-1", seq, at, ClockState.SYNCED, prev)
        event = seal(stamp, _body(epoch, seq, prev))
        prev = event.hash
        yield EdgeEvent(event, at)


def _body(epoch: str, seq: int, prev: str) -> Body:
    if seq == 1:
        return AgentStarted(None, "1.0", "c0ffee", clean_stop=True)
    match seq % SEALED_EVERY:
        case 251:
            message = checkpoint_message(SITE, AGENT, epoch, seq - 1, prev)
            return Checkpoint(seq - 1, prev, AGENT_KEY.sign(message))
        case 250:
            return raised(f"occ-{seq}")
        case _:
            return guard_open() if seq % 4 else cleared(f"occ-{seq}")
