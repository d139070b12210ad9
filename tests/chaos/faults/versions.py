"""Row 25: the version before, beside the present one, on the same store."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.chaos.faults.base import Fault, Need
from tests.chaos.plant import Plant
from tests.chaos.process import ROOT

COMMITS_BACK: Final = 40
"""Nothing is tagged yet: so many steps of the main line are a version."""


class OtherVersion(Fault):
    """Agent or gateway is stopped, replaced by the version before it, and later by the present one again."""

    row = 25
    needs = frozenset({Need.HISTORY})
    lasts_s = (6.0, 15.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._whose = draw.choice(("agent", "gateway"))
        self._here: tuple[list[str], dict[str, str]] = ([], {})

    @property
    def name(self) -> str:
        return f"version before of the {self._whose}"

    def fits(self, plant: Plant) -> bool:
        return not plant.options.is_clock_steered

    def inject(self, plant: Plant) -> None:
        part = plant.parts[self._whose]
        assert plant.options.version_before is not None
        self._here = (part.command, part.env)
        place = part.command.index(sys.executable) + 1
        # -P: not what lies in the working directory, but the path of the environment comes first
        command = [*part.command[:place], "-P", *part.command[place:]]
        self._replace(plant, command, {**part.env, "PYTHONPATH": str(plant.options.version_before)})

    def heal(self, plant: Plant) -> None:
        self._replace(plant, *self._here)

    def _replace(self, plant: Plant, command: list[str], env: dict[str, str]) -> None:
        part = plant.parts[self._whose]
        with part.hold:
            part.stop()
            part.command, part.env = command, env
            part.start()


def commit_before() -> str | None:
    """The version before; None where this checkout has no history that goes back so far."""
    found = _git("rev-list", "--first-parent", "--max-count=1", f"--skip={COMMITS_BACK}", "HEAD")
    return found.stdout.decode().strip() or None


def unpack(folder: Path) -> Path:
    """Put the code of the version before there."""
    commit = commit_before()
    assert commit is not None, "no history"
    packed = _git("archive", commit, "edge_agent", "gateway", "config")
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
