"""The alarm book: which violations are open, which alarms are listed, as a pure function of the journal.

Theory of operation. `AlarmBook` is a fold (`gateway.ports.Fold`). One occurrence is one violation row and at most one
alarm, whatever comes twice:

    raise (agent, report, gateway) ─┬─ hidden by a parent ─▶ row without alarm ─ changed: hidden no more ─┐
                                    └─────────────────────▶ row and alarm (B) ◀──────────────────────────┘
    changed to a higher priority ──▶ the alarm calls again (B)
    clear ─────────────────────────▶ row closed, alarm returned (D, E) or, when seen, done (A) or latched (F)
    acknowledge ───────────────────▶ C, or from D done (A), from E latched (F)

An occurrence that was cleared here and is listed again by a state report goes on under a new id (`OCC.2`); what the
agent then says of OCC is about that one. Where an occurrence is continued by another, the alarm passes on to it, and
nobody is told again.

What is open or listed is kept in memory (`book_state`), staged changes laid over the adopted ones. While a transaction
is open, rows are written through `BookRows` and people are told by the teller; when the journal is folded again (the
recording is None) neither happens, and the state comes out the same.

What was told before its time was known gets it later (`book_dating`).

Source: the outside contract, section 5; delivery protocol, sections 3.6 to 3.8; ISA-18.2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

from edge_agent.wire.event import (
    Event,
    Json,
    OpenOccurrence,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from gateway.domain.alarm import (
    Ack,
    Acknowledgement,
    Alarm,
    AlarmState,
    Condition,
    Input,
    is_latching,
)
from gateway.domain.book_dating import date_more, date_open
from gateway.domain.book_rows import BookRows, Page
from gateway.domain.book_state import BookState, DueTimer
from gateway.domain.journal import (
    Act,
    AgentModelled,
    ClockStepped,
    EdgeEvent,
    Entry,
    FindingCleared,
    FindingRaised,
    MachineModelled,
    MachineRemoved,
    Mark,
    OperatorCommand,
    ReconciledChange,
    ReconciledClear,
    ReconciledRaise,
    TimerFired,
)
from gateway.domain.places import Places
from gateway.domain.teller import Change, Teller, Turn
from gateway.domain.violation import Violation, from_event, from_finding, from_report, lasted_ms

REPEAT_TIMER: Final = "repeat/"
"""`repeat/300` is the timer that tells of an unacknowledged alarm again every 300 s."""


def touches_alarms(entry: Entry) -> bool:
    """Whether an entry may change an alarm, or who is to be told."""
    if isinstance(entry.body, EdgeEvent):
        return isinstance(entry.body.event.body, ViolationRaised | ViolationChanged | ViolationCleared)
    return True


class AlarmBook:
    """The fold. Without a teller alerting is off: nobody is told and nothing is due."""

    def __init__(self, teller: Teller | None = None) -> None:
        self._teller = teller
        self._state = BookState(self._next_timer)

    def stage(self, entry: Entry, recording: BookRows | None) -> None:
        """Take in one entry; write rows and tell people through `recording`, if there is one."""
        page = Page(entry, recording)
        match entry.body:
            case EdgeEvent() as body:
                self._stage_event(body, page)
            case ReconciledRaise() as body:
                if body.occurrence != body.listed.occurrence:
                    self._state.renamed.put(body.listed.occurrence, body.occurrence)
                area = self._state.area(body.site, body.listed.machine)
                self._raise(from_report(body, area, entry), page, body.continues)
            case ReconciledChange() as body:
                violation = self._state.violations.get(body.occurrence)
                if violation is not None:
                    self._change(_standing(violation, body.listed), page)
            case ReconciledClear() as body:
                self._clear(body.occurrence, body.at, None, page, body.continued_by)
            case FindingRaised() as body:
                self._raise(from_finding(body, entry), page)
            case FindingCleared() as body:
                self._clear(body.occurrence, body.at, None, page)
            case _:
                self._stage_own(page)
        date_more(self._state, page)

    def _stage_own(self, page: Page) -> None:
        """Entries that raise and end nothing."""
        match page.entry.body:
            case OperatorCommand() as body:
                self._command(body, page)
            case TimerFired() as body:
                self._fire(body, page)
            case MachineModelled() as body:
                self._learn_place(body, page)
            case AgentModelled() | MachineRemoved() as body:
                self._state.places.stage(body)
            case ClockStepped() as body:
                self._shift(body.step_ms if body.leap_ms is None else body.leap_ms, page)
            case _:
                pass

    def adopt(self) -> None:
        """The transaction committed."""
        self._state.adopt()
        if self._teller:
            self._teller.adopt()

    def discard(self) -> None:
        """The transaction failed."""
        self._state.discard()
        if self._teller:
            self._teller.discard()

    def snapshot(self) -> Json:
        """The adopted state as JSON."""
        return self._state.snapshot()

    def restore(self, snapshot: Json) -> None:
        """Adopt what `snapshot` gave. Raises `MisfitError` for what it never gave."""
        self._state.restore(snapshot)

    def find_alarm(self, alarm: int) -> Alarm | None:
        """A listed alarm, as staged; None for one that is history or never was."""
        return self._state.alarms.get(alarm)

    def next_deadline_ms(self) -> int | None:
        """When the next timer is due (gateway UTC), as staged."""
        return min((timer.due_ms for timer in self._state.timers.values()), default=None)

    def due_timers(self, now_ms: int) -> list[DueTimer]:
        """Every timer that is due, as staged, in order; firing is an entry of its own (`TimerFired`)."""
        due = [timer for timer in self._state.timers.values() if timer.due_ms <= now_ms]
        return sorted(due, key=lambda timer: (timer.due_ms, timer.alarm))

    def _stage_event(self, body: EdgeEvent, page: Page) -> None:
        event = body.event
        for dated in date_open(self._state, body, page):
            self._put_violation(dated, page)
        match event.body:
            case ViolationRaised() as raised:
                area = self._state.area(event.site, raised.machine)
                self._raise(from_event(body, raised, area, page.entry), page)
            case ViolationChanged() as changed:
                violation = self._open(event, changed.occurrence)
                if violation is not None:
                    standing = _standing(violation, changed)
                    self._change(replace(standing, evidence=changed.evidence or standing.evidence), page)
            case ViolationCleared() as cleared:
                violation = self._open(event, cleared.occurrence)
                if violation is not None:
                    self._clear(violation.occurrence, body.occurred_at, cleared.duration_ms, page)
            case _:
                pass

    def _raise(self, violation: Violation, page: Page, continues: str | None = None) -> None:
        if self._state.is_known(violation.occurrence):
            return
        inherited = self._inherit(violation.occurrence, continues)
        if inherited is not None:
            self._put_violation(replace(violation, alarm=inherited.id), page)
            self._put_alarm(replace(inherited, occurrence=violation.occurrence), page)
        elif violation.hidden_by is not None:
            self._put_violation(violation, page)
        else:
            self._alarm(violation, page)

    def _alarm(self, violation: Violation, page: Page) -> None:
        number = self._state.next_alarm_id()
        latching = is_latching(violation.rule, violation.priority, violation.evidence)
        alarm = Alarm(
            id=number,
            state=AlarmState(Condition.ACTIVE, Ack.UNACKED, latching),
            occurrence=violation.occurrence,
            site=violation.site,
            agent=violation.agent,
            area=violation.area,
            machine=violation.machine,
            guard=violation.guard,
            device=violation.device,
            rule=violation.rule,
            priority=violation.priority,
            basis=violation.basis,
            since=violation.since,
            alarmed_ms=page.now_ms,
        )
        violation = replace(violation, alarm=number)
        self._put_violation(violation, page)
        self._put_alarm(alarm, page)
        self._tell(Turn.RAISED, alarm, violation, page)

    def _change(self, now: Violation, page: Page) -> None:
        """An open violation stands otherwise now; the alarm follows, and calls again when it got more urgent."""
        alarm = self._state.alarms.get(now.alarm) if now.alarm is not None else None
        if alarm is None:
            if now.hidden_by is None:
                self._alarm(now, page)
            else:
                self._put_violation(now, page)
            return
        self._put_violation(now, page)
        latching = alarm.state.is_latching or is_latching(now.rule, now.priority, now.evidence)
        state = replace(alarm.state, is_latching=latching)
        following = replace(alarm, state=state, priority=now.priority, basis=now.basis)
        if now.priority.rank < alarm.priority.rank:
            following = replace(
                following,
                state=state.after(Input.REALARM),
                alarmed_ms=page.now_ms,
                raised_n=alarm.raised_n + 1,
                acknowledged=None,
            )
            self._put_alarm(following, page)
            self._tell(Turn.MORE_URGENT, following, now, page)
        else:
            self._put_alarm(following, page)

    def _clear(
        self,
        occurrence: str,
        at: str,
        duration_ms: int | None,
        page: Page,
        continued_by: str | None = None,
    ) -> None:
        open_ = self._state.violations.get(occurrence)
        if open_ is None:
            return
        duration = lasted_ms(open_.since, at) if duration_ms is None else duration_ms
        closed = replace(open_, cleared_at=at, duration_ms=duration)
        if page.rows is not None:
            page.rows.put_violation(closed)
        self._state.close(occurrence)
        alarm = self._state.alarms.get(closed.alarm) if closed.alarm is not None else None
        if alarm is None or alarm.occurrence != occurrence:
            return
        if continued_by is not None and self._pass_on(alarm, continued_by, page):
            return
        alarm = replace(alarm, state=alarm.state.after(Input.CLEAR), cleared_at=at)
        self._put_alarm(alarm, page)
        if continued_by is None:
            self._tell(Turn.CLEARED, alarm, closed, page)

    def _pass_on(self, alarm: Alarm, successor: str, page: Page) -> bool:
        """Give the alarm to the occurrence that goes on; False where that one has an alarm of its own already."""
        violation = self._state.violations.get(successor)
        if violation is None:
            self._state.passing.put(successor, alarm.id)
            return True
        if violation.alarm is not None:
            return False
        self._put_violation(replace(violation, alarm=alarm.id), page)
        self._put_alarm(replace(alarm, occurrence=successor), page)
        return True

    def _command(self, command: OperatorCommand, page: Page) -> None:
        alarm = self._state.alarms.get(command.alarm)
        if alarm is None:
            if command.note is not None and page.rows is not None:
                page.rows.annotate_alarm(command.alarm, command.note)
            return
        note = command.note if command.note is not None else alarm.note
        match command.act:
            case Act.ACKNOWLEDGE:
                if alarm.state.ack is Ack.UNACKED:
                    seen = Acknowledgement(command.who, command.role, command.via, page.now_ms)
                    state = alarm.state.after(Input.ACKNOWLEDGE)
                    self._put_alarm(replace(alarm, state=state, acknowledged=seen, note=note), page)
            case Act.NOTE:
                self._put_alarm(replace(alarm, note=note), page)
            case _:
                assert_never(command.act)

    def _fire(self, timer: TimerFired, page: Page) -> None:
        alarm = self._state.alarms.get(timer.alarm)
        if alarm is None or not timer.what.startswith(REPEAT_TIMER):
            return
        alarm = replace(alarm, repeats=timer.n, repeated_ms={**alarm.repeated_ms, timer.what: page.now_ms})
        self._put_alarm(alarm, page)
        violation = self._state.violations.get(alarm.occurrence)
        if violation is not None and alarm.is_calling:
            period_s = int(timer.what.removeprefix(REPEAT_TIMER))
            self._tell(Turn.REPEAT_DUE, alarm, violation, page, period_s)

    def _learn_place(self, body: MachineModelled, page: Page) -> None:
        """Certificates may come after the first events: what was raised without a place gets it when it is known."""
        is_news = self._state.places.machine(body.site, body.machine) is None
        self._state.places.stage(body)
        if not is_news:
            return
        here = [
            item
            for item in self._state.violations.values()
            if (item.site, item.machine) == (body.site, body.machine) and item.area is None
        ]
        for violation in sorted(here, key=lambda item: item.raised_position):
            placed = replace(violation, area=self._state.area(body.site, body.machine))
            self._put_violation(placed, page)
            alarm = self._state.alarms.get(placed.alarm) if placed.alarm is not None else None
            if alarm is not None and alarm.occurrence == placed.occurrence:
                alarm = replace(alarm, area=placed.area)
                self._put_alarm(alarm, page)
                if alarm.is_calling:
                    self._tell(Turn.PLACE_KNOWN, alarm, placed, page)

    def _shift(self, step_ms: int, page: Page) -> None:
        """A wall clock that jumped ahead makes nothing due; one that was set back does not show in gateway time."""
        if step_ms <= 0:
            return
        for alarm in sorted(self._state.alarms.values(), key=lambda item: item.id):
            repeated = {what: at_ms + step_ms for what, at_ms in alarm.repeated_ms.items()}
            self._put_alarm(replace(alarm, alarmed_ms=alarm.alarmed_ms + step_ms, repeated_ms=repeated), page)

    def _tell(
        self, turn: Turn, alarm: Alarm, violation: Violation, page: Page, period_s: int | None = None
    ) -> None:
        if self._teller is None or page.rows is None:
            return
        place = self._state.places.find(alarm.site, alarm.agent, alarm.machine, alarm.guard)
        told = page.entry.body
        is_late = isinstance(told, EdgeEvent) and Mark.LATE in told.marks
        self._teller.tell(
            Change(turn, alarm, violation, place, page.now_ms, period_s, alarm.repeats, is_late), page.rows
        )

    def _inherit(self, occurrence: str, continues: str | None) -> Alarm | None:
        """The alarm that passes on to an occurrence, whether the old one is still open here or was cleared just now."""
        old = self._state.violations.get(continues) if continues else None
        alarm = old.alarm if old else self._state.passing.get(occurrence)
        self._state.passing.drop(occurrence)
        return None if alarm is None else self._state.alarms.get(alarm)

    def _put_violation(self, violation: Violation, page: Page) -> None:
        self._state.violations.put(violation.occurrence, violation)
        if page.rows is not None:
            page.rows.put_violation(violation)

    def _put_alarm(self, alarm: Alarm, page: Page) -> None:
        self._state.put_alarm(alarm)
        if page.rows is not None:
            page.rows.put_alarm(alarm)

    def _next_timer(self, alarm: Alarm, places: Places) -> DueTimer | None:
        if self._teller is None or not alarm.is_calling:
            return None
        place = places.find(alarm.site, alarm.agent, alarm.machine, alarm.guard)
        timers = []
        for period_s in self._teller.repeats(alarm, place):
            what = f"{REPEAT_TIMER}{period_s}"
            last_ms = max(alarm.alarmed_ms, alarm.repeated_ms.get(what, 0))
            timers.append(DueTimer(last_ms + period_s * 1000, alarm.id, what))
        return min(timers, key=lambda timer: (timer.due_ms, timer.what), default=None)

    def _open(self, event: Event, occurrence: str) -> Violation | None:
        """The open violation that an agent means; another agent's is none of its business."""
        found = self._state.violations.get(occurrence) or self._state.violations.get(
            self._state.renamed.get(occurrence) or ""
        )
        return found if found and (found.site, found.agent) == (event.site, event.agent) else None


def _standing(violation: Violation, now: ViolationChanged | OpenOccurrence) -> Violation:
    return replace(violation, priority=now.priority, basis=now.basis, hidden_by=now.hidden_by)
