"""`verify` and `export`: whether the record is whole, and the record as a file that others can check."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.adapters.bundle_file import BundleError, bundle_lines, check_bundle
from gateway.adapters.store_sql.chain_check import journal_end, stored_entries, verify_journal
from gateway.adapters.store_sql.plant_reads import reading
from gateway.app.exits import Exit, complain, fail, refuse, say, say_json
from gateway.ports import JournalUnavailable
from gateway.settings import load

BUNDLE_STARTS = b'{"guardwatch_bundle"'
"""How a bundle's first line begins; everything else is taken for a configuration."""


def verify(target: Path, *, as_json: bool) -> Exit:
    """Say whether a journal or a bundle is whole, and name the first bad entry if not."""
    try:
        with target.open("rb") as file:
            is_bundle = file.read(len(BUNDLE_STARTS)) == BUNDLE_STARTS or target.suffix in {
                ".jsonl",
                ".bundle",
            }
    except OSError as error:
        return refuse(f"{target}: cannot be read: {error.strerror} — check the path")
    return _verify_bundle(target, as_json=as_json) if is_bundle else _verify_journal(target, as_json=as_json)


def export(config: Path, out: Path | None) -> Exit:
    """Write the whole journal as a bundle, to a file or standard output, beside a running gateway too."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    try:
        with reading(settings.journal_url) as readers, readers.connect() as connection:
            count, link = journal_end(connection)
            lines = bundle_lines(stored_entries(connection), count, link)
            if out is None:
                for line in lines:
                    say(line)
                return Exit.OK
            with out.open("x", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
    except JournalUnavailable as error:
        return fail(error)
    except FileExistsError:
        return refuse(f"{out}: is there already — name another file")
    except OSError as error:
        return fail(f"{out}: {error.strerror}")
    complain([f"{count} entries written to {out}"])
    return Exit.OK


def _verify_journal(config: Path, *, as_json: bool) -> Exit:
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    try:
        with reading(settings.journal_url) as readers:
            report = verify_journal(readers)
    except JournalUnavailable as error:
        return fail(error)
    problem = None if report.problem is None else f"entry {report.bad_position}: {report.problem}"
    return _tell(
        (report.entries, report.events, report.checkpoints, report.unchecked, report.marked),
        problem,
        as_json=as_json,
    )


def _verify_bundle(path: Path, *, as_json: bool) -> Exit:
    try:
        ledger, problem = check_bundle(path)
    except BundleError as error:
        return refuse(f"{path}: {error}")
    except OSError as error:
        return refuse(f"{path}: cannot be read: {error.strerror} — check the path")
    counts = (ledger.position, ledger.events, ledger.checkpoints, ledger.unchecked, ledger.marked)
    return _tell(counts, problem, as_json=as_json)


def _tell(counts: tuple[int, int, int, int, int], problem: str | None, *, as_json: bool) -> Exit:
    entries, events, checkpoints, unchecked, marked = counts
    if as_json:
        say_json(
            {
                "ok": problem is None,
                "entries": entries,
                "events": events,
                "checkpoints": checkpoints,
                "unchecked": unchecked,
                "marked": marked,
                "problem": problem,
            }
        )
    elif problem is None:
        say(f"whole: {entries} entries, {events} events of agents, {checkpoints} signed checkpoints")
        if unchecked:
            say(f"{unchecked} of the checkpoints could not be checked: their agent published no key")
        if marked:
            say(f"{marked} events were in doubt when they came, and are marked so")
    if problem is not None:
        complain([problem])
        return Exit.FAILED
    return Exit.OK
