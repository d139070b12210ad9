"""A folder named in another encoding (GBK, from a machine of long ago) gives names that no event can hold.

A reload that was refused put such a name into the journal, and the running agent ended with it; `verify` and the reload's
own look at the store ended with a traceback.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.edge_rig import CONFIG, ROOT

pytestmark = pytest.mark.integration

STRICT = os.environ | {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / os.fsdecode("昌邑".encode("gbk"))
    folder.mkdir()
    path = folder / "agent.yaml"
    path.write_text(CONFIG.format(mqtt="mqtt://127.0.0.1:1", modbus=1, delivery="gateway"))
    return path


def agent(*words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edge_agent", *map(str, words)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=STRICT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def await_line(lines: Iterator[str], words: str) -> None:
    assert any(words in line for line in lines), f"it ended without a word of: {words}"


def test_a_reload_that_is_refused_is_told_and_the_agent_goes_on(config: Path) -> None:
    good = config.read_text()
    with agent("run", config) as running:
        assert running.stderr is not None
        await_line(running.stderr, "not connected")
        for _ in range(2):
            config.write_text(good + "colour: red\n")
            running.send_signal(signal.SIGHUP)
            await_line(running.stderr, "configuration refused")
        config.write_text(good)
        running.send_signal(signal.SIGHUP)
        await_line(running.stderr, "configuration accepted")
        await_line(running.stderr, "not connected")
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0


def test_what_stands_there_can_be_checked_and_verified(config: Path) -> None:
    with agent("run", config) as running:
        assert running.stderr is not None
        await_line(running.stderr, "not connected")
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    for words in (("check", config), ("verify", config.parent / "var/gw-01.db")):
        with agent(*words) as looking:
            said, told = looking.communicate(timeout=30)
        assert (looking.returncode, told) == (0, "")
        assert said
