"""A copy of the code, a bug in it, and what its named tests say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.seeded.bugs import Bug, Edit

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("edge_agent", "gateway", "simulators", "config", "tests", "deploy", "pyproject.toml")

RUN_MAX_S: Final = 120
"""The slowest named test takes a few seconds; a planted bug may make it wait."""

_FAILED: Final = "FAILED "
_STOPPED: Final = -1
_TESTS_FAILED: Final = 1  # pytest's exit code: tests ran, and some failed


class SeedError(Exception):
    """The bug cannot be planted: the code has changed where it was to be put."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which of the named tests did not fail, and the run's last lines."""

    missed: tuple[str, ...]
    told: str

    @property
    def is_caught(self) -> bool:
        """Whether every named test failed."""
        return not self.missed


def copy_code(folder: Path) -> Path:
    """A copy of the code and its tests that can be run by itself."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    return folder


def plant(edits: Sequence[Edit], folder: Path) -> None:
    """Make the edits. Raises `SeedError` where an old text does not stand exactly once."""
    for edit in edits:
        path = folder / edit.path
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            raise SeedError(f"{edit.path}: {text.count(edit.old)} times, not once: {edit.old.strip()!r}")
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run these tests on the code in `folder`; pytest's exit code, and what it said."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rf",
        "-p",
        "no:cacheprovider",
        "--no-header",
        "--tb=line",
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1000"}
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_MAX_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _STOPPED, f"did not end within {RUN_MAX_S} s"
    return done.returncode, done.stdout + done.stderr


def prove(bug: Bug, folder: Path) -> Outcome:
    """Plant a bug in a fresh copy and run its tests. Raises `SeedError`."""
    copy_code(folder)
    plant(bug.edits, folder)
    code, told = run_tests(folder, bug.caught_by)
    red = [line.removeprefix(_FAILED) for line in told.splitlines() if line.startswith(_FAILED)]
    missed = tuple(
        test
        for test in bug.caught_by
        if code != _TESTS_FAILED or not any(line.startswith(test) for line in red)
    )
    return Outcome(missed, told)
