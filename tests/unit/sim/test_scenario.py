"""Scenario files: what is wrong is said with its place, what is right plays; and what the shipped ones show."""

import itertools
from pathlib import Path

import pytest

from simulators.acts import Act, Verb, read_act
from simulators.faults import FaultKind
from simulators.plant import DEVICES, GUARDS, MACHINES
from simulators.scenario import Performance, Scenario, load_scenario, shipped, timeline
from simulators.truth import Fact

HEAD = "labels: {zh: 甲, en: A}\n"
MIXER = "mixer-18"


def problems_of(tmp_path: Path, text: str) -> list[str]:
    """The problems of a scenario, each as `LINE:COL: text`."""
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    found = load_scenario(path)
    assert isinstance(found, list), "the scenario is fine"
    return [str(problem).removeprefix(f"{path}:") for problem in found]


def shipped_scenario(name: str) -> Scenario:
    scenario = load_scenario(shipped()[name])
    assert isinstance(scenario, Scenario), scenario
    return scenario


@pytest.mark.parametrize(
    ("step", "at", "text"),
    [
        ("{at_s: 1, do: opne, machine: mixer-18}", "opne", "`do` cannot be `opne` — did you mean `open`?"),
        ("{at_s: 1, machine: mixer-18}", "{", "`do` is missing — add one of start,"),
        ("{at_s: 1, do: start}", "{", "`start` needs `machine` — add it"),
        ("{at_s: 1, do: start, machine: m-18}", "m-18", "`machine` cannot be `m-18` — "),
        (
            "{at_s: 1, do: start, machine: mixer-18, guard: door-1}",
            "door-1",
            "`start` takes no `guard` — it takes machine",
        ),
        (
            "{at_s: 1, do: open, machine: mixer-18, guard: dor-1}",
            "dor-1",
            "`guard` cannot be `dor-1` — did you mean `door-1`?",
        ),
        (
            "{at_s: 1, do: press, machine: mixer-18, guard: door-1}",
            "door-1",
            "`press` does not fit a guard of kind interlocked_door — it is for estop",
        ),
        (
            "{at_s: 1, do: spoil, fault: lat, percent: 5, delay_ms: 0}",
            "lat",
            "`fault` cannot be `lat` — did you mean `late`?",
        ),
        (
            "{at_s: 1, do: spoil, fault: late, percent: 5, delay_ms: 60001}",
            "60001",
            "`delay_ms` cannot be `60001` — write whole milliseconds, 0 to 60000",
        ),
        (
            "{at_s: 1, do: bypass, machine: mixer-18, guard: estop, on: true}",
            "estop",
            "`estop` has no bypass key — choose a door or a curtain",
        ),
        (
            "{at_s: 1, do: bypass, machine: mixer-18, guard: door-1, on: yes}",
            "yes",
            "`on` cannot be `yes` — write true or false",
        ),
        (
            "{at_s: 1, do: unstick, machine: belt-03, guard: pullcord-1, channel: 2}",
            "2}",
            "`channel` cannot be `2` — `pullcord-1` has channels 1 to 1",
        ),
        (
            "{at_s: 1, do: slip, machine: belt-03, percent: 101}",
            "101",
            "`percent` cannot be `101` — write a whole number from 0 to 100",
        ),
        ("{do: refuse}", "{", "the step has no time — add `at_s`: seconds from the start"),
        ("{at_s: -1, do: refuse}", "-1", "`at_s` is -1, outside 0 to 604800 — write steps in order of time"),
    ],
)
def test_a_wrong_step_is_told_with_its_place_and_its_mend(
    tmp_path: Path, step: str, at: str, text: str
) -> None:
    line = f"  - {step}"
    (problem,) = problems_of(tmp_path, f"{HEAD}steps:\n{line}\n")
    assert problem.startswith(f"3:{line.index(at) + 1}: {text}")


def test_steps_out_of_order_and_after_the_end_are_told(tmp_path: Path) -> None:
    text = (
        HEAD
        + "loop: true\nlength_s: 10\nsteps:\n"
        + "".join(f"  - {{at_s: {at_s}, do: refuse}}\n" for at_s in (5, 4, 10))
    )
    assert [p.split(" — ")[0] for p in problems_of(tmp_path, text)] == [
        "6:12: `at_s` is 4, outside 5 to 10",
        "7:12: `at_s` is 10, outside 5 to 10",
    ]


def test_a_loop_without_length_is_told(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, HEAD + "loop: true\n")
    assert "the scenario loops but has no length — add `length_s`" in problem


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = HEAD + "steps:\n  - {at_s: 1, do: fly}\n  - {at_s: 2, do: start, machine: x}\n  - {do: listen}\n"
    assert [p.split(":")[0] for p in problems_of(tmp_path, text)] == ["3", "4", "5"]


def test_unknown_keys_are_told(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, HEAD + "sede: 4\n")
    assert problem.startswith("2:1: unknown key `sede`")


def test_a_loop_repeats_its_steps_with_its_length_between() -> None:
    steps = timeline(shipped_scenario("estop"))
    first = [next(steps) for _ in range(5)]
    again = [next(steps) for _ in range(5)]
    assert [(s.at_ms + 60_000, s.act) for s in first] == [(s.at_ms, s.act) for s in again]


def test_a_performance_in_small_steps_equals_one_in_a_single_step() -> None:
    one, many = (Performance(shipped_scenario("demo")) for _ in range(2))
    one.advance(400_000)
    for ms in range(0, 400_001, 100):
        many.advance(ms)
    assert list(one.cell.log.spans()) == list(many.cell.log.spans())


def test_a_seed_given_by_hand_overrides_the_files() -> None:
    calm = shipped_scenario("calm-shift")
    plays = [Performance(calm), Performance(calm, seed=calm.seed), Performance(calm, seed=99)]
    for play in plays:
        play.advance(3_600_000)
    logs = [list(play.cell.log.spans()) for play in plays]
    assert logs[0] == logs[1] != logs[2]


def test_a_step_that_cannot_be_done_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "steps: [{at_s: 2, do: open, machine: mixer-18, guard: door-2}]", encoding="utf-8")
    scenario = load_scenario(path)
    assert isinstance(scenario, Scenario)
    (refused,) = Performance(scenario).advance(5_000)
    assert (refused.at_ms, refused.reason) == (2_000, "door-2 is locked")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_scenario_plays_two_hours_with_every_step_done(name: str) -> None:
    assert Performance(shipped_scenario(name)).advance(2 * 3_600_000) == []


def test_the_demo_opens_a_door_on_the_running_mixer_within_twenty_seconds_for_about_eight() -> None:
    play = Performance(shipped_scenario("demo"))
    play.advance(25_000)
    (span,) = play.cell.log.open_while_moving(MIXER, "door-1")
    assert span == (12_000, 20_000)


def test_the_demo_is_never_quiet_for_thirty_seconds() -> None:
    steps = timeline(shipped_scenario("demo"))
    times = [next(steps).at_ms for _ in range(200)]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 30_000


def test_the_demo_leaves_no_trace_of_a_round_in_the_next() -> None:
    """After each round every guard is closed, nothing is defeated, and all machines run."""
    play = Performance(shipped_scenario("demo"))
    for rounds in (1, 2, 3):
        play.advance(rounds * 190_000 - 1)
        truth = play.cell.truth()
        for machine in truth.machines.values():
            assert machine.powered
            assert all(
                guard.closed and all(guard.channels) and not guard.bypassed
                for guard in machine.guards.values()
            )
        assert all(truth.devices.values())


def test_the_stories_show_what_their_names_say() -> None:
    truths = {}
    for name, at_s in [
        ("bypass-in-auto", 15),
        ("channel-discrepancy", 12),
        ("estop", 15),
        ("device-lost", 20),
        ("plc-stopped", 20),
        ("welded-contactor", 24),
    ]:
        play = Performance(shipped_scenario(name))
        play.advance(at_s * 1_000)
        truths[name] = play.cell.truth()
    assert truths["bypass-in-auto"].machines[MIXER].guards["door-1"].bypassed
    assert truths["bypass-in-auto"].machines[MIXER].mode == "auto"
    assert truths["channel-discrepancy"].machines[MIXER].guards["door-1"].channels == (False, True)
    assert truths["estop"].machines[MIXER].guards["estop"].channels == (False, False)
    assert not truths["device-lost"].devices["plc-mixer"]
    assert not truths["plc-stopped"].devices["plc-mixer"]
    assert truths["welded-contactor"].machines[MIXER].powered


def test_faults_of_the_wire_add_up_until_it_is_healed() -> None:
    play = Performance(shipped_scenario("bad-wire"))
    play.advance(15_000)
    assert [(fault.kind, fault.share, fault.delay_ms) for fault in play.cell.wire] == [
        (FaultKind.LATE, 0.1, 700),
        (FaultKind.EXCEPTION, 0.1, 0),
        (FaultKind.DUPLICATE, 0.1, 0),
        (FaultKind.JUNK, 0.05, 0),
    ]
    play.advance(50_000)
    assert play.cell.wire == ()


def test_a_lost_endpoint_loses_every_device() -> None:
    play = Performance(shipped_scenario("device-lost"))
    play.advance(80_000)
    assert not any(play.cell.truth().devices.values())
    play.advance(100_000)
    assert all(play.cell.truth().devices.values())
    assert (
        play.cell.log.of(Fact("plc-belt", "", "live"), value=False)[0].length_ms(play.cell.now_ms) == 20_000
    )


@pytest.mark.parametrize("verb", Verb)
def test_every_verb_can_be_written_somewhere(verb: Verb) -> None:
    """Each word of the vocabulary has at least one target in the plant that takes it."""
    extras = {"on": True, "mode": "setup", "percent": 5, "channel": 1, "fault": "late", "delay_ms": 9}
    tried = [
        {"do": verb.value, **target}
        for target in [
            {},
            *({"machine": machine} for machine in MACHINES),
            *({"machine": machine, "guard": guard} for machine, guard in GUARDS),
            *({"device": device} for device in DEVICES),
        ]
    ]
    for fields in tried:
        try:
            act = read_act(fields)
        except ValueError as error:
            needed = [name for name in extras if f"needs `{name}`" in str(error)]
            if not needed:
                continue
            act = read_act_with(fields, extras)
        assert isinstance(act, Act)
        assert act.verb is verb
        return
    pytest.fail(f"nothing takes {verb}")


def read_act_with(fields: dict[str, str], extras: dict[str, object]) -> Act:
    """Read with whatever further fields the verb needs."""
    full: dict[str, object] = dict(fields)
    for _ in extras:
        try:
            return read_act(full)
        except ValueError as error:
            name = str(error).split("needs `")[1].split("`")[0]
            full[name] = extras[name]
    return read_act(full)
