"""Checks of batches of images, and of tensors from files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from onetrunk.errors import BadInput, shorten

MAX_VALUE = 64.0  # normalized pixels are a few standard deviations at most; 8-bit ones are more


def check(images: object) -> Tensor:
    """Return a batch of normalized images (B, 3, H, W); raise BadInput for anything else."""
    if not isinstance(images, Tensor):
        raise BadInput(
            "expected one tensor of images (B, 3, H, W)",
            got=type(images).__name__,
            try_="model.predict, which takes files, pictures and arrays",
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise BadInput(
            "expected images (batch, 3, height, width)",
            got="×".join(map(str, images.shape)),
            try_="images[None], a batch of one image" if images.ndim == 3 else None,
        )
    if not images.is_floating_point():
        raise BadInput(
            "expected normalized images, floats",
            got=str(images.dtype),
            try_="domain.pixels.normalize(images), or model.predict",
        )
    if torch.compiler.is_compiling():
        return images
    if images.shape[0] == 0:
        raise BadInput("expected at least one image", got="an empty batch")
    if images.device.type == "cpu":  # reading the values would wait for another device
        low, high = torch.aminmax(images.detach())
        if not (low >= -MAX_VALUE and high <= MAX_VALUE):
            raise BadInput(
                "expected normalized images, a few units around 0",
                got=f"values from {low.item():.4g} to {high.item():.4g}",
                try_="domain.pixels.normalize(images), or model.predict",
            )
    return images


def by_size(
    images: Tensor | Sequence[Tensor], names: list[str]
) -> Iterator[tuple[Tensor, list[str], list[int]]]:
    """Yield batches of images of one size, with their domains and their positions in `images`."""
    count = images.shape[0] if isinstance(images, Tensor) else len(images)
    if count != len(names):
        raise BadInput(
            "expected one domain per image of a mixed batch",
            got=f"{len(names)} domains for {count} images",
        )
    if not count:
        raise BadInput("expected at least one image", got="an empty batch")
    if isinstance(images, Tensor):
        yield check(images), names, list(range(count))
        return
    places: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        if not isinstance(image, Tensor) or image.ndim != 3:
            raise BadInput(
                f"image {place}: expected a tensor (3, height, width)",
                got=tuple(image.shape) if isinstance(image, Tensor) else type(image),
            )
        places.setdefault(tuple(image.shape[1:]), []).append(place)
    for group in places.values():
        yield check(torch.stack([images[i] for i in group])), [names[i] for i in group], group


def segments(
    names: Sequence[str], sizes: Sequence[int], pieces: Iterable[int]
) -> Iterator[dict[str, int]]:
    """Yield the images of each domain in consecutive pieces of a batch sorted by domain.

    Args:
        names: The domains in their order.
        sizes: The images of each domain.
        pieces: The images of each piece.
    """
    rest = dict(zip(names, sizes, strict=True))
    for size in pieces:
        own: dict[str, int] = {}
        while size:
            name, left = next(iter(rest.items()))
            own[name] = min(size, left)
            size -= own[name]
            rest[name] -= own[name]
            if not rest[name]:
                del rest[name]
        yield own


def check_tensors(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], where: str) -> None:
    """Raise BadInput if names, types or shapes differ, or values are not finite.

    Args:
        where: The name of the file or module, for messages.
    """
    for problem, names in (
        ("tensors are missing", expected.keys() - got.keys()),
        ("unexpected tensors", got.keys() - expected.keys()),
    ):
        if names:
            raise BadInput(f"{where}: {problem}", got=shorten(sorted(names), 4))
    for name, tensor in got.items():
        like = expected[name]
        if tensor.shape != like.shape or tensor.is_floating_point() != like.is_floating_point():
            raise BadInput(
                f"{where}: expected {like.dtype} {tuple(like.shape)} for {name}",
                got=f"{tensor.dtype} {tuple(tensor.shape)}",
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadInput(f"{where}: expected finite numbers for {name}", got="NaN or infinity")
        if name.endswith("running_var") and (tensor < 0).any():
            raise BadInput(f"{where}: expected variances for {name}", got="negative numbers")
