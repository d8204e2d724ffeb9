"""Where a comparison's rows lie: not among other things, and no row where another one is."""

from __future__ import annotations

from pathlib import Path

from onetrunk.config.methods import choose_methods
from onetrunk.errors import BadInput
from onetrunk.store.differ import differ
from onetrunk.store.run_folder import RECIPE, shell


def check_row(folder: Path, text: str) -> None:
    """Refuse a row that was learned otherwise."""
    there = folder / RECIPE
    if there.is_file() and (keys := differ(there.read_text("utf-8"), text)):
        raise BadInput(
            f"{folder} holds another row: its recipe differs in {'; '.join(keys[:6])}",
            try_=f"another --out, or remove {shell(folder)}",
        )


def check_place(out: Path, name: str) -> None:
    """Rows never lie among images, or in a run."""
    there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    others = [each for each in there if each[0] != "." and each not in (*choose_methods(()), name)]
    if (out.exists() and not out.is_dir()) or (others and name not in there):
        raise BadInput(
            f"{out} is no folder of a comparison, and not empty",
            available=others,
            try_="another --out",
        )
