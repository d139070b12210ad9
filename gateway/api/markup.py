"""The plain pages as HTML: complete without JavaScript, old WebViews of chat programs included. All texts are escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from edge_agent.wire.event import Json
from gateway.api.words import WORDS, Words

THEMES: Mapping[str, str] = {"auto": "(prefers-color-scheme: dark)", "light": "not all", "dark": "all"}
"""A theme is the media attribute of the dark palette's link."""


@dataclass(frozen=True, slots=True)
class Look:
    """How somebody wants to see pages."""

    words: Words
    theme: str


def document(look: Look, title: str, body: str, *, script: str = "") -> str:
    """A whole page."""
    words = look.words
    return f"""<!doctype html>
<html lang="{words.html_lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" id="favicon" href="/static/favicon.svg">
<link rel="stylesheet" href="/static/tokens.css">
<link rel="stylesheet" id="dark" href="/static/dark.css" media="{THEMES[look.theme]}">
<link rel="stylesheet" href="/static/board.css">{script}
</head>
<body>
{body}
</body>
</html>
"""


def board_page(look: Look) -> str:
    """The board's shell: its content comes with its modules; without JavaScript it says so."""
    words = look.words
    zh, en = (escape(WORDS[name].text("disclaimer")) for name in ("zh", "en"))
    body = (
        f'<div id="board" data-disclaimer-zh="{zh}" data-disclaimer-en="{en}">'
        f'<noscript><p class="notice">{escape(words.text("page.no_script"))}</p></noscript></div>'
    )
    script = '\n<script type="module" src="/static/board.js"></script>'
    return document(look, words.text("title"), body, script=script)


def plain_page(look: Look, title: str, content: str) -> str:
    """A page of one column with the disclaimer in both languages below."""
    words = look.words
    other = WORDS["en" if words.language == "zh" else "zh"]
    bar = (
        f'<div class="bar"><a href="/board">{escape(words.text("page.board"))}</a>'
        f'<a href="?lang={other.language}" lang="{other.html_lang}">'
        f"{escape(words.text('language.other'))}</a></div>"
    )
    foot = "".join(
        f'<p lang="{item.html_lang}">{escape(item.text("disclaimer"))}</p>' for item in WORDS.values()
    )
    return document(
        look,
        title,
        f'<main class="page">{bar}<h1>{escape(title)}</h1>{content}</main><footer>{foot}</footer>',
    )


def sign_in_page(look: Look, following: str, failure: str | None) -> str:
    """Two forms: a token, or a name and password."""
    words = look.words
    hidden = f'<input type="hidden" name="next" value="{escape(following)}">'
    button = f'<button class="primary">{escape(words.text("user.sign_in"))}</button>'
    fields = "".join(
        f'<label>{escape(words.text(f"page.{name}"))}<input name="{name}" type="{kind}" required '
        f'autocomplete="{complete}"></label>'
        for name, kind, complete in (
            ("name", "text", "username"),
            ("password", "password", "current-password"),
        )
    )
    content = (
        _failure(failure)
        + f'<form method="post" action="/sign-in" class="card">{hidden}{fields}{button}</form>'
        + f"<p>{escape(words.text('page.or'))}</p>"
        + f'<form method="post" action="/sign-in" class="card">{hidden}<label>{escape(words.text("page.token"))}'
        + f'<input name="token" type="password" required autocomplete="off"></label>{button}</form>'
    )
    return plain_page(look, words.text("page.sign_in"), content)


def link_page(look: Look, failure: str | None) -> str:
    """A one-time link opened: a button spends it, opening it does not (previews and scanners open links too)."""
    words = look.words
    content = _failure(failure)
    if failure is None:
        content += (
            f'<form method="post" class="card"><p>{escape(words.text("page.link_text"))}</p>'
            f'<button class="primary">{escape(words.text("page.link_button"))}</button></form>'
        )
    return plain_page(look, words.text("page.link_head"), content)


def _failure(text: str | None) -> str:
    return f'<p class="failed" role="alert">{escape(text)}</p>' if text else ""


@dataclass(frozen=True, slots=True)
class AlarmPage:
    """What the page of one alarm shows; texts are ready to read but not escaped."""

    number: int
    priority: str
    headline: str
    place: str
    facts: Sequence[tuple[str, str]]
    told: Sequence[str]
    guard: tuple[str, str, str] | None
    """Look, name and word of the guard now."""
    as_of: str
    said: str | None
    can_acknowledge: bool
    needs_sign_in: bool


def alarm_page(look: Look, page: AlarmPage) -> str:
    """State, place, since and the button come first: in the first viewport of a small phone."""
    words = look.words
    number = page.number
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts)
    said = f'<p class="done" role="status">{escape(page.said)}</p>' if page.said else ""
    guard = ""
    if page.guard is not None:
        appearance, name, word = page.guard
        guard = (
            f'<p>{escape(words.text("alarm.guard_now"))}</p><ul class="guards"><li class="guard v-{appearance}">'
            f'<span class="icon icon-{_ICONS[appearance]}" aria-hidden="true"></span>'
            f'<span class="name">{escape(name)}</span><span class="word">{escape(word)}</span></li></ul>'
        )
    act = ""
    if page.can_acknowledge:
        act = (
            f'<form method="post" action="/alarms/{number}/ack">'
            f'<button class="primary own">{escape(words.text("alarm.own_button"))}</button>'
            f'<label>{escape(words.text("alarm.note"))}<input name="note" maxlength="500"></label></form>'
        )
    elif page.needs_sign_in:
        act = (
            f'<a class="button primary" href="/sign-in?next=/alarms/{number}">'
            f"{escape(words.text('alarm.sign_in'))}</a>"
        )
    told = "".join(f"<li>{escape(line)}</li>" for line in page.told)
    told = told or f"<li>{escape(words.text('alarm.told_nobody'))}</li>"
    content = f"""<section class="card">
<p class="headline"><span class="badge badge-{page.priority}" role="img" aria-label="{page.priority}">{page.priority[1]}</span>
{escape(page.headline)}</p>
<p class="place">{escape(page.place)}</p>
<dl>{facts}</dl>
{guard}
<p>{escape(page.as_of)}</p>
</section>
{said}{act}
<section class="card"><h2>{escape(words.text("alarm.told"))}</h2><ul>{told}</ul></section>"""
    return plain_page(look, words.text("alarm.number", id=f"{number}"), content)


_ICONS: Mapping[str, str] = {
    "closed": "closed",
    "open": "open",
    "violation": "violation",
    "bypass": "bypass",
    "fault": "fault",
    "unknown": "unknown",
    "out": "out",
}

_FAMILIES: Mapping[str, str] = {
    "interlocked_door": "door",
    "locked_door": "door",
    "trapped_key": "key",
    "light_curtain": "curtain",
    "safety_mat": "mat",
    "pull_cord": "cord",
    "estop": "estop",
    "two_hand": "hands",
}

_LOOKS: Mapping[str, str] = {"bypassed": "bypass", "fault": "fault", "out_of_service": "out"}


def appearance_of(guard: Mapping[str, Json], moving: Json) -> tuple[str, str]:
    """Look and word key of a guard now: the same table as the board's `display.js` (a test compares them)."""
    kind, state = str(guard["kind"]), str(guard["state"])
    family = _FAMILIES.get(kind, "door")
    motion = "run" if moving is True else "stop" if moving is False else "unknown"
    opened = "violation" if moving is True else "open"
    match state:
        case "closed_locked":
            return "closed", f"{family}.{'locked' if family in {'door', 'key'} else 'closed'}"
        case "closed" if kind == "locked_door" and guard["locked"] is False:
            return opened, f"lock.unlocked_{motion}"
        case "closed":
            return "closed", f"{family}.closed"
        case "open":
            return "violation" if guard["priority"] == "P1" else opened, f"{family}.open_{motion}"
        case _:
            return _LOOKS.get(state, "unknown"), f"state.{state}"
