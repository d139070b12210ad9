"""A configuration file as plain data that still knows where everything stood.

Theory of operation. `load` reads at most `FILE_MAX_BYTES`, decodes UTF-8, composes nodes (`nodes`) and walks them
once: keys become text (duplicates are problems), scalars get their core-schema value after `${NAME}` was replaced,
aliases are followed within a bound. The walk collects every problem and goes on. Positions are not stored a second
time: a path is looked up in the node tree when somebody asks, which happens for problems only.

`${NAME}` stands for the environment variable NAME, `$$` for one dollar sign; any other `$` is itself. A plain scalar
in which something was replaced gets its type from the new text (`${PORT}` can be a number), a quoted one stays text.

Source: the outside contract, section 2; YAML 1.2.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

import yaml

from edge_agent.configfile.collecting import collection_paused
from edge_agent.configfile.nodes import MAP, SCALAR_TAGS, SEQ, Scalar, compose, core_tag, core_value, position
from edge_agent.configfile.problem import Problem, in_order

FILE_MAX_BYTES: Final = 64 * 1024 * 1024
"""Five times the largest plant that is tested (25 600 guards); above it, it is not a configuration."""

ALIASED_NODES_MAX: Final = 200_000
"""Nodes that may come from aliases: enough to share any setting, too few for an expansion bomb."""

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
PathKey: TypeAlias = tuple[str | int, ...]

_DOLLAR: Final = re.compile(r"\$(?:\$|\{([^}]*)(\}?))")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Document:
    """Plain data of one file, with the position of everything in it. Made by `load` or `parse`."""

    def __init__(
        self, file: str, data: dict[str, Plain], root: yaml.Node, substituted: frozenset[int]
    ) -> None:
        self.file = file
        self.data = data
        self._root = root
        self._substituted = substituted
        self._indexes: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}

    @property
    def directory(self) -> Path:
        """The folder that relative paths in the file start from."""
        return Path(self.file).parent

    def resolve(self, text: str | Path) -> Path:
        """A path that stands in the file, relative to the file."""
        return self.directory / Path(text).expanduser()

    def value(self, path: PathKey) -> Plain:
        """The plain value at `path`, or None where there is none."""
        here: Plain = self.data
        for part in path:
            here = step(here, part)
        return here

    def value_position(self, path: PathKey) -> tuple[int, int]:
        """Line and column of the value at `path`, or of its nearest ancestor."""
        _, value = self._find(path)
        return position(value.start_mark)

    def key_position(self, path: PathKey) -> tuple[int, int]:
        """Line and column of the key (or list entry) at `path`, or of its nearest ancestor."""
        key, _ = self._find(path)
        return position(key.start_mark)

    def is_substituted(self, path: PathKey) -> bool:
        """Whether the value holds text from the environment, which must not be echoed."""
        _, value = self._find(path)
        return id(value) in self._substituted

    def problem(self, path: PathKey, what: str, mend: str, *, at_key: bool = False) -> Problem:
        """A problem at the value (or key) at `path`."""
        line, col = self.key_position(path) if at_key else self.value_position(path)
        return Problem(self.file, line, col, what, mend)

    def _find(self, path: PathKey) -> tuple[yaml.Node, yaml.Node]:
        key = value = self._root
        for part in path:
            if isinstance(value, yaml.MappingNode) and (pair := self._index(value).get(str(part))):
                key, value = pair
            elif isinstance(value, yaml.SequenceNode) and isinstance(part, int) and part < len(value.value):
                key = value = value.value[part]
            else:
                break
        return key, value

    def _index(self, node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        index = self._indexes.get(id(node))
        if index is None:
            index = {key.value: (key, value) for key, value in node.value if isinstance(key.value, str)}
            self._indexes[id(node)] = index
        return index


def step(here: Plain, part: str | int) -> Plain:
    """One step of a path into plain data; None where it leads nowhere."""
    if isinstance(here, dict):
        return here.get(str(part))
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return here[part]
    return None


def load(path: Path, environ: Mapping[str, str]) -> Document | list[Problem]:
    """The configuration file at `path`, or everything that keeps it from being one. Never raises."""
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        return [Problem(str(path), 1, 1, "there is no such file", "check the path")]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        return [Problem(str(path), 1, 1, f"the file cannot be read: {reason}", "check path and permissions")]
    return parse(content, str(path), environ)


def parse(content: bytes, file: str, environ: Mapping[str, str]) -> Document | list[Problem]:
    """`content` as the configuration file named `file`, or all its problems. Never raises."""
    if len(content) > FILE_MAX_BYTES:
        return [
            Problem(
                file,
                1,
                1,
                f"the file is larger than {FILE_MAX_BYTES} bytes",
                "split the plant over several agents",
            )
        ]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        line, col = before.count("\n") + 1, len(before) - before.rfind("\n")
        return [Problem(file, line, col, "this is not UTF-8 text", "save the file with the encoding UTF-8")]
    with collection_paused():
        return _build(text, file, environ)


def _build(text: str, file: str, environ: Mapping[str, str]) -> Document | list[Problem]:
    root = compose(text, file)
    if isinstance(root, Problem):
        return [root]
    walk = _Walk(file, environ)
    data = walk.plain(root)
    if not isinstance(data, dict):
        line, col = position(root.start_mark)
        walk.problems.append(
            Problem(file, line, col, "the file is no mapping", "start with `key: value` lines")
        )
    if walk.problems or not isinstance(data, dict):
        return in_order(walk.problems)
    return Document(file, data, root, frozenset(walk.substituted))


class _Walk:
    """One pass over a node tree, collecting problems and going on."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.substituted: set[int] = set()
        self._file = file
        self._environ = environ
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._aliased = 0

    def plain(self, node: yaml.Node) -> Plain:
        """The plain data of a node; None stands in for what has a problem."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if not self._may_enter(node):
            return None
        self._open.add(id(node))
        result: Plain
        if isinstance(node, yaml.MappingNode):
            result = self._mapping(node)
        else:
            result = [self.plain(item) for item in node.value]
        self._open.discard(id(node))
        return result

    def _may_enter(self, node: yaml.Node) -> bool:
        if id(node) in self._open:
            self._add(node, "an alias stands inside its own anchor", "write the value out")
            return False
        if self._aliased > ALIASED_NODES_MAX:
            return False
        if id(node) in self._seen:
            self._aliased += len(node.value)
            if self._aliased > ALIASED_NODES_MAX:
                self._add(
                    node, f"aliases repeat more than {ALIASED_NODES_MAX} values", "write the values out"
                )
                return False
        self._seen.add(id(node))
        if node.tag not in (MAP, SEQ):
            self._add(node, f"the tag {node.tag[:60]} has no meaning here", "remove it")
        return True

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Plain]:
        result: dict[str, Plain] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._add(key_node, "a key is a list or mapping", "use text as key")
                continue
            key = key_node.value
            if key in lines:
                self._add(
                    key_node,
                    f"the key `{key[:60]}` stands twice, first in line {lines[key]}",
                    "keep one of the two",
                )
                continue
            lines[key] = key_node.start_mark.line + 1
            result[key] = self.plain(value_node)
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Scalar:
        text: str = node.value
        tag: str = node.tag
        if "$" in text and id(node) not in self._seen:
            replaced = _DOLLAR.sub(lambda match: self._variable(node, match), text)
            if replaced != text and not node.style:
                tag = core_tag(replaced)
            self._seen.add(id(node))
            node.value, node.tag, text = replaced, tag, replaced
        try:
            if tag in SCALAR_TAGS:
                return core_value(tag, text)
        except (ValueError, OverflowError) as error:
            self._add(node, str(error), "write a value of that kind")
            return None
        self._add(node, f"the tag {tag[:60]} has no meaning here", "remove it")
        return None

    def _variable(self, node: yaml.ScalarNode, match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        name = match.group(1)
        if not match.group(2) or not _NAME.fullmatch(name):
            self._add(
                node, f"`{match.group(0)[:40]}` names no variable", "write ${NAME}, or $$ for a dollar sign"
            )
            return ""
        value = self._environ.get(name)
        if value is None:
            self._add(
                node, f"the environment variable {name} is not set", f"set {name}, or write the value here"
            )
            return ""
        if not value.isprintable():
            self._add(
                node,
                f"the environment variable {name} holds unprintable characters",
                f"set {name} to plain UTF-8 text",
            )
            return ""
        self.substituted.add(id(node))
        return value

    def _add(self, node: yaml.Node, what: str, mend: str) -> None:
        line, col = position(node.start_mark)
        self.problems.append(Problem(self._file, line, col, what, mend))
