"""A broker and the network around it, as unreliable as both are allowed to be.

Theory of operation. A `Connection` carries messages both ways, each way in order, each message after a latency. What
is in flight when it is cut is lost, but a straggler may still reach the broker after the client has connected anew:
that is how messages overtake each other on real networks. A connection can also fall silent (half-open): nothing
arrives any more, and each side notices after its own timeout.

The broker keeps retained messages (with their expiry) and sends to subscribers at most their Receive Maximum
unanswered; what waits beyond `queue_max` is dropped, newest first, as mosquitto does. It may deliver twice, PUBACK and
forget, lose a last will, and be wiped. It never delivers what nobody sent. A PUBACK says whether anybody heard.

`Weather` holds the probabilities; the world draws them per seed and makes good weather for the healing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from edge_agent.wire.status import KEEPALIVE_S
from simulators.draw import Draw
from tests.simulation.virtual_loop import NS_PER_S, VirtualLoop

QUEUE_MAX: Final = 1000
"""What a broker keeps for one slow subscriber (mosquitto's `max_queued_messages`)."""

NOTICE_S: Final = KEEPALIVE_S * 1.5
"""A broker ends a silent connection after one and a half keepalives (MQTT 5, 3.1.2.10)."""

STRAGGLE_MS_MAX: Final = 3000
"""How long the remains of a dead connection may wander: longer than a reconnect takes."""


@dataclass(slots=True)
class Weather:
    """How bad the network is; shares are probabilities per message or per cut."""

    latency_ms_max: int = 5
    duplicate_share: float = 0.0
    forget_share: float = 0.0
    straggle_share: float = 0.0
    lost_will_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Mail:
    """One MQTT message on its way to a subscriber."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True, slots=True)
class LastWill:
    """What the broker publishes, retained, when a connection ends without goodbye."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class _Kept:
    payload: bytes
    until_ns: int | None


class Connection:
    """One client's connection. `on_mail(mail, puback)` and `on_down(reason)` are the client's."""

    def __init__(
        self,
        broker: SimBroker,
        client: str,
        wants: Callable[[str], bool],
        receive_maximum: int,
        will: LastWill | None,
        on_mail: Callable[[Mail, Callable[[], None]], None],
        on_down: Callable[[str], None],
    ) -> None:
        self.client = client
        self.wants = wants
        self.will = will
        self.is_up = True
        self.is_silent = False
        self.published = 0
        self.answered = 0
        self._broker = broker
        self._receive_maximum = receive_maximum
        self._on_mail = on_mail
        self._on_down = on_down
        self._queue: deque[Mail] = deque()
        self._unanswered = 0
        self._up_free_ns = 0
        self._down_free_ns = 0
        self._in_flight: dict[int, tuple[str, bytes, bool, int | None]] = {}

    @property
    def waiting(self) -> int:
        """Messages that the broker holds for this client."""
        return len(self._queue)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool,
        expiry_s: int | None,
        on_puback: Callable[[bool], None],
    ) -> None:
        """Send at QoS 1; `on_puback(is_heard)` unless the connection ends before."""
        if not self.is_up:
            return
        number = self.published
        self.published += 1
        self._in_flight[number] = (topic, payload, retain, expiry_s)

        def arrive() -> None:
            if self._in_flight.pop(number, None) is None:
                return  # flushed
            heard = self._broker.route(topic, payload, retain=retain, expiry_s=expiry_s)
            self._down(lambda: answer(is_heard=heard))

        def answer(*, is_heard: bool) -> None:
            self.answered += 1
            on_puback(is_heard)

        self._up(arrive)

    def deliver(self, mail: Mail) -> None:
        """Broker's side: queue for this client."""
        if len(self._queue) >= self._broker.queue_max:
            self._broker.mischief["message dropped"] += 1
            return
        self._queue.append(mail)
        self._pump()

    def cut(self, reason: str) -> None:
        """The connection ends for both sides, now; what was in flight is lost or straggles."""
        if not self.is_up:
            return
        self.is_up = False
        self._broker.remove(self, is_clean=False)
        self._straggle()
        self._on_down(reason)

    def fall_silent(self, client_notices_s: float) -> None:
        """Nothing arrives any more; broker and client notice in their own time."""
        if not self.is_up or self.is_silent:
            return
        self.is_silent = True
        loop = self._broker.loop
        loop.call_later(NOTICE_S, self._broker_notices)
        loop.call_later(client_notices_s, self._client_notices)

    def say_goodbye(self) -> None:
        """DISCONNECT: what was sent arrives, no will is published, nobody is told."""
        if not self.is_up:
            return
        if not self.is_silent:
            self.flush()
        self.is_up = False
        self._broker.remove(self, is_clean=not self.is_silent)

    def flush(self) -> None:
        """What is on its way to the broker arrives now."""
        for number, (topic, payload, retain, expiry_s) in sorted(self._in_flight.items()):
            del self._in_flight[number]
            self._broker.route(topic, payload, retain=retain, expiry_s=expiry_s)

    def vanish(self) -> None:
        """The client's process is killed: its kernel closes the connection; nobody is left to be told."""
        if self.is_up:
            self.is_up = False
            self._broker.remove(self, is_clean=False)
            self._straggle()

    def _broker_notices(self) -> None:
        self._broker.remove(self, is_clean=False)

    def _client_notices(self) -> None:
        if self.is_up:
            self.is_up = False
            self._broker.remove(self, is_clean=False)
            self._on_down("no answer")

    def _straggle(self) -> None:
        broker = self._broker
        for topic, payload, retain, expiry_s in self._in_flight.values():
            if not retain and broker.draw.chance(broker.weather.straggle_share):
                later_s = broker.draw.between(0, STRAGGLE_MS_MAX) / 1000
                broker.loop.call_later(later_s, broker.take_straggler, topic, payload, expiry_s)
        self._in_flight.clear()

    def _pump(self) -> None:
        while self._queue and self._unanswered < self._receive_maximum:
            mail = self._queue.popleft()
            self._unanswered += 1
            self._down(partial(self._on_mail, mail, self._puback))

    def _puback(self) -> None:
        self._up(self._take_puback)

    def _take_puback(self) -> None:
        self._unanswered -= 1
        self._pump()

    def _up(self, action: Callable[[], None]) -> None:
        self._up_free_ns = self._carry(action, self._up_free_ns)

    def _down(self, action: Callable[[], None]) -> None:
        self._down_free_ns = self._carry(action, self._down_free_ns)

    def _carry(self, action: Callable[[], None], free_ns: int) -> int:
        """In order behind what went before; lost when the connection is over or silent by then."""
        loop = self._broker.loop
        latency_ns = self._broker.draw.between(200, self._broker.weather.latency_ms_max * 1000) * 1000
        at_ns = max(free_ns + 1, loop.now_ns + latency_ns)

        def arrive() -> None:
            if self.is_up and not self.is_silent:
                action()

        loop.call_at_ns(at_ns, arrive)
        return at_ns


class SimBroker:
    """The broker. Clients connect with `connect`; the world stops, starts and wipes it."""

    def __init__(self, loop: VirtualLoop, draw: Draw) -> None:
        self.loop = loop
        self.draw = draw
        self.weather = Weather()
        self.is_up = True
        self.queue_max = QUEUE_MAX
        self.unreachable: set[str] = set()
        self.connections: list[Connection] = []
        self.mischief: Counter[str] = Counter()
        self._kept: dict[str, _Kept] = {}

    def connect(self, connection: Connection) -> bool:
        """Let a client in; False when the broker or the way to it is down. A second one of its name takes over."""
        if not self.is_up or connection.client in self.unreachable:
            return False
        for other in tuple(self.connections):
            if other.client == connection.client:
                other.cut("taken over")
        self.connections.append(connection)
        for topic in sorted(self._kept):
            payload = self.retained(topic)
            if payload is not None and connection.wants(topic):
                connection.deliver(Mail(topic, payload, retain=True))
        return True

    def retained(self, topic: str) -> bytes | None:
        """The retained message of a topic, unless it has expired."""
        kept = self._kept.get(topic)
        if kept is None or (kept.until_ns is not None and self.loop.now_ns >= kept.until_ns):
            return None
        return kept.payload

    def route(self, topic: str, payload: bytes, *, retain: bool, expiry_s: int | None) -> bool:
        """Take a publish; whether anybody is said to have heard it."""
        if not self.is_up:
            return False
        if retain and payload:
            until_ns = None if expiry_s is None else self.loop.now_ns + expiry_s * NS_PER_S
            self._kept[topic] = _Kept(payload, until_ns)
        elif retain:
            self._kept.pop(topic, None)
        if not retain and self.draw.chance(self.weather.forget_share):
            self.mischief["message forgotten"] += 1
            return True  # answered, all the same
        wanting = [connection for connection in self.connections if connection.wants(topic)]
        for connection in wanting:
            connection.deliver(Mail(topic, payload, retain=False))
            if not retain and self.draw.chance(self.weather.duplicate_share):
                self.mischief["message doubled"] += 1
                connection.deliver(Mail(topic, payload, retain=False))
        return bool(wanting)

    def take_straggler(self, topic: str, payload: bytes, expiry_s: int | None) -> None:
        """A message of a connection that is over arrives after all."""
        self.mischief["straggler"] += 1
        self.route(topic, payload, retain=False, expiry_s=expiry_s)

    def remove(self, connection: Connection, *, is_clean: bool) -> None:
        """A connection is over, as the broker sees it: its last will, unless it was clean."""
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        will = connection.will
        if will is None or is_clean:
            return
        if self.draw.chance(self.weather.lost_will_share):
            self.mischief["last will lost"] += 1
        else:
            self.route(will.topic, will.payload, retain=True, expiry_s=None)

    def stop(self, *, is_wiped: bool) -> None:
        """The broker dies: every connection is cut, no will is published; `is_wiped` loses what was retained."""
        self.is_up = False
        if is_wiped:
            self._kept.clear()
        for connection in tuple(self.connections):
            connection.cut("broker gone")

    def start(self) -> None:
        """It is back."""
        self.is_up = True


@dataclass(slots=True)
class Backoff:
    """Pauses between attempts to connect, as the real adapters make them: 0.2 s doubling to 5 s."""

    first_s: float = 0.2
    max_s: float = 5.0
    pause_s: float = field(default=0.2)

    def take(self) -> float:
        """The next pause."""
        pause_s, self.pause_s = self.pause_s, min(2 * self.pause_s, self.max_s)
        return pause_s

    def reset(self) -> None:
        """A connection stood."""
        self.pause_s = self.first_s
