"""A journal as a file that anybody can check without a gateway: JSON Lines, the evidence byte for byte.

    line 1      {"guardwatch_bundle": 1, "entries": N, "link": "…"}     how long it is, and how its chain ends
    then        {"position", "recorded_at_ms", "kind", "payload" (text), "occurred_at", "marks", "link"}

The first line makes a bundle that was cut off at its end as visible as one that was changed in the middle. Public keys
of the agents stand in their birth certificates, which are entries like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from edge_agent.wire.codec import INTEGER_MAX
from edge_agent.wire.event import Json
from gateway.adapters.signatures import is_signed_by
from gateway.domain.journal import AgentModelled, EdgeEvent, EntryKind, Mark, StoredBody, load_body
from gateway.domain.ledger import AgentKey, Ledger, StoredEntry

_VERSION = 1


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


def check_bundle(path: Path) -> tuple[Ledger, str | None]:
    """The ledger after the last good entry, and what is wrong with the first bad one, or None.

    Raises `OSError`, and `BundleError` for a file that is none.
    """
    count, last_link = _read_header(path)
    keys, hashes = _collect(path)

    def is_signed(agent: AgentKey, message: bytes, signature: str) -> bool | None:
        known = keys.get(agent, set())
        return any(is_signed_by(key, message, signature) for key in known) if known else None

    ledger = Ledger(is_signed, lambda agent, epoch, seq: hashes.get((*agent, epoch, seq)))
    link: str | None = None
    for number, line in _lines(path):
        entry = _read_entry(line)
        if entry is None:
            return ledger, f"line {number}: it cannot be read"
        problem = ledger.take(entry)
        if problem is not None:
            return ledger, f"line {number}: {problem}"
        link = entry.link
    if ledger.position != count or (count > 0 and link != last_link):
        return ledger, f"the end is cut off or replaced: {count} entries were exported"
    return ledger, None


def _read_header(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        first = file.readline()
    try:
        header = json.loads(first)
        if header["guardwatch_bundle"] == _VERSION:
            return int(header["entries"]), str(header["link"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise BundleError("it does not begin as a bundle does — make one with `guardwatch-gateway export`")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number > 1:
                yield number, line


def _read_entry(line: bytes) -> StoredEntry | None:
    try:
        document = cast("dict[str, Json]", json.loads(line))
        marks = cast("list[str]", document["marks"])
        stored = StoredBody(
            EntryKind(str(document["kind"])),
            str(document["payload"]).encode(),
            cast("str | None", document["occurred_at"]),
            tuple(Mark(mark) for mark in marks),
        )
        position, recorded = document["position"], document["recorded_at_ms"]
        if not (isinstance(position, int) and isinstance(recorded, int) and abs(recorded) <= INTEGER_MAX):
            return None
        return StoredEntry(position, recorded, stored, str(document["link"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _collect(path: Path) -> tuple[dict[AgentKey, set[str]], dict[tuple[str, str, str, int], str]]:
    """Published keys, and the hash of every event; what cannot be read is found by the pass itself."""
    keys: dict[AgentKey, set[str]] = {}
    hashes: dict[tuple[str, str, str, int], str] = {}
    for _, line in _lines(path):
        entry = _read_entry(line)
        if entry is None or entry.stored.kind not in {EntryKind.AGENT_MODELLED, EntryKind.EDGE_EVENT}:
            continue
        try:
            body = load_body(entry.stored)
        except ValueError:
            continue
        if isinstance(body, AgentModelled):
            keys.setdefault((body.site, body.agent), set()).add(str(body.model.get("public_key")))
        elif isinstance(body, EdgeEvent):
            event = body.event
            hashes[event.site, event.agent, event.epoch, event.seq] = event.hash
    return keys, hashes
