"""Running other programs while saying what is done, and stating a failure together with its mend."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL_LINES = 25
"""How much of a failed program's output is shown: the last lines hold the reason, the whole is in the log."""


class ServerUnavailableError(Exception):
    """One server could not be provided; the text says why and how to mend it."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(f"{reason} — {mend}")


def say(text: str) -> None:
    """Write one progress line to stderr, at once."""
    sys.stderr.write(f"servers: {text}\n")
    sys.stderr.flush()


def run(
    command: Sequence[str | Path],
    *,
    mend: str,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Run a command to its end and return its standard output and error in one text.

    `env` is laid over this process's environment; `log` receives the whole output as well.
    Raises ServerUnavailableError, with the last lines of the output, when the command is missing or fails.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(  # noqa: S603 — fixed commands of this script, never a shell
            words,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as problem:
        raise ServerUnavailableError(f"cannot run {words[0]}: {problem.strerror}", mend) from problem
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout)
    if done.returncode != 0:
        tail = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-_TAIL_LINES:])
        raise ServerUnavailableError(f"`{' '.join(words)}` exited {done.returncode}:\n{tail}\n   ", mend)
    return done.stdout
