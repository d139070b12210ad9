"""A second verifier, written from deploy/evidence-format.md alone; it imports nothing of the project, on purpose.

`python tests/second_verifier.py FILE [HEADS [AGENT_KEY [GATEWAY_KEY]]]`: FILE is an agent's store or event file, or a
gateway's bundle; `-` for what there is none of. The numbers of rules are the page's.
"""

import base64
import contextlib
import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

END = "the end"
FORMS = {"site": "[a-z0-9][a-z0-9-]{0,47}", "agent": "[a-z0-9][a-z0-9-]{0,47}", "epoch": "[0-9A-Za-z]{10,40}"}
FORMS |= {
    "prev": "[0-9a-f]{64}",
    "hash": "[0-9a-f]{64}",
    "clock": "synced|unsynced",
    "boot": r"[\s\S]{1,128}",
}
FORMS |= {"kind": r"[\s\S]{1,128}", "at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"}
MISFITS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
Document = dict[str, Any]
Key = tuple[str, ...]


class Bad(Exception):  # noqa: N818 - a verdict
    """The first bad entry: where (a line, a place, or the end), and why."""


def demand(is_good: bool, where: object, why: str) -> None:
    if not is_good:
        raise Bad(where, why)


def canonical(value: Document) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def without(document: Document, key: str) -> Document:
    return {name: value for name, value in document.items() if name != key}


def is_signed(keys: Iterable[str], message: bytes, signature: object) -> bool:
    for key in keys:
        try:
            raw = base64.b64decode(str(signature), validate=True)
            Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True)).verify(raw, message)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def unique(pairs: list[tuple[str, Any]]) -> Document:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def read_event(payload: bytes, where: object) -> Document:
    """An event whose envelope fits and which hashes (rule 1)."""
    try:
        event: Document = json.loads(payload.decode(), object_pairs_hook=unique)
        is_good = len(payload) <= 65536 and all(
            re.fullmatch(form, event[name]) for name, form in FORMS.items()
        )
        numbers = [(event["seq"], 1), (event["mono_ms"], 0), (event["v"], event["v"])]
        is_good &= all(type(number) is int and least <= number < 2**53 for number, least in numbers)
        datetime.fromisoformat(event["at"])
        is_good &= sha(event["prev"].encode() + canonical(without(event, "hash"))) == event["hash"]
    except MISFITS as error:
        raise Bad(where, f"no event: {error}") from error
    demand(is_good, where, "rule 1, or the envelope")
    return event


def run_of(document: Document) -> Key:
    return document["site"], document["agent"], document["epoch"]


def statement(document: Document, upto: object, upto_hash: object) -> bytes:
    return f"guardwatch-checkpoint-v1\n{'/'.join(run_of(document))}\n{upto}\n{upto_hash}".encode()


def check_checkpoint(event: Document, keys: set[str], where: object) -> None:
    """Rules 4 and 8."""
    is_about = (event.get("upto"), event.get("upto_hash")) == (event["seq"] - 1, event["prev"])
    message = statement(event, event["seq"] - 1, event["prev"])
    demand(is_about and (not keys or is_signed(keys, message, event.get("signature"))), where, "rule 4")


class Heads:
    """What a file of heads says (rule 10)."""

    def __init__(self, path: Path | None, gateway_key: str | None) -> None:
        self.events: dict[tuple[Key, int], list[tuple[str, str]]] = {}
        self.links: dict[int, set[str]] = {}
        self.keys: dict[Key, set[str]] = {}
        for number, line in enumerate(path.read_bytes().splitlines() if path else (), 1):
            head, is_ours, held = json.loads(line), True, []
            if head["head"] == "agent":
                message = statement(head, head["upto"], head["upto_hash"])
                self.keys.setdefault(run_of(head)[:2], set()).add(head["public_key"])
                held = [{**head, "seq": head["upto"], "hash": head["upto_hash"]}]
            else:
                message = b"guardwatch-head-v1\n" + canonical(without(head, "signature"))
                is_ours, held = gateway_key in {None, head["public_key"]}, head["agents"]
                self.links.setdefault(head["position"], set()).add(head["link"])
            is_good = is_ours and is_signed([head["public_key"]], message, head["signature"])
            demand(is_good, f"head {number}", "rule 10")
            for event in held:
                self.events.setdefault((run_of(event), event["seq"]), []).append((event["hash"], event["at"]))

    def compare(self, event: Document, where: object) -> None:
        seen = self.events.get((run_of(event), event["seq"]), ())
        demand(all(digest == event["hash"] for digest, _ in seen), where, "rule 11")


def follows(event: Document, last: Document | None) -> bool:
    """Rules 2 and 3."""
    if last is None:
        is_new = event["seq"] == 1 and event["prev"] == sha("/".join(run_of(event)))
        return bool(is_new or event["kind"] == "checkpoint")
    if event["prev"] != last["hash"] or run_of(event)[:2] != run_of(last)[:2]:
        return False
    if event["epoch"] == last["epoch"]:
        return bool(event["seq"] == last["seq"] + 1)
    named = {name: last[name] for name in ("epoch", "seq", "hash")}
    is_named = isinstance(event.get("after"), dict) and named.items() <= event["after"].items()
    return bool(is_named and event["kind"] == "agent_started" and event["seq"] == 1)


def check_chain(
    entries: Iterable[tuple[object, bytes]], keys: set[str], heads: Heads, end: str | None
) -> int:
    """Rules 1–5, 11 and 12 over an agent's chain; how many events it has."""
    keys = keys.union(*heads.keys.values())
    first, last, is_owing, unmet, count = None, None, False, dict(heads.events), 0
    for where, payload in entries:
        event = read_event(payload, where)
        demand(canonical(event) == payload, where, "not canonical")
        demand(follows(event, last), where, "rule 2 or 3")
        if event["kind"] == "checkpoint":
            check_checkpoint(event, keys, where)
        heads.compare(event, where)
        is_raise = event["kind"] == "violation_raised" and event.get("priority") == "P1"
        is_owing = is_raise or (is_owing and event["kind"] != "checkpoint")
        unmet.pop((run_of(event), event["seq"]), None)
        first, last, count = first or event, event, count + 1
    is_part = last is not None and last["kind"] == "state_report" and last.get("part") != last.get("parts")
    demand(
        not (is_owing or is_part) and end in {None, (last or {}).get("hash")}, END, "rule 5, or its own note"
    )
    for (run, seq), seen in unmet.items():
        is_cut = (
            first is not None and first["kind"] == "checkpoint" and all(at <= first["at"] for _, at in seen)
        )
        is_others = first is not None and run[:2] != run_of(first)[:2]
        demand(is_cut or is_others, END, f"rule 12: a head saw {run}, {seq}")
    return count


class Journal:
    """Rules 6 to 9, 11 and 12 over the entries of a bundle."""

    def __init__(self, keys: dict[Key, set[str]], heads: Heads) -> None:
        self.keys, self.heads, self.link, self.count = keys, heads, sha("guardwatch-journal-v1"), 0
        self.ends: dict[Key, int] = {}
        self.hashes: dict[tuple[Key, int], str] = {}
        self.gaps: dict[Key, list[range]] = {}

    def take(self, entry: Document, where: int) -> None:
        texts = [
            self.link,
            self.count + 1,
            entry["recorded_at_ms"],
            entry["kind"],
            entry["occurred_at"] or "",
        ]
        texts += [" ".join(entry["marks"]), entry["payload"]]
        self.link, self.count = sha("\n".join(map(str, texts))), self.count + 1
        demand((entry["position"], entry["link"]) == (self.count, self.link), where, "rule 6")
        demand(self.heads.links.get(self.count, set()) <= {self.link}, where, "rule 11")
        if entry["kind"] == "edge_event":
            demand(entry["occurred_at"] is not None, where, "rule 7")
            self.take_event(read_event(entry["payload"].encode(), where), entry["marks"], where)
        elif entry["kind"] == "gap_found" and (gap := json.loads(entry["payload"]))["final"]:
            ends = 2**53 if gap["to_seq"] is None else gap["to_seq"] + 1
            self.gaps.setdefault(run_of(gap), []).append(range(gap["from_seq"], ends))

    def is_stated(self, run: Key, holes: range) -> bool:
        return all(any(hole in gap for gap in self.gaps.get(run, ())) for hole in holes)

    def take_event(self, event: Document, marks: list[str], where: int) -> None:
        run, seq = run_of(event), event["seq"]
        last = self.ends.get(run, 0)
        demand(seq > last and self.is_stated(run, range(last + 1, seq)), where, "rule 7: seq")
        expected = self.hashes.get((run, seq - 1))
        if seq == 1 and event["kind"] == "agent_started" and "after" in event:
            after = event["after"]
            held = self.hashes.get(((*run[:2], after["epoch"]), after["seq"])) if after else None
            expected = held if after else sha("/".join(run))
            if after and held is None and "unrecognised" not in marks:
                before = (*run[:2], after["epoch"])
                holes = range(self.ends.get(before, 0) + 1, after["seq"] + 1)
                demand(self.is_stated(before, holes), where, "rule 7: after")
        demand(expected in {None, event["prev"]} or "chain_broken" in marks, where, "rule 7: prev")
        if event["kind"] == "checkpoint":
            check_checkpoint(event, self.keys.get(run[:2], set()), where)
        self.heads.compare(event, where)
        self.ends[run], self.hashes[run, seq] = seq, event["hash"]


def read_entry(line: bytes) -> Document:
    entry: Document = json.loads(line)
    texts, numbers = [entry[name] for name in ("kind", "payload", "link")], ("position", "recorded_at_ms")
    is_good = all(isinstance(text, str) for text in [*texts, *entry["marks"], entry["occurred_at"] or ""])
    if not is_good or any(type(entry[name]) is not int for name in numbers):
        raise ValueError("members of other types")
    return entry


def check_bundle(lines: list[bytes], heads: Heads) -> int:
    """How many entries a bundle has."""
    keys = {agent: set(found) for agent, found in heads.keys.items()}
    for line in lines[1:]:
        with contextlib.suppress(*MISFITS):  # what is no entry is found below, in its place
            if b'"agent_modelled"' in line and (entry := json.loads(line))["kind"] == "agent_modelled":
                born = json.loads(entry["payload"])
                keys.setdefault((born["site"], born["agent"]), set()).add(str(born["model"]["public_key"]))
    journal, told = Journal(keys, heads), json.loads(lines[0])
    for number, line in enumerate(lines[1:], 2):
        try:
            journal.take(read_entry(line), number)
        except MISFITS as error:
            raise Bad(number, f"no entry: {error}") from error
    is_told = told["entries"] == journal.count and (told["link"] == journal.link or not journal.count)
    demand(is_told and max(heads.links, default=0) <= journal.count, END, "rule 6 or 12")
    return journal.count


def verify(
    path: Path, heads_path: Path | None = None, key: str | None = None, gateway_key: str | None = None
) -> int:
    """How many entries a good file has. Raises `Bad`."""
    heads, content, keys = Heads(heads_path, gateway_key), path.read_bytes(), {key} if key else set()
    if content.startswith(b'{"guardwatch_bundle"'):
        return check_bundle(content.removesuffix(b"\n").split(b"\n"), heads)
    if not content.startswith(b"SQLite format 3"):
        return check_chain(
            ((n, line) for n, line in enumerate(content.split(b"\n"), 1) if line), keys, heads, None
        )
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    note = database.execute("SELECT value FROM fact WHERE key = 'end'").fetchone()
    rows = database.execute("SELECT 'place ' || n, payload FROM event ORDER BY n").fetchall()
    database.close()
    return check_chain(rows, keys, heads, json.loads(note[0])[1] if note else None)


if __name__ == "__main__":
    given = [None if text == "-" else text for text in [*sys.argv[1:], None, None, None]]
    print(
        verify(Path(str(given[0])), Path(given[1]) if given[1] else None, given[2], given[3]),
        "entries, whole",
    )
