"""`check`, `verify` and `replay`: what a configuration means, whether a chain is whole, what a trace would have given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from edge_agent.adapters.signing import KeyFileError, is_signed, key_path, read_public_key
from edge_agent.adapters.store_reading import StoreUnreadableError, is_store, read_end, read_entries
from edge_agent.app.exits import Exit, complain, refuse, say, say_json
from edge_agent.domain.verification import Entry, Flaw, Verdict, verify_chain
from edge_agent.replay import replay, trace_problems
from edge_agent.settings import load
from edge_agent.settings.report import check_data, check_report
from edge_agent.wire.event import Json


def check(config: Path, *, rules: bool, plan: bool, as_json: bool) -> Exit:
    """Say what is wrong with a configuration, or what it means. Opens no socket."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        if as_json:
            say_json({"ok": False, "problems": [asdict(problem) for problem in settings]})
        return refuse(*settings)
    complain(settings.warnings)
    if as_json:
        say_json(check_data(settings))
    else:
        say(check_report(settings, rules=rules, plan=plan))
    return Exit.OK


def verify(path: Path, *, key: Path | None, as_json: bool) -> Exit:
    """Say whether a store's or a bundle's chain is whole, and name the first bad entry if not."""
    try:
        public_key = _public_key(path, key)
        is_database = is_store(path)
        verdict = _judge(path, public_key, is_database=is_database)
    except KeyFileError as error:
        return refuse(error)
    except OSError as error:
        return refuse(f"{path}: cannot be read: {error.strerror} — check the path")
    except StoreUnreadableError as error:
        complain([f"{error}: the file itself is damaged"])
        return Exit.FAILED
    if as_json:
        say_json(_verdict_data(verdict))
    elif verdict.flaw is None:
        say(_praise(verdict, has_key=public_key is not None))
    if verdict.flaw is not None:
        flaw = verdict.flaw
        complain([f"{path}: {flaw.where}: {flaw.deed}: {flaw.detail}"])
        return Exit.FAILED
    return Exit.OK


def replay_trace(trace: Path, config: Path) -> Exit:
    """Print the events that a recorded trace gives, one JSON line each."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    try:
        with trace.open(encoding="utf-8") as lines:
            problems = trace_problems(settings.plan, lines, str(trace))
        if problems:
            return refuse(*problems)
        with trace.open(encoding="utf-8") as lines:
            for event in replay(settings.plan, lines, str(trace)):
                say(event)
    except UnicodeDecodeError as error:
        return refuse(f"{trace}: not UTF-8 at byte {error.start} — record it anew")
    except OSError as error:
        return refuse(f"{trace}: cannot be read: {error.strerror} — check the path")
    return Exit.OK


def _public_key(path: Path, key: Path | None) -> str | None:
    """The key named, else the one beside the store, else None: then signatures are not checked."""
    if key is not None:
        return read_public_key(key)
    beside = key_path(path)
    return read_public_key(beside) if beside.exists() else None


def _judge(path: Path, public_key: str | None, *, is_database: bool) -> Verdict:
    def check_signature(message: bytes, signature: str) -> bool:
        return public_key is not None and is_signed(public_key, message, signature)

    entries = read_entries(path) if is_database else _bundle_entries(path)
    verdict = verify_chain(entries, check_signature if public_key is not None else None)
    if verdict.flaw is not None or not is_database:
        return verdict
    end = read_end(path)
    last = None if verdict.last is None else verdict.last.hash
    if (end.hash if end else None) == last:
        return verdict
    told = "nothing" if end is None else f"place {end.place}"
    flaw = Flaw("the end", "truncated", f"the store was written up to {told}, with another last entry")
    return replace(verdict, flaw=flaw)


def _bundle_entries(path: Path) -> Iterator[Entry]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield Entry(f"line {number}", line.rstrip(b"\r\n"))


def _verdict_data(verdict: Verdict) -> dict[str, Json]:
    flaw, last = verdict.flaw, verdict.last
    return {
        "ok": flaw is None,
        "entries": verdict.entries,
        "epochs": verdict.epochs,
        "checkpoints": verdict.checkpoints,
        "signatures": verdict.signatures,
        "unsealed": verdict.unsealed,
        "last": None if last is None else {"epoch": last.epoch, "seq": last.seq, "hash": last.hash},
        "flaw": None if flaw is None else {"where": flaw.where, "deed": flaw.deed, "detail": flaw.detail},
    }


def _praise(verdict: Verdict, *, has_key: bool) -> str:
    text = f"whole: {verdict.entries} entries in {verdict.epochs} epochs, {verdict.checkpoints} checkpoints"
    text += f", {verdict.signatures} signatures good" if has_key else ", signatures not checked (no key)"
    if verdict.unsealed:
        text += f"; the last {verdict.unsealed} entries are not signed yet"
    return text
