"""The violation log as a file: CSV, XLSX or JSON Lines, row by row.

Texts come from plants and people: a cell that a spreadsheet would run as a formula gets an apostrophe in front
(OWASP, CSV injection). CSV is UTF-8 without a byte-order mark, with CRLF line ends (RFC 4180).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell

from edge_agent.wire.event import Json

XLSX_ROWS_MAX = 1_048_575
"""What a sheet holds below its header line."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class Format(StrEnum):
    """What a list can be exported as."""

    JSON = "json"
    CSV = "csv"
    XLSX = "xlsx"
    NDJSON = "ndjson"

    @property
    def media_type(self) -> str:
        """For `Content-Type` and `Accept`."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES: Mapping[Format, str] = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    Format.NDJSON: "application/x-ndjson",
}


def format_of(chosen: Format | None, accept: str) -> Format:
    """The format that was asked for: by name, else by the first of `Accept` that is one of ours, else JSON."""
    if chosen is not None:
        return chosen
    for item in accept.split(","):
        media_type = item.partition(";")[0].strip().lower()
        for known, name in _MEDIA_TYPES.items():
            if name == media_type:
                return known
    return Format.JSON


def inert(value: Json) -> str | int | bool | None:
    """A value as a cell that no spreadsheet runs."""
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def csv_lines(columns: Sequence[str], documents: Iterable[Mapping[str, Json]]) -> Iterator[bytes]:
    """A CSV file in pieces."""
    yield _csv_line(columns)
    for document in documents:
        yield _csv_line([inert(document[name]) for name in columns])


def _csv_line(cells: Sequence[str | int | bool | None]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()


def ndjson_lines(documents: Iterable[Mapping[str, Json]]) -> Iterator[bytes]:
    """JSON Lines in pieces."""
    for document in documents:
        yield json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def xlsx_file(columns: Sequence[str], documents: Iterable[Mapping[str, Json]]) -> bytes:
    """A workbook of one sheet; rows beyond what a sheet holds are left out, and its last row says so."""
    book = Workbook(write_only=True)
    sheet = book.create_sheet("violations")
    sheet.append(list(columns))
    for number, document in enumerate(documents, start=1):
        if number == XLSX_ROWS_MAX:
            sheet.append(["more rows than a sheet holds: narrow the filter, or export csv"])
            break
        sheet.append([_text_cell(sheet, inert(document[name])) for name in columns])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def _text_cell(sheet: object, value: Json) -> object:
    """Text is marked as text, so that nothing in it is taken for a formula; control characters are not XML."""
    if not isinstance(value, str):
        return value
    cell = WriteOnlyCell(sheet, "".join(letter for letter in value if letter.isprintable() or letter == "\n"))
    cell.data_type = "s"
    return cell
