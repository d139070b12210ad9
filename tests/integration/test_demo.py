"""The demo, as a newcomer meets it: one command, a board, a violation's life, and nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.whole_plant import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_a_violation_arises_and_clears_within_a_minute_and_ctrl_c_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "demo"
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [Path(sys.executable).parent / "guardwatch-demo", "--folder", str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for("the board's address", lambda: "\nBoard: " in log.read_text(), timeout_s=90)
        last = log.read_text().splitlines()[-1]
        assert last.startswith("Board: http://127.0.0.1:")
        url = last.removeprefix("Board: ").rstrip("/")
        wait_for("a violation that cleared", lambda: "cleared" in _states(url), timeout_s=60, every_s=0.5)
        events = [json.loads(line)["event"] for line in (folder / "messages.jsonl").read_text().splitlines()]
        assert events[:1] == ["raised"]
    finally:
        demo.send_signal(signal.SIGINT)
        code = demo.wait(30)
    assert code == 130
    assert _processes_in(folder) == []


def _states(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/api/v1/violations?rule=guard_open_motion", timeout=5) as answer:
        return [item["state"] for item in json.load(answer)["items"]]


def _processes_in(folder: Path) -> list[str]:
    """Command lines of living processes that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue  # it ended meanwhile
    return found
