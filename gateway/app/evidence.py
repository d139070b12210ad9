"""`verify`, `export` and `heads`: whether the record is whole, and what others need to check it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from edge_agent.wire.event import Json
from edge_agent.wire.flaw import Deed, Flaw
from edge_agent.wire.heads import BadHeadError, Heads, collect_heads, head_line
from gateway.adapters.bundle_file import BundleError, bundle_lines, check_bundle
from gateway.adapters.clock_system import SystemClock
from gateway.adapters.signatures import KeyFileError, is_signed_by, load_or_create_key, read_public_key
from gateway.adapters.store_sql.chain_check import journal_end, numbered_entries, verify_journal
from gateway.adapters.store_sql.head_reads import read_reach
from gateway.adapters.store_sql.journal_file import JournalFile, Noted
from gateway.adapters.store_sql.plant_reads import reading
from gateway.app.exits import Exit, complain, fail, refuse, say, say_json, show_progress
from gateway.domain.heads import make_heads
from gateway.domain.ledger import LedgerReport
from gateway.domain.tampering import Numbered, StoredEntry
from gateway.ports import JournalUnavailable
from gateway.settings import GatewaySettings, load

BUNDLE_STARTS = b'{"guardwatch_bundle"'
"""How a bundle's first line begins; everything else is taken for a configuration."""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What `verify` may be given: a file of heads, the gateway's public `key`, whether to show how far it is."""

    heads: Path | None = None
    key: Path | None = None
    progress: bool = False
    as_json: bool = False

    def watch(self, entries: Iterable[Numbered], total: int) -> Iterator[Numbered]:
        """The entries, shown on stderr as they pass if that is wanted or a person looks on."""
        return show_progress(entries, total) if self.progress or sys.stderr.isatty() else iter(entries)


def verify(target: Path, options: VerifyOptions) -> Exit:
    """Say whether a journal or a bundle is whole, and name the first bad entry if not."""
    try:
        heads = _read_heads(options)
        report = _check(target, heads, options)
    except KeyFileError as error:
        return refuse(error)
    except BadHeadError as error:
        return _tell_bad_head(options, error)
    except OSError as error:
        return refuse(f"{error.filename}: cannot be read: {error.strerror} — check the path")
    except BundleError as error:
        return refuse(f"{target}: {error}")
    except JournalUnavailable as error:
        return fail(error)
    if isinstance(report, list):
        return refuse(*report)
    return _tell(report, as_json=options.as_json)


def export(config: Path, out: Path | None) -> Exit:
    """Write the whole journal as a bundle, to a file or standard output, beside a running gateway too."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    try:
        with reading(settings.journal_url) as readers:
            with readers.connect() as connection:
                count, link = journal_end(connection)
            entries = takewhile(
                lambda entry: entry.position <= count, map(_readable, numbered_entries(readers))
            )
            lines = bundle_lines(entries, count, link)
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


def print_heads(config: Path) -> Exit:
    """Print the journal's head and the agents', made now, beside a running gateway or without one."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    try:
        with reading(settings.journal_url) as readers:
            reach = read_reach(readers)
        key = load_or_create_key(settings.evidence.key_file)
    except (JournalUnavailable, KeyFileError) as error:
        return fail(error)
    for head in make_heads(reach, SystemClock().utc_ms(), key.public_key, key.sign):
        say(head_line(head))
    return Exit.OK


def _readable(numbered: Numbered) -> StoredEntry:
    where, entry = numbered
    if entry is None:
        raise JournalUnavailable(f"{where} cannot be read — `verify` says more")
    return entry


def _read_heads(options: VerifyOptions) -> Heads:
    if options.heads is None:
        return Heads()
    gateway_key = None if options.key is None else read_public_key(options.key)
    with options.heads.open("rb") as lines:
        return collect_heads(lines, is_signed_by, gateway_key=gateway_key)


def _check(target: Path, heads: Heads, options: VerifyOptions) -> LedgerReport | list[object]:
    """What the journal of a configuration, or a bundle, is worth; or what is wrong with the configuration."""
    with target.open("rb") as file:
        is_bundle = file.read(len(BUNDLE_STARTS)) == BUNDLE_STARTS or target.suffix in {".jsonl", ".bundle"}
    if is_bundle:
        return check_bundle(target, heads, options.watch)
    settings = load(target, os.environ)
    if not isinstance(settings, GatewaySettings):
        return list(settings)
    journal = JournalFile.of(settings.journal_url)
    noted = Noted() if journal is None else journal.noted()
    with reading(settings.journal_url) as readers:
        return verify_journal(readers, heads, options.watch, (noted.position, noted.link))


def _tell_bad_head(options: VerifyOptions, error: BadHeadError) -> Exit:
    if not error.is_forged:
        return refuse(f"{options.heads}:{error.line}:1: {error.reason} — write it anew with `heads`")
    flaw = Flaw(f"{options.heads}: line {error.line}", Deed.FORGED, error.reason)
    if options.as_json:
        say_json({"ok": False, "problem": f"{flaw.where}: {flaw.detail}", "flaw": _flaw_data(flaw)})
    return fail(f"{flaw.where}: {flaw.deed}: {flaw.detail}")


def _tell(report: LedgerReport, *, as_json: bool) -> Exit:
    flaw = report.flaw
    if as_json:
        say_json(
            {
                "ok": flaw is None,
                "entries": report.entries,
                "events": report.events,
                "checkpoints": report.checkpoints,
                "unchecked": report.unchecked,
                "marked": report.marked,
                "heads": report.heads,
                "heads_beyond": report.heads_beyond,
                "problem": None if flaw is None else f"{flaw.where}: {flaw.detail}",
                "flaw": None if flaw is None else _flaw_data(flaw),
            }
        )
    elif flaw is None:
        _praise(report)
    return Exit.OK if flaw is None else fail(f"{flaw.where}: {flaw.deed}: {flaw.detail}")


def _flaw_data(flaw: Flaw) -> Json:
    return {"where": flaw.where, "deed": flaw.deed.value, "detail": flaw.detail}


def _praise(report: LedgerReport) -> None:
    say(
        f"whole: {report.entries} entries, {report.events} events of agents, {report.checkpoints} signed checkpoints"
    )
    if report.heads:
        say(f"{report.heads} places agree with heads")
    if report.heads_beyond:
        say(f"{report.heads_beyond} heads of agents are about events that are not here, or not yet")
    if report.unchecked:
        say(f"{report.unchecked} of the checkpoints could not be checked: their agent published no key")
    if report.marked:
        say(f"{report.marked} events were in doubt when they came, and are marked so")
