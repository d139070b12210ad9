"""Secrets: files named by the configuration, never values in it."""

from __future__ import annotations

from typing import Final

from edge_agent.configfile.document import Document, PathKey
from edge_agent.configfile.problem import Problem

SECRET_MAX_BYTES: Final = 16 * 1024
"""Longer than any password or token; a larger file is the wrong file."""


def read_secret(document: Document, path: PathKey) -> str | Problem:
    """The text in the file that the value at `path` names, without its line end, or what is wrong, at that value."""
    file = document.resolve(str(document.value(path)))
    try:
        with file.open("rb") as stream:
            content = stream.read(SECRET_MAX_BYTES + 1)
        text = content.decode("utf-8").rstrip("\r\n")
    except FileNotFoundError:
        return document.problem(
            path, f"the secret file {file} does not exist", "write the secret into it, mode 0600"
        )
    except UnicodeDecodeError:
        return document.problem(path, f"the secret file {file} is not UTF-8 text", "name the right file")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        return document.problem(
            path, f"the secret file {file} cannot be read: {reason}", "check path and permissions"
        )
    if len(content) > SECRET_MAX_BYTES:
        return document.problem(
            path, f"the secret file {file} is larger than {SECRET_MAX_BYTES} bytes", "name the right file"
        )
    if not text.strip():
        return document.problem(path, f"the secret file {file} is empty", "write the secret into it")
    return text
