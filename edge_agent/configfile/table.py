"""A CSV table as a document: rows with the position of every cell, for lists that plants keep in spreadsheets.

The first line names the columns; empty lines and cells are left out; a cell has its core-schema value unless its column
is text. The result's data is `{"rows": [{column: value, …}, …]}`, so that a file model and `document.problem` work on
it as on YAML.

What spreadsheets write is read as it was meant, wherever only one meaning is possible: UTF-8 with or without a byte
order mark, UTF-16 (Excel's "Unicode text"), GB 18030 (Chinese Excel's "CSV"); columns parted by comma, semicolon or tab,
whichever the first line has most of; full-width letters, digits and punctuation; an apostrophe before a text; decimal
commas where the comma does not part columns; columns named in Chinese, by `aliases`.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import yaml
from yaml.error import Mark

from edge_agent.configfile.document import FILE_MAX_BYTES, Document, Plain
from edge_agent.configfile.nodes import MAP, SEQ, STR, core_tag, core_value
from edge_agent.configfile.problem import Problem, in_order

ROWS: Final = "rows"
"""The one key of a table's data."""


_DELIMITERS: Final = (",", ";", "\t")
_DECIMAL_COMMA: Final = re.compile(r"[-+]?[0-9]+,[0-9]+")


def load_table(
    path: Path, *, text_columns: Collection[str], aliases: Mapping[str, str]
) -> Document | list[Problem]:
    """The CSV file at `path`, or everything that keeps it from being one. Never raises.

    `aliases` are other names of columns, as they stand in plants' lists.
    """
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
    text = _decoded(content)
    if text is None:
        line = content[: _first_bad(content)].count(b"\n") + 1
        mend = "save it as “CSV UTF-8 (comma delimited)”"
        return [Problem(file, line, 1, "this is neither UTF-8 nor GB 18030 text", mend)]
    return _Table(file, text_columns, aliases).read(text)


def _decoded(content: bytes) -> str | None:
    """The text, or None. Of the encodings tried only UTF-8 can tell that it is not meant; GB 18030 takes nearly all."""
    is_utf16 = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    for encoding in ("utf-16",) if is_utf16 else ("utf-8-sig", "gb18030"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _first_bad(content: bytes) -> int:
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return error.start
    return 0


class _Table:
    """One pass over a table, collecting problems and going on."""

    def __init__(self, file: str, text_columns: Collection[str], aliases: Mapping[str, str]) -> None:
        self._file = file
        self._text_columns = text_columns
        self._aliases = aliases
        self._delimiter = ","
        self._problems: list[Problem] = []

    def read(self, text: str) -> Document | list[Problem]:
        rows: list[Plain] = []
        nodes: list[yaml.Node] = []
        header: list[str] = []
        for line, cells in self._records(text):
            if not header:
                header = [self._aliases.get(name.lower(), name.lower()) for _, name in cells]
                self._check_header(line, header, cells)
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
        head = next((line for line in lines if line.strip()), "")
        self._delimiter = max(_DELIMITERS, key=head.count)
        reader = csv.reader(lines, strict=True, delimiter=self._delimiter)
        try:
            for record in reader:
                if any(cell.strip() for cell in record):
                    raw = lines[reader.line_num - 1]
                    yield reader.line_num, _placed(raw, [_plain(cell) for cell in record], record)
        except csv.Error as error:
            self._add(
                reader.line_num or 1,
                1,
                f"this is not readable as CSV: {error}",
                "check the quotes of this line",
            )

    def _check_header(self, line: int, header: list[str], cells: list[tuple[int, str]]) -> None:
        seen: set[str] = set()
        for name, (col, _) in zip(header, cells, strict=True):
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
        for name, (col, cell) in zip(header, cells, strict=True):
            if not cell:
                continue
            has_decimal_comma = self._delimiter != "," and name not in self._text_columns
            text = cell.replace(",", ".") if has_decimal_comma and _DECIMAL_COMMA.fullmatch(cell) else cell
            tag = STR if name in self._text_columns else core_tag(text)
            row[name] = core_value(tag, text)
            mark = _mark(line, col)
            pairs.append((yaml.ScalarNode(STR, name, mark, mark), yaml.ScalarNode(tag, text, mark, mark)))
        start = _mark(line, 1)
        return row, yaml.MappingNode(MAP, pairs, start, start)

    def _add(self, line: int, col: int, what: str, mend: str) -> None:
        self._problems.append(Problem(self._file, line, col, what, mend))


def _plain(cell: str) -> str:
    """A cell without what only a spreadsheet or an input method put there: full-width forms, a leading apostrophe."""
    return unicodedata.normalize("NFKC", cell).strip().removeprefix("'")


def _placed(raw: str, cells: list[str], record: list[str]) -> list[tuple[int, str]]:
    """Each cell with its column; 1 where quotes hide it."""
    if '"' in raw:
        return [(1, cell) for cell in cells]
    placed: list[tuple[int, str]] = []
    start = 0
    for cell, written in zip(cells, record, strict=True):
        placed.append((start + 1 + len(written) - len(written.lstrip()), cell))
        start += len(written) + 1
    return placed


def _mark(line: int, col: int) -> Mark:
    return Mark("", 0, line - 1, col - 1, None, 0)
