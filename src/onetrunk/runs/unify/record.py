"""`unify.json`: the request, the plan and the decisions of `onetrunk unify`, for continuing it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from onetrunk.config import Recipe
from onetrunk.errors import BadInput
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
    """

    def __init__(self, folder: Path, request: str, seconds: float) -> None:
        self.folder = folder
        self._check(request, seconds)
        document = read_json(folder / FILE)
        if document and document.get("format") != FORMAT:
            raise BadInput(
                f"{folder / FILE} has an unknown format",
                got=document.get("format"),
                available=[FORMAT],
                try_=f"another --out, or remove {shell(folder)}",
            )
        self.document: dict[str, Any] = document or {
            "format": FORMAT,
            "time": seconds,
            "used": 0.0,
            "stages": {},
        }
        self._began = time.monotonic()
        self._before = float(self.document["used"])
        if not document:
            write_atomic(folder / REQUEST, request)
            self.write()

    def _check(self, request: str, seconds: float) -> None:
        """Raise BadInput if the folder holds the work of another request."""
        try:
            before = (self.folder / REQUEST).read_text("utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {self.folder / REQUEST}", got=str(error)[:100]) from None
        changed = [
            key for key in differ(before, request) if not key.startswith(("out (", "base ("))
        ]
        asked = read_json(self.folder / FILE).get("time", seconds)
        if asked != seconds:
            changed.append(f"--time ({asked:g} s, {seconds:g} s)")
        if changed:
            raise BadInput(
                f"{self.folder} holds the work of another command, which differs in "
                f"{'; '.join(changed[:6])}",
                try_=f"the same settings, another --out, or remove {shell(self.folder)}",
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
        self.document["used"] = round(self.used, 3)
        write_atomic(self.folder / FILE, strict_json(self.document, indent=1) + "\n")
