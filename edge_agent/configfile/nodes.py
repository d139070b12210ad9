"""YAML text to a node tree with line and column, by PyYAML's C parser and the YAML 1.2 core schema.

PyYAML resolves scalars by YAML 1.1 (`no` is false, `1:30` is ninety, `2024-01-01` a date); none of that is used.
The C parser composes nodes, which know where they stand, and asks `resolve` for the meaning of each scalar: here the
core schema of YAML 1.2.2 (10.3.2). Nesting is bounded while composing, because the C parser recurses on the C stack
and a file of brackets would end the process.
"""

from __future__ import annotations

import math
import re
from typing import Final

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # re-exported without saying so
from yaml.error import Mark

from edge_agent.configfile.problem import Problem

DEPTH_MAX: Final = 64
"""Levels of nesting: four times what any of our files needs, far below what the C stack holds."""

CORE: Final = "tag:yaml.org,2002:"
NULL, BOOL, INT, FLOAT, STR, MAP, SEQ = (
    CORE + name for name in ("null", "bool", "int", "float", "str", "map", "seq")
)
SCALAR_TAGS: Final = frozenset((NULL, BOOL, INT, FLOAT, STR))

Scalar = str | int | float | bool | None

_PATTERNS: Final = (
    (NULL, re.compile(r"null|Null|NULL|~|")),
    (BOOL, re.compile(r"true|True|TRUE|false|False|FALSE")),
    (INT, re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")),
    (FLOAT, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")),
    (FLOAT, re.compile(r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN")),
)
_SPECIAL_FIRST: Final = frozenset("nN~tTfF0123456789+-.")

INT_DIGITS_MAX: Final = 40
"""Longest integer taken as one (a 64-bit value has 20 digits); Python itself refuses to convert above 4300."""


def core_tag(text: str) -> str:
    """The tag that the core schema gives to a plain scalar."""
    if text and text[0] not in _SPECIAL_FIRST:
        return STR
    for tag, pattern in _PATTERNS:
        if pattern.fullmatch(text):
            return STR if tag == INT and len(text) > INT_DIGITS_MAX else tag
    return STR


def core_value(tag: str, text: str) -> Scalar:
    """The value of a scalar with this tag; raises `ValueError` where the text is none of its kind."""
    if tag == STR:
        return text
    if core_tag(text) != tag and not (tag == FLOAT and core_tag(text) == INT):
        raise ValueError(f"{text[:40]!r} is no {tag.removeprefix(CORE)}")
    if tag == NULL:
        return None
    if tag == BOOL:
        return text.lower() == "true"
    if tag == INT:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return _float(text.lower())


def _float(text: str) -> float:
    if text.endswith(".nan"):
        return math.nan
    if text.endswith(".inf"):
        return -math.inf if text.startswith("-") else math.inf
    return float(text)


class _TooDeep(yaml.YAMLError):
    """Nesting beyond `DEPTH_MAX`."""


class _Composer(CParser):
    """The C parser with our meaning of scalars and a bound on depth."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def resolve(self, kind: type[yaml.Node], value: str, implicit: object) -> str:
        """Called by the C parser for each node without an explicit tag."""
        if kind is yaml.ScalarNode:
            is_plain = isinstance(implicit, tuple) and implicit[0]
            return core_tag(value) if is_plain else STR
        return MAP if kind is yaml.MappingNode else SEQ

    def descend_resolver(self, parent: yaml.Node | None, index: object) -> None:
        """Called by the C parser before each child."""
        del parent, index
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _TooDeep

    def ascend_resolver(self) -> None:
        """Called by the C parser after each child."""
        self._depth -= 1


def compose(text: str, file: str) -> yaml.Node | Problem:
    """The node tree of the one document in `text`, or the one problem that keeps it from being YAML."""
    try:
        root = _Composer(text).get_single_node()
    except _TooDeep:
        return Problem(file, 1, 1, f"more than {DEPTH_MAX} levels of nesting", "look for unclosed brackets")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, col = position(mark) if mark else (1, 1)
        return Problem(
            file, line, col, f"this is not readable as YAML: {_reason(error)}", _syntax_mend(error)
        )
    except yaml.reader.ReaderError as error:
        return _unprintable(text, file, error)
    except yaml.YAMLError:
        return Problem(file, 1, 1, "this is not readable as YAML", "write the file anew as UTF-8 text")
    if root is None:
        return Problem(file, 1, 1, "the file is empty", "start from a file in config/examples")
    return root


def position(mark: Mark) -> tuple[int, int]:
    """Line and column of a mark, counted from 1."""
    return mark.line + 1, mark.column + 1


def _reason(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    return ", ".join(parts) or "unknown syntax"


_SYNTAX_MENDS: Final = (
    (
        "character that cannot start any token",
        "indent with spaces, not tabs; put text that starts with @, ` or % in quotes",
    ),
    ("mapping values are not allowed", "check the indentation, or put text with a colon in it in quotes"),
    ("could not find expected ':'", "write `key: value`, or check the indentation of this line"),
    ("undefined alias", "define the anchor (&name) first, or put text that starts with * in quotes"),
    ("but found another document", "keep one document in a file: remove the line ---"),
    ("unexpected end of stream", "close the quotes or brackets that were opened before"),
    ("flow", "close the brackets, and put a comma between the entries"),
    ("block mapping", "check the indentation: keys of one mapping start in the same column"),
    ("block collection", "check the indentation: entries of one list start in the same column"),
    ("escape", "write a backslash twice inside double quotes, or use single quotes"),
)


def _syntax_mend(error: yaml.MarkedYAMLError) -> str:
    reason = _reason(error)
    return next((mend for sign, mend in _SYNTAX_MENDS if sign in reason), "check the syntax of this line")


def _unprintable(text: str, file: str, error: yaml.reader.ReaderError) -> Problem:
    before = text.encode("utf-8", "surrogatepass")[: int(error.position)].decode("utf-8", "ignore")
    line, col = before.count("\n") + 1, len(before) - before.rfind("\n")
    code = int(error.character) if isinstance(error.character, int) else 0
    return Problem(file, line, col, f"a control character (U+{code:04X}) stands here", "remove it")
