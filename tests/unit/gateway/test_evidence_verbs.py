"""`verify` and `export`: the record as a file that anybody can check, and every way to spoil it."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.app.evidence import VerifyOptions, export, print_heads, verify
from gateway.app.exits import Exit
from gateway.domain.journal import ClockStepped, entry_link, store_body
from tests.board_rig import board_rig, tell_busy_plant


@pytest.fixture
async def config(tmp_path: Path) -> Path:
    """The configuration of a gateway that has run and ended."""
    async with board_rig(tmp_path) as rig:
        await tell_busy_plant(rig)
    path = tmp_path / "gateway.yaml"
    path.write_text("mqtt: {url: mqtt://127.0.0.1:1}\njournal: {url: sqlite:///gateway.db}\n")
    return path


@pytest.fixture
def bundle(config: Path, tmp_path: Path) -> Path:
    path = tmp_path / "record.jsonl"
    assert export(config, path) is Exit.OK
    return path


def test_a_journal_that_nobody_touched_is_whole(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(config, VerifyOptions(as_json=True)) is Exit.OK
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["problem"]) == (True, None)
    assert report["events"] > 30


def test_its_bundle_is_whole_too_and_says_the_same(
    config: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(config, VerifyOptions(as_json=True))
    verify(bundle, VerifyOptions(as_json=True))
    journal, exported = capsys.readouterr().out.splitlines()
    assert journal == exported


def flip(lines: list[str]) -> list[str]:
    return [*lines[:9], lines[9].replace("changyi", "chengyi", 1), *lines[10:]]


def remove(lines: list[str]) -> list[str]:
    return [*lines[:9], *lines[10:]]


def insert(lines: list[str]) -> list[str]:
    return [*lines[:9], lines[12], *lines[9:]]


def reorder(lines: list[str]) -> list[str]:
    return [*lines[:9], lines[10], lines[9], *lines[11:]]


def garble(lines: list[str]) -> list[str]:
    return [*lines[:9], "{", *lines[10:]]


@pytest.mark.parametrize("spoil", [flip, remove, insert, reorder, garble])
def test_the_first_bad_line_of_a_spoilt_bundle_is_named(
    bundle: Path, spoil: Callable[[list[str]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = bundle.read_text().splitlines()
    spoilt = spoil(lines)
    assert spoilt != lines
    bundle.write_text("\n".join(spoilt) + "\n")
    assert verify(bundle, VerifyOptions()) is Exit.FAILED
    assert "line 10: " in capsys.readouterr().err


def test_a_bundle_cut_off_at_its_end_is_noticed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = bundle.read_text().splitlines()
    bundle.write_text("\n".join(lines[:-3]) + "\n")
    assert verify(bundle, VerifyOptions()) is Exit.FAILED
    assert "the end is cut off" in capsys.readouterr().err


def test_an_entry_changed_in_the_database_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        database.execute("UPDATE journal SET recorded_at_ms = recorded_at_ms + 1 WHERE position = 12")
    assert verify(config, VerifyOptions()) is Exit.FAILED
    assert "entry 12: " in capsys.readouterr().err


def test_what_is_neither_bundle_nor_configuration_is_refused(tmp_path: Path) -> None:
    strange = tmp_path / "x.jsonl"
    strange.write_text("[]\n")
    assert verify(strange, VerifyOptions()) is Exit.REFUSED
    assert verify(tmp_path / "nothing.yaml", VerifyOptions()) is Exit.REFUSED


def test_an_export_never_overwrites(config: Path, bundle: Path) -> None:
    before = bundle.read_bytes()
    assert export(config, bundle) is Exit.REFUSED
    assert bundle.read_bytes() == before


@pytest.mark.parametrize(
    "header", ['"entries": Infinity, "link": ""', '"entries": "7", "link": ""', '"entries": 1']
)
def test_a_first_line_that_no_export_wrote_is_refused(bundle: Path, header: str) -> None:
    lines = bundle.read_text(encoding="utf-8").splitlines()
    bundle.write_text("\n".join(['{"guardwatch_bundle": 1, ' + header + "}", *lines[1:]]), encoding="utf-8")
    assert verify(bundle, VerifyOptions(as_json=True)) is Exit.REFUSED


@pytest.mark.parametrize("member", ["occurred_at", "link", "payload"])
def test_half_a_character_in_a_bundle_is_named_as_the_bad_line(
    bundle: Path, member: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = bundle.read_text(encoding="utf-8").splitlines()
    lines[9] = json.dumps({**json.loads(lines[9]), member: "\ud800"})
    bundle.write_text("\n".join(lines), encoding="utf-8")
    assert verify(bundle, VerifyOptions(as_json=True)) is Exit.FAILED
    assert json.loads(capsys.readouterr().out)["flaw"]["where"] == "line 10"


SPOILT = {
    "a certificate turned into text": ("payload = CAST(payload AS TEXT)", "kind = 'agent_modelled'"),
    "a start turned into text": ("payload = CAST(payload AS TEXT)", "event_kind = 'agent_started'"),
    "a certificate of no characters": ("payload = CAST(x'ff' AS TEXT)", "kind = 'agent_modelled'"),
    "a payload turned into a huge number": ("payload = 12345678901234", "kind = 'edge_event'"),
    "a kind of no characters": ("kind = CAST(x'ff' AS TEXT)", "kind = 'edge_event'"),
    "a time of no characters": ("occurred_at = CAST(x'ff' AS TEXT)", "kind = 'edge_event'"),
    "a link turned into bytes": ("link = x'ff'", "kind = 'edge_event'"),
}
"""What a flipped bit in a record's header, or in its text, makes of a row."""


@pytest.mark.parametrize(("change", "where"), SPOILT.values(), ids=SPOILT)
def test_a_row_that_can_hardly_be_read_is_named(
    config: Path, change: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(config.parent / "gateway.db") as connection:
        found = connection.execute(f"SELECT position FROM journal WHERE {where} ORDER BY position").fetchone()
        connection.execute(f"UPDATE journal SET {change} WHERE position = ?", found)
    connection.close()
    assert verify(config, VerifyOptions(as_json=True)) is Exit.FAILED
    assert json.loads(capsys.readouterr().out)["flaw"]["where"] == f"entry {found[0]}"
    assert export(config, config.parent / "out.jsonl") is Exit.FAILED
    print_heads(config)


def test_rows_beside_the_journal_of_another_type_do_not_keep_it_from_being_verified(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(config.parent / "gateway.db") as connection:
        connection.execute("UPDATE epochs SET last_position = 'abc'")
        connection.execute("UPDATE journal SET payload = x'00' WHERE position = 5")
    connection.close()
    assert verify(config, VerifyOptions(as_json=True)) is Exit.FAILED
    assert json.loads(capsys.readouterr().out)["flaw"]["where"] == "entry 5"


async def test_the_gateways_own_last_entries_are_missed_when_they_are_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No agent's event comes after an operator's act; what the gateway noted beside its journal does."""
    config, position = await _journal_with_steps(tmp_path)
    with sqlite3.connect(tmp_path / "gateway.db") as connection:
        connection.execute("DELETE FROM journal WHERE position > ?", (position - 2,))
        connection.execute("DELETE FROM snapshots")
    connection.close()
    assert verify(config, VerifyOptions(as_json=True)) is Exit.FAILED
    flaw = json.loads(capsys.readouterr().out)["flaw"]
    assert (flaw["where"], flaw["deed"]) == (f"entry {position - 1}", "truncated")


async def test_a_last_entry_that_was_written_anew_is_not_the_one_that_was_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, position = await _journal_with_steps(tmp_path)
    with sqlite3.connect(tmp_path / "gateway.db") as connection:
        before, recorded = connection.execute(
            "SELECT (SELECT link FROM journal WHERE position = ?), recorded_at_ms FROM journal WHERE position = ?",
            (position - 1, position),
        ).fetchone()
        stored = store_body(ClockStepped(99))
        row = (stored.payload, entry_link(before, position, recorded, stored), position)
        connection.execute("UPDATE journal SET payload = ?, link = ? WHERE position = ?", row)
    connection.close()
    assert verify(config, VerifyOptions(as_json=True)) is Exit.FAILED
    flaw = json.loads(capsys.readouterr().out)["flaw"]
    assert (flaw["where"], flaw["deed"]) == (f"entry {position}", "re-signed")


async def _journal_with_steps(folder: Path) -> tuple[Path, int]:
    """A configuration whose journal ends with entries of the gateway's own, and how many it has."""
    async with board_rig(folder) as rig:
        await tell_busy_plant(rig)
        position = await rig.append(*(ClockStepped(step) for step in range(3)))
    path = folder / "gateway.yaml"
    path.write_text("mqtt: {url: mqtt://127.0.0.1:1}\njournal: {url: sqlite:///gateway.db}\n")
    return path, position
