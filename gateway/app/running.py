"""`run`: one gateway process, its lock, its signals, its end.

    SIGTERM, SIGINT   drain and stop within 5 s; a second one stops at once
    SIGHUP            check the configuration: good ─▶ drain, stop, execute ourselves anew
                                               refused ─▶ go on with the running one; the journal says so

A supervisor (systemd, Type=notify) hears READY, WATCHDOG as long as every loop advances, RELOADING at a SIGHUP with READY
after it either way, and STOPPING.

Exit codes: 0 stopped as asked · 1 something failed (start again) · 2 configuration refused · 130 Ctrl-C.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from gateway.adapters.store_sql.engine import StoreError
from gateway.adapters.supervisor import Supervisor
from gateway.api.server import bind
from gateway.app.composition import Gateway
from gateway.app.exits import Exit, fail, refuse
from gateway.ports import AccountsUnavailable, JournalLost, JournalUnavailable
from gateway.settings import GatewaySettings, load

log = logging.getLogger("guardwatch.gateway")


def run_gateway(config: Path) -> Exit:
    """Run the gateway of this configuration until it is told to stop; may execute the program anew (SIGHUP).

    Having run, the process ends here: a thread that still hangs in a server of somebody else's must not hold it.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    try:
        lock = _lock_journal(settings.journal_url)
    except _AlreadyRunningError as error:
        return fail(error)
    try:
        listener = bind(settings.http.host, settings.http.port)
    except OSError as error:
        return fail(f"{settings.http.host}:{settings.http.port}: {error.strerror} — choose another `listen`")
    process = _Process(config)
    try:
        failure = _run_loop(process, settings, listener)
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # whatever it asks for is done by what comes next
        listener.close()
        if lock is not None:
            lock.close()
    if failure is not None:
        fail(failure)
    elif process.is_reload:
        log.warning("configuration accepted: executing anew")
        os.execv(sys.executable, [sys.executable, "-m", "gateway", *sys.argv[1:]])  # noqa: S606 - ourselves
    logging.shutdown()
    if failure is not None:
        os._exit(Exit.FAILED)
    os._exit(Exit.INTERRUPTED if process.is_interrupted else Exit.OK)


class _Threads(ThreadPoolExecutor):
    """The loop's threads for what blocks; none is waited for at the end (an InfluxDB that hangs may take its whole timeout)."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Let go of them."""
        super().shutdown(wait=False, cancel_futures=True)


def _run_loop(process: _Process, settings: GatewaySettings, listener: socket.socket) -> str | None:
    """Run to the end; what made it end early, or None."""
    failure: str | None = None
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.get_loop().set_default_executor(_Threads())
            runner.run(process.run(settings, listener))
    except* (StoreError, JournalUnavailable, AccountsUnavailable) as group:
        failure = str(_first(group))
    except* JournalLost as group:
        failure = f"the journal is lost to this process, start it again: {_first(group)}"
    return failure


def _first(error: BaseException) -> BaseException:
    """What ended a task; it comes in a group for each task group that the task was in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Process:
    """Signals of one run."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._gateway: Gateway | None = None
        self._checking: asyncio.Task[None] | None = None
        self._supervisor = Supervisor(os.environ)
        self._is_told = False
        self.is_reload = False
        self.is_interrupted = False

    async def run(self, settings: GatewaySettings, listener: socket.socket) -> None:
        """Run the gateway, with the signals in our hands."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        if not settings.alerting.is_on:
            log.warning("alerting is off: the configuration has no routes, nobody is told of anything")
        async with AsyncExitStack() as stack:
            self._gateway = await Gateway.open(settings, stack)
            log.warning("running, board at %s/", settings.http.base_url)
            await self._gateway.run(listener, self._stop, self._supervisor.notify)

    def _end(self, number: signal.Signals) -> None:
        if self._is_told:
            os._exit(Exit.INTERRUPTED)  # asked twice: whoever asks does not want to wait for a drain
        self._is_told = True
        self.is_interrupted = number is signal.SIGINT
        self.is_reload = False
        self._supervisor.notify("STOPPING=1")
        self._stop.set()

    def _reload(self) -> None:
        if not self._stop.is_set() and (self._checking is None or self._checking.done()):
            self._supervisor.reloading()
            self._checking = asyncio.create_task(self._check(), name="check configuration")

    async def _check(self) -> None:
        found = await asyncio.to_thread(load, self._config, os.environ)
        if self._gateway is None or self._stop.is_set():
            return
        if isinstance(found, list):
            for problem in found:
                log.error("configuration refused: %s", problem)
            self._supervisor.notify("READY=1\nSTATUS=configuration refused, the running one stays in force")
            await self._gateway.note_refused(found)
            return
        self.is_reload = True
        self._stop.set()


class _AlreadyRunningError(Exception):
    """Another gateway has this journal."""


def _lock_journal(url: str) -> TextIO | None:
    """The lock of a SQLite journal: one gateway each. Raises `_AlreadyRunningError`."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        return None  # gateways on one PostgreSQL are told apart by the lease in it
    path = Path(parts.path[1:] + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        raise _AlreadyRunningError(f"{path}: {error.strerror} — check path and rights") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise _AlreadyRunningError(
            f"{path}: another gateway runs on this journal — stop it, or name another `journal.url`"
        ) from None
    return lock


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Uvloop where it is installed, else asyncio's own loop."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
