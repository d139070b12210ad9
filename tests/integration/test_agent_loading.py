"""The configuration is loaded in a process of its own: what crosses, and what happens when that process does not end well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.adapters.signing import load_or_create_key
from edge_agent.app.loading import Loading, LoadingFailedError
from edge_agent.settings import AgentSettings, load
from tests.integration.edge_rig import CONFIG, ROOT

pytestmark = pytest.mark.integration


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG.format(mqtt="mqtt://127.0.0.1:1", modbus=1, delivery="gateway"))
    return path


def test_what_crosses_is_what_loading_here_would_have_given(config: Path) -> None:
    found = Loading(config).wait()
    here = load(config, {})
    assert isinstance(here, AgentSettings)
    assert found.settings is not None
    assert (found.settings.plan, found.settings.mqtt, found.settings.store) == (
        here.plan,
        here.mqtt,
        here.store,
    )
    assert (found.problems, found.warnings) == ((), tuple(map(str, here.warnings)))


def test_a_check_brings_the_problems_and_no_settings(config: Path) -> None:
    assert Loading(config, check_only=True).wait().settings is None
    config.write_text(config.read_text().replace("poll_ms: 50", "poll_ms: 0"))
    found = Loading(config, check_only=True).wait()
    assert found.settings is None
    assert len(found.problems) == 1
    assert "poll_ms" in found.problems[0]


def _open_key(folder: Path) -> str:
    load_or_create_key(folder / "var/gw-01.db.key")
    (folder / "var/gw-01.db.key").chmod(0o644)
    return "the signing key is open to others"


def _no_key(folder: Path) -> str:
    (folder / "var").mkdir()
    (folder / "var/gw-01.db.key").touch(mode=0o600)
    return "no signing key in it"


def _no_store(folder: Path) -> str:
    (folder / "var/gw-01.db").mkdir(parents=True)
    return "is no file"


def _no_certificate(folder: Path) -> str:
    (folder / "ca.pem").write_text("not yet\n")
    config = folder / "agent.yaml"
    config.write_text(
        config.read_text().replace(
            '"modbus+tcp://127.0.0.1:1"', '"modbus+tls://127.0.0.1:1", ca_file: ca.pem'
        )
    )
    return "a certificate file of a device cannot be used"


@pytest.mark.parametrize("spoil", [_open_key, _no_key, _no_store, _no_certificate])
def test_a_check_refuses_what_a_start_would_refuse(config: Path, spoil: Callable[[Path], str]) -> None:
    """A reload with it would end the agent that runs, and begin none."""
    told = spoil(config.parent)
    start = subprocess.run(
        [sys.executable, "-m", "edge_agent", "run", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert start.returncode == 2
    (problem,) = Loading(config, check_only=True).wait().problems
    assert told in problem


def test_a_loading_process_that_is_killed_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    pipe = tmp_path / "agent.yaml"
    os.mkfifo(pipe)
    loading = Loading(pipe)  # waits for a writer, for ever
    loading.process.kill()
    with pytest.raises(LoadingFailedError, match="could not be loaded: ended with -9"):
        loading.wait()


def test_a_terminal_interrupt_ends_both_without_a_traceback(tmp_path: Path) -> None:
    pipe = tmp_path / "agent.yaml"
    os.mkfifo(pipe)
    agent = subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "run", str(pipe)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with pipe.open("w"):  # opens when the loading process has opened it, too
        os.killpg(agent.pid, signal.SIGINT)
        _, told = agent.communicate(timeout=30)
    assert "Traceback" not in told
    assert agent.returncode == 130


def test_a_reload_that_is_asked_for_while_starting_is_kept_and_delays_no_stop(config: Path) -> None:
    """Its check reads a pipe that nobody writes to: a file system that has gone away looks like that."""
    text = config.read_text()
    config.unlink()
    os.mkfifo(config)
    agent = subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "run", str(config)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    with config.open("w") as pipe:
        agent.send_signal(signal.SIGHUP)
        config.unlink()
        os.mkfifo(config)
        pipe.write(text)
    with config.open("w"):  # opens when the check has opened it, too: the agent runs, and has not forgotten
        agent.send_signal(signal.SIGTERM)
        _, told = agent.communicate(timeout=30)
    assert "Traceback" not in told
    assert agent.returncode == 0
