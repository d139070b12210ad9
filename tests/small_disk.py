"""A disk of a few megabytes: a tmpfs, mounted for a test. Needs root, and says so instead of passing with less proven."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Self


class SmallDisk:
    """A context manager; `folder` is where it is mounted."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._size_mb = size_mb

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.tear_out()

    def mount(self) -> None:
        """Put a new, empty disk there."""
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size_mb}m", "guardwatch-test", str(self.folder))

    def remount(self, mode: str) -> None:
        """Make it read-only (`ro`) or writable again (`rw`); refused while a file on it is open for writing."""
        _run("mount", "-o", f"remount,{mode}", str(self.folder))

    def tear_out(self) -> None:
        """Unmount it under whoever uses it; nothing when it is not mounted."""
        while os.path.ismount(self.folder):
            _run("umount", "-l", str(self.folder))

    def fill(self, leave_bytes: int = 0) -> None:
        """Leave no more room than this beside what is stored."""
        found = os.statvfs(self.folder)
        used_bytes = (found.f_blocks - found.f_bfree) * found.f_frsize
        self._resize(f"{(used_bytes + leave_bytes) // 1024}k")

    def relieve(self) -> None:
        """Give it all its room again."""
        self._resize(f"{self._size_mb}m")

    def _resize(self, size: str) -> None:
        _run("mount", "-o", f"remount,size={size}", str(self.folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(
            f"this test needs a small disk of its own: `{' '.join(command)}` was refused"
            f" ({done.stderr.strip()}) — run the tests as root, where mounting is allowed"
        )
