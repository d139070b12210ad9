"""`verify` and `export`: the record as a file that anybody can check, and every way to spoil it."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.app.evidence import VerifyOptions, export, verify
from gateway.app.exits import Exit
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
