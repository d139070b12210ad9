"""What people read: everything needed to act, in their language, in a fixed order."""

import re
import string
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from edge_agent.wire.event import Basis, Priority
from gateway.adapters.words import load_words
from gateway.domain.journal import GatewayRule
from gateway.domain.message import (
    SUMMARY_LINES_MAX,
    LateOne,
    Reader,
    Story,
    Where,
    render,
    render_summary,
    render_test,
)
from gateway.domain.notify import Language, NoticeEvent
from gateway.domain.places import Place

WORDS = load_words()
SHANGHAI = ZoneInfo("Asia/Shanghai")
ZH = Reader(Language.ZH, WORDS[Language.ZH], SHANGHAI)
EN = Reader(Language.EN, WORDS[Language.EN], SHANGHAI)

PLACE = Place(
    area="moulding",
    machine_kind="mixer",
    guard_kind="interlocked_door",
    site_labels={"zh": "昌邑工厂", "en": "Changyi"},
    area_labels={"zh": "造型工段", "en": "Moulding"},
    machine_labels={"zh": "18号混砂机", "en": "Mixer 18"},
    guard_labels={"zh": "检修门", "en": "Service door"},
)
STORY = Story(
    event=NoticeEvent.RAISED,
    priority=Priority.P1,
    rule="guard_open_motion",
    basis=Basis.PROVEN,
    where=Where("changyi", "gw-01", "mixer-18", "door-1", None, PLACE),
    since="2026-11-22T06:03:22.412Z",
    alarm=481,
    url="http://board.example/a/481",
    repeat_s=300,
)


def test_a_raise_says_all_in_the_fixed_order_in_chinese() -> None:
    told = render(STORY, ZH)
    assert told.title == "P1 紧急违规：18号混砂机 检修门 打开且设备运行"
    assert told.text.split("\n") == [
        "P1 紧急违规：打开且设备运行",
        "地点：昌邑工厂 · 造型工段 · 18号混砂机 · 检修门",
        "起始：2026-11-22 14:03:22+08:00",
        "处置：立即按现场急停，确认机内无人，上锁挂牌后检查联锁。",
        "后续：未确认则每5分钟重复通知。",
        "编号：A481",
        "http://board.example/a/481",
        "监测信息，非安全功能",
    ]


def test_a_raise_says_all_in_the_fixed_order_in_english() -> None:
    told = render(STORY, EN)
    assert told.title == "P1 critical violation: Mixer 18 Service door OPEN while RUNNING"
    assert told.text.split("\n") == [
        "P1 critical violation: OPEN while RUNNING",
        "Where: Changyi · Moulding · Mixer 18 · Service door",
        "Since: 2026-11-22 14:03:22+08:00",
        "Action: Hit the local E-stop, check that nobody is inside, lock and tag, then test the interlock.",
        "Next: repeated every 5 min until acknowledged.",
        "Alarm: A481",
        "http://board.example/a/481",
        "Monitoring information, not a safety function",
    ]


def test_what_could_not_be_excluded_says_so_in_title_and_data_line() -> None:
    told = render(replace(STORY, basis=Basis.UNKNOWN), EN)
    assert told.title.endswith("OPEN while RUNNING (cannot be excluded)")
    assert "Data: not enough to prove it, treated as dangerous" in told.text


def test_an_end_says_when_how_long_and_who_saw_it_and_that_a_latch_is_left() -> None:
    over = replace(
        STORY,
        event=NoticeEvent.CLEARED,
        cleared_at="2026-11-22T06:09:40Z",
        duration_ms=378_000,
        seen_by="li-qiang",
        is_latching=True,
    )
    told = render(over, ZH)
    assert told.title.startswith("P1 已结束：")
    assert "结束：2026-11-22 14:09:40+08:00，历时6分18秒" in told.text
    assert "确认：li-qiang" in told.text
    assert "已锁存：待复位确认。" in told.text
    unseen = render(replace(over, seen_by=None, is_latching=False), ZH)
    assert "确认：尚无人确认" in unseen.text
    assert "锁存" not in unseen.text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("interlocked_door", "打开且设备运行"),
        ("light_curtain", "遮断且设备运行"),
        ("safety_mat", "有人踩踏且设备运行"),
        ("pull_cord", "已拉但设备仍运行"),
        ("estop", "已按下但设备仍运行"),
        ("trapped_key", "钥匙已取出且设备运行"),
        ("a-kind-of-the-future", "打开且设备运行"),
    ],
)
def test_what_is_true_is_said_in_the_words_of_the_guards_kind(kind: str, words: str) -> None:
    where = replace(STORY.where, known=replace(PLACE, guard_kind=kind))
    assert render(replace(STORY, where=where), ZH).title.endswith(words)


def test_a_lost_device_names_it_and_counts_what_is_blind() -> None:
    lost = replace(
        STORY,
        rule="monitoring_lost",
        priority=Priority.P2,
        where=Where("changyi", "gw-01", device="plc1"),
        evidence={"guards": ["mixer-18/door-1", "mixer-18/door-2"]},
    )
    assert "no good data from device plc1, 2 guards are UNKNOWN" in render(lost, EN).title
    many = replace(lost, evidence={"guards": ["mixer-18/door-1"], "guards_count": 4000})
    assert "4000 guards" in render(many, EN).title


def test_ids_stand_in_for_what_nobody_has_named_and_the_other_language_for_a_missing_one() -> None:
    told = render(replace(STORY, where=Where("changyi", "gw-01", "mixer-18", "door-1")), ZH)
    assert "changyi · mixer-18 · door-1" in told.text
    half = replace(STORY.where, known=replace(PLACE, machine_labels={"zh": "18号混砂机"}))
    assert "18号混砂机" in render(replace(STORY, where=half), EN).title


def test_a_finding_about_nobody_is_the_gateways_own() -> None:
    failing = replace(STORY, rule="alert_failing", where=Where(), evidence={"channel": "hook"})
    assert render(failing, ZH).title.endswith("总网关 通知通道hook发不出通知")


def test_an_unknown_rule_and_an_unreadable_time_still_make_a_message() -> None:
    told = render(replace(STORY, rule="a-rule-of-the-future", since="once upon a time"), EN)
    assert "VIOLATION (rule a-rule-of-the-future)" in told.title
    assert "Since: once upon a time" in told.text


def test_labels_cannot_break_a_mails_subject() -> None:
    where = replace(
        STORY.where, known=replace(PLACE, machine_labels={"zh": "a\r\nBcc: b", "en": "a\r\nBcc: b"})
    )
    assert render(replace(STORY, where=where), EN).title == (
        "P1 critical violation: a Bcc: b Service door OPEN while RUNNING"
    )


@pytest.mark.parametrize(
    ("duration_ms", "words"),
    [
        (None, "unknown"),
        (0, "0 s"),
        (59_999, "59 s"),
        (60_000, "1 min"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h"),
        (3_661_000, "1 h 1 min"),
        (90_061_000, "1 d 1 h"),
    ],
)
def test_durations_read_as_people_say_them(duration_ms: int | None, words: str) -> None:
    late = [LateOne(1, Priority.P2, "title", STORY.since, duration_ms)]
    assert f"for {words}, alarm A1" in render_summary(late, STORY.url, EN).text


def test_a_summary_lists_some_counts_all_and_bears_the_highest_priority() -> None:
    late = [LateOne(n, Priority.P3, f"title {n}", STORY.since, 1000) for n in range(1, 31)]
    late[7] = replace(late[7], priority=Priority.P1)
    told = render_summary(late, STORY.url, EN)
    assert told.title == "P1 late report: 30 violations, already over"
    assert told.text.count("alarm A") == SUMMARY_LINES_MAX
    assert "10 more: see the board." in told.text


def test_a_test_message_says_that_it_is_one() -> None:
    told = render_test("http://board.example", ZH)
    assert told.title == "测试通知"
    assert "监测信息，非安全功能" in told.text


def test_both_catalogues_have_the_same_keys_and_every_template_the_same_names() -> None:
    zh, en = WORDS[Language.ZH], WORDS[Language.EN]
    assert set(zh) == set(en)
    for key in zh:
        names = [
            {name for _, name, _, _ in string.Formatter().parse(words[key]) if name} for words in (zh, en)
        ]
        assert names[0] == names[1], key


def test_every_finding_of_the_gateway_and_every_rule_of_the_agent_has_its_own_words() -> None:
    rules = [*GatewayRule, "guard_open_motion", "channel_discrepancy", "bypass_active", "estop"]
    for words in WORDS.values():
        for rule in rules:
            assert f"true.{rule}" in words
            assert f"action.{rule}" in words


def test_safe_is_never_a_state() -> None:
    for words in WORDS.values():
        for key, text in words.items():
            if key != "disclaimer":
                assert not re.search(r"安全|\bsafe\b", text, re.IGNORECASE), key
