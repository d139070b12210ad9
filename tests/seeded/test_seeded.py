"""The suite sees the bugs that it was made to see: each one planted in a copy of the code turns its named tests red."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.seeded.bugs import BUGS, Bug, Edit
from tests.seeded.proof import SeedError, plant, prove

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_its_named_tests_turn_red(bug: Bug, tmp_path: Path) -> None:
    outcome = prove(bug, tmp_path)
    assert outcome.is_caught, f"{outcome.missed} stayed green\n{outcome.told[-2000:]}"


def test_a_change_that_breaks_nothing_is_no_catch(tmp_path: Path) -> None:
    harmless = Edit("edge_agent/domain/held.py", "Forget everything", "Forget all")
    outcome = prove(Bug("none", "", (harmless,), BUGS[0].caught_by), tmp_path)
    assert outcome.missed == BUGS[0].caught_by


def test_code_that_cannot_be_imported_is_no_catch(tmp_path: Path) -> None:
    broken = Edit(
        "edge_agent/adapters/store_file.py",
        "from __future__ import annotations\n",
        "import nothing_of_the_kind\n",
    )
    assert not prove(Bug("none", "", (broken,), BUGS[0].caught_by), tmp_path).is_caught


def test_a_bug_that_no_longer_fits_the_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("one\none\n", encoding="utf-8")
    with pytest.raises(SeedError, match="2 times"):
        plant((Edit("module.py", "one", "two"),), tmp_path)
