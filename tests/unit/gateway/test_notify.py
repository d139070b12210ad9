"""Who is told: routes over people, shifts and channels."""

from dataclasses import replace
from datetime import datetime, time
from zoneinfo import ZoneInfo

import pytest

from edge_agent.wire.event import Priority
from gateway.domain.notify import (
    AlertPlan,
    Match,
    Person,
    Route,
    Shift,
    Subject,
    Target,
    find_repeats,
    find_targets,
    route_matches,
)

SHANGHAI = ZoneInfo("Asia/Shanghai")
MONDAY_NOON = datetime(2026, 11, 23, 12, 0, tzinfo=SHANGHAI)

LI = Person("li", {"zh": "李强", "en": "Li Qiang"}, "shift_manager")
WANG = Person("wang", {"zh": "王芳", "en": "Wang Fang"}, "shift_manager")
ZHAO = Person("zhao", {"zh": "赵磊", "en": "Zhao Lei"}, "maintenance")
PEOPLE = {person.id: person for person in (LI, WANG, ZHAO)}

DOOR = Subject(
    "changyi",
    "moulding",
    "mixer-18",
    "door-1",
    frozenset({"interlocked_door", "mixer"}),
    "guard_open_motion",
    Priority.P1,
)
AGENT_SILENT = Subject("changyi", None, None, None, frozenset(), "monitoring_lost", Priority.P2)


def some(*values: str) -> frozenset[str]:
    return frozenset(values)


@pytest.mark.parametrize(
    ("match", "door", "agent"),
    [
        (Match(), True, True),  # no condition: everything
        (Match(priority=some("P1", "P2")), True, True),
        (Match(priority=some("P2")), False, True),
        (Match(site=some("changyi")), True, True),
        (Match(site=some("elsewhere")), False, False),
        (Match(area=some("moulding", "cores")), True, False),  # a null area matches no value
        (Match(machine=some("mixer-18")), True, False),
        (Match(guard=some("door-1")), True, False),
        (Match(guard=some("door-2")), False, False),
        (Match(kind=some("interlocked_door")), True, False),  # the guard's kind …
        (Match(kind=some("mixer")), True, False),  # … or the machine's
        (Match(kind=some("light_curtain")), False, False),
        (Match(rule=some("monitoring_lost")), False, True),
        (
            Match(rule=some("guard_open_motion"), priority=some("P2")),
            False,
            False,
        ),  # all conditions must hold
    ],
)
def test_a_route_matches_when_all_its_conditions_do(match: Match, door: bool, agent: bool) -> None:
    assert (route_matches(match, DOOR), route_matches(match, AGENT_SILENT)) == (door, agent)


def plan(*routes: Route, shifts: tuple[Shift, ...] = ()) -> AlertPlan:
    return AlertPlan(PEOPLE, shifts, routes)


def test_every_matching_route_counts_and_the_same_person_by_the_same_channel_once() -> None:
    routes = plan(
        Route(Match(), ("li",), ("mail", "hook"), 600),
        Route(Match(rule=some("estop")), ("zhao",), ("mail",)),
        Route(Match(guard=some("door-1")), ("zhao", "li"), ("hook",), 120),
    )
    assert find_targets(routes, DOOR, MONDAY_NOON) == [
        Target(LI, "mail", 600),
        Target(LI, "hook", 120),  # the shorter repeat wins
        Target(ZHAO, "hook", 120),
    ]


@pytest.mark.parametrize(
    ("priority", "repeat_s"),
    [(Priority.P1, 300), (Priority.P2, 1800), (Priority.P3, None), (Priority.P4, None)],
)
def test_repeats_default_by_priority(priority: Priority, repeat_s: int | None) -> None:
    subject = replace(DOOR, priority=priority)
    routes = plan(Route(Match(), ("li",), ("hook",)))
    assert [target.repeat_s for target in find_targets(routes, subject, MONDAY_NOON)] == [repeat_s]
    assert find_repeats(routes, subject) == (frozenset() if repeat_s is None else {repeat_s})


def test_a_route_that_names_a_repeat_sets_it_for_every_priority() -> None:
    subject = replace(DOOR, priority=Priority.P4)
    routes = plan(Route(Match(), ("li",), ("hook",), 60), Route(Match(), ("li",), ("hook",)))
    assert [target.repeat_s for target in find_targets(routes, subject, MONDAY_NOON)] == [60]


DAY = Shift("day", time(8), time(20), frozenset(range(7)), frozenset({"li"}))
NIGHT = Shift("night", time(20), time(8), frozenset({4}), frozenset({"wang"}))  # Friday night only
TO_ROLE = Route(Match(), ("role:shift_manager",), ("hook",))


@pytest.mark.parametrize(
    ("local", "told"),
    [
        ("2026-11-23 08:00", ["li"]),
        ("2026-11-23 19:59", ["li"]),
        ("2026-11-27 20:00", ["wang"]),
        ("2026-11-28 07:59", ["wang"]),  # the night of Friday ends on Saturday
        ("2026-11-28 08:00", ["li"]),
        ("2026-11-28 23:00", ["li", "wang"]),  # nobody is on: a hole in the plan swallows nothing
        ("2026-11-27 07:00", ["li", "wang"]),
    ],
)
def test_a_role_means_whoever_is_on_shift(local: str, told: list[str]) -> None:
    at = datetime.fromisoformat(local).replace(tzinfo=SHANGHAI)
    targets = find_targets(plan(TO_ROLE, shifts=(DAY, NIGHT)), DOOR, at)
    assert [target.person.id for target in targets] == told


def test_without_shifts_a_role_means_all_of_its_people_and_a_name_means_that_one_always() -> None:
    assert [target.person.id for target in find_targets(plan(TO_ROLE), DOOR, MONDAY_NOON)] == ["li", "wang"]
    by_name = plan(Route(Match(), ("wang",), ("hook",)), shifts=(DAY,))
    assert [target.person.id for target in find_targets(by_name, DOOR, MONDAY_NOON)] == ["wang"]


def test_without_routes_alerting_is_off() -> None:
    assert not plan().is_on
    assert find_targets(plan(), DOOR, MONDAY_NOON) == []
