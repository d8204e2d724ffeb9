"""Folders of images, listed in the order of names; all problems are reported together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from onetrunk.data.drawing import is_signed
from onetrunk.data.files.paths import IMAGE_ENDINGS, Root
from onetrunk.data.pixels import reason_of
from onetrunk.errors import BadInput, shorten
from onetrunk.store.results import is_results

LOOSE, NO_IMAGES = "images outside any class folder", "no images"


class Walk:
    """A traversal of a folder tree.

    Attributes:
        problems: Why the tree cannot be used.
        remarks: Messages for the user.
        results: Files and folders that onetrunk has written, which are ignored.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._entries: dict[str, tuple[list[str], list[str]]] = {}
        self.problems: list[str] = []
        self.remarks: list[str] = []
        self._ignored: list[str] = []
        self._outside: list[str] = []  # links that lead out of the root
        self._circles: list[str] = []  # links to a folder that contains them
        self.results: list[str] = []

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, without hidden ones."""
        return self._listing(folder)[0]

    def files(self, folder: str) -> list[str]:
        """Return the names of the image files in a folder."""
        return self._listing(folder)[1]

    def images(self, folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
        """Yield every image file below a folder, as a path relative to the root."""
        real = os.path.realpath(self._root.folder / folder)
        if real in above:  # a link to a folder that contains it
            self._circles.append(folder)
            return
        folders, files = self._read(folder)
        kinds = {**dict.fromkeys(files, False), **dict.fromkeys(folders, True)}
        for name in sorted(kinds):
            path = f"{folder}/{name}" if folder else name
            if kinds[name]:
                yield from self.images(path, (*above, real))
            else:
                yield path

    def without_results(self, files: Iterable[str]) -> list[str]:
        """Return image files without those that onetrunk has drawn, such as contact sheets.

        Each file is opened, so this is for files at unexpected places.
        """
        listed = list(files)
        drawn = {name for name in listed if is_signed(self._root.folder / name)}
        self.results += sorted(drawn)
        return [name for name in listed if name not in drawn]

    def notes(self) -> list[str]:
        """Return the messages for the user, a line each."""
        notes = list(self.remarks)
        if self.results:
            notes.append(f"ignored, written by onetrunk: {counted(self.results)}")
        if self._ignored:
            notes.append(f"ignored, not images by their endings: {counted(self._ignored)}")
        if self._outside:
            notes.append(
                "ignored, links to files outside of the folder, which are not followed: "
                f"{counted(self._outside)}"
            )
        if self._circles:
            notes.append(f"ignored, links that lead in a circle: {counted(self._circles)}")
        return notes

    def raise_problems(self, name: str) -> None:
        """Raise one error with all problems; `name` is that of the source."""
        if self.problems:
            raise BadInput(
                "; ".join([f"{name}: {self.problems[0]}", *self.problems[1:], *self.notes()]),
                try_=self._remedy(),
            )

    def _remedy(self) -> str:
        """Return what to do about the problems."""
        if self._outside:
            return "copy the files into the folder, or a table with their paths: table:FILE"
        if self.problems[0].startswith(LOOSE):
            return "move them into a folder for each class, or unlabelled:PATH for images alone"
        layouts = "ROOT/CLASS/…, ROOT/SPLIT/CLASS/… or ROOT/images/… with targets beside images/"
        if self.problems[0].startswith(NO_IMAGES):
            return f"put images into {layouts}"
        return f"correct these files; expected {layouts}"

    def _listing(self, folder: str) -> tuple[list[str], list[str]]:
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
                        self._sort(folder, entry, folders, files)
        except OSError as error:
            self.problems.append(f"{folder or 'the folder'}: {reason_of(error).lower()}")
        return sorted(folders), sorted(files)

    def _sort(
        self, folder: str, entry: os.DirEntry[str], folders: list[str], files: list[str]
    ) -> None:
        path = f"{folder}/{entry.name}" if folder else entry.name
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            self.problems.append(f"{path!a}: a name that is not UTF-8")
            return
        if "\\" in entry.name:
            self.problems.append(f"{path}: a name with a backslash")
            return
        if entry.is_symlink() and self._root.find(path) is None:
            self._outside.append(path)
        elif entry.is_dir():
            if is_results(Path(entry.path)):
                self.results.append(path)
            else:
                folders.append(entry.name)
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_ENDINGS and (
            entry.is_file() or entry.is_symlink()  # a broken link is reported when it is decoded
        ):
            files.append(entry.name)
        else:
            self._ignored.append(path)


def counted(names: list[str]) -> str:
    """Return how many names there are, and the first of them."""
    once = sorted(set(names))
    return f"{len(once)} ({shorten(once, 5)})"
