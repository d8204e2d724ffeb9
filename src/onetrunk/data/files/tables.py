"""Rows of CSV, TSV, JSON-lines and Parquet files, streamed, each with its line number."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onetrunk.data.files.labels import read_json
from onetrunk.data.pixels import reason_of
from onetrunk.errors import BadInput, Missing, shorten

Row = Mapping[str, Any]
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")


class Rows:
    """A table file: its columns, and an iterator over its rows."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self.name = name
        self._kind = path.suffix.lower()
        if self._kind not in ENDINGS:
            raise BadInput(
                f"{name}: expected the file name ending of a table",
                got=self._kind or "no ending",
                available=ENDINGS,
                try_="save it as one of these (a .json list as JSON lines, one object per line)",
            )
        if not path.is_file():
            raise BadInput(f"{name}: expected a file", try_="folder:PATH for a folder of images")
        self.columns = self._columns()
        if len(set(self.columns)) < len(self.columns) or not all(self.columns):
            raise BadInput(
                f"{name}: expected a different name for every column", got=shorten(self.columns, 20)
            )

    def read(self, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """Yield ("line 7", {column: cell}) for every row that is not blank.

        Args:
            columns: The columns that are needed; a row may hold others as well.
        """
        try:
            if self._kind in (".csv", ".tsv"):
                yield from self._csv()
            elif self._kind in (".jsonl", ".ndjson"):
                yield from self._json()
            else:
                yield from self._parquet(columns)
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{self.name}: not UTF-8",
                got=f"byte {error.object[error.start]:#x}",
                try_="save the table as UTF-8",
            ) from None
        except OSError as error:
            raise BadInput(f"{self.name}: cannot be read", got=reason_of(error)) from None

    def _columns(self) -> list[str]:
        if self._kind in (".parquet", ".pq"):
            return list(self._parquet_file().schema_arrow.names)
        if self._kind in (".csv", ".tsv"):
            return list(next(self._lines(), (0, []))[1])
        columns: dict[str, None] = {}  # of JSON lines: the keys of all lines, in order
        for _, row in self.read(()):
            columns.update(dict.fromkeys(row))
        return list(columns)

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the lines of a CSV with their numbers; the first one holds the columns."""
        try:
            with open(self._path, encoding="utf-8-sig", newline="") as file:
                first = file.readline()
                file.seek(0)
                delimiter = "\t" if self._kind == ".tsv" else ","
                if self._kind == ".csv" and "," not in first and ";" in first:
                    delimiter = ";"  # from spreadsheets with a decimal comma
                reader = csv.reader(file, delimiter=delimiter, strict=True)
                header = True
                for cells in reader:
                    if cells or header:
                        yield reader.line_num, [c.strip() for c in cells] if header else cells
                    header = False
        except csv.Error as error:
            where = f"{self.name}: line {reader.line_num}"
            raise BadInput(f"{where}: not CSV", got=str(error)) from None
        except UnicodeDecodeError:
            raise BadInput(f"{self.name}: not UTF-8", try_="save the table as UTF-8") from None

    def _csv(self) -> Iterator[tuple[str, Row]]:
        lines = self._lines()
        _, columns = next(lines, (0, []))
        for number, cells in lines:
            if len(cells) != len(columns):
                raise BadInput(
                    f"{self.name}: line {number}: expected {len(columns)} cells",
                    got=len(cells),
                    try_="put cells that contain the separator in quotes",
                )
            yield f"line {number}", dict(zip(columns, cells, strict=True))

    def _json(self) -> Iterator[tuple[str, Row]]:
        with open(self._path, encoding="utf-8-sig") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    row = read_json(text, f"{self.name}: line {number}")
                    if not isinstance(row, dict):
                        raise BadInput(
                            f"{self.name}: line {number}: expected one JSON object per line",
                            got=type(row).__name__,
                        )
                    yield f"line {number}", row

    def _parquet(self, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        number = 0
        with self._parquet_file() as file:
            batches = file.iter_batches(batch_size=4096, columns=list(dict.fromkeys(columns)))
            while (batch := self._next(batches)) is not None:
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row

    def _next(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except Exception as error:  # pyarrow may raise any exception
            raise BadInput(f"{self.name}: a damaged Parquet file", got=reason_of(error)) from None

    def _parquet_file(self) -> Any:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise Missing("pyarrow", "parquet", f"{self.name}: a Parquet table") from None
        try:
            return pyarrow.parquet.ParquetFile(self._path)
        except (pyarrow.ArrowException, OSError) as error:
            raise BadInput(f"{self.name}: not a Parquet file", got=reason_of(error)) from None
