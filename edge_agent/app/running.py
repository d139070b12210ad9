"""`run`, the agent's composition root: settings become adapters, adapters become a runtime; signals and exit codes.

Exit codes: 0 stopped as asked · 1 storage failed (start again) · 2 configuration, key or store refused · 130 Ctrl-C.

    SIGTERM, SIGINT    drain and stop within 5 s; a second one stops at once
    SIGHUP             check the configuration: good → drain, stop, execute ourselves anew; refused → go on with the
                       running one, and say so in an observation

A supervisor (systemd, Type=notify) hears READY, WATCHDOG as long as every loop advances, RELOADING at a SIGHUP with READY
after it either way, and STOPPING.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final

from edge_agent.adapters.clock_system import SystemClock
from edge_agent.adapters.minting import Run
from edge_agent.adapters.process_linux import Supervisor, prepare_process, rss_mb
from edge_agent.adapters.signing import KeyFileError, SigningKey, key_path, load_or_create_key
from edge_agent.adapters.store_file import StoreRefusedError
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.adapters.store_threaded import ThreadedStore
from edge_agent.adapters.uplink_paho import PahoUplink
from edge_agent.app.exits import Exit, refuse
from edge_agent.app.links import link_of
from edge_agent.app.loading import Loading, LoadingFailedError
from edge_agent.app.release import version
from edge_agent.broker.access import BrokerAccess
from edge_agent.domain.delivery import DeliveryMode
from edge_agent.ports import StoreBrokenError
from edge_agent.runtime.agent import Agent, Stored, World
from edge_agent.runtime.schedule import lines
from edge_agent.settings import AgentSettings, Delivery
from edge_agent.wire.topics import Channel, topic

PROBLEMS_TOLD_MAX: Final = 20
"""Problems of a refused configuration listed in its observation; the rest is in the log."""

PROBLEM_MAX_CHARS: Final = 500
"""… and how much of each: all of them fit into one event, whatever they are written in."""

_DISK_TROUBLES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""What a disk says that passes, or calls for another disk: no mistake in the configuration."""

_log = logging.getLogger("guardwatch.agent")


def run_agent(config: Path, loading: Loading) -> Exit:
    """Run the agent of this configuration until it is told to stop; may execute the program anew (SIGHUP).

    `loading` is that configuration on its way.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    prepare_process()
    gc.disable()  # until all that stays is built: walking it again and again takes longer than building it
    loaded = loading.wait()
    settings = loaded.settings
    if settings is None:
        return refuse(*loaded.problems)
    clock = SystemClock()
    try:
        key = load_or_create_key(key_path(settings.store.path))
        store = _open_store(settings, clock, key)
    except (KeyFileError, StoreRefusedError) as error:
        return refuse(error)
    except StoreBrokenError as error:
        _log.error("storage failed: %s", error)
        return Exit.FAILED
    except OSError as error:
        if error.errno in _DISK_TROUBLES:
            _log.error("storage failed: %s: %s", settings.store.path, error.strerror)
            return Exit.FAILED
        return refuse(f"{settings.store.path}: {error.strerror} — check path and rights")
    process = _Process(config)
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    del loaded  # of a large plant its warnings are megabytes
    try:
        world = _connect_world(settings, clock, store)
    except OSError as error:
        return refuse(f"{config}: a certificate file of a device cannot be used: {error}")
    stored = Stored(store.first, store.tail, store.acked, tuple(store.gone), lambda: store.memory)
    try:
        _run_loop(lambda: process.run(settings, world, stored, key))
    except* StoreBrokenError as group:
        _log.error("storage failed, ending: %s", group.exceptions[0])
        process.has_failed = True
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # whatever it asks for is done by what comes next
        world.outbox.close()
    if process.has_failed:
        return Exit.FAILED
    if process.is_reload:
        _log.warning("configuration accepted: executing anew")
        os.execv(sys.executable, [sys.executable, "-m", "edge_agent", *sys.argv[1:]])  # noqa: S606 — ourselves
    return Exit.INTERRUPTED if process.is_interrupted else Exit.OK


class _Process:
    """Signals of one run."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._agent: Agent | None = None
        self._checking: asyncio.Task[None] | None = None
        self._supervisor = Supervisor(os.environ)
        self._is_told = False
        self._is_asked_again = False
        self.is_reload = False
        self.is_interrupted = False
        self.has_failed = False

    async def run(self, settings: AgentSettings, world: _AgentWorld, stored: Stored, key: SigningKey) -> None:
        """Run the agent, with the signals in our hands."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        self._agent = Agent(
            settings.plan,
            world,
            stored,
            mode=DeliveryMode(settings.mqtt.delivery.value),
            version=version(),
            public_key=key.public_key,
        )
        await self._agent.run(self._stop)

    def _end(self, number: signal.Signals) -> None:
        if self._is_told:
            os._exit(Exit.INTERRUPTED)  # asked twice: whoever asks does not want to wait for a drain
        self._is_told = True
        self.is_interrupted = number is signal.SIGINT
        self.is_reload = False
        self._supervisor.notify("STOPPING=1")
        self._stop.set()

    def _reload(self) -> None:
        self._is_asked_again = self._checking is not None and not self._checking.done()
        if not self._stop.is_set() and not self._is_asked_again:
            self._supervisor.reloading()
            self._checking = asyncio.create_task(self._check(), name="check configuration")

    async def _check(self) -> None:
        problems = await self._look()
        while problems and self._is_asked_again and not self._stop.is_set():
            self._is_asked_again = False  # what was looked at may have been mended meanwhile
            problems = await self._look()
        if self._agent is None or self._stop.is_set():
            return
        if problems:
            for problem in problems:
                _log.error("configuration refused: %s", problem)
            told = [_spelled(problem)[:PROBLEM_MAX_CHARS] for problem in problems[:PROBLEMS_TOLD_MAX]]
            self._supervisor.notify("READY=1\nSTATUS=configuration refused, the running one stays in force")
            self._agent.observe("config_refused", {"problems": [*told], "problems_count": len(problems)})
            return
        self.is_reload = True
        self._stop.set()

    async def _look(self) -> tuple[str, ...]:
        loading = await asyncio.to_thread(Loading, self._config, check_only=True)
        try:
            return await asyncio.to_thread(_problems, loading)
        finally:
            loading.process.kill()  # a stop does not wait for it


def _problems(loading: Loading) -> tuple[str, ...]:
    """What is wrong with the configuration; that it could not be looked at is wrong, too."""
    try:
        return loading.wait().problems
    except KeyboardInterrupt:
        return ("interrupted",)  # Ctrl-C reaches both processes, and ends the agent in its own way
    except (LoadingFailedError, OSError) as error:
        return (str(error),)


def _spelled(text: str) -> str:
    """With escapes for what an event cannot hold, or only at length: a path may be any bytes, whatever their encoding."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


class _AgentWorld(World):
    """The world as this process made it."""

    outbox: ThreadedStore


def _open_store(settings: AgentSettings, clock: SystemClock, key: SigningKey) -> EventStore:
    plan = settings.plan
    run = Run(plan.site, plan.agent, clock.boot, version(), plan.config_hash)
    return EventStore(settings.store.path, run, size_max_mb=settings.store.size_max_mb, sign=key.sign)


def _connect_world(settings: AgentSettings, clock: SystemClock, store: EventStore) -> _AgentWorld:
    links = {name: link_of(settings, devices) for name, devices in lines(settings.plan).items()}
    return _AgentWorld(
        clock=clock,
        outbox=ThreadedStore(store),
        uplink=PahoUplink(broker_access(settings), ack_topic(settings)),
        links=links,
        rss_mb=rss_mb,
        notify=Supervisor(os.environ).notify,
        lasting=_keep_what_stays,
    )


def _keep_what_stays() -> None:
    """Plan and judges live as long as the process: the collector never looks at them again, and pauses for none of them.

    At 25 600 guards each full collection would hold up every answer for a quarter of a second.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def broker_access(settings: AgentSettings, role: str = "") -> BrokerAccess:
    """How to reach the broker; `role` makes a client id of its own, beside the agent's."""
    plan, mqtt = settings.plan, settings.mqtt
    return BrokerAccess(
        host=mqtt.host,
        port=mqtt.port,
        client_id="-".join(part for part in (plan.site, plan.agent, role) if part),
        web_path=mqtt.path or None,
        is_tls=mqtt.is_tls,
        username=mqtt.username,
        password=mqtt.password,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
    )


def ack_topic(settings: AgentSettings) -> str | None:
    """Where the gateway answers; None where the broker's word is enough."""
    if settings.mqtt.delivery is not Delivery.GATEWAY:
        return None
    return topic(settings.plan.site, settings.plan.agent, Channel.ACK)


def _run_loop(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run on uvloop where it is installed (four times less processor time at 1000 devices), else asyncio's own loop."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
