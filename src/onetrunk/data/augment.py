"""Augmentation of images and targets together, in batches, by a seeded draw per image.

All geometric changes are one axis-aligned window of the stored image: the position of its middle,
how many stored pixels an output pixel covers, and whether it is mirrored. All changes of colour are
one affine map of RGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from onetrunk.data.pixels import U8, Pixels
from onetrunk.data.seeded import Chance
from onetrunk.data.split import as_tensor
from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.errors import BadInput

F64 = NDArray[np.float64]
LUMA = np.array([0.299, 0.587, 0.114])  # grey of RGB (ITU-R BT.601)


@dataclass(frozen=True)
class Views:
    """The drawn augmentation of each image of a batch.

    Attributes:
        y, x: The middle of the window in the stored image, in pixels.
        step_y, step_x: How many stored pixels one output pixel covers.
        colour: (B, 3, 4): RGB' = M·RGB + c, in grey levels; None for unchanged colours.
    """

    y: F64
    x: F64
    step_y: F64
    step_x: F64
    mirror: NDArray[np.bool_]
    colour: NDArray[np.float32] | None


@dataclass(frozen=True)
class Augment:
    """The augmentation of a domain's training images; the default changes nothing."""

    pad: Annotated[int, Field(description="Pixels that a crop may move over the edge")] = 0
    area: Annotated[
        tuple[float, float],
        Field(description="Range of the share of the image in a random resized crop"),
    ] = (1.0, 1.0)
    aspect: Annotated[
        tuple[float, float], Field(description="Range of height over width of that crop")
    ] = (1.0, 1.0)
    scale: Annotated[
        tuple[float, float],
        Field(description="Range of the zoom; depth is divided by it, inverse depth multiplied"),
    ] = (1.0, 1.0)
    flip: Annotated[
        bool, Field(description="Mirror half of the images, and the x of their normals")
    ] = False
    brightness: Annotated[
        float, Field(description="Brightness is multiplied by a factor within 1 ± this")
    ] = 0.0
    contrast: Annotated[
        float, Field(description="Contrast is multiplied by a factor within 1 ± this")
    ] = 0.0
    saturation: Annotated[
        float, Field(description="Saturation is multiplied by a factor within 1 ± this")
    ] = 0.0

    def __post_init__(self) -> None:
        for name in ("area", "aspect", "scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "area" and high > 1):
                limit = " and at most 1" if name == "area" else ""
                raise BadInput(
                    f"augment: expected a range above 0{limit} for {name}", got=(low, high)
                )
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(
                    f"augment: expected at least 0 and below 1 for {name}", got=getattr(self, name)
                )
        if self.pad < 0:
            raise BadInput("augment: expected at least 0 pixels for pad", got=self.pad)

    @classmethod
    def usual(cls, pixels: Pixels, flip: bool, given: Mapping[str, Any]) -> Augment:
        """Return the default augmentation, changed by `given`.

        The default pads and crops by an eighth of the size; with a margin it only crops.
        """
        pad = 0 if pixels.margin else min(pixels.size) // 8
        return replace(cls(pad=pad, flip=flip), **given)

    def draw(
        self, seed: int, images: NDArray[np.int64], views: NDArray[np.int64], pixels: Pixels
    ) -> Views:
        """Draw the augmentation of each image, which depends only on (seed, image, view)."""
        chance = Chance(seed, images, views)
        (height, width), (rows, columns) = pixels.stored, pixels.size
        if self.moves_by_whole_pixels:
            # windows on the grid of pixels are copied, not sampled; all offsets are equally likely
            steps_y, steps_x = height - rows + 2 * self.pad + 1, width - columns + 2 * self.pad + 1
            y = np.floor(chance(0) * steps_y) - self.pad + rows / 2
            x = np.floor(chance(1) * steps_x) - self.pad + columns / 2
            step_y = step_x = np.ones(len(images))
        else:
            cover = np.sqrt(chance(2, *self.area))
            shape = np.exp(chance(3, *np.log(self.aspect)) / 2)
            zoom = np.exp(chance(4, *np.log(self.scale)))
            # a resized crop is a share of the stored image; other crops move within the margin
            full_y, full_x = (rows, columns) if self.area == (1.0, 1.0) else (height, width)
            high = np.minimum(full_y * cover * shape, height) / zoom
            wide = np.minimum(full_x * cover / shape, width) / zoom
            y = height / 2 + chance(0, -1, 1) * (np.maximum(height - high, 0) / 2 + self.pad)
            x = width / 2 + chance(1, -1, 1) * (np.maximum(width - wide, 0) / 2 + self.pad)
            step_y, step_x = high / rows, wide / columns
        mirror = chance(5) < 0.5 if self.flip else np.zeros(len(images), np.bool_)
        coloured = self.brightness or self.contrast or self.saturation
        return Views(y, x, step_y, step_x, mirror, self._colour(chance) if coloured else None)

    @property
    def moves_by_whole_pixels(self) -> bool:
        """Whether there is neither zoom nor resized crop, so that pixels are copied."""
        return self.area == self.aspect == self.scale == (1.0, 1.0)

    def _colour(self, chance: Chance) -> NDArray[np.float32]:
        """Draw brightness, contrast about middle grey, and saturation about a pixel's grey."""
        b = chance(6, 1 - self.brightness, 1 + self.brightness)[:, None, None]
        c = chance(7, 1 - self.contrast, 1 + self.contrast)[:, None, None]
        s = chance(8, 1 - self.saturation, 1 + self.saturation)[:, None, None]
        matrix = b * c * (s * np.eye(3) + (1 - s) * np.tile(LUMA, (3, 1)))
        shift = np.broadcast_to(127.5 * (1 - c), (len(b), 3, 1))
        return np.concatenate([matrix, shift], 2).astype(np.float32)


def apply(
    images_BHWC: U8,
    targets: Mapping[str, NDArray[Any]],
    views: Views,
    pixels: Pixels,
    tasks: tuple[Task, ...] = (),
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Augment stored images and targets; return normalized images (B, 3, H, W) and tensors."""
    if bool((views.step_y == 1).all() and (views.step_x == 1).all()):
        images = torch.from_numpy(_window(images_BHWC, views, pixels))
    else:
        images = _sample(images_BHWC, views, pixels)
    if views.colour is not None:
        flat = images.reshape(len(images), -1, 3).float()
        map_B34 = torch.from_numpy(views.colour)
        flat = torch.baddbmm(map_B34[:, None, :, 3], flat, map_B34[:, :, :3].mT)
        images = flat.clamp_(0, 255).reshape(images.shape)
    dense = {task.name: task for task in tasks if task.dense}
    moved = {
        name: _move(target, dense[name], views, pixels) if name in dense else target
        for name, target in targets.items()
    }
    return pixels.normalize(images), {name: as_tensor(target) for name, target in moved.items()}


def _window(images_BHWC: U8, views: Views, pixels: Pixels) -> U8:
    """Copy windows on the pixel grid out of the images, filled around them, some mirrored."""
    (rows, columns), (count, height, width) = pixels.size, images_BHWC.shape[:3]
    top = np.rint(views.y - rows / 2).astype(np.int64)
    left = np.rint(views.x - columns / 2).astype(np.int64)
    pad = int(max(0, -top.min(), -left.min(), (top + rows - height).max()))
    pad = max(pad, int((left + columns - width).max()))
    if pad:
        shape = (count, height + 2 * pad, width + 2 * pad, 3)
        padded = np.full(shape, pixels.fill_around(images_BHWC), np.uint8)
        padded[:, pad : pad + height, pad : pad + width] = images_BHWC
    else:
        padded = np.ascontiguousarray(images_BHWC)
    # all windows as a view, (B, tops, lefts, rows, columns·3): indexing copies them row by row
    s = padded.strides
    windows = (count, padded.shape[1] - rows + 1, padded.shape[2] - columns + 1, rows, columns * 3)
    every = np.lib.stride_tricks.as_strided(padded, windows, (s[0], s[1], s[2], s[1], 1))
    picked = every[np.arange(count), top + pad, left + pad].reshape(count, rows, columns, 3)
    if views.mirror.any():
        # torch mirrors 8-bit channels-last images several times faster than numpy does
        mirrored = torch.from_numpy(picked[views.mirror]).permute(0, 3, 1, 2).flip(3)
        picked[views.mirror] = mirrored.permute(0, 2, 3, 1).numpy()
    return picked


def _sample(images_BHWC: U8, views: Views, pixels: Pixels) -> torch.Tensor:
    """Sample windows of any size bilinearly, in grey levels, (B, H, W, 3)."""
    (rows, columns), (height, width) = pixels.size, images_BHWC.shape[1:3]
    sign = np.where(views.mirror, -1.0, 1.0)
    zero = np.zeros_like(views.y)
    # grid_sample's coordinates run from -1 to 1 over the stored image
    across = np.stack([sign * views.step_x * columns / width, zero, 2 * views.x / width - 1], 1)
    down = np.stack([zero, views.step_y * rows / height, 2 * views.y / height - 1], 1)
    theta = torch.from_numpy(np.stack([across, down], 1).astype(np.float32))
    grid = torch.nn.functional.affine_grid(
        theta, [len(zero), 3, rows, columns], align_corners=False
    )
    levels = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2).float()
    # "border": a window that ends at the edge of the image is not darkened there
    sampled = torch.nn.functional.grid_sample(
        levels, grid, padding_mode="border", align_corners=False
    )
    sampled = sampled.permute(0, 2, 3, 1).contiguous()
    outside = _places(views, pixels.size, (height, width))[2]
    if outside.any():
        fill = torch.as_tensor(pixels.fill_around(images_BHWC)).to(sampled)
        sampled = torch.where(torch.from_numpy(outside)[..., None], fill, sampled)
    return sampled


def _places(
    views: Views, size: tuple[int, int], stored: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the stored row (B, H) and column (B, W) of each pixel, and if it is outside."""
    (rows, columns), (height, width) = size, stored
    sign = np.where(views.mirror, -1.0, 1.0)
    y = views.y[:, None] + (np.arange(rows) + 0.5 - rows / 2) * views.step_y[:, None]
    x = views.x[:, None] + (np.arange(columns) + 0.5 - columns / 2) * (sign * views.step_x)[:, None]
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    over, aside = (row < 0) | (row >= height), (column < 0) | (column >= width)
    return row, column, over[:, :, None] | aside[:, None, :]


def _move(target: NDArray[Any], task: Task, views: Views, pixels: Pixels) -> NDArray[Any]:
    """Apply the views to a dense target, by nearest pixel; pixels outside are not labelled."""
    height, width = target.shape[1:3]
    row, column, outside = _places(views, pixels.size, (height, width))
    picked: NDArray[Any] = target[
        np.arange(len(target))[:, None, None],
        row.clip(0, height - 1)[:, :, None],
        column.clip(0, width - 1)[:, None, :],
    ]
    picked[outside] = NO_PIXEL if task.kind == "segment" else 0
    if task.kind == "depth":
        # a window that covers fewer pixels brings the scene nearer by the same factor
        nearer = np.sqrt(views.step_y * views.step_x)[:, None, None].astype(np.float32)
        picked = picked / nearer if task.inverse else picked * nearer
    elif task.kind == "normals":
        picked = picked.astype(np.float32)
        picked[views.mirror, :, :, 0] *= -1
    return picked
