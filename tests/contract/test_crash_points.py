"""Both stores, killed or failed by the kernel at chosen system calls: nothing acked is lost, nothing unknown is acked.

This is the short form of the sweep; `python -m tests.crash_points` kills at every single call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.crash_points import CrashBench
from tests.crash_workloads import COMMITS, FAILED, FULL

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

STORES = ("agent", "gateway")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashBench]:
    with CrashBench(tmp_path_factory.mktemp("crash")) as found:
        yield found


@pytest.mark.parametrize(
    ("workload", "syscall", "every"),
    [
        ("agent", "fdatasync", 1),
        ("agent", "pwrite64", 5),
        ("agent", "unlink", 1),
        ("agent-new", "fdatasync", 2),
        ("gateway", "fdatasync", 1),
        ("gateway", "pwrite64", 11),
        ("gateway", "unlink", 1),
        ("gateway-new", "fdatasync", 3),
    ],
)
def test_a_kill_at_any_call_loses_nothing_acked_and_leaves_a_sound_file(
    bench: CrashBench, workload: str, syscall: str, every: int
) -> None:
    tally = bench.sweep(workload, syscall, every=every)
    assert tally.problems == []
    assert tally.points >= 2, "it was killed somewhere"


@pytest.mark.parametrize("workload", STORES)
def test_each_commit_is_on_the_disk_before_it_is_promised(bench: CrashBench, workload: str) -> None:
    """With `synchronous=NORMAL` nothing is synchronised until a checkpoint, and a power cut takes all of it."""
    run = bench.run(workload, "fdatasync:signal=SIGKILL:when=9999", trace="write")
    promises = re.findall(r"(fdatasync|write)\(\d+<[^>]*(?:\.db-wal|acked\.txt)>", run.calls)
    assert promises.count("write") > COMMITS
    assert re.search(r"write write", " ".join(promises)) is None


@pytest.mark.parametrize("workload", STORES)
@pytest.mark.parametrize(("syscall", "every"), [("fdatasync", 1), ("pwrite64", 13)])
def test_an_io_error_ends_the_process_and_the_next_start_goes_on(
    bench: CrashBench, workload: str, syscall: str, every: int
) -> None:
    """What the failed commit left is unknown: it is never acked, never tried again, and read by the next start."""
    point, endings = 1, set[int]()
    while (run := bench.run(workload, f"{syscall}:error=EIO:when={point}")).was_hit:
        assert bench.check(workload, run) == [], f"{syscall} {point}"
        if run.exit_code == FAILED:
            assert any("StoreBroken" in said or "JournalLost" in said for said in run.complaints)
        if not run.hit_folder:
            endings.add(run.exit_code)
        point += every
    assert FAILED in endings
    assert endings <= {FAILED}, "an error of storage was passed over"


@pytest.mark.parametrize("workload", STORES)
def test_a_disk_without_room_loses_nothing_acked(bench: CrashBench, workload: str) -> None:
    """The same calls say ENOSPC for a while: the stores say that they are full, or that they are broken, and go on."""
    for point in range(1, 100, 11):
        run = bench.run(workload, f"pwrite64:error=ENOSPC:when={point}..{point + 20}")
        assert run.was_hit
        assert run.exit_code in {0, FAILED, FULL}
        assert bench.check(workload, run) == [], f"pwrite64 {point}"
