"""What the gateway needs from outside, as protocols; adapters implement them, services use them.

The one writer. All state lives in one database behind `Journal`; one thread owns its writing connection. A service
hands it a piece of work, and gets a `Recording`: it appends entries, the folds (alarm book, plant) see each at once,
everything that follows (rows, notices) joins the same transaction, and only after COMMIT do the folds adopt what they
saw. A failed commit leaves memory as it was. Reads go through a second engine and never wait for the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edge_agent.wire.event import Basis, Event, Json, Position, Priority
from gateway.domain.access import Principal, Refusal, SignedIn
from gateway.domain.alarm import Alarm
from gateway.domain.book_rows import BookRows
from gateway.domain.journal import Entry, EntryBody, GapFound
from gateway.domain.listing import GapRow, Interval, Page, Query, RefusedPayload
from gateway.domain.notice import Alert, DecisionRows, NoticeNow
from gateway.domain.occurred import Anchor
from gateway.domain.room import Room
from gateway.domain.violation import Violation

T = TypeVar("T")


class Clock(Protocol):
    """The gateway's time: wall time that never runs back within the journal, and monotonic time for waiting."""

    def utc_ms(self) -> int:
        """Milliseconds since 1970 UTC, clamped never to run back, advanced by the monotonic clock."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds of a clock that never steps."""
        ...


@dataclass(frozen=True, slots=True)
class ClockStep:
    """By how much the wall clock stepped (`wall_ms`, either way), and by how much journal time follows (`leap_ms` >= 0)."""

    wall_ms: int
    leap_ms: int

    def __bool__(self) -> bool:
        """Whether there was one."""
        return self.wall_ms != 0 or self.leap_ms != 0


class SteppingClock(Clock, Protocol):
    """A clock that tells its steps, and follows them only when told to."""

    def step(self) -> ClockStep:
        """What has to be journaled now."""
        ...

    def take_step(self, step: ClockStep) -> None:
        """It is in the journal: leap."""
        ...


class Fold(Protocol):
    """State that is a pure function of the journal: staged entry by entry, adopted after COMMIT."""

    def stage(self, entry: Entry, recording: Recording | None) -> None:
        """Take in one entry; write the rows that follow from it through `recording`.

        None while the journal is folded again (at start, in a deep verification): the rows are there already. What
        is staged must not depend on rows, or the fold would not be a function of the journal.
        """
        ...

    def adopt(self) -> None:
        """The transaction committed: staged changes are the state now."""
        ...

    def discard(self) -> None:
        """The transaction failed: forget what was staged."""
        ...

    def snapshot(self) -> Json:
        """The adopted state as JSON, from which `restore` rebuilds it exactly."""
        ...

    def restore(self, snapshot: Json) -> None:
        """Adopt the state that `snapshot` gave."""
        ...


class StreamRows(Protocol):
    """What the writer holds of the agents' streams, inside a transaction."""

    def find_event(self, site: str, agent: str, epoch: str, seq: int) -> tuple[str, int] | None:
        """Hash and journal position of an event that is held, or None."""
        ...

    def last_held(self, site: str, agent: str, epoch: str) -> Position | None:
        """The last event held of one epoch."""
        ...

    def newest_held(self, site: str, agent: str) -> Position | None:
        """The event of this agent that was journaled last."""
        ...

    def latest_epoch(self, site: str, agent: str) -> str | None:
        """The epoch of this agent that began last here."""
        ...

    def find_hash(self, site: str, agent: str, digest: str) -> Position | None:
        """The event held with this hash: a scan of the agent's events, for rare cases only."""
        ...

    def is_refused(self, site: str, agent: str, position: Position) -> bool:
        """Whether this very event was refused a place and lies in quarantine."""
        ...

    def note_refused(self, site: str, agent: str, position: Position) -> None:
        """Remember that this very event was refused a place."""
        ...

    def load_event(self, site: str, agent: str, epoch: str, seq: int) -> Event | None:
        """An event that is held, decoded."""
        ...

    def store_began(self, site: str, agent: str, epoch: str) -> int:
        """The journal position at which the store that `epoch` belongs to began here; 0 where it is not held."""
        ...

    def open_gaps(self, site: str, agent: str) -> Sequence[GapFound]:
        """Gaps of this agent that are neither filled nor final."""
        ...

    def boot_anchor(self, site: str, agent: str, boot: str) -> Anchor | None:
        """A synchronised event of this boot of the agent's machine, or None."""
        ...


class IntakeRows(Protocol):
    """What the writer keeps of payloads beside the streams, inside a transaction."""

    def put_in_quarantine(self, topic: str, payload: bytes, reason: str) -> int:
        """Keep a refused payload raw, the oldest making room; returns its id. The entry is the caller's to append."""
        ...

    def model_digest(self, site: str, agent: str, machine: str | None) -> str | None:
        """The digest of the last journaled birth certificate of an agent (`machine` None) or of one of its machines."""
        ...

    def modelled_machines(self, site: str, agent: str) -> Sequence[str]:
        """The machines of this agent that have a birth certificate."""
        ...

    def online_agents(self) -> Sequence[tuple[str, str]]:
        """Site and agent of those whose last journaled presence is online."""
        ...

    def known_agents(self) -> Sequence[tuple[str, str]]:
        """Site and agent of all that were ever heard."""
        ...


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A violation of an agent that is open here. `raised_position` is the journal position of its raise.

    `machine`, `guard` and `device` are None as in the raise it came from.
    """

    occurrence: str
    rule: str
    machine: str | None
    guard: str | None
    device: str | None
    priority: Priority
    basis: Basis
    hidden_by: str | None
    raised_position: int


class AlarmRows(BookRows, Protocol):
    """What the writer holds of violations and alarms, inside a transaction, staged entries included."""

    def open_occurrences(self, site: str, agent: str) -> Sequence[OpenRow]:
        """The open violations that this agent reported (`origin: agent`), the gateway's own findings excluded."""
        ...

    def find_violation(self, occurrence: str) -> bool | None:
        """Whether the violation of this very id is open (True), cleared (False) or unknown here (None)."""
        ...

    def load_violation(self, occurrence: str) -> Violation | None:
        """One row of the violation log."""
        ...

    def find_alarm(self, alarm: int) -> Alarm | None:
        """An alarm, listed or history."""
        ...


class NoticeRows(DecisionRows, Protocol):
    """What the writer holds of notices, inside a transaction; "now" is the transaction's time."""

    def due_notices(self, channel: str, limit: int) -> Sequence[NoticeNow]:
        """Notices to send by `channel` now: the urgent first, and of one alarm and person only the earliest."""
        ...

    def next_try_ms(self, channel: str) -> int | None:
        """When the next notice of `channel` that is not due yet can be sent; None: there is none."""
        ...

    def pending_channels(self) -> Sequence[str]:
        """Every channel that a pending notice is for."""
        ...

    def note_retry(self, key: str, next_try_ms: int, outcome: str) -> None:
        """An attempt failed, or nobody knows how it ended; it is tried again at `next_try_ms`."""
        ...

    def note_delivered(self, key: str) -> None:
        """The receiver took it."""
        ...

    def note_dead(self, key: str, outcome: str) -> None:
        """The receiver will never take it."""
        ...

    def bury_channel(self, channel: str, outcome: str) -> None:
        """No pending notice of `channel` will ever be sent."""
        ...

    def withdrawn_notices(self) -> Sequence[NoticeNow]:
        """Those that wait for the summary, in the order of decision."""
        ...

    def oldest_withdrawn_ms(self) -> int | None:
        """When the first of them was withdrawn (gateway UTC)."""
        ...

    def note_summarised(self, key: str) -> None:
        """A summary tells of it."""
        ...

    def shift_notices(self, leap_ms: int) -> None:
        """The gateway's time leaps: what waits goes on waiting as long as before."""
        ...


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a projection of the journal has got, and what it needs to go on as if it had never stopped."""

    position: int
    state: Json


class ProjectionRows(Protocol):
    """What the writer holds of projections, inside a transaction."""

    def find_cursor(self, name: str) -> Cursor | None:
        """How far a projection has got; None before its first step."""
        ...

    def move_cursor(self, name: str, position: int, state: Json) -> None:
        """It has got to `position`, with `state`."""
        ...

    def add_refused_line(self, line: str, reason: str) -> None:
        """Keep a line that was refused for good."""
        ...

    def count_refused_lines(self) -> int:
        """How many lines were refused for good so far."""
        ...


class Recording(StreamRows, IntakeRows, AlarmRows, NoticeRows, ProjectionRows, Protocol):
    """One transaction of the writer: append entries; look things up; write what follows."""

    @property
    def now_ms(self) -> int:
        """The gateway's time of this transaction: every entry in it carries it."""
        ...

    @property
    def next_position(self) -> int:
        """The position that the next entry takes: for ids that are unique for ever."""
        ...

    def append(self, body: EntryBody) -> Entry:
        """Put `body` at the next position and let every fold see it, in this transaction."""
        ...


class Journal(Protocol):
    """The gateway's database, as services see it."""

    @property
    def problem(self) -> str | None:
        """Why the last transaction could not be written, None while all is well."""
        ...

    @property
    def failing_since_ms(self) -> int | None:
        """Since when (gateway UTC) transactions fail: what is shown may be older than what is known. None: they do not."""
        ...

    @property
    def position(self) -> int:
        """The newest entry that the folds have adopted; 0 in an empty journal."""
        ...

    async def transact(self, work: Callable[[Recording], T]) -> T:
        """Run `work` in the writer thread in one transaction; returns after COMMIT (fsync).

        Raises what `work` raises, after ROLLBACK; `JournalUnavailable` when the database cannot be written now,
        `JournalLost` when it must not be written any more.
        """
        ...

    def entries_after(self, position: int, limit: int) -> Sequence[Entry]:
        """Up to `limit` entries after `position`, in order (blocking; call in a thread)."""
        ...

    def subscribe(self, listener: Callable[[Sequence[Entry]], None]) -> Callable[[], None]:
        """Call `listener` with the entries of each commit, after adoption, on the event loop; returns the way to stop."""
        ...


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that happened to the journal as a file; `name` stands for it until the journal tells of it."""

    name: str
    text: str


class Storage(Protocol):
    """The disk under a journal that is a file of this machine (blocking, but quick)."""

    def room(self) -> Room:
        """What the journal takes up and what is left for it. Raises `OSError`."""
        ...

    def is_in_place(self) -> bool:
        """Whether the journal's name still leads to the file that is open."""
        ...

    def take_reserve(self) -> None:
        """Take up room that can be given up when there is none. Raises `OSError`."""
        ...

    def give_up_reserve(self) -> bool:
        """Give it up; False when it was given up before."""
        ...

    def untold_damage(self) -> Sequence[Damage]:
        """What no journal entry has told yet. Raises `OSError`."""
        ...

    def forget_damage(self, damage: Damage) -> None:
        """The journal tells of it. Raises `OSError`."""
        ...


class JournalUnavailable(Exception):  # noqa: N818 - a state of the world, not a mistake
    """The journal cannot be written now; nothing was stored, nothing may be acknowledged."""


class JournalLost(Exception):  # noqa: N818 - a state of the world, not a mistake
    """What the journal holds is not known any more (an I/O error, a second writer): the process must end."""


class Message(Protocol):
    """One MQTT message in hand, not yet acknowledged to the broker."""

    @property
    def topic(self) -> str:
        """Where it was published."""
        ...

    @property
    def payload(self) -> bytes:
        """What was published."""
        ...

    @property
    def retain(self) -> bool:
        """Whether the broker had kept it: then it may be old."""
        ...


class Intake(Protocol):
    """The broker side: messages in batches, acknowledged only when told to."""

    async def batch(self) -> Sequence[Message]:
        """The next messages, at least one."""
        ...

    def done(self, messages: Iterable[Message]) -> None:
        """PUBACK them, if their connection still stands."""
        ...

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish retained at QoS 1 while connected; dropped when not (the protocol says it again)."""
        ...


class AlarmReads(Protocol):
    """The violation log and the alarms, read outside the writer (blocking; call in a thread)."""

    def violations(self, query: Query) -> Page[Violation]:
        """A page of the violation log, newest `since` first."""
        ...

    def violation(self, occurrence: str) -> Violation | None:
        """One row of the violation log."""
        ...

    def alarms(self, query: Query) -> Page[Alarm]:
        """A page of the alarms, newest first."""
        ...

    def alarm(self, number: int) -> Alarm | None:
        """One alarm, listed or history."""
        ...

    def notices(self, number: int) -> Sequence[NoticeNow]:
        """Who was to be told of an alarm, in the order of decision."""
        ...

    def unacknowledged(self) -> Mapping[str, int]:
        """How many alarms of each priority nobody has acknowledged."""
        ...


class StreamReads(Protocol):
    """Agents' streams as the API shows them, read outside the writer (blocking; call in a thread)."""

    def gaps(self) -> Mapping[tuple[str, str], Sequence[GapRow]]:
        """Every gap by site and agent, oldest first."""
        ...

    def timeline(self, guard: tuple[str, str, str], from_ms: int, to_ms: int) -> Sequence[Interval]:
        """What (site, machine, guard) was, without holes from `from_ms` to `to_ms`, never past the last word on it."""
        ...

    def quarantine(self, query: Query) -> Page[RefusedPayload]:
        """A page of the quarantine, newest first; `equal` may name site and agent."""
        ...


class Accounts(Protocol):
    """Who is signed in. Every method may raise `AccountsUnavailable`."""

    async def sign_in_with_password(self, name: str, password: str, address: str) -> SignedIn | Refusal:
        """A session for a user, or why not; `address` is where the attempt comes from."""
        ...

    async def sign_in_with_token(self, token: str, address: str) -> SignedIn | Refusal:
        """A session that lasts as long as the API token does, or why not."""
        ...

    async def sign_in_with_link(self, code: str, address: str) -> SignedIn | Refusal:
        """A session for a one-time link, which is spent by it, or why not."""
        ...

    async def session(self, secret: str) -> Principal | None:
        """Whom a session belongs to now; None when it is over."""
        ...

    async def bearer(self, token: str) -> Principal | None:
        """Whom an API token belongs to; None when it is not in force."""
        ...

    async def sign_out(self, secret: str) -> None:
        """End a session."""
        ...


class AccountsUnavailable(Exception):  # noqa: N818 - a state of the world, not a mistake
    """Users, tokens and sessions cannot be read or written now."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver took it."""


@dataclass(frozen=True, slots=True)
class Retryable:
    """Not taken, or nobody knows: try again, with the same key."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused for good: the same again would be refused again."""

    reason: str


class Notifier(Protocol):
    """One channel to people."""

    async def send(self, alert: Alert) -> Delivered | Retryable | Rejected:
        """Hand one message over; `alert.delivery` is its idempotency key. Never raises for anything outside."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """Every line is stored."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """More lines than the server takes at once."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """The server refuses content: at least one line is wrong; good ones beside it may be stored already."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """The server refuses us: wrong token, organisation or bucket. Only a person can mend that."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No answer, or one that asks to come again."""

    reason: str


class Historian(Protocol):
    """A time-series database: a projection of the journal, never the record."""

    def write(self, lines: Sequence[str]) -> Written | TooLarge | BadLine | NotAllowed | Unreachable:
        """Write lines of line protocol with nanosecond times (blocking; call in a thread). Writing again is harmless."""
        ...
