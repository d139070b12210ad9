"""Heads of a real gateway, fetched and written outside, against a real agent's store and the gateway's own journal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.whole_plant import WholePlant, wait_for

pytestmark = pytest.mark.integration


def verify(program: str, *arguments: object) -> tuple[int, dict[str, object]]:
    """What the command says: its exit code and its JSON."""
    command = [sys.executable, "-m", program, "verify", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def deed(report: dict[str, object]) -> object:
    flaw = report["flaw"]
    assert isinstance(flaw, dict)
    return flaw["deed"]


def copy_database(database: Path, folder: Path) -> Path:
    """A stopped program's database."""
    folder.mkdir()
    for file in database.parent.glob(f"{database.name}*"):
        shutil.copy(file, folder / file.name)
    return folder / database.name


def test_heads_name_a_restored_agent_image_and_a_restored_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = WholePlant(tmp_path)
    store, journal, outside = (tmp_path / name for name in ("var/gw-01.db", "var/gateway.db", "outside"))
    outside.mkdir()
    config = tmp_path / "gateway.yaml"
    config.write_text(config.read_text() + "\nevidence: {heads_dir: outside}\n")
    for name, value in plant.gateway._env.items():
        monkeypatch.setenv(name, value)

    def held() -> int:
        """How many heads there are: the journal's, and the agent's as soon as a checkpoint is held."""
        items = plant.get("/api/v1/heads")["items"]
        assert isinstance(items, list)
        return len(items)

    with plant:
        wait_for(
            "the mixer is seen running", lambda: '"moving": true' in json.dumps(plant.get("/api/v1/board"))
        )
        plant.act("open")
        wait_for("the checkpoint of a P1 is held", lambda: held() == 2)
        plant.agent.stop()
        plant.gateway.stop()
        old_store = copy_database(store, tmp_path / "old-agent")
        old_journal = copy_database(journal, tmp_path / "old-gateway")
        plant.gateway.start()
        plant.agent.start()
        plant.act("close")
        wait_for(
            "it is cleared in the log", lambda: [row["state"] for row in plant.violations()] == ["cleared"]
        )
        plant.agent.stop()
        with urllib.request.urlopen(f"{plant.url}/api/v1/heads?format=ndjson", timeout=10) as answer:
            kept = tmp_path / "kept.jsonl"
            kept.write_bytes(answer.read())
        checks = plant.get("/readyz")["checks"]
        assert isinstance(checks, dict)
        assert checks["heads"] == {"ok": True, "detail": "written outside"}

    for heads in (kept, outside / "heads.jsonl"):
        assert verify("edge_agent", store, "--head", heads)[0] == 0
        assert verify("gateway", config, "--head", heads)[0] == 0
    code, report = verify("edge_agent", old_store, "--head", kept)
    assert (code, deed(report)) == (1, "rolled back")
    for left in journal.parent.glob(f"{journal.name}*"):
        left.unlink()
    for file in old_journal.parent.iterdir():
        shutil.copy(file, journal.parent / file.name)
    assert verify("gateway", config)[0] == 0
    code, report = verify("gateway", config, "--head", kept)
    assert (code, deed(report)) == (1, "rolled back")
