"""Heads leave the box: printed, fetched by another host, written to a directory outside; and they hold later."""

from __future__ import annotations

import asyncio
import json
import resource
import stat
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from edge_agent.wire.event import Priority
from edge_agent.wire.heads import Head, collect_heads
from gateway.adapters.heads_file import HeadsFile
from gateway.adapters.signatures import KeyFileError, is_signed_by, load_or_create_key, read_public_key
from gateway.app.composition import Gateway
from gateway.app.evidence import VerifyOptions, print_heads, verify
from gateway.app.exits import Exit
from gateway.domain.access import Role
from gateway.ports import JournalUnavailable
from gateway.services.heads import HeadShipping, HeadsNotMade, HeadsNotWritten
from gateway.services.pulse import COMMIT_MS, LOOK_S, Pulse, feed_watchdog
from gateway.settings import load
from tests.board_rig import board_rig, tell_busy_plant
from tests.simulation.virtual_loop import run_virtual, settle, virtual_loop

CONFIG = "mqtt: {url: mqtt://127.0.0.1:1}\njournal: {url: sqlite:///gateway.db}\n"


async def test_heads_that_were_fetched_hold_for_what_the_journal_becomes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with board_rig(tmp_path, Role.VIEWER) as rig:
        await tell_busy_plant(rig)
        async with httpx.AsyncClient(base_url=rig.url) as client:
            lines = (await client.get("/api/v1/heads?format=ndjson")).text
            listed = (await client.get("/api/v1/heads")).json()
        position = rig.journal.position
        await rig.raise_violation("mixer-18", "door-1", "guard_open_motion", Priority.P2)
    assert [json.loads(line)["head"] for line in lines.splitlines()] == ["journal"]
    assert (listed["items"][0]["position"], listed["next"]) == (position, None)
    kept = tmp_path / "kept.jsonl"
    kept.write_text(lines)
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG)
    assert print_heads(config) is Exit.OK
    with kept.open("a") as file:
        file.write(capsys.readouterr().out)
    assert verify(config, VerifyOptions(kept, as_json=True)) is Exit.OK
    assert json.loads(capsys.readouterr().out)["heads"] == 4


class Sink:
    """A place that is away for the first `away` times."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.lines: list[str] = []

    def append(self, lines: Sequence[str]) -> None:
        if self.away:
            self.away -= 1
            raise HeadsNotWritten("the mount is away")
        self.lines += lines


def no_heads() -> Sequence[Head]:
    return ()


def no_journal() -> Sequence[Head]:
    raise JournalUnavailable("locked")


def no_key() -> Sequence[Head]:
    raise HeadsNotMade("chmod 600 it")


@pytest.mark.parametrize(
    ("make", "away", "problem"),
    [
        (no_heads, 0, None),
        (no_heads, 1, "the mount is away"),
        (no_journal, 0, "locked"),
        (no_key, 0, "chmod 600 it"),
    ],
)
async def test_readiness_is_told_whether_heads_are_written(
    make: Callable[[], Sequence[Head]], away: int, problem: str | None
) -> None:
    shipping = HeadShipping(make, Sink(away), 1)
    assert shipping.problem == "none written yet"
    task = asyncio.create_task(shipping.run())
    while shipping.problem == "none written yet":  # noqa: ASYNC110 - it says so by an attribute alone
        await asyncio.sleep(0.01)
    assert shipping.problem == problem
    task.cancel()


def test_a_place_that_hangs_is_told_and_is_no_reason_to_be_started_again() -> None:
    async def story() -> None:
        hanging: list[tuple[Callable[[], object], asyncio.Future[object]]] = []
        virtual_loop().attach(None, lambda work, done: hanging.append((work, done)))
        pulse, pings, shipping = Pulse(), list[str](), HeadShipping(no_heads, Sink(0), 1)
        tasks = [
            asyncio.create_task(shipping.run(pulse.join("heads", COMMIT_MS))),
            asyncio.create_task(feed_watchdog(pulse, pings.append)),
        ]
        await asyncio.sleep(3601)
        assert (pulse.late, len(pings)) == ([], 3600 / LOOK_S)
        assert shipping.problem is not None
        assert "hangs" in shipping.problem
        assert len(hanging) == 1, "no second one is begun beside it"
        settle(*hanging[0])
        await asyncio.sleep(1)
        assert shipping.problem is None
        await asyncio.sleep(3600)
        assert len(hanging) == 2, "the next is written when it is due"
        for task in tasks:
            task.cancel()

    run_virtual(story)


def test_heads_are_appended_and_a_missing_directory_is_not_made(tmp_path: Path) -> None:
    sink = HeadsFile(tmp_path)
    sink.append(["one", "two"])
    sink.append(["three"])
    assert (tmp_path / "heads.jsonl").read_text() == "one\ntwo\nthree\n"
    with pytest.raises(HeadsNotWritten, match="No such file or directory"):
        HeadsFile(tmp_path / "mount").append(["one"])


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "var/gateway.db.key"
    key = load_or_create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path).public_key == key.public_key
    assert is_signed_by(key.public_key, b"text", key.sign(b"text"))
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_or_create_key(path)
    path.write_text("nonsense")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="no signing key"):
        load_or_create_key(path)
    with pytest.raises(KeyFileError, match="no public key"):
        read_public_key(path)


async def test_a_gateway_without_a_usable_key_watches_all_the_same_and_signs_as_soon_as_there_is_one(
    tmp_path: Path,
) -> None:
    config, key_file = tmp_path / "gateway.yaml", tmp_path / "gateway.db.key"
    config.write_text(CONFIG)
    load_or_create_key(key_file)
    key_file.chmod(0o640)  # as a backup brings it back
    settings = load(config, {})
    assert not isinstance(settings, list)
    async with AsyncExitStack() as stack:
        gateway = await Gateway.open(settings, stack)
        with pytest.raises(HeadsNotMade, match="chmod 600"):
            gateway.heads()
        key_file.chmod(0o600)
        assert len(gateway.heads()) == 1


def test_without_a_journal_there_are_no_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG)
    assert print_heads(config) is Exit.FAILED
    assert "there is no journal yet" in capsys.readouterr().err
    assert not (tmp_path / "gateway.db.key").exists()


def test_a_file_of_no_heads_says_nothing() -> None:
    heads = collect_heads([b"", b"\n"], is_signed_by)
    assert (heads.events, heads.links, heads.keys) == ({}, {}, {})


def test_a_head_for_which_there_was_only_half_the_room_leaves_those_before_and_after_it_readable(
    tmp_path: Path,
) -> None:
    sink = HeadsFile(tmp_path)
    sink.append(["one"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7, hard))
    try:
        with pytest.raises(HeadsNotWritten, match="no room"):
            sink.append(["second"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.append(["third"])
    assert (tmp_path / "heads.jsonl").read_text() == "one\nthird\n"
