"""The board's own files: read once at start, served from memory with an ETag. Nothing else of the disk is reachable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

_MEDIA_TYPES: Mapping[str, str] = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
"""What the board is made of; other files in its folder are not served."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file: what a browser gets."""

    content: bytes
    media_type: str
    etag: str


def load_static_files() -> Mapping[str, StaticFile]:
    """All files of the board by their path below `/static/`."""
    return dict(_walk(files("gateway.api") / "board", ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, StaticFile]]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _walk(item, f"{prefix}{item.name}/")
            continue
        media_type = _MEDIA_TYPES.get(item.name.rpartition(".")[2])
        if media_type is not None:
            content = item.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            yield f"{prefix}{item.name}", StaticFile(content, media_type, etag)
