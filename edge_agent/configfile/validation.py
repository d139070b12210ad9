"""pydantic's findings as problems: the right line and column, a sentence for people, and a way to mend it.

The data is validated as JSON (`model_validate_json`, strict), because that is what YAML's core schema can say: an enum
is its text, a path is text, a tuple is a list, and nothing else is converted. pydantic's `loc` is followed through the
data; what it has beyond that (`[key]`, union branches) is not part of the path.
"""

from __future__ import annotations

import copy
import difflib
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edge_agent.configfile.document import Document, PathKey, Plain, step
from edge_agent.configfile.fields import FAULT
from edge_agent.configfile.problem import Problem, in_order

M = TypeVar("M", bound=BaseModel)

CUTS_MAX: Final = 8
"""Rounds of cutting out what does not fit: each may leave a parent incomplete, and files are not nested deeper."""

ECHO_MAX_CHARS: Final = 60
"""How much of a wrong value is shown."""

_WANTED: Final = {
    "string_type": ("text", "write text; put numbers and true/false in quotes if text is meant"),
    "int_type": ("a whole number", "write a whole number without quotes, such as 200"),
    "int_parsing": ("a whole number", "write a whole number such as 200"),
    "int_from_float": ("a whole number", "write a whole number such as 200"),
    "float_type": ("a number", "write a number without quotes, such as 0.1"),
    "finite_number": ("a finite number", "write a number such as 0.1"),
    "bool_type": ("true or false", "write true or false (yes, no, on and off are text in YAML 1.2)"),
    "list_type": ("a list", "write [one, two], or one `- entry` a line"),
    "tuple_type": ("a list", "write [one, two], or one `- entry` a line"),
    "frozen_set_type": ("a list", "write [one, two], or one `- entry` a line"),
    "dict_type": ("a mapping", "write indented `key: value` lines, or {key: value}"),
    "model_type": ("a mapping", "write indented `key: value` lines, or {key: value}"),
    "model_attributes_type": ("a mapping", "write indented `key: value` lines, or {key: value}"),
    "path_type": ("a path", "write the path of a file"),
}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def validate(model: type[M], document: Document) -> M | list[Problem]:
    """`document` as a `model`, or every problem that keeps it from being one."""
    found, problems = validate_partly(model, document)
    return problems if problems or found is None else found


def validate_partly(model: type[M], document: Document) -> tuple[M | None, list[Problem]]:
    """What is left of `document` as a `model` after cutting out what does not fit, and the problems of what was cut.

    For further checks beside the problems, so that people see all their mistakes at once. What is missing in the model
    may have been cut: ask the document before calling it missing. None when too little is left.
    """
    data: Plain = document.data
    problems: list[Problem] = []
    for round_ in range(CUTS_MAX):
        try:
            return model.model_validate_json(json.dumps(data), strict=True), problems
        except ValidationError as error:
            details = error.errors(include_url=False)
        if round_ == 0:
            problems = in_order(_problems(model, document, details))
            data = copy.deepcopy(data)
        for detail in details:
            _cut(data, _path(document.data, detail["loc"])[0])
    return None, problems


def _cut(data: Plain, path: PathKey) -> None:
    """Remove the innermost mapping entry on `path`; lists are removed whole, so that no index moves."""
    here = data
    last: tuple[dict[str, Plain], str] | None = None
    for part in path:
        if isinstance(here, dict) and isinstance(part, str):
            if part not in here:
                break
            last = (here, part)
        here = step(here, part)
    if last is not None:
        last[0].pop(last[1], None)


def _problems(model: type[BaseModel], document: Document, details: list[ErrorDetails]) -> Iterator[Problem]:
    """A misspelt key is one problem: what it was meant to be is not reported missing as well."""
    meant = {
        (*detail["loc"][:-1], near)
        for detail in details
        if detail["type"] == "extra_forbidden"
        and (near := _near_key(_name(detail["loc"]), _known_keys(model, detail["loc"][:-1])))
    }
    for detail in details:
        if detail["type"] != "missing" or detail["loc"] not in meant:
            yield _problem(model, document, detail)


def _problem(model: type[BaseModel], document: Document, detail: ErrorDetails) -> Problem:
    path, is_key = _path(document.data, detail["loc"])
    name = _name(detail["loc"])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return document.problem(path, f"`{name}` is missing", f"add `{name}: …` here", at_key=True)
        case "extra_forbidden":
            mend = _unknown_key_mend(name, _known_keys(model, path[:-1]))
            return document.problem(path, f"unknown key `{name}`", mend, at_key=True)
        case kind:
            shown = _shown(document, path, detail["input"])
            what, mend = _sentence(kind, name, shown, detail, context)
            return document.problem(path, what, mend, at_key=is_key)


def _sentence(
    kind: str, name: str, shown: str, detail: ErrorDetails, context: Mapping[str, Any]
) -> tuple[str, str]:
    if kind == FAULT:
        return f"`{name}`: {context['what']}", str(context["mend"])
    if kind in _WANTED:
        wanted, mend = _WANTED[kind]
        return f"`{name}` must be {wanted}, not {shown}", mend
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = f"{words} {context[key]:.12g}"
        return f"`{name}` is {shown}, but must be {bound}", f"write a number {bound}"
    if kind in ("enum", "literal_error", "union_tag_invalid"):
        allowed = (
            str(context.get("expected") or context.get("expected_tags", ""))
            .replace("'", "")
            .replace(" or ", ", ")
        )
        return f"`{name}` is {shown}, which is not known", _choice_mend(
            str(detail["input"]), allowed.split(", ")
        )
    if kind in ("too_short", "string_too_short"):
        return f"`{name}` has too few entries or characters", f"give at least {context['min_length']}"
    if kind in ("too_long", "string_too_long"):
        return f"`{name}` has too many entries or characters", f"give at most {context['max_length']}"
    if kind == "string_pattern_mismatch":
        return f"`{name}` is {shown}, which has not the required form", f"match {context['pattern']}"
    if kind == "value_error":
        return f"`{name}`: {context['error']}", "correct the value"
    return f"`{name}` is {shown}, which does not fit here", "compare with the files in config/examples"


def _path(data: Plain, loc: tuple[int | str, ...]) -> tuple[PathKey, bool]:
    """How far `loc` follows the data (a last part that is not there is kept), and whether it means a key."""
    path: list[int | str] = []
    here: Plain = data
    for part in loc:
        below = step(here, part)
        if below is None and not (isinstance(here, dict) and part in here):
            continue
        here = below
        path.append(part)
    return tuple(path), bool(loc) and loc[-1] == "[key]"


def _name(loc: tuple[int | str, ...]) -> str:
    """What people call the value: its key, or the list's key and the entry counted from 1."""
    parts = [part for part in loc if part != "[key]"]
    if not parts:
        return "the file"
    if isinstance(parts[-1], int):
        return f"{parts[-2] if len(parts) > 1 else 'entry'}[{parts[-1]}]"
    return parts[-1][:ECHO_MAX_CHARS]


def _shown(document: Document, path: PathKey, value: object) -> str:
    if document.is_substituted(path):
        return "what the environment gave"
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value[:ECHO_MAX_CHARS]}"'
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)[:ECHO_MAX_CHARS]


def _choice_mend(got: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(got, allowed, n=1)
    hint = f"did you mean {near[0]}? Else " if near else ""
    return f"{hint}write one of {', '.join(allowed)}"


def _near_key(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)


def _unknown_key_mend(name: str, known: Iterable[str]) -> str:
    keys = sorted(known)
    if near := _near_key(name, keys):
        return f"did you mean `{near}`?"
    if name == "<<":
        return "YAML 1.2 has no merge keys: write the keys out"
    return f"known here: {', '.join(keys)}" if keys else "remove it"


def _known_keys(annotation: Any, path: PathKey) -> set[str]:  # annotations have no common type
    """The keys that models allow at `path`, found by following annotations."""
    keys: set[str] = set()
    for option in _options(annotation):
        is_model = isinstance(option, type) and issubclass(option, BaseModel)
        if not path:
            keys |= {field.alias or key for key, field in option.model_fields.items()} if is_model else set()
        elif is_model:
            field = next((f for k, f in option.model_fields.items() if (f.alias or k) == path[0]), None)
            keys |= _known_keys(field.annotation, path[1:]) if field else set()
        elif get_args(option):
            keys |= _known_keys(get_args(option)[0 if get_origin(option) in (list, tuple) else -1], path[1:])
    return keys


def _options(annotation: Any) -> list[Any]:  # annotations have no common type
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [option for part in get_args(annotation) for option in _options(part)]
    if hasattr(annotation, "__metadata__"):
        return _options(get_args(annotation)[0])
    return [annotation]
