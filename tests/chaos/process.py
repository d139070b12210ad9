"""One part of the plant as its supervisor sees it: started, killed, frozen, restarted when it ends by itself.

Every life and every freeze is written down with CLOCK_MONOTONIC seconds: the oracle must know when the agent could
see. A part that ends by itself is started again after `RESTART_S`, as its unit file says (Restart=always); one that
has a watchdog is ended when its pings (sd_notify(3)) stay away for longer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""Where our own programs are found."""

RESTART_S: Final = 1.0
READY_S: Final = 60.0
STOP_S: Final = 15.0
"""Agent and gateway promise to stop within 5 s; a loaded machine gets three times that."""


@dataclass(slots=True)
class Span:
    """From when until when something was so; `until_s` infinite: still."""

    from_s: float
    until_s: float = float("inf")


@dataclass(slots=True)
class History:
    """What became of one part. `ended` are the exit codes of those that ended by themselves."""

    lives: list[Span] = field(default_factory=list)
    freezes: list[Span] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    kills: int = 0
    watchdog_restarts: int = 0
    rss_kb_max: int = 0
    fds_max: int = 0

    def awake(self) -> list[Span]:
        """The spans in which it ran."""
        awake: list[Span] = []
        for life in self.lives:
            start = life.from_s
            for freeze in self.freezes:
                if life.from_s <= freeze.from_s < life.until_s:
                    awake.append(Span(start, freeze.from_s))
                    start = min(freeze.until_s, life.until_s)
            awake.append(Span(start, life.until_s))
        return [span for span in awake if span.until_s > span.from_s]


class Part:
    """One supervised program. Its methods may be called from several threads."""

    def __init__(
        self,
        name: str,
        command: list[str],
        env: dict[str, str],
        log: Path,
        *,
        is_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.command = command
        self.env = env
        self.history = History()
        self.watchdog_s: float | None = None
        self.hold = threading.Lock()
        """Whoever has taken the part away holds this until it is back."""
        self._log = log
        self._is_ready = is_ready
        self._child: subprocess.Popen[bytes] | None = None
        self._is_wanted = False
        self._lock = threading.RLock()
        self._pinged_s = 0.0
        self._restart_at_s: float | None = None
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._address = f"gw-chaos-{os.getpid()}-{id(self)}"
        self._notify.bind("\0" + self._address)
        self._notify.setblocking(False)

    def start(self) -> None:
        """Start it unless it runs; `wait_ready` waits for more."""
        with self._lock:
            self._is_wanted = True
            if self._child is not None:
                return
            env = {**self.env, "NOTIFY_SOCKET": "@" + self._address}
            with self._log.open("ab") as log:
                self._child = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env,
                    cwd=ROOT,
                    start_new_session=True,
                )
            self._restart_at_s = None
            self._pinged_s = time.monotonic()
            self.history.lives.append(Span(time.monotonic()))

    def wait_ready(self) -> None:
        """Return when it answers. Raises TimeoutError with the end of its log."""
        deadline_s = time.monotonic() + READY_S
        while not self._is_ready():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.name} did not come up: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL it and what it started; it stays away until `start`."""
        with self._lock:
            self._is_wanted = False
            if self._child is None:
                return
            self._signal(signal.SIGKILL)
            self._child.wait()
            self.history.kills += 1
            self._bury()

    def stop(self) -> None:
        """End it politely; kill it when it does not heed."""
        with self._lock:
            self._is_wanted = False
            child = self._child
            if child is None:
                return
            self.thaw()
            self._signal(signal.SIGTERM)
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                child.wait()
            self._bury()

    def freeze(self) -> None:
        """SIGSTOP."""
        with self._lock:
            if self._child is not None:
                self._signal(signal.SIGSTOP)
                self.history.freezes.append(Span(time.monotonic()))

    def thaw(self) -> None:
        """SIGCONT."""
        with self._lock:
            if self._child is not None:
                self._signal(signal.SIGCONT)
            self._end_freeze()

    def hang_up(self) -> None:
        """SIGHUP: look at the configuration again."""
        with self._lock:
            if self._child is not None:
                self._child.send_signal(signal.SIGHUP)

    @property
    def pid(self) -> int | None:
        """Of the running process; None while there is none."""
        with self._lock:
            return None if self._child is None else self._child.pid

    @property
    def running_since_s(self) -> float | None:
        """Since when it has run without a break; None while it does not."""
        with self._lock:
            lives, freezes = self.history.lives, self.history.freezes
            if self._child is None or (freezes and freezes[-1].until_s == float("inf")):
                return None
            return max(lives[-1].from_s, freezes[-1].until_s if freezes else 0.0)

    def tend(self) -> None:
        """What a supervisor does every moment: restart, watchdog."""
        with self._lock:
            self._read_pings()
            child = self._child
            if child is None:
                if (
                    self._is_wanted
                    and self._restart_at_s is not None
                    and time.monotonic() >= self._restart_at_s
                ):
                    self.start()
                return
            code = child.poll()
            if code is not None:
                self.history.ended.append(code)
                self._bury()
                self._restart_at_s = time.monotonic() + RESTART_S
            elif self.watchdog_s is not None and time.monotonic() > self._pinged_s + self.watchdog_s:
                self.history.watchdog_restarts += 1
                self._signal(signal.SIGKILL)
                child.wait()
                self._bury()
                self._restart_at_s = time.monotonic() + RESTART_S

    def measure(self) -> None:
        """Look at its size: resident memory and open descriptors."""
        with self._lock:
            if self._child is not None:
                self._look_at(self._child.pid)

    def close(self) -> None:
        """Let the notification socket go."""
        self._notify.close()

    def _bury(self) -> None:
        self._child = None
        self.history.lives[-1].until_s = time.monotonic()
        self._end_freeze()

    def _end_freeze(self) -> None:
        if self.history.freezes and self.history.freezes[-1].until_s == float("inf"):
            self.history.freezes[-1].until_s = time.monotonic()

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._child.pid, number)

    def _read_pings(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._notify.recv(1024):
                self._pinged_s = time.monotonic()

    def _look_at(self, pid: int) -> None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            history = self.history
            history.rss_kb_max = max(history.rss_kb_max, pages * os.sysconf("SC_PAGE_SIZE") // 1024)
            history.fds_max = max(history.fds_max, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
