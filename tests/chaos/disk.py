"""Small disks, one for each part that stores: a tmpfs that a filler file fills up, or ext4 in an image file.

What stands in the image is what the kernel has written, so a copy of it is the disk as a power cut leaves it: all that
was only in the page cache is missing. (Not what a disk with a cache of its own would lose beyond that: for it a flush that
was asked for and one that was not look alike here.) Without root they are plain folders, and the faults of disks are not to
be had.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from pathlib import Path
from typing import Final, Self

from tests.chaos.place import NoRoomError, run

CHUNK_BYTES: Final = 256 * 1024


class Disk:
    """A plain folder."""

    is_small = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def write_out(self) -> None:
        """As if all that was written long ago: none of it depends on the kernel's page cache any more."""

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


class ImageDisk(SmallDisk):
    """A file system in an image file beside its folder."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        super().__init__(folder, size_mb)
        self._image = folder.with_name(f"{folder.name}.img")
        self._copy = folder.with_name(f"{folder.name}.copy")

    def __enter__(self) -> Self:
        with self._image.open("wb") as image:
            image.truncate(self._size_mb * 1024 * 1024)
        run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self._mount()
        return self

    def write_out(self) -> None:
        run("sync", "-f", str(self.folder))

    def copy(self) -> None:
        """Keep what has been written, while nobody writes; again if the kernel did meanwhile."""
        before, now = b"", self._image.read_bytes()
        for _ in range(COPIES_MAX):
            before, now = now, self._image.read_bytes()
            if before == now:
                break
        self._copy.write_bytes(now)

    def lose_what_was_not_written(self) -> None:
        """What was kept is the disk, whatever was written later; nobody may have a file open."""
        self._unmount()
        shutil.move(self._copy, self._image)
        self._mount()

    def abort(self) -> None:
        """The file system refuses every write, those to open files included."""
        run("mount", "-o", "remount,abort", str(self.folder))

    def check_and_mount(self) -> None:
        """As at the next boot; nobody may have a file open."""
        self._unmount()
        with contextlib.suppress(NoRoomError):  # its exit code says that it has mended something
            run("e2fsck", "-p", str(self._image))
        self._mount()

    def _mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self.folder))
        self.folder.chmod(0o777)

    def _unmount(self) -> None:
        deadline_s = time.monotonic() + CLOSED_S
        while True:
            try:
                run("umount", str(self.folder))
            except NoRoomError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)  # somebody is still reading the books
            else:
                return


COPIES_MAX: Final = 20
CLOSED_S: Final = 10.0


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
