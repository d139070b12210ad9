"""The ground under tests/servers.py: ports, one child process, and what every test server shares."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from simulators.servers import ServerBinary

_POLL_S = 0.05
_READY_POLLS = 1200
"""60 s at least: a cold influxd beside a full test run on two cores takes several."""
_STOP_S = 20.0
"""A server that ignores its stop signal this long is killed."""

_PORTS_FROM, _PORTS_COUNT = 20_000, 12_000
"""Below the kernel's ephemeral range (32768 on), so that no outgoing connection takes the port of a killed server."""


class ServerError(Exception):
    """A server is missing, did not start or refused what a test asked of it."""


def _port_candidates() -> Iterator[int]:
    start = os.getpid() * 977 % _PORTS_COUNT  # parallel test workers begin far apart
    for step in itertools.count(start):
        yield _PORTS_FROM + step % _PORTS_COUNT


_candidates = _port_candidates()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, a different one at each call."""
    for port in itertools.islice(_candidates, _PORTS_COUNT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError("no free port between 20000 and 32000")


def accepts_connections(port: int) -> bool:
    """Does somebody listen on this port of 127.0.0.1?"""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def require(binary: ServerBinary | None, name: str) -> ServerBinary:
    """The binary that was found, or an error that says how to get it."""
    if binary is None:
        raise ServerError(f"no {name} on this machine — run `make servers`")
    return binary


class ServerProcess:
    """One child in a process group of its own, its output appended to a log file."""

    def __init__(self, name: str, log: Path, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self._name = name
        self._log = log
        self._stop_signal = stop_signal
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._child is None:
            raise ServerError(f"{self._name} is not running")
        return self._child.pid

    def start(
        self,
        command: Sequence[str | Path],
        *,
        env: dict[str, str],
        is_ready: Callable[[], bool],
        user: str | None = None,
    ) -> None:
        """Start the command and wait until it is ready."""
        if self._child is not None:
            raise ServerError(f"{self._name} is running already")
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd="/",
                user=user,
                extra_groups=[] if user else None,
                start_new_session=True,
            )
        pause = threading.Event()
        for _ in range(_READY_POLLS):
            if self._child.poll() is not None:
                break
            if is_ready():
                return
            pause.wait(_POLL_S)
        self.kill()
        raise ServerError(f"{self._name} did not come up; its log ends:\n{self._log.read_text()[-2000:]}")

    def wait(self) -> int:
        """The exit code of a child that ends by itself."""
        if self._child is None:
            raise ServerError(f"{self._name} is not running")
        code = self._child.wait(_STOP_S)
        self._child = None
        return code

    def stop(self) -> None:
        """End the server politely; nothing when it does not run."""
        if self._child is None:
            return
        self._child.send_signal(self._stop_signal)
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._child = None

    def kill(self) -> None:
        """SIGKILL the server and all its children; nothing when it does not run."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._child = None


class Server:
    """What all servers share: a folder, a port, one process, and being a context manager."""

    def __init__(
        self, name: str, folder: Path, port: int | None, stop_signal: signal.Signals = signal.SIGTERM
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self._process = ServerProcess(name, folder / f"{name}.log", stop_signal)

    @property
    def pid(self) -> int:
        """The running server's process id (SIGSTOP it to play a hung server)."""
        return self._process.pid

    def start(self) -> None:
        """Start it, or start it again on the same port and data; returns when it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it politely."""
        self._process.stop()

    def kill(self) -> None:
        """Stop it as a crash would."""
        self._process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
