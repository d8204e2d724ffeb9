"""`hf:PATH` or `hf:OWNER/NAME[/CONFIG]`: a dataset of the `datasets` library.

PATH is a folder that `save_to_disk` wrote. Tasks are columns of ClassLabel (classify), of lists of
them (multilabel), of text or of numbers. Images stay encoded until they are read. No code of a
dataset is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from onetrunk.data.files.labels import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    check_kinds,
    check_not_mistyped,
    empty,
    label_of,
)
from onetrunk.data.files.paths import expanded, regular, split_of
from onetrunk.data.objects.images import ContentKeys, digest_of
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import Item, Label, NoTargets, SourceOptions
from onetrunk.data.task import Kind, Task, check_name
from onetrunk.errors import BadInput, Failed, Missing, shorten

TIMEOUT = 5.0  # seconds for one reply of the hub
KINDS: tuple[Kind, ...] = ("classify", "embed", "multilabel", "regress")


class HuggingFace(NoTargets):
    """A dataset on disk, on the hub or in memory.

    Args:
        loaded: A dataset in memory, in place of `rest`.
    """

    def __init__(self, rest: str, options: SourceOptions, loaded: Any = None) -> None:
        self.name = f"hf:{rest}" if loaded is None else f"a {type(loaded).__name__}"
        self.notes: list[str] = []
        try:
            import datasets
        except ImportError:
            raise Missing("datasets", "hf", self.name) from None
        if loaded is None:
            self._splits = self._usable_splits(_load(rest, Path(options.base), datasets))
        else:  # its `split` says where it was loaded from, not what it is for
            whole = not isinstance(loaded, dict)
            self._splits = {"all": loaded} if whole else self._usable_splits(loaded)
        self._by_content = loaded is not None
        features = next(iter(self._splits.values())).features
        self._features = dict(features)
        self.columns = tuple(self._features)
        for split, part in self._splits.items():
            if part.features != features:
                raise BadInput(f"{self.name}: its splits have different columns", got=split)
        self._image = self._image_column(options.image, datasets)
        self._group = options.group if options.group in features else None
        for split, part in self._splits.items():
            self._splits[split] = part.cast_column(self._image, datasets.Image(decode=False))
        self._columns: dict[str, str] = {}
        self.tasks = self._read_tasks(options.tasks, datasets)

    def items(self) -> Iterator[Item]:
        """Yield every row, split by split, without reading images."""
        for name, part in self._splits.items():
            stamp = part._fingerprint  # the library's hash of the content of the rows
            keys = ContentKeys()
            for index, row in enumerate(self._rows(part)):
                labels: dict[str, Label] = {}
                for task in self.tasks:
                    column = self._columns[task.name]
                    place = f"{self.name}: {name} row {index}, column {column}"
                    labels[task.name] = label_of(task, [self._named(column, row[column])], place)
                where = key = f"{name}/{index}"
                mark, split = f"{stamp}-{index}", split_of(name)
                group = row[self._group] if self._group else None
                alike = None
                if self._by_content:  # rows of a dataset in memory may have been moved
                    mark = self._digest(where)
                    key, alike = keys.of(mark, f"{name}/")
                text = None if empty(group) else str(group)
                yield Item(key, where, mark, split, text, labels, alike)

    def _digest(self, where: str) -> str:
        """Return a hash of the content of an encoded image."""
        try:
            raw = self.image(where)
            return digest_of(raw if isinstance(raw, bytes) else raw.read_bytes())
        except (BadImage, OSError):
            return f"unreadable {where}"

    def _rows(self, part: Any) -> Iterator[dict[str, Any]]:
        """Yield rows without their images."""
        columns = list(self._columns.values()) + ([self._group] if self._group else [])
        if not columns:
            yield from ({} for _ in range(len(part)))
            return
        for batch in part.select_columns(list(dict.fromkeys(columns))).iter(1000):
            for cells in zip(*batch.values(), strict=True):
                yield dict(zip(batch, cells, strict=True))

    def image(self, where: str) -> bytes | Path:
        """Return an encoded image."""
        name, _, index = where.rpartition("/")
        value = self._splits[name][int(index)][self._image]
        if value is None:
            raise BadImage("no image in this row")
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        if not value.get("path"):
            raise BadImage("neither bytes nor a path in this row")
        return regular(Path(value["path"]))

    def _usable_splits(self, loaded: Any) -> dict[str, Any]:
        """Return train, val and test by name; other splits are ignored with a note."""
        if not isinstance(loaded, dict):
            return {str(loaded.split or "all"): loaded}
        usable: dict[str, Any] = {name: part for name, part in loaded.items() if split_of(name)}
        if not usable and len(loaded) == 1:
            return dict(loaded)
        ignored = [name for name in loaded if name not in usable]
        if not usable:
            raise BadInput(
                f"{self.name}: expected splits train, val or test",
                got=shorten(ignored),
                try_="save the dataset with such splits",
            )
        if ignored:
            self.notes.append(f"splits not used: {shorten(ignored)}")
        order = ("train", "val", "test")
        return dict(sorted(usable.items(), key=lambda i: (order.index(str(split_of(i[0]))), i[0])))

    def _image_column(self, requested: str | None, datasets: Any) -> str:
        columns = [n for n, f in self._features.items() if isinstance(f, datasets.Image)]
        if requested in columns:
            return str(requested)
        if requested is not None or len(columns) != 1:
            paths = [n for n in (requested, *IMAGE_COLUMNS) if n in self._features]
            raise BadInput(
                f"{self.name}: expected one column of images",
                got=requested or (shorten(columns) if columns else None),
                available=[f"{n} ({type(f).__name__})" for n, f in self._features.items()],
                try_=f'dataset.cast_column("{paths[0]}", datasets.Image())'
                if paths and not columns
                else f'image = "{columns[0] if columns else "COLUMN"}"',
            )
        return str(columns[0])

    def _named(self, column: str, value: Any) -> Any:
        """Return the name of a ClassLabel's number, or the names of a list; None for no label."""
        feature = self._features[column]
        if hasattr(feature, "int2str"):
            return None if value is None or value == -1 else feature.int2str(value)
        inner: Any = getattr(feature, "feature", None)
        if hasattr(inner, "int2str") and value is not None:
            return [inner.int2str(v) for v in value]
        return value

    def _read_tasks(self, requested: Sequence[Task] | None, datasets: Any) -> tuple[Task, ...]:
        label = [n for n, f in self._features.items() if isinstance(f, datasets.ClassLabel)]
        several = [n for n, f in self._features.items() if self._classes(n) and n not in label]
        if requested is None:
            guesses = label or several
            guesses = guesses or [n for n in LABEL_COLUMNS if n in self._features][:1]
            kind: Kind = "multilabel" if guesses == several and several else "classify"
            if not guesses:
                raise self._no_column("no column of classes", None)
            names = [kind] if len(guesses) == 1 else [_task_name(name) for name in guesses]
            requested = [Task(n, kind, column=c) for n, c in zip(names, guesses, strict=True)]
        check_kinds(self.name, requested, KINDS, "folder: or table: for dense targets")
        tasks = []
        for task in requested:
            check_not_mistyped(self.name, task, self.columns)
            usual = [task.name, *(several if task.kind == "multilabel" else label), *LABEL_COLUMNS]
            columns = [n for n in ([task.column] if task.column else usual) if n in self._features]
            if not columns or columns[0] == self._image:
                raise self._no_column(f"no column for task {task.name}", task.column)
            self._columns[task.name] = columns[0]
            names = self._classes(columns[0])
            if task.kind == "regress" and names:
                raise BadInput(f"{self.name}: column {columns[0]} holds classes, not numbers")
            if not task.classes and names:
                task = task.with_classes(names)
            tasks.append(replace(task, column=columns[0]))
        return tuple(tasks)

    def _classes(self, column: str) -> list[str]:
        feature = self._features[column]
        names = getattr(feature, "names", None) or getattr(
            getattr(feature, "feature", None), "names", None
        )
        return list(names or [])

    def _no_column(self, what: str, got: str | None) -> BadInput:
        return BadInput(
            f"{self.name}: {what}",
            got=got,
            available=[f"{n} ({type(f).__name__})" for n, f in self._features.items()],
            try_='tasks = { NAME = { kind = "classify", column = "COLUMN" } }',
        )


SOURCE = HuggingFace


def _task_name(column: str) -> str:
    return check_name(re.sub(r"[^a-z0-9_-]+", "-", column.lower()).strip("-_")[:64], "task")


def _load(rest: str, base: Path, datasets: Any) -> Any:
    name = f"hf:{rest}"
    path = Path(base, expanded(rest))
    try:
        if path.is_dir():
            if not any((path / f).is_file() for f in ("dataset_dict.json", "dataset_info.json")):
                raise BadInput(
                    f"{name}: expected a folder that save_to_disk wrote",
                    available=sorted(p.name for p in path.iterdir()),
                    try_="dataset.save_to_disk(FOLDER), or table:FILE.parquet, or folder:FOLDER",
                )
            return datasets.load_from_disk(str(path.resolve()))
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+){0,2}", rest):
            raise BadInput(
                f"{name}: expected a folder, or a name on the hub",
                try_="hf:FOLDER, or hf:OWNER/NAME or hf:OWNER/NAME/CONFIG",
            )
        owner, _, config = rest.rpartition("/") if rest.count("/") == 2 else (rest, "", "")
        with _offline_if_unreachable(name, owner, datasets):
            return datasets.load_dataset(owner, config or None)
    except (BadInput, Failed):
        raise
    except Exception as error:  # the library may raise any exception
        raise Failed(
            f"{name}: cannot be loaded",
            got=" ".join(f"{type(error).__name__}: {error}".split())[:200],
            try_="check the name and the network, or save_to_disk elsewhere and hf:FOLDER here",
        ) from None


@contextmanager
def _offline_if_unreachable(name: str, repo: str, datasets: Any) -> Iterator[None]:
    """Inside the block, only the library's cache is used if the hub cannot be reached.

    One request of a few seconds at most decides this; the library would repeat its own for a
    minute.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    before = datasets.config.HF_HUB_OFFLINE
    reason = "offline mode, HF_HUB_OFFLINE" if before else ""
    try:
        if not before:
            HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(repo, timeout=TIMEOUT)
    except HfHubHTTPError:
        pass  # it has replied; the library explains what is wrong with the name
    except Exception as error:  # of the HTTP library, which differs between versions
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    datasets.config.HF_HUB_OFFLINE = bool(reason)
    try:
        yield
    except Exception:
        if not reason:
            raise
        raise Failed(
            f"{name}: the Hugging Face Hub cannot be reached, and the dataset is not in its cache",
            got=reason,
            try_="check the network; or save_to_disk elsewhere, and hf:FOLDER here",
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE = before
