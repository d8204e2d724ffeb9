"""Sources of images, and the function that opens one by its name: `"folder:photos"`.

Each public file of this package is one source. It binds its class to `SOURCE`, and its prefix is
the file's name: `folder.py` reads `folder:…`. A source lists its images without decoding them, and
reads one image at a time. Resizing, normalization, splits by hash and the cache are not part of a
source: `Domain` does them in the same way for all sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from onetrunk.data.pixels import Raw
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.objects import NAME, load_object
from onetrunk.registry import Registry

Label = str | float | tuple[str, ...] | tuple[float, ...] | None
"""The name of a class (classify, embed), names (multilabel), a number or numbers (regress), or None
for an image without a label. Dense targets are not labels: a source reads them with the image."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source, not yet read.

    Attributes:
        key: Its name, unique in the source and stable: a path relative to the source, with forward
            slashes. Splits by hash depend on it, or on `group`.
        where: Where the source finds the image; often the key.
        stamp: Text that changes with the content: size and time of a file, hash of a row. It is
            part of the key of the cache, with the code of a user's class, so it has to name
            everything else that the pixels depend on, such as an argument of the constructor.
        split: "train", "val" or "test" if the source has splits.
        group: Images of one group are never in two splits.
        labels: By the name of a task.
        alike: A name of the content of an image that occurs several times. The images of one name
            are never in two splits either, unless the user groups them otherwise.
    """

    key: str
    where: str
    stamp: str
    split: str | None = None
    group: str | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    alike: str | None = None


@dataclass(frozen=True)
class SourceOptions:
    """The user's settings of a source, beside its name. A source uses the ones that apply to it.

    Attributes:
        base: Where relative paths start: the folder of the recipe, or the current one.
        tasks: The requested tasks; None for those that the source has.
        image: The column that holds the path or the image.
        group: A column, or a regular expression on the path.
        split: The column that holds the split.
    """

    base: Path = Path()
    tasks: tuple[Task, ...] | None = None
    image: str | None = None
    group: str | None = None
    split: str | None = None


@runtime_checkable
class Source(Protocol):
    """The interface of a source, built in or a user's.

    These attributes are optional:

    - `notes: list[str]`: messages for the user, for example about ignored files or splits. They are
      complete after `items()` has been read to its end.
    - `unlabelled = True`: the images have no labels in any split, and are used for distillation.
    - `size: (height, width)`: the natural size of the images.
    - `flip: bool`: whether a mirrored image has the same label.
    - `columns: Sequence[str]`: the names that `group` may be.

    `items()` may raise an error for a problem that is found while it is read.
    """

    tasks: tuple[Task, ...]
    """The tasks that its images have labels for. If their classes are empty, they are the names in
    the labels; a segment task always has classes."""

    def items(self) -> Iterator[Item]:
        """Yield every image once, in an order that depends only on the content."""
        ...

    def image(self, where: str) -> Raw:
        """Return one image, encoded (a path, bytes) or decoded (a picture, an array).

        Raises `BadImage` if this image cannot be read, `Failed` if none can be (no network).
        """
        ...

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return a dense target of an image at its own size, or None if it has none.

        segment: (H, W) integers, 255 for a pixel without a label. depth: (H, W) float32 in metres
        or the task's unit, 0 for unknown. normals: (H, W, 3) float32 unit vectors (x right, y up,
        z to the viewer), 0 for unknown. Raises `BadImage` if this target cannot be read.
        """
        ...


class NoTargets:
    """A base of sources without dense targets."""

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return None: no image has a target."""
        return None


OpenSource = Callable[[str, SourceOptions], Source]  # called with what follows the prefix
SOURCES = Registry[OpenSource]("onetrunk.data.sources", "source")
PYTHON = "python"  # the prefix in a recipe of a source that was a Python object
METHODS = ("tasks", "items()", "image(where)", "target(where, task)")


def open_source(name: str, options: SourceOptions) -> Source:
    """Open the source of `"prefix:rest"`, or a user's own `"package.module:thing"`.

    The class of the source is called with (rest, options); for a user's own, rest is "".
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix in SOURCES:
        return SOURCES.load(prefix)(rest, options)
    if prefix == PYTHON:
        raise BadInput(
            f"its images were given in Python (a {rest}) and are not stored in the run",
            got=name,
            try_="give them again in Python, as the domain: ot.evaluate(model, [domain]), "
            "ot.Run(folder, domains=[domain]), ot.train(…, resume=True)",
        )
    available = [f"{prefix}:" for prefix in SOURCES]
    if user_source(name) is None:
        raise BadInput(
            "expected a source as PREFIX:REST, or package.module:thing",
            got=name,
            available=available,
            try_=f"folder:{name}" if Path(options.base, name).is_dir() else None,
        )
    make: OpenSource = load_object(name, "source", available)
    source = make("", options)
    if not isinstance(source, Source):
        raise BadInput(
            f"source {name}: expected an object with {', '.join(METHODS)}",
            got=type(source).__name__,
        )
    return source


def user_source(name: str) -> str | None:
    """Return the source if it is a user's, `"package.module:thing"`, else None."""
    prefix = name.partition(":")[0]
    return name if NAME.fullmatch(name) and prefix not in (*SOURCES, PYTHON) else None
