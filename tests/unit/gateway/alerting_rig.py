"""A small plant for tests of alarms and alerting: entries as agents cause them, rows in memory, one alert plan."""

from collections.abc import Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

from edge_agent.wire.codec import Stamp, seal
from edge_agent.wire.event import (
    Basis,
    Body,
    ClockState,
    OpenOccurrence,
    Priority,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from gateway.adapters.words import load_words
from gateway.domain.alarm import Alarm
from gateway.domain.book import AlarmBook
from gateway.domain.book_state import Dating
from gateway.domain.instants import iso_utc
from gateway.domain.journal import (
    Act,
    EdgeEvent,
    Entry,
    EntryBody,
    MachineModelled,
    OperatorCommand,
    ReconciledRaise,
)
from gateway.domain.notice import Notice, NoticeNow, NoticeState
from gateway.domain.notify import AlertPlan, Language, Match, Person, Route
from gateway.domain.teller import Teller, Voice
from gateway.domain.violation import Violation

START_MS = 1_795_327_402_000
"""2026-11-22T06:03:22Z: when the stories begin."""

SITE, AGENT = "changyi", "gw-01"

LI = Person(
    "li-qiang", {"zh": "李强", "en": "Li Qiang"}, "shift_manager", Language.ZH, "li@plant.example", "+861"
)
WANG = Person(
    "wang-fang", {"zh": "王芳", "en": "Wang Fang"}, "maintenance", Language.EN, "wang@plant.example"
)

VOICE = Voice(Language.ZH, load_words(), ZoneInfo("Asia/Shanghai"), "http://127.0.0.1:8080")


def plan_of(*routes: Route) -> AlertPlan:
    """Li and Wang, told by these routes."""
    return AlertPlan({LI.id: LI, WANG.id: WANG}, (), routes)


EVERYTHING_TO_LI = plan_of(Route(Match(), (LI.id,), ("hook",)))


def event(body: Body, at_ms: int = START_MS, *, seq: int = 2, agent: str = AGENT) -> EdgeEvent:
    """An agent's event whose `at` is `at_ms`."""
    at = iso_utc(at_ms)
    stamp = Stamp(
        SITE, agent, "01ABCDEFGHJKMNPQRSTVWXYZ00", seq, "boot", 1000, at, ClockState.SYNCED, "0" * 64
    )
    return EdgeEvent(seal(stamp, body), at)


def raised(
    occurrence: str = "OCC",
    *,
    rule: str = "guard_open_motion",
    priority: Priority = Priority.P1,
    basis: Basis = Basis.PROVEN,
    machine: str | None = "mixer-18",
    guard: str | None = "door-1",
    device: str | None = None,
    hidden_by: str | None = None,
    since_ms: int = START_MS,
) -> ViolationRaised:
    """A raise, by default a proven P1 of door-1."""
    since = iso_utc(since_ms)
    return ViolationRaised(machine, guard, device, rule, priority, basis, occurrence, since, hidden_by)


def changed(
    occurrence: str = "OCC",
    *,
    priority: Priority = Priority.P1,
    basis: Basis = Basis.PROVEN,
    hidden_by: str | None = None,
) -> ViolationChanged:
    """How an occurrence of door-1 stands now."""
    place = ("guard_open_motion", "mixer-18", "door-1", None)
    return ViolationChanged(occurrence, *place, priority, Priority.P2, basis, hidden_by, "parent_over")


def cleared(occurrence: str = "OCC", duration_ms: int = 8_000) -> ViolationCleared:
    """The end of an occurrence of door-1."""
    place = ("guard_open_motion", "mixer-18", "door-1", None)
    durations = (duration_ms, duration_ms, duration_ms)
    return ViolationCleared(occurrence, *place, Priority.P1, iso_utc(START_MS), "closed", *durations)


def listed(occurrence: str = "OCC", here: str | None = None, continues: str | None = None) -> ReconciledRaise:
    """An occurrence of door-1 that a state report lists, under the id it goes by here."""
    row = OpenOccurrence(
        occurrence,
        "guard_open_motion",
        "mixer-18",
        "door-1",
        None,
        Priority.P1,
        Basis.PROVEN,
        iso_utc(START_MS),
        None,
    )
    return ReconciledRaise(SITE, AGENT, here or occurrence, row, continues)


def acknowledge(alarm: int, who: str = "li-qiang", note: str | None = None) -> OperatorCommand:
    """Somebody saw an alarm."""
    return OperatorCommand(Act.ACKNOWLEDGE, alarm, who, "shift_manager", "session", note)


def mixer_modelled(area: str | None = "moulding") -> MachineModelled:
    """The birth certificate of mixer-18."""
    guard = {"labels": {"zh": "检修门", "en": "Service door"}, "kind": "interlocked_door"}
    model = {
        "machine": "mixer-18",
        "labels": {"zh": "18号混砂机", "en": "Mixer 18"},
        "area": area,
        "kind": "mixer",
        "guards": {"door-1": guard},
    }
    return MachineModelled(SITE, AGENT, "mixer-18", model)  # type: ignore[arg-type]  # nested literals widen


Told = ViolationRaised | ViolationChanged | ViolationCleared
"""What agents tell of violations."""


class RowsInMemory:
    """`BookRows` without a database."""

    def __init__(self) -> None:
        self.violations: dict[str, Violation] = {}
        self.alarms: dict[int, Alarm] = {}
        self.notices: dict[str, NoticeNow] = {}
        self.dated: list[tuple[int, int]] = []

    def put_violation(self, violation: Violation) -> None:
        self.violations[violation.occurrence] = violation

    def put_alarm(self, alarm: Alarm) -> None:
        self.alarms[alarm.id] = alarm

    def annotate_alarm(self, alarm: int, note: str) -> None:
        self.alarms[alarm] = replace(self.alarms[alarm], note=note)

    def date_violations(self, dating: Dating, before: int) -> None:
        """Closed rows are the database's; the book's own are put again by itself."""
        self.dated.append((dating.position, before))

    def add_notice(self, notice: Notice) -> None:
        self.notices.setdefault(notice.key, NoticeNow(notice, NoticeState.PENDING, 0, notice.not_before_ms))

    def notices_of(self, alarm: int) -> Sequence[NoticeNow]:
        return [now for now in self.notices.values() if now.notice.alert.alarm == alarm]

    def withdraw_notice(self, key: str) -> None:
        self.notices[key] = replace(self.notices[key], state=NoticeState.WITHDRAWN)

    def settle_all(self, state: NoticeState = NoticeState.DELIVERED) -> None:
        """Every pending notice came to this."""
        for key, now in self.notices.items():
            if now.state is NoticeState.PENDING:
                self.notices[key] = replace(now, state=state)

    def told(self) -> list[str]:
        """Keys of all notices that were not withdrawn."""
        return [key for key, now in self.notices.items() if now.state is not NoticeState.WITHDRAWN]


class Story:
    """A journal played into a book: each `take` is one transaction."""

    def __init__(self, plan: AlertPlan | None = EVERYTHING_TO_LI) -> None:
        self.rows = RowsInMemory()
        self.book = AlarmBook(None if plan is None else Teller(plan, VOICE))
        self.entries: list[Entry] = []
        self.now_ms = START_MS

    def take(self, *bodies: EntryBody | Told, after_ms: int = 0) -> None:
        """One transaction `after_ms` later; agents' bodies happen when they are recorded."""
        self.now_ms += after_ms
        for body in bodies:
            entry_body = event(body, self.now_ms) if isinstance(body, Told) else body
            entry = Entry(len(self.entries) + 1, self.now_ms, entry_body)
            self.entries.append(entry)
            self.book.stage(entry, self.rows)
        self.book.adopt()

    def violation(self, occurrence: str = "OCC") -> Violation:
        """A row of the log."""
        return self.rows.violations[occurrence]

    def alarm(self, number: int = 1) -> Alarm:
        """An alarm's row."""
        return self.rows.alarms[number]

    def letters(self) -> str:
        """The letters of all alarms, in order."""
        return "".join(alarm.letter for _, alarm in sorted(self.rows.alarms.items()))
