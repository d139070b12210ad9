"""`verify` finds whatever was done to a journal behind the gateway's back, and names the first bad entry."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete, insert, text, update

from edge_agent.wire.chain import checkpoint_message
from edge_agent.wire.event import Checkpoint
from edge_agent.wire.flaw import Deed, Flaw
from edge_agent.wire.heads import AgentHead, Heads, HeldEvent
from gateway.adapters.store_sql.chain_check import verify_journal
from gateway.adapters.store_sql.engine import open_writer
from gateway.adapters.store_sql.head_reads import read_reach
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.adapters.store_sql.schema import JOURNAL
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import AgentModelled, ClockStepped, EdgeEvent, GapFound, Mark
from gateway.domain.ledger import LedgerReport
from gateway.ports import Recording
from tests.scripted_agent import AGENT, SITE, Store, note, ulid
from tests.unit.gateway.journal_rig import WoundClock

E, F = ulid(1), ulid(2)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()


def signed(store: Store, key: Ed25519PrivateKey = KEY) -> Checkpoint:
    last = store.events[-1]
    message = checkpoint_message(store.site, store.agent, last.epoch, last.seq, last.hash)
    return Checkpoint(last.seq, last.hash, base64.b64encode(key.sign(message)).decode())


def story() -> Store:
    """A run, a checkpoint, another run."""
    store = Store()
    store.start(E)
    store.add(note())
    store.add(signed(store))
    store.start(F)
    store.add(note("last"))
    return store


async def write(folder: Path, *stores: Store, model: bool = True) -> str:
    """A journal of these stores' events; its URL."""
    url = f"sqlite:///{folder}/g.db"
    journal = await SqlJournal.open(url, WoundClock(), {"findings": OpenFindings()})

    def work(recording: Recording) -> None:
        if model:
            recording.append(AgentModelled(SITE, AGENT, {"public_key": PUBLIC}))
        for store in stores:
            for event in store.events:
                recording.append(EdgeEvent(event, event.at))

    await journal.transact(work)
    await journal.close()
    return url


def verify(url: str) -> LedgerReport:
    engine = open_writer(url)
    report = verify_journal(engine, Heads(), lambda entries, _: iter(entries))
    engine.dispose()
    return report


def flaw_of(report: LedgerReport) -> Flaw:
    assert report.flaw is not None
    return report.flaw


def tamper(url: str, act: Callable[[Connection], object]) -> None:
    engine = open_writer(url)
    with engine.begin() as connection:
        act(connection)
    engine.dispose()


async def test_a_journal_that_nobody_touched_is_good(tmp_path: Path) -> None:
    report = verify(await write(tmp_path, story()))
    assert report == LedgerReport(6, 5, 0, 1, 0, 0, 0, None)


async def test_a_head_of_an_agent_is_its_newest_checkpoint_with_the_key_that_signed_it(
    tmp_path: Path,
) -> None:
    store = story()
    url = await write(tmp_path, store)
    engine = open_writer(url)
    reach = read_reach(engine)
    engine.dispose()
    sealed, last = store.events[2], store.events[-1]
    assert isinstance(sealed.body, Checkpoint)
    assert reach.position == 6
    assert reach.held == (HeldEvent(SITE, AGENT, F, last.seq, last.hash, last.at),)
    signature = sealed.body.signature
    assert reach.checkpoints == (AgentHead(SITE, AGENT, E, 2, sealed.prev, sealed.at, PUBLIC, signature),)


async def test_an_entry_that_was_changed_is_named(tmp_path: Path) -> None:
    url = await write(tmp_path, story())
    statement = text(
        "UPDATE journal SET payload = CAST(replace(payload, 'cycle', 'cyclo') AS BLOB) WHERE position = 3"
    )
    tamper(url, lambda c: c.execute(statement))
    assert flaw_of(verify(url)).where == "entry 3"


@pytest.mark.parametrize("column", ["recorded_at_ms", "occurred_at", "marks", "kind"])
async def test_what_the_gateway_added_to_an_entry_is_guarded_too(tmp_path: Path, column: str) -> None:
    url = await write(tmp_path, story())
    values = {
        "recorded_at_ms": 1,
        "occurred_at": "2020-01-01T00:00:00Z",
        "marks": "chain_broken",
        "kind": "timer_fired",
    }
    tamper(
        url,
        lambda c: c.execute(update(JOURNAL).where(JOURNAL.c.position == 4).values({column: values[column]})),
    )
    assert flaw_of(verify(url)).where == "entry 4"


async def test_an_entry_that_was_removed_is_missed(tmp_path: Path) -> None:
    url = await write(tmp_path, story())
    tamper(url, lambda c: c.execute(delete(JOURNAL).where(JOURNAL.c.position == 3)))
    assert flaw_of(verify(url)) == Flaw("entry 4", Deed.REMOVED, "entries 3 to 3 are missing before it")


async def test_an_entry_that_was_inserted_is_named(tmp_path: Path) -> None:
    url = await write(tmp_path, story())

    def insert_one(connection: Connection) -> None:
        connection.execute(text("UPDATE journal SET position = position + 100 WHERE position > 3"))
        connection.execute(text("UPDATE journal SET position = position - 99 WHERE position > 100"))
        row = {"position": 4, "recorded_at_ms": 1, "kind": "clock_stepped", "marks": "", "link": "x"}
        connection.execute(insert(JOURNAL), {**row, "payload": b'{"step_ms":1}'})

    tamper(url, insert_one)
    assert flaw_of(verify(url)).where == "entry 4"


async def test_entries_that_changed_places_are_named(tmp_path: Path) -> None:
    url = await write(tmp_path, story())

    def swap(connection: Connection) -> None:
        for old, new in ((3, 99), (4, 3), (99, 4)):
            connection.execute(update(JOURNAL).where(JOURNAL.c.position == old).values(position=new))

    tamper(url, swap)
    assert flaw_of(verify(url)).where == "entry 3"


async def test_an_end_that_was_cut_off_is_missed(tmp_path: Path) -> None:
    url = await write(tmp_path, story())
    tamper(url, lambda c: c.execute(delete(JOURNAL).where(JOURNAL.c.position > 4)))
    detail = "the end is cut off: entries up to 6 were here"
    assert flaw_of(verify(url)) == Flaw("entry 5", Deed.TRUNCATED, detail)


async def relinked(folder: Path, *events: EdgeEvent | GapFound | ClockStepped) -> LedgerReport:
    """A journal that somebody wrote anew, its own links all right."""
    url = f"sqlite:///{folder}/g.db"
    journal = await SqlJournal.open(url, WoundClock(), {})
    await journal.transact(lambda recording: [recording.append(event) for event in events])
    await journal.close()
    return verify(url)


async def test_an_event_left_out_by_somebody_who_mends_the_links_is_missed_by_the_agents_chain(
    tmp_path: Path,
) -> None:
    events = [EdgeEvent(event, event.at) for event in story().events]
    report = await relinked(tmp_path, *events[:1], *events[2:])
    assert (flaw_of(report).where, flaw_of(report).deed) == ("entry 2", Deed.REMOVED)
    assert "some are missing" in flaw_of(report).detail


async def test_a_final_gap_accounts_for_what_is_missing(tmp_path: Path) -> None:
    events = [EdgeEvent(event, event.at) for event in story().events]
    gap = GapFound(SITE, AGENT, "gap-1", E, 2, 2, final=True, reason="damaged")
    assert (await relinked(tmp_path, events[0], gap, *events[2:])).flaw is None


async def test_a_broken_link_is_bad_unless_it_was_marked_when_it_came(tmp_path: Path) -> None:
    ours, theirs = story(), Store()
    theirs.start(E)
    theirs.add(note("another"))
    other = theirs.add(note())
    first = [EdgeEvent(event, event.at) for event in ours.events[:2]]
    (tmp_path / "marked").mkdir()
    marked = await relinked(tmp_path / "marked", *first, EdgeEvent(other, other.at, (Mark.CHAIN_BROKEN,)))
    assert (marked.flaw, marked.marked) == (None, 1)
    flaw = flaw_of(await relinked(tmp_path, *first, EdgeEvent(other, other.at)))
    assert (flaw.where, flaw.deed) == ("entry 3", Deed.FORGED)


async def test_a_checkpoint_by_another_key_is_named(tmp_path: Path) -> None:
    store = Store()
    store.start(E)
    store.add(signed(store, Ed25519PrivateKey.from_private_bytes(bytes(32))))
    report = verify(await write(tmp_path, store))
    assert flaw_of(report).deed is Deed.FORGED
    assert "signature" in flaw_of(report).detail


async def test_a_checkpoint_about_another_event_is_named(tmp_path: Path) -> None:
    store = Store()
    store.start(E)
    early = signed(store)
    store.add(note())
    store.add(early)
    report = verify(await write(tmp_path, store))
    assert flaw_of(report).deed is Deed.FORGED
    assert "another event" in flaw_of(report).detail


async def test_checkpoints_of_an_agent_that_published_no_key_are_counted_as_unchecked(tmp_path: Path) -> None:
    report = verify(await write(tmp_path, story(), model=False))
    assert (report.flaw, report.unchecked) == (None, 1)
