"""The configuration reader: YAML 1.2 in, plain data or positioned problems out, for any bytes whatsoever."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from edge_agent.configfile import (
    Document,
    PathKey,
    Problem,
    Section,
    fault,
    in_order,
    load,
    parse,
    read_secret,
    validate,
)

ENVIRON = {"HOST": "192.0.2.7", "PORT": "502", "EMPTY": "", "BAD": "a\nb", "BYTES": "\udcff"}


def document(text: str) -> Document:
    result = parse(text.encode(), "plant.yaml", ENVIRON)
    assert isinstance(result, Document), [str(problem) for problem in result]
    return result


def problems(text: str | bytes) -> list[str]:
    result = parse(text.encode() if isinstance(text, str) else text, "plant.yaml", ENVIRON)
    assert isinstance(result, list), result.data
    return [str(problem) for problem in result]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("-7", -7),
        ("+7", 7),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-11-22", "2026-11-22"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("=", "="),
        ("<<", "<<"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("!!float 3", 3.0),
        ("modbus+tcp://192.0.2.10:502", "modbus+tcp://192.0.2.10:502"),
    ],
)
def test_scalars_mean_what_the_core_schema_of_yaml_1_2_says(written: str, read: object) -> None:
    value = document(f"key: {written}\n").data["key"]
    assert value == read
    assert type(value) is type(read)


def test_keys_are_always_text() -> None:
    assert document("{1: a, true: b, 2026-11-22: c}").data == {"1": "a", "true": "b", "2026-11-22": "c"}


def test_a_duplicate_key_is_a_problem_that_names_the_first_line() -> None:
    assert problems("a: 1\nb: 2\na: 3\n") == [
        "plant.yaml:3:1: the key `a` stands twice, first in line 1 — keep one of the two"
    ]


def test_environment_variables_stand_in_values_and_take_their_type_from_the_result() -> None:
    data = document(
        "a: ${PORT}\nb: '${PORT}'\nc: modbus+tcp://${HOST}:${PORT}\nd: $$x $y\ne: ${EMPTY}\n"
    ).data
    assert data == {"a": 502, "b": "502", "c": "modbus+tcp://192.0.2.7:502", "d": "$x $y", "e": None}


def test_all_missing_or_unusable_variables_are_named_where_they_stand() -> None:
    assert problems("a: ${NO}\nb: [x, '${NOR}']\nc: ${BAD}\nd: ${BYTES}\ne: ${A-B}\nf: ${PORT\n") == [
        "plant.yaml:1:4: the environment variable NO is not set — set NO, or write the value here",
        "plant.yaml:2:8: the environment variable NOR is not set — set NOR, or write the value here",
        "plant.yaml:3:4: the environment variable BAD holds unprintable characters — set BAD to plain UTF-8 text",
        "plant.yaml:4:4: the environment variable BYTES holds unprintable characters — set BYTES to plain UTF-8 text",
        "plant.yaml:5:4: `${A-B}` names no variable — write ${NAME}, or $$ for a dollar sign",
        "plant.yaml:6:4: `${PORT` names no variable — write ${NAME}, or $$ for a dollar sign",
    ]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (b"", "1:1", "empty"),
        (b"# nothing\n", "1:1", "empty"),
        (b"- a\n", "1:1", "no mapping"),
        (b"a: [1, 2\nb: 3\n", "2:2", "not readable as YAML"),
        (b"a:\n\tb: 1\n", "2:1", "cannot start any token"),
        (b"a: b: c\n", "1:5", "mapping values are not allowed"),
        (b"a: 1\n---\nb: 2\n", "2:1", "another document"),
        (b"a: *x\n", "1:4", "undefined alias"),
        (b"a: \xff\n", "1:4", "not UTF-8"),
        ("zh: 门\nb: \x01".encode(), "2:4", "control character"),
        (b"a: &x [*x]\n", "1:4", "inside its own anchor"),
        (b"a: !!python/object:os.system x\n", "1:4", "has no meaning here"),
        (b"a: !!set {b}\n", "1:4", "has no meaning here"),
        (b"a: !!int many\n", "1:4", "is no int"),
        (b"? [a]\n: 1\n", "1:3", "a key is a list"),
        (b"a: " + b"[" * 300_000, "1:1", "levels of nesting"),
        (b"- " * 100_000, "1:1", "levels of nesting"),
    ],
)
def test_what_is_no_configuration_is_one_problem_with_its_place(text: bytes, where: str, what: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"plant.yaml:{where}: ")
    assert what in problem


def test_aliases_share_values_within_a_bound() -> None:
    assert document("a: &x {n: 1}\nb: *x\n").data == {"a": {"n": 1}, "b": {"n": 1}}
    bomb = "a0: &a0 [" + "x," * 100 + "]\n"
    bomb += "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 100}]\n" for n in range(1, 9))
    assert any("aliases repeat more than" in problem for problem in problems(bomb))


def test_positions_are_found_by_path_and_a_missing_path_gets_its_nearest_ancestor() -> None:
    found = document("a:\n  b:\n    - x\n    - {c: 1}\n")
    assert found.key_position(("a", "b")) == (2, 3)
    assert found.value_position(("a", "b")) == (3, 5)
    assert found.value_position(("a", "b", 1, "c")) == (4, 11)
    assert found.key_position(("a", "b", 1, "nowhere", 7)) == (4, 7)
    assert found.value(("a", "b", 1, "c")) == 1
    assert found.value(("a", "nowhere", 3)) is None


class Kind(StrEnum):
    DOOR = "interlocked_door"
    MAT = "safety_mat"


class Device(Section):
    url: str
    unit: int = Field(default=1, ge=1, le=247)
    gain: float = Field(default=1.0, gt=0, lt=10)
    mode: Literal["fast", "slow"] = "slow"
    kinds: tuple[Kind, ...] = ()
    on: bool = True

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if "://" not in value:
            raise fault(f'"{value}" is no URL', "write scheme://host:port")
        return value


class Plant(Section):
    site: str = Field(max_length=20)
    devices: dict[str, Device] = Field(default={}, min_length=1)
    spare: Device | None = None
    extra: tuple[Device, ...] = ()
    password: str = ""


FAULTY = """\
sight: here
devices:
  plc1: {url: nowhere, unit: 0}
  plc2:
    unti: 3
    gain: .nan
    mode: fsat
    kinds: [interlocked_dor, safety_mat, 3]
    on: yes
  plc3: ~
  plc4: {url: 3, unit: 1.5, gain: 0, mode: 7, kinds: door}
spare: {url: "tcp://x", unit: "7"}
extra:
  - {url: tcp://x, gain: 10}
  - [a]
  - {}
password: ${PORT}
"""


def test_every_misfit_is_reported_once_in_reading_order_with_line_column_and_mend() -> None:
    found = validate(Plant, document(FAULTY))
    assert isinstance(found, list)
    assert [str(problem).removeprefix("plant.yaml:") for problem in found] == [
        "1:1: unknown key `sight` — did you mean `site`?",
        '3:15: `url`: "nowhere" is no URL — write scheme://host:port',
        "3:30: `unit` is 0, but must be at least 1 — write a number at least 1",
        "4:3: `url` is missing — add `url: …` here",
        "5:5: unknown key `unti` — did you mean `unit`?",
        "6:11: `gain` must be a finite number, not nan — write a number such as 0.1",
        '7:11: `mode` is "fsat", which is not known — did you mean fast? Else write one of fast, slow',
        (
            '8:13: `kinds[0]` is "interlocked_dor", which is not known — did you mean interlocked_door? '
            "Else write one of interlocked_door, safety_mat"
        ),
        "8:42: `kinds[2]` is 3, which is not known — write one of interlocked_door, safety_mat",
        '9:9: `on` must be true or false, not "yes" — write true or false (yes, no, on and off are text in YAML 1.2)',
        "10:9: `plc3` must be a mapping, not nothing — write indented `key: value` lines, or {key: value}",
        "11:15: `url` must be text, not 3 — write text; put numbers and true/false in quotes if text is meant",
        "11:24: `unit` must be a whole number, not 1.5 — write a whole number without quotes, such as 200",
        "11:35: `gain` is 0, but must be more than 0 — write a number more than 0",
        "11:44: `mode` is 7, which is not known — write one of fast, slow",
        '11:54: `kinds` must be a list, not "door" — write [one, two], or one `- entry` a line',
        '12:31: `unit` must be a whole number, not "7" — write a whole number without quotes, such as 200',
        "14:26: `gain` is 10, but must be less than 10 — write a number less than 10",
        "15:5: `extra[1]` must be a mapping, not a list — write indented `key: value` lines, or {key: value}",
        "16:5: `url` is missing — add `url: …` here",
        (
            "17:11: `password` must be text, not what the environment gave — "
            "write text; put numbers and true/false in quotes if text is meant"
        ),
    ]


def test_a_good_document_becomes_the_frozen_model() -> None:
    plant = validate(Plant, document("site: a\ndevices: {p: {url: tcp://x, kinds: [safety_mat], gain: 2}}\n"))
    assert isinstance(plant, Plant)
    assert plant.devices["p"] == Device(url="tcp://x", kinds=(Kind.MAT,), gain=2.0)


def test_too_few_and_too_many_are_said_in_words() -> None:
    found = validate(Plant, document(f"site: {'x' * 21}\ndevices: {{}}\n"))
    assert isinstance(found, list)
    assert [problem.what for problem in found] == [
        "`site` has too many entries or characters",
        "`devices` has too few entries or characters",
    ]


def test_problems_sort_by_place_and_appear_once() -> None:
    late, early = Problem("a", 2, 1, "x", "y"), Problem("a", 1, 9, "x", "y")
    assert in_order([late, early, late]) == [early, late]


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    for path, what in (
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "cannot be read"),
        (Path("\0"), "cannot be read"),
    ):
        result = load(path, {})
        assert isinstance(result, list)
        assert what in str(result[0])


def test_a_secret_is_read_from_its_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("s3cret\n")
    (tmp_path / "plant.yaml").write_text("mqtt: {password_file: pw}\n")
    found = load(tmp_path / "plant.yaml", {})
    assert isinstance(found, Document)
    assert read_secret(found, ("mqtt", "password_file")) == "s3cret"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "does not exist"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 20_000, "larger than"),
    ],
)
def test_a_secret_that_cannot_be_used_is_a_problem_at_its_key(
    tmp_path: Path, content: bytes | None, what: str
) -> None:
    if content is not None:
        (tmp_path / "pw").write_bytes(content)
    (tmp_path / "plant.yaml").write_text("a: 1\npw: pw\n")
    found = load(tmp_path / "plant.yaml", {})
    assert isinstance(found, Document)
    problem = read_secret(found, ("pw",))
    assert isinstance(problem, Problem)
    assert (problem.line, problem.col) == (2, 5)
    assert what in problem.what


YAMLISH = st.text(alphabet=st.sampled_from(list(" \n\t:-[]{},&*!|>'\"%@`#?$ab0.~<=门\x00\x85")), max_size=80)


@given(st.one_of(st.binary(max_size=200), YAMLISH.map(str.encode)))
@settings(max_examples=600, deadline=None)
def test_any_bytes_give_a_document_or_problems_and_never_an_exception(content: bytes) -> None:
    result = parse(content, "any.yaml", ENVIRON)
    if isinstance(result, list):
        assert result
        assert all(problem.line >= 1 and problem.col >= 1 and problem.mend for problem in result)
    else:
        validated = validate(Plant, result)
        assert validated


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["site", "devices", "spare", "extra", "password", "url", "unit", "kinds", "plc1"])


@pytest.mark.thorough
@given(
    st.dictionaries(
        KEYS, st.dictionaries(KEYS, st.dictionaries(KEYS, PLAIN, max_size=3) | PLAIN, max_size=3) | PLAIN
    )
)
@settings(max_examples=300, deadline=None)
def test_any_data_gives_a_model_or_problems_without_the_validators_jargon(data: object) -> None:
    import yaml  # noqa: PLC0415  # the writer is needed here only

    result = parse(yaml.safe_dump(data, allow_unicode=True).encode(), "any.yaml", {})
    if isinstance(result, Document):
        found = validate(Plant, result)
        if isinstance(found, list):
            assert found
            assert not any("Input" in problem.what or "pydantic" in str(problem) for problem in found)


def test_paths_are_relative_to_the_file() -> None:
    found = parse(b"a: 1", "/etc/guardwatch/agent.yaml", {})
    assert isinstance(found, Document)
    assert found.resolve("var/x.db") == Path("/etc/guardwatch/var/x.db")
    assert found.resolve("/var/x.db") == Path("/var/x.db")
    path: PathKey = ("a",)
    assert found.problem(path, "x", "y") == Problem("/etc/guardwatch/agent.yaml", 1, 4, "x", "y")
