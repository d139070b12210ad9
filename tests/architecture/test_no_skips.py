"""`make test` proves everything or fails: with GUARDWATCH_NO_SKIPS=1 nothing is passed over in silence."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]

WAYS_TO_PASS_OVER = {
    "skip_inside": "def test_it(): pytest.skip('no server here')",
    "skip_mark": "@pytest.mark.skip\ndef test_it(): ...",
    "condition": "@pytest.mark.skipif(True, reason='slow')\ndef test_it(): ...",
    "expected_failure": "@pytest.mark.xfail\ndef test_it(): assert False",
    "unexpected_pass": "@pytest.mark.xfail\ndef test_it(): ...",
    "missing_module": "pytest.importorskip('no_such_module')\ndef test_it(): ...",
    "skipped_module": "pytest.skip('later', allow_module_level=True)",
    "skipping_fixture": "@pytest.fixture\ndef server(): pytest.skip('none')\ndef test_it(server): ...",
}


def run_pytest(folder: Path, modules: Mapping[str, str], *, no_skips: str) -> tuple[int, set[str]]:
    """Run test modules in a pytest of their own; returns its exit code and the modules that failed."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in modules.items():
        (folder / f"test_{name}.py").write_text(f"import pytest\n{text}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", f"--rootdir={folder}", str(folder)]
    env = {**os.environ, "GUARDWATCH_NO_SKIPS": no_skips}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.returncode, set(re.findall(r"^(?:FAILED|ERROR) \S*test_(\w+)\.py", done.stdout, re.MULTILINE))


def test_whatever_is_passed_over_fails_the_run_and_is_named(tmp_path: Path) -> None:
    modules = {**WAYS_TO_PASS_OVER, "ordinary": "def test_it(): ..."}
    code, failed = run_pytest(tmp_path, modules, no_skips="1")
    assert code != 0
    assert failed == set(WAYS_TO_PASS_OVER)


def test_a_run_that_proves_everything_passes(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, {"ordinary": "def test_it(): ..."}, no_skips="1") == (0, set())


def test_an_everyday_run_may_skip(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, WAYS_TO_PASS_OVER, no_skips="0") == (0, set())
