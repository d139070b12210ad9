"""The note beside a store: what must be known although the disk is full, and although the store was harmed.

    gw-01.db.note ─┬─ the tail     the last place and its hash, written after each commit without synchronising
                   ├─ a loss  ┐    what would be lost if the process ended now: count, first and last time, and a number
                   └─ a loss  ┘    that rises; the two take turns, so that a torn write spoils only the newer

All of it is allocated when there is room, written as zeros and synchronised; from then on it is overwritten in place,
which a full disk does not refuse. Each record is sealed by a checksum: a half written one is as good as none.

The tail tells whoever opens the store next whether its end was cut off: a lost log, a spoilt log, an older copy. A kill
leaves it to the kernel; after a power cut it may only be older than the store, which proves nothing.

Source: reliability invariants I-5 and I-24.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge_agent.ports import StoreBrokenError

_RECORD_BYTES: Final = 4096
"""A page each: what tears one record leaves the others."""

_RECORDS: Final = 3


@dataclass(frozen=True, slots=True)
class LossNote:
    """Findings in danger: how many, and between which times (RFC 3339). `number` rises with each note."""

    number: int
    dropped: int
    since: str
    until: str


class StoreNote:
    """The note of one store. Raises `StoreBrokenError` when the disk fails; one that is full is no failure."""

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(store.name + ".note")
        self._handle: int | None = None
        self.loss = LossNote(0, 0, "", "")
        if self._path.exists():
            self.open()

    def open(self) -> None:
        """Open the note, made if it is not there and there is room for it."""
        if self._handle is not None:
            return
        try:
            self._handle = _open_allocated(self._path)
        except OSError:
            return  # there is no room: it is tried again with the next sign that there is
        found = [self._read(slot) for slot in (1, 2)]
        for record in found:
            with contextlib.suppress(ValueError, TypeError):
                note = LossNote(*json.loads(record))
                self.loss = max(self.loss, note, key=lambda item: item.number)

    def count_on(self, number: int) -> None:
        """Number the next loss beyond this: the store may have taken up more than this note, which is new, ever had."""
        self.loss = replace(self.loss, number=max(self.loss.number, number))

    def close(self) -> None:
        """Let go of it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def tail(self) -> tuple[int, str]:
        """The last place that was noted, and its hash; 0 and nothing when there is none."""
        with contextlib.suppress(ValueError, TypeError):
            place, digest = json.loads(self._read(0))
            return int(place), str(digest)
        return 0, ""

    def note_tail(self, place: int, digest: str) -> None:
        """The store ends here now."""
        self._write(0, json.dumps([place, digest]))

    def note_loss(self, dropped: int, since: str, until: str) -> None:
        """So much would be lost now: on disk when this returns, unless there never was room for the note."""
        self._put_loss(dropped, since, until)
        if self._handle is not None:
            try:
                os.fdatasync(self._handle)
            except OSError as error:
                raise StoreBrokenError(f"the note beside the store failed: {error}") from error

    def note_no_loss(self) -> None:
        """Nothing is in danger any more. The store knows; this is for a store that comes in its place."""
        self._put_loss(0, "", "")

    def _put_loss(self, dropped: int, since: str, until: str) -> None:
        number = self.loss.number + 1
        self.loss = LossNote(number, dropped, since, until)
        self._write(1 + number % 2, json.dumps([number, dropped, since, until]))

    def _read(self, slot: int) -> str:
        if self._handle is None:
            return ""
        line = os.pread(self._handle, _RECORD_BYTES, slot * _RECORD_BYTES).partition(b"\n")[0]
        seal, _, text = line.decode(errors="replace").partition(" ")
        return text if seal == _seal(text) else ""

    def _write(self, slot: int, text: str) -> None:
        if self._handle is None:
            return
        try:
            os.pwrite(self._handle, f"{_seal(text)} {text}\n".encode(), slot * _RECORD_BYTES)
        except OSError as error:
            raise StoreBrokenError(f"the note beside the store failed: {error}") from error


def _open_allocated(path: Path) -> int:
    """Open the file, with room for all records; what was not there reads as zeros. Raises `OSError`, with nothing open."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(handle).st_size
        while size < _RECORDS * _RECORD_BYTES:  # what there is room for may be less than what is asked for
            size += os.pwrite(handle, bytes(_RECORDS * _RECORD_BYTES - size), size)
        os.fsync(handle)
    except OSError:
        os.close(handle)
        raise
    return handle


def _seal(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
