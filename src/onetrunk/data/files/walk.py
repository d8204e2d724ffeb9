"""Folders of images read in the order of names, and all that is odd in them said at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

from onetrunk.data.files.paths import IMAGE_ENDINGS, Root, some
from onetrunk.errors import BadInput


class Walk:
    """One reading of a folder tree; what is wrong and what was left out is kept for the end."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._entries: dict[str, tuple[list[str], list[str]]] = {}
        self.wrong: list[str] = []
        self.said: list[str] = []
        self._passed: list[str] = []
        self._links: list[str] = []

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in it, hidden ones left out."""
        return self._keep(folder)[0]

    def files(self, folder: str) -> list[str]:
        """Names of the image files in it."""
        return self._keep(folder)[1]

    def images(self, folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
        """Every image file below it, as a path relative to the root."""
        real = os.path.realpath(self._root.folder / folder)
        if real in above:  # a link to a folder that holds it
            self._links.append(folder)
            return
        folders, files = self._read(folder)
        kinds = {**dict.fromkeys(files, False), **dict.fromkeys(folders, True)}
        for name in sorted(kinds):
            path = f"{folder}/{name}" if folder else name
            if kinds[name]:
                yield from self.images(path, (*above, real))
            else:
                yield path

    def notes(self) -> list[str]:
        """What people should know, a line each."""
        notes = list(self.said)
        if self._passed:
            notes.append(f"passed over, no images by their ending: {counted(self._passed)}")
        if self._links:
            notes.append(f"passed over, links that lead out or in a circle: {counted(self._links)}")
        return notes

    def stop_if_wrong(self, name: str) -> None:
        """One line of all that is wrong."""
        if self.wrong:
            raise BadInput(
                "; ".join([f"{name}: {self.wrong[0]}", *self.wrong[1:], *self.notes()]),
                try_="fill or remove what is named; expected ROOT/CLASS/…, ROOT/SPLIT/CLASS/… or "
                "ROOT/images/… with targets beside images/",
            )

    def _keep(self, folder: str) -> tuple[list[str], list[str]]:
        if folder not in self._entries:
            self._entries[folder] = self._read(folder)
        return self._entries[folder]

    def _read(self, folder: str) -> tuple[list[str], list[str]]:
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(self._root.folder / folder) as entries:
                for entry in entries:
                    if not entry.name.startswith((".", "__MACOSX")):
                        self._sort_out(folder, entry, folders, files)
        except OSError as error:
            self.wrong.append(f"{folder or 'the folder'}: {(error.strerror or str(error)).lower()}")
        return sorted(folders), sorted(files)

    def _sort_out(
        self, folder: str, entry: os.DirEntry[str], folders: list[str], files: list[str]
    ) -> None:
        path = f"{folder}/{entry.name}" if folder else entry.name
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            self.wrong.append(f"{path!a}: a name that is not UTF-8")
            return
        if "\\" in entry.name:
            self.wrong.append(f"{path}: a name with a backslash")
            return
        if entry.is_symlink() and self._root.find(path) is None:
            self._links.append(path)
        elif entry.is_dir():
            folders.append(entry.name)
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_ENDINGS and (
            entry.is_file() or entry.is_symlink()  # a link to nothing is found bad when decoded
        ):
            files.append(entry.name)
        else:
            self._passed.append(path)


def counted(names: list[str]) -> str:
    """How many, and the first of them."""
    once = sorted(set(names))
    return f"{len(once)} ({some(once, 5)})"
