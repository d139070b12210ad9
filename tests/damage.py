"""What disks, file systems and people do to a database file: seeded, and named so that a failure can be done again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

PAGE = 4096


def _flip_byte(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _zero_page(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data) // PAGE) * PAGE
    data[start : start + PAGE] = bytes(PAGE)
    path.write_bytes(data)


def _noise(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    length = min(rng.randrange(1, 2000), len(data) - start)
    data[start : start + length] = rng.randbytes(length)
    path.write_bytes(data)


def _truncate(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def _on_log(harm: Callable[[Path, random.Random], None]) -> Callable[[Path, random.Random], None]:
    def harm_log(path: Path, rng: random.Random) -> None:
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size > PAGE:
            harm(log, rng)

    return harm_log


def _delete_log(path: Path, _: random.Random) -> None:
    path.with_name(path.name + "-wal").unlink(missing_ok=True)


def _delete(path: Path, _: random.Random) -> None:
    path.unlink()


HARM: Mapping[str, Callable[[Path, random.Random], None]] = {
    "flip a bit": _flip_byte,
    "zero a page": _zero_page,
    "noise": _noise,
    "truncate": _truncate,
    "flip a bit of the log": _on_log(_flip_byte),
    "noise in the log": _on_log(_noise),
    "truncate the log": _on_log(_truncate),
    "delete the log": _delete_log,
    "delete the file": _delete,
}
