"""Tables of predictions as files: CSV, JSON lines and Parquet."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onetrunk.cli.prediction_rows import CsvRows, JsonRows, PredictionRows
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Missing
from onetrunk.store.atomic import atomic_path
from onetrunk.store.places import check_file

ROW_GROUP = 4096  # rows of a Parquet file that are written together


class ParquetRows(PredictionRows):
    """A Parquet file: labels are lists of text, vectors lists of numbers."""

    def __init__(self, path: Path, tasks: Sequence[Task], top: int | None) -> None:
        import pyarrow
        import pyarrow.parquet

        super().__init__(tasks, top)
        types = {
            "text": pyarrow.string(),
            "score": pyarrow.float32(),
            "number": pyarrow.float64(),
            "labels": pyarrow.list_(pyarrow.string()),
            "vector": pyarrow.list_(pyarrow.float32()),
        }
        text = types["text"]
        fields = [(column.name, types[column.kind]) for column in self.columns()]
        self._schema = pyarrow.schema([("file", text), ("domain", text), *fields, ("error", text)])
        self._make = pyarrow.Table.from_pydict
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[list[Any]] = []

    def write(
        self, file: str, domain: str, prediction: Mapping[str, Any], maps: Mapping[str, str]
    ) -> None:
        self._append([file, domain, *self.values(prediction, maps), None])

    def write_error(self, file: str, domain: str, error: str) -> None:
        self._append([file, domain, *[None] * len(self.columns()), error])

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _append(self, row: list[Any]) -> None:
        row[0] = row[0].encode("utf-8", "backslashreplace").decode()  # text in Parquet is UTF-8
        self._rows.append(row)
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            columns = dict(zip(self._schema.names, map(list, zip(*rows, strict=True)), strict=True))
            self._writer.write_table(self._make(columns, schema=self._schema))


@contextmanager
def _csv(path: Path, tasks: Sequence[Task], top: int | None) -> Iterator[PredictionRows]:
    with path.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = CsvRows(file, tasks, top, errors=True)
        yield rows
        rows.close()


@contextmanager
def _jsonl(path: Path, tasks: Sequence[Task], top: int | None) -> Iterator[PredictionRows]:
    with path.open("x", encoding="utf-8", newline="") as file:
        yield JsonRows(file, tasks, top)


@contextmanager
def _parquet(path: Path, tasks: Sequence[Task], top: int | None) -> Iterator[PredictionRows]:
    rows = ParquetRows(path, tasks, top)
    try:
        yield rows
    finally:
        rows.close()


Writer = Callable[[Path, Sequence[Task], int | None], Any]
WRITERS: Mapping[str, Writer] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def check_table(path: Path, force: bool) -> None:
    """Refuse a file that cannot be written, before the work."""
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise Missing("pyarrow", "parquet", "a Parquet table")
    if path.exists() and not force:
        raise BadInput(
            f"the file {path} exists already", got=str(path), try_="another name, or --force"
        )
    check_file(path)


@contextmanager
def prediction_file(
    path: Path, tasks: Sequence[Task], top: int | None = None
) -> Iterator[PredictionRows]:
    """Open a table that gets its final name when the block ends without an error."""
    with (
        atomic_path(path) as part,
        WRITERS[path.suffix.lower()](part, tasks, top) as rows,
    ):
        yield rows
