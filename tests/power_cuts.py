"""The crash points again, each of them a power cut: what the kernel had not written to the disk is gone, too.

A kill takes only the process; what it had written lies in the page cache and is found by the next one, asked for or not.
So a store that never waits for the disk passes every kill, and loses all that it promised when the power fails. Here each
run has an ext4 file system of its own in an image file; after its end the image is taken as it stands, mounted anew, and
checked against what the run had said was committed.

    with ImageDisk(folder, SIZE_MB) as disk, PowerBench(disk) as bench:
        tally = bench.sweep("agent", "fdatasync")

Source: reliability invariants I-1, I-3, fault matrix row 3. LazyFS, which loses writes below the file system, would lose in
addition what a disk has taken and not yet made durable; it needs FUSE's library, which Debian's base has not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.chaos.disk import ImageDisk
from tests.crash_points import CrashBench, Run

SIZE_MB: Final = 16


class PowerBench(CrashBench):
    """A bench on a disk that loses power after each run."""

    def __init__(self, disk: ImageDisk) -> None:
        super().__init__(disk.folder)
        self._disk = disk

    def check(self, workload: str, run: Run) -> list[str]:
        self._disk.copy()
        self._disk.lose_what_was_not_written()
        return super().check(workload, run)

    def _fresh(self, workload: str) -> Path:
        folder = super()._fresh(workload)
        self._disk.write_out()
        return folder
