"""Tables of numbers: `.csv` and `.tsv` files."""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from .._text import printable, reason_of
from .memory import check_memory

__all__ = ["TABLES", "Table", "read_table"]

TABLES = (".csv", ".tsv")  # suffixes of the files, in lower case

_DELIMITERS = ("\t", ";", ",")  # a comma may also be a decimal comma, and comes last

_QUOTED = re.compile(r'"(?:[^"]|"")*"')

# A number as C writes it. Python's float() also takes "1_000", which NumPy's reader refuses.
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")

# What stands for a missing number; a first line of numbers and these is a row, and no header.
_MISSING = ("", "?", "-", "na", "n/a", "nan", "null", "none", "inf", "-inf")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*")

_LONGEST = 60  # characters of a cell that an error message shows

# From so many columns on, a first row 0, 1, 2, … is a header. With fewer it may well be data.
_NUMBERED = 3


@dataclass(frozen=True)
class Table:
    """The content of a file of a table.

    Args:
        x: Numbers, float64, shape (N, D), all finite.
        names: Names of the D columns; None without a header.
        labels: The column of labels, shape (N,): int64, float64 or text; None if none was named.
    """

    x: np.ndarray
    names: tuple[str, ...] | None
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class _Form:
    """How the lines of a file are read.

    Args:
        path: The file.
        delimiter: The character between two cells.
        header: Names of the columns; None without a header.
        columns: Number of columns.
    """

    path: Path
    delimiter: str
    header: tuple[str, ...] | None
    columns: int

    def column(self, number: int) -> str:
        """The column of an index from 0 in a message: its name, or its number from 1."""
        return f"column {number + 1}" if self.header is None else _shown(self.header[number])

    def index(self, name: str) -> int:
        """The index of a column from its name.

        Raises:
            ValueError: If there is no header or no such column, or it is the only one.
        """
        if self.header is None:
            raise ValueError(f"{self.path}: labels = {name!r} needs a header with this name")
        if name not in self.header:
            names = ", ".join(map(_shown, self.header))
            raise ValueError(f"{self.path} has no column {_shown(name)} of labels; it has {names}")
        if self.columns == 1:
            raise ValueError(f"{self.path} has no column but that of the labels, {_shown(name)}")
        return self.header.index(name)


def read_table(path: Path, labels: str | None = None) -> Table:
    """All numbers of a `.csv` or `.tsv` file.

    One line holds one row. The delimiter is a tab, a semicolon or a comma, the first of these that
    divides the first line. The first line is a header if one of its cells is a text (but `?`, `NA`
    and the like stand for missing numbers), or if it counts its columns as 0, 1, 2, …. The decimal
    sign is a point. Cells may be in double quotes. Empty lines are left out. The text must be
    UTF-8.

    Args:
        path: The file.
        labels: Name of the column that holds labels, which may be text. None if all columns are
            numbers of the data.

    Raises:
        ValueError: If the file is not such a table, does not fit into memory, has no rows, has
            cells that are not finite numbers, rows of different length, or a header with an empty
            name or with two equal names. The message names the row and the column.
    """
    check_memory(path, path.stat().st_size)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            form = _form_of(path, file)
            return _read(form, file, labels)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a table in UTF-8: {reason_of(error)}") from error
    except MemoryError as error:
        raise ValueError(f"{path} does not fit into memory") from error


def _form_of(path: Path, file: TextIO) -> _Form:
    """The form that the first line shows."""
    line = next((line for line in file if line.strip()), None)
    if line is None:
        raise ValueError(f"{path} is empty")
    bare = _QUOTED.sub("", line)
    delimiter = next((character for character in _DELIMITERS if character in bare), ",")
    cells = _cells(path, line, delimiter)
    others = [cell for cell in cells if not _NUMBER.fullmatch(cell)]
    numbers = len(others) < len(cells) and all(map(_is_no_name, others))
    counted = len(cells) >= _NUMBERED and cells == [str(i) for i in range(len(cells))]
    if numbers and not counted:
        return _Form(path, delimiter, None, len(cells))
    cells[0] = cells[0].removeprefix("#")  # as np.savetxt writes a header
    header = tuple(cell.strip() for cell in cells)
    if "" in header:
        hint = "; pandas writes such a column of row numbers unless index=False is given"
        raise ValueError(
            f"{path}: column {header.index('') + 1} has no name in the header"
            + (hint if header[0] == "" else "")
        )
    twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
    if twice is not None:
        raise ValueError(f"{path}: two columns have the name {_shown(twice)}")
    return _Form(path, delimiter, header, len(cells))


def _is_no_name(cell: str) -> bool:
    """Whether a cell is a missing number or one with a decimal comma, and not a column's name."""
    return cell.strip().lower() in _MISSING or bool(_DECIMAL_COMMA.fullmatch(cell))


def _cells(path: Path, line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{path} is not a table of text: {reason_of(error)}") from error


def _read(form: _Form, file: TextIO, labels: str | None) -> Table:
    """The rows, by NumPy's reader; where it fails, the faulty cell is searched."""
    label = None if labels is None else form.index(labels)
    codes: dict[str, int] = {}
    convert = None
    if label is not None:  # each text of the column becomes a number
        convert = {label: lambda text: codes.setdefault(text.strip(), len(codes))}
    file.seek(0)
    rows = (line for line in file if line.strip())
    if form.header is not None:
        next(rows)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            x = np.loadtxt(
                rows,
                delimiter=form.delimiter,
                comments=None,
                quotechar='"',
                ndmin=2,
                converters=convert,
            )
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise _fault(form, label, reason_of(error)) from error
    if not x.size:
        raise ValueError(f"{form.path} has no row of numbers")
    if x.shape[1] != form.columns or not np.isfinite(x).all() or "" in codes:
        raise _fault(form, label, f"its rows have {x.shape[1]} cells, not {form.columns}")
    if label is None:
        return Table(x, form.header)
    names = tuple(name for i, name in enumerate(form.header) if i != label)
    found = np.array(list(codes))[x[:, label].astype(np.int64)]
    return Table(np.delete(x, label, axis=1), names, _as_numbers(found))


def _as_numbers(text: np.ndarray) -> np.ndarray:
    """Labels as integers or floats, if each of them is one."""
    for kind in (np.int64, np.float64):
        try:
            return text.astype(kind)
        except ValueError:
            continue
    return text


def _fault(form: _Form, label: int | None, reason: str) -> ValueError:
    """The error for the first row or cell that is not as it must be."""
    for row, line, cells in _rows(form):
        where = f"{form.path}: row {row} (line {line})"
        if len(cells) != form.columns:
            return ValueError(f"{where} has {len(cells)} cells, and the first line {form.columns}")
        for number, cell in enumerate(cells):
            at = f"{where}, {form.column(number)}"
            if not cell.strip():
                return ValueError(f"{at}: the cell is empty")
            if number == label:
                continue
            if not _NUMBER.fullmatch(cell):
                return ValueError(f"{at}: {_shown(cell)} is not a finite number")
            if not math.isfinite(float(cell)):
                return ValueError(f"{at}: {_shown(cell)} is too large")
    return ValueError(f"{form.path} is not a table of numbers: {reason}")


def _rows(form: _Form) -> Iterator[tuple[int, int, list[str]]]:
    """The rows of a file: number from 1, number of the line, cells."""
    with form.path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=form.delimiter)
        filled = (cells for cells in reader if len(cells) > 1 or "".join(cells).strip())
        for row, cells in enumerate(filled, 0 if form.header is not None else 1):
            if row:  # row 0 is the header
                yield row, reader.line_num, cells


def _shown(text: str) -> str:
    return repr(printable(text if len(text) <= _LONGEST else text[:_LONGEST] + "…"))
