"""The SQLite journal as a file: what lies beside it for the day on which the disk is full, or the file damaged.

    gateway.db            the journal, with SQLite's -wal and -shm
    gateway.db.note       the newest position and its link, written after each commit: who reads the journal again knows
                          how far it had got, so a lost log, a cut file, an older copy in its place is seen; after a
                          clean stop that had time for it the seal of the whole file, too: rows that are derived have no links
    gateway.db.reserve    only takes up room, and gives it up when there is none: for the alarm that says so
    gateway.db.damaged-N  a journal that failed its check, moved aside with its log; nothing is thrown away
    gateway.db.untold-N   damage that no journal entry has told yet: written before anything is moved

After a commit the note is not synchronised: a kill leaves it to the kernel, and after a power cut it may only be older than the
journal, which proves nothing. It is never ahead of what is on disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import make_url

from gateway.domain.room import Room
from gateway.ports import Damage

RESERVE_BYTES = 1024 * 1024
"""Room for the alarm of a full disk and for telling people: some hundred entries."""

_NOTE_BYTES = 512

_HEADER_BYTES = 100
_CHANGES = slice(24, 28)
_CHANGES_AT_VERSION = slice(92, 96)
"""Of the database header (SQLite's file format, sections 1.3.10 and 1.3.22): whoever writes through SQLite counts the first
up, and stores it in the second, too."""

_CHUNK_BYTES = 4 * 1024 * 1024
"""Read at once for a digest: some 40 ms of a slow disk between two looks at the time."""

CHECKED_MAX_BYTES = 1 << 30
"""A larger file is not read whole at start: it would hold up the ingest for more than a few seconds."""


@dataclass(frozen=True, slots=True)
class Seal:
    """The file as a clean stop left it: SQLite's count of changes, and the SHA-256 of everything (both in hex)."""

    changes: str
    digest: str

    def is_broken_by(self, now: Seal) -> bool:
        """Whether bytes changed that nobody wrote through SQLite.

        What SQLite wrote is no damage: an older gateway that was gone back to, a VACUUM, a backup that was put back.
        """
        return self.digest != now.digest and now.changes in {self.changes, ""}


@dataclass(frozen=True, slots=True)
class Noted:
    """How far the journal had got; `seal` is None unless it was closed cleanly."""

    position: int = 0
    link: str = ""
    seal: Seal | None = None


class JournalFile:
    """`gateway.ports.Storage` for one SQLite journal. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None
        self._note: int | None = None

    @classmethod
    def of(cls, url: str) -> Self | None:
        """The file of a journal's URL; None where a server keeps the files, or there is none."""
        target = make_url(url)
        is_file = target.get_backend_name() == "sqlite" and target.database not in {None, "", ":memory:"}
        return cls(Path(target.database or "")) if is_file else None

    def begin(self) -> None:
        """The journal was checked: it is watched from now on, and may change, so that its seal says nothing any more."""
        noted = self.noted()
        self._note = os.open(self._beside("note"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.note(noted.position, noted.link)
        os.fsync(self._note)

    def watch(self) -> None:
        """Whatever has its name now is the journal, and nothing else is from now on."""
        self._identity = _identity(self.path)

    def close(self, is_late: Callable[[], bool]) -> None:
        """The database is closed: note what the file is like, when it is whole and not `is_late` before, and let go."""
        if self._note is None:
            return
        if not self._suffixed("-wal").exists() and self.is_in_place():
            noted = self.noted()
            self.note(noted.position, noted.link, self.seal(is_late))
        os.close(self._note)
        self._note = None

    def seal(self, is_late: Callable[[], bool] = lambda: False) -> Seal | None:
        """Of the file as it is; None for one that is too large to be read at each start and stop, or once it `is_late`.

        Raises `OSError`.
        """
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > CHECKED_MAX_BYTES:
                return None
            header = file.read(_HEADER_BYTES)
            digest = hashlib.sha256(header)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                if is_late():
                    return None
        changes = header[_CHANGES]
        return Seal(changes.hex() if changes == header[_CHANGES_AT_VERSION] else "", digest.hexdigest())

    def room(self) -> Room:
        """What the journal takes up and what is left for it. Raises `OSError`."""
        disk = os.statvfs(self.path.parent)
        sizes = (path.stat().st_size for path in (self.path, self._suffixed("-wal")) if path.exists())
        return Room(sum(sizes), disk.f_bavail * disk.f_frsize)

    def is_in_place(self) -> bool:
        """Whether its name still leads to the file that is open: not after an unmount, a deletion, a replacement."""
        return self._identity is None or _identity(self.path) == self._identity

    def take_reserve(self) -> None:
        """Take the room of the reserve, if it is there to be had."""
        path = self._beside("reserve")
        if path.exists():
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
                raise

    def give_up_reserve(self) -> bool:
        """Give the room up; False when it was given up before."""
        try:
            self._beside("reserve").unlink()
        except OSError:
            return False
        return True

    def note(self, position: int, link: str, seal: Seal | None = None) -> None:
        """The journal ends here now. Raises `OSError`."""
        assert self._note is not None, "the journal is not open"
        words = (str(position), link) if seal is None else (str(position), link, seal.changes, seal.digest)
        os.pwrite(self._note, _sealed(" ".join(words)), 0)

    def note_nothing(self) -> None:
        """The journal that the note was about is not this one."""
        self._beside("note").unlink(missing_ok=True)

    def noted(self) -> Noted:
        """What was noted last; nothing when there is no note, or it cannot be read."""
        try:
            text = _unsealed(self._beside("note").read_bytes())
        except OSError:
            return Noted()
        match text.split(" "):
            case [position, link]:
                return Noted(int(position), link)
            case [position, link, changes, digest]:
                return Noted(int(position), link, Seal(changes, digest))
            case _:
                return Noted()

    def move_aside(self, flaw: str) -> None:
        """Rename the journal, its log and its note, so that a new one can begin; the damage is told before that."""
        number = self._free_number()
        target = self._beside(f"damaged-{number}")
        self._write_untold(number, f"{target.name}: {flaw}")
        for suffix in ("", "-wal", "-shm", ".note"):
            with contextlib.suppress(FileNotFoundError):
                self._suffixed(suffix).rename(target.with_name(target.name + suffix))
        _sync_folder(self.path.parent)

    def note_damage(self, flaw: str) -> None:
        """Something is to be told, though the file stays where it is."""
        self._write_untold(self._free_number(), f"{self.path.name}: {flaw}")

    def untold_damage(self) -> Sequence[Damage]:
        """What no journal entry has told yet, oldest first."""
        return [
            Damage(path.name, path.read_text(encoding="utf-8", errors="replace"))
            for path in sorted(self._untold())
        ]

    def forget_damage(self, damage: Damage) -> None:
        """The journal tells of it."""
        self.path.with_name(damage.name).unlink(missing_ok=True)

    def _untold(self) -> Iterator[Path]:
        return self.path.parent.glob(f"{self.path.name}.untold-*")

    def _write_untold(self, number: int, text: str) -> None:
        with self._beside(f"untold-{number}").open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self.path.parent)

    def _free_number(self) -> int:
        number = 1
        while any(self._beside(f"{kind}-{number}").exists() for kind in ("damaged", "untold")):
            number += 1
        return number

    def _beside(self, name: str) -> Path:
        return self._suffixed(f".{name}")

    def _suffixed(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _sealed(text: str) -> bytes:
    line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
    return line.ljust(_NOTE_BYTES)


def _unsealed(data: bytes) -> str:
    """The text of a sealed note; empty when it was damaged or only half written."""
    seal, _, text = data.partition(b"\n")[0].decode(errors="replace").partition(" ")
    return text if seal == f"{zlib.crc32(text.encode()):08x}" else ""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sync_folder(folder: Path) -> None:
    """Make renames in it outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
