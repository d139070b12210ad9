"""Nothing of the fault matrix is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.process import ROOT
from tests.chaos.report import ELSEWHERE, ROWS
from tests.chaos.schedule import FAULTS, row_of

MATRIX = range(1, 29)


def test_every_row_of_the_fault_matrix_is_injected_here_or_has_tests_of_its_own() -> None:
    assert sorted([*ROWS, *ELSEWHERE]) == list(MATRIX)
    kills_and_sweeps = {1, 2}
    assert {row_of(name) for name in FAULTS} | kills_and_sweeps == set(ROWS)


@pytest.mark.parametrize("row", ELSEWHERE)
def test_what_the_table_names_is_there(row: int) -> None:
    named = [Path(word.strip("(),;")) for word in ELSEWHERE[row].split() if word.startswith("tests/")]
    assert named
    assert all((ROOT / path).is_file() for path in named)
