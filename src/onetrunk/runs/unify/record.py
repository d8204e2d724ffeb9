"""`unify.json`: the request, the plan and the decisions of `onetrunk unify`, for continuing it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onetrunk.config import Recipe
from onetrunk.errors import BadInput, Failed
from onetrunk.runs.open import read_json
from onetrunk.store.atomic import write_atomic
from onetrunk.store.differ import differ
from onetrunk.store.run_folder import shell
from onetrunk.store.strict_json import strict_json

FILE, REQUEST = "unify.json", "unify.toml"
FORMAT = 1


def earlier_request(folder: Path) -> Recipe | None:
    """Return the recipe of an earlier call in a folder, if there is one."""
    try:
        return Recipe.parse((folder / REQUEST).read_text("utf-8"), folder, what=REQUEST)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {folder / REQUEST}", got=str(error)[:100]) from None


class Record:
    """The decisions so far; every change is written at once.

    Args:
        folder: The folder of the command.
        request: The recipe of the user, as a text in that folder.
        seconds: The time that was asked for.
        data: A digest of the images and labels of each domain.
        command: What continues the work, for messages.
    """

    def __init__(
        self, folder: Path, request: str, seconds: float, data: Mapping[str, str], command: str
    ) -> None:
        self.folder, self.command = folder, command
        document = read_json(folder / FILE)
        if document:
            self._check_format(document)
        if "plan" in document:
            self._check_request(document, request, seconds, data)
            self.document = document
        else:  # nothing is trained yet, so another request may take the place of this one
            self.document = {
                "format": FORMAT,
                "time": seconds,
                "used": 0.0,
                "data": dict(data),
                "stages": {},
            }
            with self.writing():
                write_atomic(folder / REQUEST, request)
        self._began = time.monotonic()
        self._before = float(self.document["used"])
        self.write()

    def _check_format(self, document: Mapping[str, Any]) -> None:
        kinds = {"format": int, "time": float, "used": float, "data": dict, "stages": dict}
        wrong = [k for k, kind in kinds.items() if not isinstance(document.get(k), kind)]
        if wrong or document["format"] != FORMAT:
            raise BadInput(
                f"{self.folder / FILE} is not a record of this version of onetrunk unify",
                got=f"format {document.get('format')!r}, without a valid {', '.join(wrong)}"
                if wrong
                else f"format {document['format']!r}",
                try_=f"another --out, or remove {shell(self.folder)}",
            )

    def _check_request(
        self,
        document: Mapping[str, Any],
        request: str,
        seconds: float,
        data: Mapping[str, str],
    ) -> None:
        """Raise BadInput if the folder holds the work of another request, or on other images."""
        try:
            before = (self.folder / REQUEST).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {self.folder / REQUEST}", got=str(error)[:100]) from None
        changed = list(differ(before, request))
        if document["time"] != seconds:
            changed.append(f"--time ({document['time']:g} s, {seconds:g} s)")
        if changed:
            raise BadInput(
                f"{self.folder} holds the work of another command, which differs in "
                f"{'; '.join(changed[:6])}",
                try_=f"the same settings, another --out, or remove {shell(self.folder)}",
            )
        moved = [name for name, digest in data.items() if document["data"].get(name) != digest]
        if moved:
            raise BadInput(
                f"the images of {', '.join(moved)} have changed since {self.folder} was started",
                try_=f"restore them, another --out, or remove {shell(self.folder)}",
            )

    @property
    def used(self) -> float:
        """The seconds of work so far, without those in which nothing ran."""
        return self._before + time.monotonic() - self._began

    def stage(self, name: str) -> dict[str, Any]:
        """Return the record of a stage, to be changed and then written."""
        stage: dict[str, Any] = self.document["stages"].setdefault(name, {})
        return stage

    def write(self) -> None:
        """Write the file."""
        if not self.document.get("finished"):
            self.document["used"] = round(self.used, 3)
        with self.writing():
            write_atomic(self.folder / FILE, strict_json(self.document, indent=1) + "\n")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn errors of the disk into an error that names the command to continue with."""
        try:
            yield
        except OSError as error:
            raise Failed(
                f"cannot write to {self.folder}", got=error.strerror or str(error),
                try_=f"make room, then {self.command}",
            ) from None  # fmt: skip
