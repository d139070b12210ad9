"""A short true story as evidence, and everything that somebody can do to it: shared by the tests of all verifiers.

An agent runs three times; its gateway journals that, signs a head after the second run and another at the end. Keys,
epochs and times are fixed, so that the story has the same bytes each time. A forgery takes the rows of a record (events
of a chain, entries of a journal) and gives other rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.wire.chain import canonical, checkpoint_message, link_hash, seed_hash
from edge_agent.wire.codec import Stamp, decode, seal
from edge_agent.wire.event import AgentStarted, Body, Checkpoint, ClockState, Event, Json, Position
from edge_agent.wire.heads import AgentHead, HeldEvent, head_line
from gateway.adapters.bundle_file import bundle_lines
from gateway.adapters.signatures import SigningKey
from gateway.domain.heads import Reach, make_heads
from gateway.domain.journal import (
    LINK_SEED,
    AgentModelled,
    ClockStepped,
    EdgeEvent,
    EntryBody,
    GapFound,
    entry_link,
    store_body,
)
from gateway.domain.tampering import StoredEntry
from tests.scripted_agent import cleared, guard_open, note, raised, ulid

SITE, AGENT = "changyi", "gw-01"
AGENT_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
GATEWAY_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64))))
STRANGER_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
START_MS = 1_795_000_000_000
EPOCHS = (1, 2, 3)

Rows = list[bytes]
"""Events of a chain, as they travel."""


def run_of(number: int) -> list[Body]:
    """What happens in one run; the checkpoint at its end is minted."""
    occurrence = f"occ-{number}"
    return [guard_open(), note("门"), raised(occurrence), cleared(occurrence), note(), note()]


def chain(
    epochs: Sequence[int] = EPOCHS,
    *,
    key: SigningKey = AGENT_KEY,
    change: Callable[[int, Body], Body] | None = None,
    stops: Mapping[int, int] | None = None,
) -> Rows:
    """The events of these runs, signed after each raise of a P1 and at the end of a run; `stops` cuts runs short."""
    events: list[Event] = []

    def add(epoch: str, body: Body) -> None:
        last = events[-1] if events else None
        seq = last.seq + 1 if last is not None and last.epoch == epoch else 1
        prev = seed_hash(SITE, AGENT, epoch) if last is None else last.hash
        number = len(events)
        at = f"2026-11-22T06:{number // 60:02d}:{number % 60:02d}.000000Z"
        stamp = Stamp(SITE, AGENT, epoch, seq, "boot-1", number * 1000, at, ClockState.SYNCED, prev)
        told = body if change is None else change(number, body)
        events.append(seal(stamp, told))

    def sign(epoch: str) -> None:
        last = events[-1]
        message = checkpoint_message(SITE, AGENT, epoch, last.seq, last.hash)
        add(epoch, Checkpoint(last.seq, last.hash, key.sign(message)))

    for number in epochs:
        epoch = ulid(number)
        after = Position(events[-1].epoch, events[-1].seq, events[-1].hash) if events else None
        add(epoch, AgentStarted(after, "1.0", "c0ffee", clean_stop=True))
        for place, body in enumerate(run_of(number)[: (stops or {}).get(number)]):
            add(epoch, body)
            if place == 2:
                sign(epoch)
        sign(epoch)
    return [event.payload for event in events]


def journal(rows: Sequence[bytes], *, key: SigningKey = AGENT_KEY) -> list[StoredEntry]:
    """The gateway's entries of these events, among some of its own."""
    bodies: list[EntryBody] = [
        AgentModelled(SITE, AGENT, {"public_key": key.public_key}),
        GapFound(SITE, AGENT, "gap-1", ulid(9), 1, None, final=True, reason="store lost"),
    ]
    for row in rows:
        event = decode(row)
        assert isinstance(event, Event)
        bodies.append(EdgeEvent(event, event.at))
        if event.seq == 4:
            bodies.append(ClockStepped(1500))
    return linked([StoredEntry(0, 0, store_body(body), "") for body in bodies])


def linked(entries: Sequence[StoredEntry]) -> list[StoredEntry]:
    """These entries numbered and linked anew: what anybody can do who has the database."""
    link, done = LINK_SEED, list[StoredEntry]()
    for position, entry in enumerate(entries, 1):
        recorded = START_MS + position
        link = entry_link(link, position, recorded, entry.stored)
        done.append(StoredEntry(position, recorded, entry.stored, link))
    return done


def numbered(entries: Sequence[StoredEntry]) -> list[StoredEntry]:
    """Positions without holes, links as they were."""
    return [replace(entry, position=position) for position, entry in enumerate(entries, 1)]


def heads_of(entries: Sequence[StoredEntry], rows: Sequence[bytes], now_ms: int) -> list[str]:
    """The lines that the gateway signs when it holds these entries, and these of its agent's events."""
    last = _event(rows[-1])
    sealed = next(event for event in map(_event, reversed(rows)) if isinstance(event.body, Checkpoint))
    assert isinstance(sealed.body, Checkpoint)
    held = HeldEvent(SITE, AGENT, last.epoch, last.seq, last.hash, last.at)
    checkpoint = AgentHead(
        SITE,
        AGENT,
        sealed.epoch,
        sealed.body.upto,
        sealed.body.upto_hash,
        sealed.at,
        AGENT_KEY.public_key,
        sealed.body.signature,
    )
    reach = Reach(len(entries), entries[-1].link, (held,), (checkpoint,))
    return [head_line(head) for head in make_heads(reach, now_ms, GATEWAY_KEY.public_key, GATEWAY_KEY.sign)]


def _event(payload: bytes) -> Event:
    event = decode(payload)
    assert isinstance(event, Event)
    return event


@dataclass(frozen=True)
class Story:
    """The chain, the journal, and the heads that were kept of them elsewhere."""

    rows: Rows
    entries: list[StoredEntry]
    heads: list[str]


def story() -> Story:
    """What is true."""
    rows = chain()
    entries = journal(rows)
    early = chain(EPOCHS[:2])
    heads = heads_of(journal(early), early, START_MS + 1000) + heads_of(entries, rows, START_MS + 2000)
    return Story(rows, entries, heads)


def rehashed(payload: bytes, **changes: Json) -> bytes:
    """An event whose author knows how to hash."""
    document = json.loads(payload) | changes
    del document["hash"]
    return canonical(document | {"hash": link_hash(document["prev"], document)})


def quiet(number: int, body: Body) -> Body:
    """History without the violation of the first run: what somebody may wish had happened."""
    return note("nothing") if number in {3, 5} else body


def write_lines(path: Path, rows: Sequence[bytes]) -> Path:
    """An agent's events as a file."""
    path.write_bytes(b"".join(row + b"\n" for row in rows))
    return path


def write_bundle(path: Path, entries: Sequence[StoredEntry], *, said: StoredEntry | None = None) -> Path:
    """A bundle of these entries, whose first line names `said` as the last (default: the last)."""
    last = said or entries[-1]
    path.write_text("".join(f"{line}\n" for line in bundle_lines(entries, last.position, last.link)), "utf-8")
    return path


def write_store(path: Path, rows: Sequence[bytes], *, end: tuple[int, bytes] | None = None) -> Path:
    """An agent's store file of these events, whose note of its end is `end` (default: the last)."""
    place, last = end or (len(rows), rows[-1])
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE event (n INTEGER PRIMARY KEY, epoch, seq, hash, payload BLOB)")
        database.execute("CREATE TABLE fact (key TEXT PRIMARY KEY, value TEXT)")
        database.executemany(
            "INSERT INTO event VALUES (?, '', 0, '', ?)", [(n, row) for n, row in enumerate(rows, 1)]
        )
        noted = json.dumps([place, json.loads(last)["hash"]])
        database.execute("INSERT INTO fact VALUES ('end', ?)", (noted,))
    database.close()
    return path
