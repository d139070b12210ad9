"""Both stores, the power cut at chosen system calls: what was promised is on the disk, not in the kernel's memory.

With `synchronous=NORMAL` in either store, its cases are red. Needs root, for a file system in an image file.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.disk import ImageDisk
from tests.power_cuts import SIZE_MB, PowerBench

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerBench]:
    with ImageDisk(tmp_path_factory.mktemp("power") / "disk", SIZE_MB) as disk, PowerBench(disk) as found:
        yield found


@pytest.mark.parametrize(
    ("workload", "syscall", "every"),
    [
        ("agent", "fdatasync", 2),
        ("agent", "pwrite64", 11),
        ("agent-new", "fdatasync", 3),
        ("gateway", "fdatasync", 2),
        ("gateway", "pwrite64", 23),
        ("gateway-new", "fdatasync", 4),
    ],
)
def test_a_power_cut_at_any_call_loses_nothing_acked_and_leaves_a_sound_file(
    bench: PowerBench, workload: str, syscall: str, every: int
) -> None:
    tally = bench.sweep(workload, syscall, every=every)
    assert tally.problems == []
    assert tally.points >= 2, "it was cut somewhere"
