"""A CSV table as a document: rows with the position of every cell, for lists that plants keep in spreadsheets.

The first line names the columns; empty lines and cells are left out; a cell has its core-schema value unless its column
is text. The result's data is `{"rows": [{column: value, …}, …]}`, so that a file model and `document.problem` work on
it as on YAML.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import yaml
from yaml.error import Mark

from edge_agent.configfile.document import FILE_MAX_BYTES, Document, Plain
from edge_agent.configfile.nodes import MAP, SEQ, STR, core_tag, core_value
from edge_agent.configfile.problem import Problem, in_order

ROWS: Final = "rows"
"""The one key of a table's data."""


def load_table(path: Path, *, text_columns: Collection[str]) -> Document | list[Problem]:
    """The CSV file at `path` (UTF-8, comma-separated), or everything that keeps it from being one. Never raises."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        return [Problem(file, 1, 1, f"the table cannot be read: {reason}", "check path and permissions")]
    if len(content) > FILE_MAX_BYTES:
        return [
            Problem(
                file, 1, 1, f"the table is larger than {FILE_MAX_BYTES} bytes", "split it over several agents"
            )
        ]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return [Problem(file, line, 1, "this is not UTF-8 text", "save it as “CSV UTF-8 (comma delimited)”")]
    return _Table(file, text_columns).read(text)


class _Table:
    """One pass over a table, collecting problems and going on."""

    def __init__(self, file: str, text_columns: Collection[str]) -> None:
        self._file = file
        self._text_columns = text_columns
        self._problems: list[Problem] = []

    def read(self, text: str) -> Document | list[Problem]:
        rows: list[Plain] = []
        nodes: list[yaml.Node] = []
        header: list[str] = []
        for line, cells in self._records(text):
            names = [name for _, name in cells]
            if not header:
                header = names
                self._check_header(line, cells)
                continue
            if len(cells) != len(header):
                self._add(
                    line,
                    1,
                    f"{len(cells)} cells instead of {len(header)}",
                    "give each column a cell; quote commas",
                )
                continue
            row, node = self._row(line, header, cells)
            rows.append(row)
            nodes.append(node)
        if not header:
            self._add(1, 1, "the table is empty", "start with a line that names the columns")
        if self._problems:
            return in_order(self._problems)
        start = _mark(1, 1)
        listed = yaml.SequenceNode(SEQ, nodes, start, start)
        root = yaml.MappingNode(MAP, [(yaml.ScalarNode(STR, ROWS, start, start), listed)], start, start)
        return Document(self._file, {ROWS: rows}, root, frozenset())

    def _records(self, text: str) -> Iterator[tuple[int, list[tuple[int, str]]]]:
        """Each record that is not empty: its line, and its cells with their columns (1 where quotes hide them)."""
        lines = text.splitlines()
        reader = csv.reader(lines, strict=True)
        try:
            for record in reader:
                if any(cell.strip() for cell in record):
                    raw = lines[reader.line_num - 1]
                    yield reader.line_num, _placed(raw, record)
        except csv.Error as error:
            self._add(
                reader.line_num or 1,
                1,
                f"this is not readable as CSV: {error}",
                "check the quotes of this line",
            )

    def _check_header(self, line: int, cells: list[tuple[int, str]]) -> None:
        seen: set[str] = set()
        for col, name in cells:
            if not name:
                self._add(line, col, "a column has no name", "name it, or remove it")
            elif name in seen:
                self._add(line, col, f"the column `{name}` stands twice", "keep one of the two")
            seen.add(name)

    def _row(
        self, line: int, header: list[str], cells: list[tuple[int, str]]
    ) -> tuple[dict[str, Plain], yaml.MappingNode]:
        row: dict[str, Plain] = {}
        pairs: list[tuple[yaml.ScalarNode, yaml.ScalarNode]] = []
        for name, (col, text) in zip(header, cells, strict=True):
            if not text:
                continue
            tag = STR if name in self._text_columns else core_tag(text)
            row[name] = core_value(tag, text)
            mark = _mark(line, col)
            pairs.append((yaml.ScalarNode(STR, name, mark, mark), yaml.ScalarNode(tag, text, mark, mark)))
        start = _mark(line, 1)
        return row, yaml.MappingNode(MAP, pairs, start, start)

    def _add(self, line: int, col: int, what: str, mend: str) -> None:
        self._problems.append(Problem(self._file, line, col, what, mend))


def _placed(raw: str, record: list[str]) -> list[tuple[int, str]]:
    if '"' in raw:
        return [(1, cell.strip()) for cell in record]
    placed: list[tuple[int, str]] = []
    start = 0
    for cell in record:
        placed.append((start + 1 + len(cell) - len(cell.lstrip()), cell.strip()))
        start += len(cell) + 1
    return placed


def _mark(line: int, col: int) -> Mark:
    return Mark("", 0, line - 1, col - 1, None, 0)
