"""The configuration is loaded in a process of its own, so that the running agent never held what loading takes.

Theory of operation. To read 25 600 guards takes half a gigabyte for some seconds: YAML nodes, plain data, the schema's
objects. An allocator gives little of that back, and parser and schema alone are a third of a small agent's memory. So
`python -m edge_agent.app.loading CONFIG` does it, writes what it found to a pipe as a pickle, and ends; the agent imports
meanwhile what it needs itself. Nothing but plain values crosses, and both ends are this program.

The same serves SIGHUP: with `--check` only the problems cross, a store, key or certificate that a start would refuse among them, and the running agent goes on polling undisturbed.
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias, cast

from edge_agent.adapters.store_reading import take_up_problem
from edge_agent.settings import AgentSettings, load

_CHECK: Final = "--check"

_SMALL_MAX: Final = 256
"""Python keeps one object for each whole number up to this."""

_Answer: TypeAlias = tuple[AgentSettings | None, tuple[str, ...], tuple[str, ...]]
"""What crosses: the fields of `Loaded`, whose own name differs in the process that this module is the program of."""


class LoadingFailedError(Exception):
    """The loading process ended without an answer (killed, out of memory); the text says how."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a configuration file gave: `settings` without their warnings, or None with `problems`; all told as lines."""

    settings: AgentSettings | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


class _Packer(pickle.Pickler):
    """Names whole numbers to the other side, instead of writing out each of them."""

    def persistent_id(self, value: object) -> int | None:
        """The number itself is its name; small ones exist once in any case."""
        return value if type(value) is int and value > _SMALL_MAX else None


class _Unpacker(pickle.Unpickler):
    """Makes each number once: ids and addresses stand in a plan four times over, and would be objects of their own."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._numbers: dict[int, int] = {}

    def persistent_load(self, name: int) -> int:
        """The number of this name."""
        return self._numbers.setdefault(name, name)


class Loading:
    """A configuration on its way in `process`: started at once, `wait` for it. `check_only` leaves the settings out."""

    def __init__(self, config: Path, *, check_only: bool = False) -> None:
        command = [sys.executable, "-m", __name__, str(config), *([_CHECK] if check_only else [])]
        self.process = subprocess.Popen(  # noqa: S603 — ourselves
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def wait(self) -> Loaded:
        """What it found. Raises `LoadingFailedError`."""
        with self.process as child:
            assert child.stdout is not None
            answer = child.stdout.read()
        if child.returncode == -signal.SIGINT:
            raise KeyboardInterrupt
        if child.returncode:
            raise LoadingFailedError(f"the configuration could not be loaded: ended with {child.returncode}")
        return Loaded(*cast("_Answer", _Unpacker(io.BytesIO(answer)).load()))


def _load(config: Path, *, check_only: bool) -> _Answer:
    found = load(config, os.environ)
    if isinstance(found, list):
        return None, tuple(map(str, found)), ()
    warnings = tuple(map(str, found.warnings))
    if not check_only:
        return replace(found, warnings=()), (), warnings
    return None, tuple(_start_problems(config, found)), warnings


def _start_problems(config: Path, settings: AgentSettings) -> Iterator[str]:
    """Why a start would be refused though the file itself is good: whoever reloads with it would have no agent any more."""
    # only a check needs these; the loading that a start waits for does not
    from edge_agent.adapters.fieldbus_dial import tls_context  # noqa: PLC0415
    from edge_agent.adapters.signing import key_path, key_problem  # noqa: PLC0415

    store = settings.store.path
    problem = take_up_problem(store, f"{settings.plan.site}/{settings.plan.agent}")
    yield from filter(None, (problem, key_problem(key_path(store))))
    for files in settings.certificates.values():
        try:
            tls_context(files.ca_file, files.cert_file, files.key_file)
        except OSError as error:
            yield f"{config}: a certificate file of a device cannot be used: {error}"


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches both: the agent says so, for both
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the agent has gone: nobody wants to know
    gc.disable()  # nothing here is ever garbage: this process only lives to build one thing
    found = _load(Path(sys.argv[1]), check_only=_CHECK in sys.argv[2:])
    _Packer(sys.stdout.buffer, pickle.HIGHEST_PROTOCOL).dump(found)
    sys.stdout.flush()
    os._exit(0)  # to take half a gigabyte apart, object by object, would keep the agent waiting


if __name__ == "__main__":
    _main()
