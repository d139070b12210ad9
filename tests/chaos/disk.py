"""Small disks, one for each part that stores: a tmpfs that a filler file fills up.

Without root they are plain folders, and the faults of disks are not to be had.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final, Self

from tests.chaos.place import run

CHUNK_BYTES: Final = 256 * 1024


class Disk:
    """A plain folder."""

    is_small = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class SmallDisk(Disk):
    """A file system of its own of `size_mb`."""

    is_small = True

    def __init__(self, folder: Path, size_mb: int) -> None:
        super().__init__(folder)
        self._size_mb = size_mb

    def __enter__(self) -> Self:
        run("mount", "-t", "tmpfs", "-o", f"size={self._size_mb}m,mode=777", "gw-chaos", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        run("umount", "-l", str(self.folder))

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """Take all the room there is, to the last byte."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (CHUNK_BYTES, 4096, 1):
                _write_until_full(filler.write, bytes(size))

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)

    def set_writable(self, *, writable: bool) -> None:
        """Remount. Raises NoRoomError while somebody has a file open for writing."""
        run("mount", "-o", f"remount,{'rw' if writable else 'ro'}", str(self.folder))


def _write_until_full(write: object, chunk: bytes) -> None:
    assert callable(write)
    while True:
        try:
            if write(chunk) < len(chunk):
                return
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return
            raise
