"""A journal as a file that anybody can check without a gateway: JSON Lines, the evidence byte for byte.

    line 1      {"guardwatch_bundle": 1, "entries": N, "link": "…"}     how long it is, and how its chain ends
    then        {"position", "recorded_at_ms", "kind", "payload" (text), "occurred_at", "marks", "link"}

The first line makes a bundle that was cut off at its end as visible as one that was changed in the middle, unless
whoever cut it mends that line too: then a head shows it. Public keys of the agents stand in their birth certificates,
which are entries like any other. Two passes, neither of which keeps what it read: the first looks for the keys, and
for the few events that a new run says it follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_agent.wire.canonical_form import INTEGER_MAX
from edge_agent.wire.event import EventKind
from edge_agent.wire.flaw import Deed, Flaw
from edge_agent.wire.heads import AgentKey, EventKey, Heads
from gateway.adapters.store_sql.chain_check import Watch, note_followed, note_key, signature_check
from gateway.domain.journal import EntryKind, Mark, StoredBody
from gateway.domain.ledger import Ledger, LedgerReport, check_ledger
from gateway.domain.tampering import Numbered, StoredEntry

_VERSION = 1
_MODELLED = EntryKind.AGENT_MODELLED.value.encode()
_STARTED = EventKind.AGENT_STARTED.value.encode()


class BundleError(Exception):
    """A file is no bundle; the text says why."""


def bundle_lines(entries: Iterable[StoredEntry], count: int, last_link: str) -> Iterator[str]:
    """The lines of a bundle of `count` entries whose last has `last_link`."""
    yield json.dumps({"guardwatch_bundle": _VERSION, "entries": count, "link": last_link})
    for entry in entries:
        stored = entry.stored
        document = {
            "position": entry.position,
            "recorded_at_ms": entry.recorded_at_ms,
            "kind": stored.kind.value,
            "payload": stored.payload.decode("utf-8"),
            "occurred_at": stored.occurred_at,
            "marks": [mark.value for mark in stored.marks],
            "link": entry.link,
        }
        yield json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def check_bundle(path: Path, heads: Heads, watch: Watch) -> LedgerReport:
    """What the entries of a bundle are worth. Raises `OSError`, and `BundleError` for a file that is none."""
    count, last_link = _read_header(path)
    keys, followed = _first_pass(path)
    ledger = Ledger(signature_check(keys, heads), followed, heads)
    flaw = check_ledger(watch(_numbered(path), count), ledger)
    return ledger.report(flaw or _end_flaw(ledger, count, last_link))


def _end_flaw(ledger: Ledger, count: int, last_link: str) -> Flaw | None:
    """How the end does not fit the first line, or None."""
    if ledger.position < count:
        detail = f"the end is cut off: {count} entries were exported"
        return Flaw(f"entry {ledger.position + 1}", Deed.TRUNCATED, detail)
    if ledger.position > count:
        return Flaw(f"entry {count + 1}", Deed.INSERTED, f"only {count} entries were exported")
    if count > 0 and ledger.link != last_link:
        return Flaw(f"entry {count}", Deed.FORGED, "another last entry was exported")
    return None


def _read_header(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        first = file.readline()
    try:
        header = json.loads(first)
        count, link = header["entries"], header["link"]
        if header["guardwatch_bundle"] == _VERSION and type(count) is int and isinstance(link, str):
            return count, link
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise BundleError("it does not begin as a bundle does — make one with `guardwatch-gateway export`")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number > 1:
                yield number, line


def _numbered(path: Path) -> Iterator[Numbered]:
    return ((f"line {number}", _read_entry(line)) for number, line in _lines(path))


def _read_entry(line: bytes) -> StoredEntry | None:
    try:
        document = json.loads(line)
        stored = StoredBody(
            EntryKind(document["kind"]),
            document["payload"].encode(),
            document["occurred_at"],
            tuple(Mark(mark) for mark in document["marks"]),
        )
        position, recorded, link = document["position"], document["recorded_at_ms"], document["link"]
        f"{stored.occurred_at}{link}".encode()  # half of a character has no bytes to be linked with
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not (isinstance(position, int) and isinstance(recorded, int) and abs(recorded) <= INTEGER_MAX):
        return None
    if not isinstance(link, str) or not isinstance(stored.occurred_at, str | None):
        return None
    return StoredEntry(position, recorded, stored, link)


def _first_pass(path: Path) -> tuple[dict[AgentKey, set[str]], set[EventKey]]:
    """Published keys, and the events that runs follow; what cannot be read is found by the second pass."""
    keys: dict[AgentKey, set[str]] = {}
    followed: set[EventKey] = set()
    for _, line in _lines(path):
        if _MODELLED not in line and _STARTED not in line:
            continue
        entry = _read_entry(line)
        if entry is not None and entry.stored.kind is EntryKind.AGENT_MODELLED:
            note_key(keys, entry.stored.payload)
        elif entry is not None and entry.stored.kind is EntryKind.EDGE_EVENT:
            note_followed(followed, entry.stored.payload)
    return keys, followed
