"""One agent as it really is, runtime, engine and SQLite store, on a simulated machine.

`start` does what the agent's composition root does, with the simulation's clock, links and uplink; `kill` is a power
cut; `stop` asks it to drain. The store's file survives, unless the world loses it or puts an older image in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import SigningKey
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.adapters.store_threaded import ThreadedStore
from edge_agent.domain.delivery import DeliveryMode
from edge_agent.domain.findings import Draft
from edge_agent.domain.plan import CellPlan
from edge_agent.domain.wall import WallPair
from edge_agent.ports import (
    AckArrived,
    Answered,
    Committed,
    Fieldbus,
    LinkDown,
    LinkUp,
    Loss,
    Pruned,
    Publication,
    StoreFull,
    UplinkReport,
)
from edge_agent.runtime.agent import Agent, Stored, World
from edge_agent.wire.event import Checkpoint, Event, Json, OutboxOverflow
from edge_agent.wire.topics import Channel, topic
from simulators.draw import Draw
from tests.simulation.clocks import NodeClock
from tests.simulation.network import Backoff, Connection, LastWill, Mail, SimBroker
from tests.simulation.node import CrashPoint, Disk, DiskWeather, Life
from tests.simulation.virtual_loop import VirtualLoop

STORE_MB: Final = 64
_ANY_PAGES: Final = 1_073_741_823
"""SQLite's own default for `max_page_count`."""


class TappedStore(EventStore):
    """The real store; says what it committed and what found no room, and can die on either side of a commit."""

    life: Life
    on_commit: Callable[[Sequence[Event]], None]
    on_loss: Callable[[], None]
    on_prune: Callable[[int, int], None]

    def prune(self, acked: int, pair: WallPair) -> Pruned:
        first = self.first
        pruned = super().prune(acked, pair)
        if pruned.first != first:
            self.on_prune(first, pruned.first)
        return pruned

    def begin_epoch(self, pair: WallPair) -> Committed | StoreFull:
        self.life.point(CrashPoint.BEFORE_COMMIT)
        return self._tap(super().begin_epoch(pair))

    def commit(
        self, drafts: Sequence[Draft], memory: Mapping[str, Json], pair: WallPair, loss: Loss | None = None
    ) -> Committed | StoreFull:
        self.life.point(CrashPoint.BEFORE_COMMIT)
        outcome = super().commit(drafts, memory, pair, loss)
        if loss is not None or isinstance(outcome, StoreFull) or _count_found(outcome) < len(drafts):
            self.on_loss()
        return self._tap(outcome)

    def stop_clean(self, pair: WallPair) -> Committed | StoreFull:
        self.life.point(CrashPoint.BEFORE_COMMIT)
        return self._tap(super().stop_clean(pair))

    def _tap(self, outcome: Committed | StoreFull) -> Committed | StoreFull:
        if isinstance(outcome, Committed):
            self.on_commit(outcome.events)
            self.life.point(CrashPoint.AFTER_COMMIT)
        return outcome


def _count_found(outcome: Committed) -> int:
    """How many of the events are not the store's own, which come beside drafts that found no room too."""
    return sum(not isinstance(event.body, Checkpoint | OutboxOverflow) for event in outcome.events)


class SimUplink:
    """`edge_agent.ports.Uplink` to the simulated broker: one connection after the other."""

    def __init__(
        self,
        loop: VirtualLoop,
        broker: SimBroker,
        life: Life,
        client: str,
        ack_topic: str,
        receive_max: int,
    ) -> None:
        self._loop = loop
        self._client = client
        self._broker = broker
        self._life = life
        self._ack_topic = ack_topic
        self._receive_max = receive_max
        self._attempt = 0
        self._backoff = Backoff()
        self.connection: Connection | None = None

    def open(self, will: Publication, report: Callable[[UplinkReport], None]) -> None:
        """Begin to connect, and go on until `close`."""
        self._attempt += 1
        self._connect(self._attempt, LastWill(will.topic, will.payload), report)

    def publish(self, publication: Publication) -> None:
        """Send, if connected."""
        connection = self.connection
        if connection is None or not self._life.is_alive:
            return

        def answered(is_heard: bool) -> None:
            if self.connection is connection and self._life.is_alive:
                self._die_at(CrashPoint.AFTER_PUBACK)
                self._report(Answered(publication, None, is_heard))

        connection.publish(
            publication.topic,
            publication.payload,
            retain=publication.retained,
            expiry_s=publication.expiry_s,
            on_puback=answered,
        )
        assert connection.published - connection.answered <= self._receive_max, "beyond the Receive Maximum"
        if publication.place is not None and self._life.armed is CrashPoint.AFTER_PUBLISH:
            connection.flush()
            self._die_at(CrashPoint.AFTER_PUBLISH)

    async def close(self) -> None:
        """Say goodbye."""
        self._attempt += 1
        connection, self.connection = self.connection, None
        if connection is not None and self._life.is_alive:
            connection.say_goodbye()

    def vanish(self) -> None:
        """The process was killed."""
        self._attempt += 1
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.vanish()

    def _die_at(self, point: CrashPoint) -> None:
        if self._life.armed is point:
            self._life.end(point)

    def _connect(self, attempt: int, will: LastWill, report: Callable[[UplinkReport], None]) -> None:
        if attempt != self._attempt or not self._life.is_alive:
            return
        self._reporting = report

        def again(reason: str) -> None:
            if attempt == self._attempt and self._life.is_alive:
                self.connection = None
                report(LinkDown(reason))
                self._loop.call_later(self._backoff.take(), self._connect, attempt, will, report)

        def take(mail: Mail, puback: Callable[[], None]) -> None:
            puback()
            if attempt == self._attempt and self._life.is_alive:
                report(AckArrived(mail.payload))

        connection = Connection(
            self._broker,
            self._client,
            lambda name: name == self._ack_topic,
            self._receive_max,
            will,
            take,
            again,
        )
        if not self._broker.connect(connection):
            again("cannot connect")
            return
        self._backoff.reset()
        self.connection = connection
        report(LinkUp(self._receive_max))

    def _report(self, report: UplinkReport) -> None:
        if self._life.is_alive:
            self._reporting(report)


@dataclass(slots=True)
class AgentOptions:
    """What the world draws for one agent."""

    receive_max: int = 100
    outbox_kb: int = 0
    """What may wait there, when it is to be less than any configuration could say (0: `store_mb`)."""
    window_kb: int = 0
    """What the file may hold, before acked events are pruned, likewise."""
    disk: DiskWeather = field(default_factory=DiskWeather)
    store_mb: int = STORE_MB
    """`size_max_mb` of its configuration."""


class AgentNode:
    """The machine. `agent` and `store` are those of the present process, None while it is down."""

    def __init__(
        self,
        loop: VirtualLoop,
        plan: CellPlan,
        broker: SimBroker,
        links: Mapping[str, Fieldbus],
        clock: NodeClock,
        path: Path,
        draw: Draw,
        options: AgentOptions,
    ) -> None:
        self.loop = loop
        self.plan = plan
        self.clock = clock
        self.path = path
        self.options = options
        self.life = Life("agent")
        self.life.is_alive = False
        self.agent: Agent | None = None
        self.store: TappedStore | None = None
        self.uplink: SimUplink | None = None
        self.on_commit: Callable[[Sequence[Event]], None] = lambda _events: None
        self.on_loss: Callable[[], None] = lambda: None
        self.on_prune: Callable[[int, int], None] = lambda _from, _to: None
        self.failures: list[str] = []
        self.lives: list[tuple[int, int]] = []
        """When each of its processes began and ended (virtual ns); the present one is not in it."""
        self.born_ns = 0
        self.mode = DeliveryMode.GATEWAY
        self.store_class: type[TappedStore] = TappedStore
        self._broker = broker
        self._links = links
        self._draw = draw
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        digest = hashlib.sha256(f"key of {plan.agent}".encode()).digest()
        self._key = SigningKey(Ed25519PrivateKey.from_private_bytes(digest))

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.life.is_alive

    def start(self) -> None:
        """Start the process."""
        assert not self.life.is_alive
        self.born_ns = self.loop.now_ns
        self.life = Life("agent")
        self.life.on_death = self._bury
        store = self._open_store()
        threaded = ThreadedStore(store)
        self.loop.attach(
            threaded._worker, Disk(self.loop, self.life, self._draw.split("disk"), self.options.disk)
        )
        ack_topic = topic(self.plan.site, self.plan.agent, Channel.ACK)
        self.uplink = SimUplink(
            self.loop, self._broker, self.life, self.plan.agent, ack_topic, self.options.receive_max
        )
        world = World(
            clock=self.clock,
            outbox=threaded,
            uplink=self.uplink,
            links=self._links,
            rss_mb=lambda: 50,
            notify=lambda _state: None,
        )
        stored = Stored(store.first, store.tail, store.acked, tuple(store.gone), lambda: store.memory)
        self.agent = Agent(
            self.plan,
            world,
            stored,
            mode=self.mode,
            version="0",
            public_key=self._key.public_key,
        )
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run(self.agent, self._stop, self.life), name="agent")

    async def kill(self) -> None:
        """Cut its power, and wait until nothing of it moves any more."""
        self.life.end(CrashPoint.NOW)
        await self.settle()

    async def stop(self) -> None:
        """Ask it to drain and stop."""
        self._stop.set()
        await self.settle()

    async def settle(self) -> None:
        """Wait until its process has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task = None
        if self.store is not None:
            self.store.close()
        self.agent = self.store = self.uplink = None

    def copy_store(self, to: Path) -> None:
        """An image of the store as it stands on the disk (only while the process is down)."""
        assert not self.life.is_alive
        to.mkdir(parents=True, exist_ok=True)
        for file in sorted(self.path.parent.glob(self.path.name + "*")):
            shutil.copy(file, to / file.name)

    def lose_store(self, image: Path | None = None) -> None:
        """The disk is replaced by a new one, or by an older image (only while the process is down)."""
        assert not self.life.is_alive
        for file in sorted(self.path.parent.glob(self.path.name + "*")):
            file.unlink()
        for file in sorted(image.glob("*")) if image is not None else []:
            shutil.copy(file, self.path.parent / file.name)

    def limit_store(self) -> None:
        """Let the disk have no more room than is used, or any, as its weather is."""
        if self.store is None or not self.is_running:
            return
        limit = (
            self.store._db.execute("PRAGMA page_count").fetchone()[0]
            if self.options.disk.is_full
            else _ANY_PAGES
        )
        self.store._db.execute(f"PRAGMA max_page_count={limit}")

    def spoil_rows(self, draw: Draw) -> set[tuple[str, int]]:
        """Bits flip in some stored events (only while the process is down): these, by epoch and seq."""
        assert not self.life.is_alive
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as database:
            places = [row[0] for row in database.execute("SELECT n FROM event ORDER BY n")]
            chosen = sorted({draw.choice(places) for _ in range(draw.between(1, 4))}) if places else []
            spoilt_keys: set[tuple[str, int]] = set()
            for place in chosen:
                query = "SELECT epoch, seq, payload FROM event WHERE n=?"
                epoch, seq, payload = database.execute(query, (place,)).fetchone()
                spoilt_keys.add((epoch, seq))
                at = draw.between(0, len(payload) - 1)
                spoilt = payload[:at] + bytes([payload[at] ^ 1 << draw.between(0, 6)]) + payload[at + 1 :]
                database.execute("UPDATE event SET payload=? WHERE n=?", (spoilt, place))
        return spoilt_keys

    def spoil_file(self) -> None:
        """The file is no database any more (only while the process is down)."""
        assert not self.life.is_alive
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.write(bytes(4096))

    def _open_store(self) -> TappedStore:
        plan = self.plan
        run = Run(plan.site, plan.agent, self.clock.boot, "0", plan.config_hash)
        store = self.store_class(
            self.path,
            run,
            size_max_mb=self.options.store_mb,
            sign=self._key.sign,
            draw=self._draw_bytes,
        )
        store.life, store.on_commit = self.life, self.on_commit
        store.on_loss, store.on_prune = self.on_loss, self.on_prune
        if self.options.outbox_kb:
            store._limit_bytes = self.options.outbox_kb * 1024
        if self.options.window_kb:
            store._pruner._size_max_bytes = self.options.window_kb * 1024
        self.store = store
        return store

    def _draw_bytes(self, count: int) -> bytes:
        return bytes(self._draw.between(0, 255) for _ in range(count))

    async def _run(self, agent: Agent, stop: asyncio.Event, life: Life) -> None:
        try:
            await agent.run(stop)
        except asyncio.CancelledError:
            if life.is_alive:
                self.failures.append("the agent was cancelled by itself")
        except BaseException as error:  # noqa: BLE001 — the auditor's to judge
            if life.is_alive:
                self.failures.append(f"the agent died: {error!r}")
        finally:
            life.is_alive = False
            self.lives.append((self.born_ns, self.loop.now_ns))

    def _bury(self, _point: CrashPoint) -> None:
        if self.uplink is not None:
            self.uplink.vanish()
        if self._task is not None:
            self._task.cancel()
