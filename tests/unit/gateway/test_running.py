"""How a gateway ends that cannot go on: it says why, and it does end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.app import running
from gateway.ports import JournalLost, JournalUnavailable
from tests.server_process import free_port

CONFIG = "mqtt: {url: mqtt://127.0.0.1:1}\njournal: {url: sqlite:///gateway.db}\n"

HANGING = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from gateway.app import running

def fail_beside_a_thread_that_hangs(*_):
    ThreadPoolExecutor(1).submit(threading.Event().wait)
    return "its file is gone"

running._run_loop = fail_beside_a_thread_that_hangs
sys.exit(running.run_gateway(Path(sys.argv[1])))
"""


class Failing:
    """A run in which a task of a task group of a task group fails."""

    def __init__(self, failure: Exception) -> None:
        self._failure = failure

    async def run(self, *_: object) -> None:
        async with asyncio.TaskGroup() as outer:
            outer.create_task(self._lead())

    async def _lead(self) -> None:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(self._fail())

    async def _fail(self) -> NoReturn:
        raise self._failure


@pytest.mark.parametrize("failure", [JournalLost("its file is gone"), JournalUnavailable("its file is gone")])
def test_what_ended_it_is_said_however_deep_it_lay(failure: Exception) -> None:
    said = running._run_loop(Failing(failure), None, None)  # type: ignore[arg-type]  # a run that uses neither
    assert said is not None
    assert said.endswith("its file is gone")


def test_a_thread_that_hangs_in_somebody_elses_server_does_not_keep_a_failed_gateway(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(f'{CONFIG}http: {{listen: "127.0.0.1:{free_port()}"}}\n')
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(config)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "its file is gone")
