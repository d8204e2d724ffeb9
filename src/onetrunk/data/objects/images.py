"""Images in memory: their form for the pixel pipeline, and names that follow from their content."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from onetrunk.data.files.paths import regular
from onetrunk.data.pixels import BadImage, Raw, decode

CHANNELS = (1, 3, 4)
NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


def is_path(image: object) -> bool:
    """Return whether an image is given by its path."""
    return isinstance(image, str | PathLike)


def path_of(image: Any, base: Path) -> Path:
    """Return the path of an image's file."""
    path = Path(image)
    with suppress(RuntimeError):  # no user's name follows the ~, which is part of the file's
        path = path.expanduser()
    return Path(base, path).absolute()


def key_of(path: Path, base: Path) -> str:
    """Return a path relative to `base` where it lies inside, else in full, with slashes."""
    base = base.absolute()
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def raw_of(image: Any, base: Path) -> Raw:
    """Return an image in a form that the pixel pipeline reads; raise BadImage for another type."""
    if is_path(image):
        return regular(path_of(image, base))
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu()
        if array.is_floating_point() and array.dtype not in NUMPY_FLOATS:  # such as bfloat16
            array = array.float()
        if array.ndim == 3 and array.shape[0] in CHANNELS:
            array = array.permute(1, 2, 0)
        return np.asarray(array)
    if isinstance(image, bytes | Image.Image | np.ndarray):
        return image
    raise BadImage(f"expected a path, picture, array or tensor, got {type(image).__name__}")


def digest_of(raw: Raw) -> str:
    """Return a hash of an image's pixels, or of the bytes of an encoded image."""
    digest = hashlib.sha256()
    if isinstance(raw, bytes):
        digest.update(raw)
    else:
        picture = decode(raw)
        digest.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
    return digest.hexdigest()[:32]


class ContentKeys:
    """Names of images by their content; equal images have one name, to stay in one split."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def of(self, digest: str, prefix: str = "") -> tuple[str, str | None]:
        """Return the key of an image, and for a copy the key of the first image of that content.

        Args:
            digest: The hash of the image's content.
            prefix: What the keys start with.
        """
        times = self._times[digest] = self._times.get(digest, 0) + 1
        first = f"{prefix}{digest}"
        return (first, None) if times == 1 else (f"{first}-{times}", first)
