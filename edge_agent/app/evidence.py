"""`check`, `verify` and `replay`: what a configuration means, whether a chain is whole, what a trace would have given."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge_agent.adapters.signing import KeyFileError, is_signed, key_path, read_public_key
from edge_agent.adapters.store_reading import StoreUnreadableError, is_store, open_snapshot
from edge_agent.app.exits import Exit, complain, refuse, say, say_json, show_progress
from edge_agent.domain.verification import Entry, Verdict, verify_chain
from edge_agent.replay import replay, trace_problems
from edge_agent.settings import load
from edge_agent.settings.report import check_data, check_report
from edge_agent.wire.event import Json
from edge_agent.wire.flaw import Deed, Flaw
from edge_agent.wire.heads import BadHeadError, Heads, collect_heads


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


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What `verify` may be given: a public `key`, a file of heads, and whether to show how far it is."""

    key: Path | None = None
    heads: Path | None = None
    progress: bool = False
    as_json: bool = False


def verify(path: Path, options: VerifyOptions) -> Exit:
    """Say whether a store's or a bundle's chain is whole, and name the first bad entry if not."""
    if path.is_dir():  # the root, and here, have no name that a key could lie beside
        return refuse(f"{path}: cannot be read: Is a directory — check the path")
    try:
        heads = Heads() if options.heads is None else _read_heads(options.heads)
        public_key = _public_key(path, options.key)
        verdict = _judge(path, public_key, heads, is_shown=options.progress)
    except KeyFileError as error:
        return refuse(error)
    except BadHeadError as error:
        return _tell_bad_head(options, error)
    except OSError as error:
        return refuse(f"{error.filename}: cannot be read: {error.strerror} — check the path")
    except StoreUnreadableError as error:
        complain([f"{error}: the file itself is damaged"])
        return Exit.FAILED
    if options.heads is not None and verdict.flaw is None and not (verdict.heads or verdict.heads_before):
        return refuse(
            f"{options.heads}: no head in it is of this chain's agent — name the file that has them"
        )
    if options.as_json:
        say_json(_verdict_data(verdict))
    elif verdict.flaw is None:
        say(_praise(verdict, has_key=verdict.signatures > 0 or public_key is not None))
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
    """The key named, else the one beside the store, else None: then only keys of heads are known."""
    if key is not None:
        return read_public_key(key)
    beside = key_path(path)
    return read_public_key(beside) if beside.exists() else None


def _read_heads(path: Path) -> Heads:
    with path.open("rb") as lines:
        return collect_heads(lines, is_signed)


def _tell_bad_head(options: VerifyOptions, error: BadHeadError) -> Exit:
    if not error.is_forged:
        return refuse(f"{options.heads}:{error.line}:1: {error.reason} — write it anew with `heads`")
    flaw = Flaw(f"{options.heads}: line {error.line}", Deed.FORGED, error.reason)
    if options.as_json:
        say_json({"ok": False, "flaw": _flaw_data(flaw)})
    complain([f"{flaw.where}: {flaw.deed}: {flaw.detail}"])
    return Exit.FAILED


def _judge(path: Path, public_key: str | None, heads: Heads, *, is_shown: bool) -> Verdict:
    known = {public_key} if public_key is not None else set()
    known |= {key for keys in heads.keys.values() for key in keys}

    def check_signature(message: bytes, signature: str) -> bool:
        return any(is_signed(key, message, signature) for key in known)

    with open_snapshot(path) if is_store(path) else nullcontext() as store:
        entries = store.entries() if store else _bundle_entries(path)
        if is_shown or sys.stderr.isatty():
            entries = show_progress(entries, store.count() if store else _count_lines(path))
        verdict = verify_chain(entries, check_signature if known else None, heads)
        end = store.end() if store else None
    is_behind = verdict.flaw is None or verdict.flaw.deed is Deed.ROLLED_BACK
    if not is_behind or store is None:
        return verdict
    last = None if verdict.last is None else verdict.last.hash
    if (end.hash if end else None) == last:
        return verdict
    told = "nothing" if end is None else f"place {end.place}"
    detail = f"the store was written up to {told}, with another last entry"
    return replace(verdict, flaw=Flaw("the end", Deed.TRUNCATED, detail))


def _bundle_entries(path: Path) -> Iterator[Entry]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield Entry(f"line {number}", line.rstrip(b"\r\n"))


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _verdict_data(verdict: Verdict) -> dict[str, Json]:
    flaw, last = verdict.flaw, verdict.last
    return {
        "ok": flaw is None,
        "entries": verdict.entries,
        "epochs": verdict.epochs,
        "checkpoints": verdict.checkpoints,
        "signatures": verdict.signatures,
        "unsealed": verdict.unsealed,
        "heads": verdict.heads,
        "heads_before": verdict.heads_before,
        "last": None if last is None else {"epoch": last.epoch, "seq": last.seq, "hash": last.hash},
        "flaw": None if flaw is None else _flaw_data(flaw),
    }


def _flaw_data(flaw: Flaw) -> dict[str, Json]:
    return {"where": flaw.where, "deed": flaw.deed.value, "detail": flaw.detail}


def _praise(verdict: Verdict, *, has_key: bool) -> str:
    text = f"whole: {verdict.entries} entries in {verdict.epochs} epochs, {verdict.checkpoints} checkpoints"
    text += f", {verdict.signatures} signatures good" if has_key else ", signatures not checked (no key)"
    if verdict.heads or verdict.heads_before:
        text += f", {verdict.heads} heads agree"
    if verdict.heads_before:
        text += f" ({verdict.heads_before} are older than its beginning)"
    if verdict.unsealed:
        text += f"; the last {verdict.unsealed} entries are not signed yet"
    return text
