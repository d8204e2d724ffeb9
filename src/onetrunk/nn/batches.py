"""What comes in from outside, checked: batches (and grouped by size), and tensors of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from onetrunk.errors import BadInput

WHITE = 64.0  # normalized pixels are within a few standard deviations; 8-bit ones are not


def check(images: object) -> Tensor:
    """A batch of normalized images (B, 3, H, W), or why it is none."""
    if not isinstance(images, Tensor):
        raise BadInput(
            "expected one tensor of images (B, 3, H, W)",
            got=type(images).__name__,
            try_="model.predict takes files, pictures and arrays",
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise BadInput(
            "expected images (batch, 3, height, width)",
            got="×".join(map(str, images.shape)),
            try_="images[None] makes one image a batch" if images.ndim == 3 else None,
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
    if images.device.type == "cpu":  # elsewhere a look at the values would wait for the device
        low, high = torch.aminmax(images.detach())
        if not (low >= -WHITE and high <= WHITE):
            raise BadInput(
                "expected normalized images, a few units around 0",
                got=f"values from {low.item():.4g} to {high.item():.4g}",
                try_="domain.pixels.normalize(images), or model.predict",
            )
    return images


def by_size(
    images: Tensor | Sequence[Tensor], names: list[str]
) -> Iterator[tuple[Tensor, list[str], list[int]]]:
    """Batches of one size each, with their domains and their places in what was given."""
    count = images.shape[0] if isinstance(images, Tensor) else len(images)
    if count != len(names):
        raise BadInput(
            "a mixed batch names one domain per image",
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


def check_tensors(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], where: str) -> None:
    """The very tensors that are expected: names, types, shapes, and finite numbers."""
    for what, names in (
        ("it lacks tensors", sorted(expected.keys() - got.keys())),
        ("it has tensors that nothing here takes", sorted(got.keys() - expected.keys())),
    ):
        if names:
            raise BadInput(f"{where}: {what}", got=", ".join(names[:4]) + (" …" * (len(names) > 4)))
    for name, tensor in got.items():
        like = expected[name]
        if tensor.shape != like.shape or tensor.is_floating_point() != like.is_floating_point():
            raise BadInput(
                f"{where}: {name} is to be {like.dtype} {tuple(like.shape)}",
                got=f"{tensor.dtype} {tuple(tensor.shape)}",
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadInput(f"{where}: {name} is to be finite", got="NaN or infinity")
        if name.endswith("running_var") and (tensor < 0).any():
            raise BadInput(f"{where}: {name} is a variance", got="negative numbers")
