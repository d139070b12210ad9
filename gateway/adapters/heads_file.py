"""Heads appended to a file in a directory outside: what is in it already is never read, changed or removed here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gateway.services.heads import HeadsNotWritten

FILE_NAME = "heads.jsonl"


class HeadsFile:
    """`gateway.services.heads.HeadSink` in a directory that must exist: a mount that is away is no new directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def append(self, lines: Sequence[str]) -> None:
        """Add the lines and wait until they are on the disk. Raises `HeadsNotWritten`."""
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(handle).st_size
                written = os.write(handle, data)
                if written < len(data):  # half a line would spoil the next one, too
                    os.ftruncate(handle, size)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise HeadsNotWritten(f"{self._path}: {error.strerror}") from error
        if written < len(data):
            raise HeadsNotWritten(f"{self._path}: no room for a whole head")
