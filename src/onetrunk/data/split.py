"""One split of a domain: its readable images and their targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.data.index import Index
from onetrunk.data.pixels import U8, Pixels
from onetrunk.data.stored_images import Frames


class Split:
    """Images by their position in the split, 0 … len-1, in the order of their keys.

    Targets are tensors by task:

    | kind | shape and type | not labelled |
    |---|---|---|
    | classify, embed | (B,) int64 | -1 |
    | multilabel | (B, C) uint8 | 255 |
    | regress | (B, N) float32 | NaN |
    | segment | (B, H, W) uint8 | 255 |
    | depth | (B, H, W) float32, metres | 0 |
    | normals | (B, 3, H, W) float32 | 0 |

    Args:
        rows: Positions of the readable images in the index.
        pixels: The pixel pipeline with its normalization.
    """

    def __init__(
        self, name: str, rows: NDArray[np.int64], index: Index, frames: Frames, pixels: Pixels
    ) -> None:
        self.name = name
        self.rows = rows
        self.pixels = pixels
        self._index = index
        self._frames = frames

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self):,} images)"

    def part(self, places: NDArray[np.int64]) -> Split:
        """Return the split with these images only."""
        return Split(self.name, self.rows[places], self._index, self._frames, self.pixels)

    def key(self, i: int) -> str:
        """Return the name of an image."""
        return self._index.keys[self.rows[i]]

    def label(self, task: str) -> NDArray[Any]:
        """Return all labels of a task that is not dense."""
        return self._index.labels[task][self.rows]

    def stored(self, places: NDArray[np.int64]) -> tuple[U8, dict[str, NDArray[Any]]]:
        """Return images (B, H, W, 3) at the stored size and all targets, without augmentation."""
        rows = self.rows[places]
        images, targets = self._frames.read(rows)
        for name, column in self._index.labels.items():
            targets[name] = column[rows]
        return images, targets

    def batch(self, places: NDArray[np.int64]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return normalized images (B, 3, H, W) and targets, for evaluation."""
        images, targets = self.stored(places)
        dense = {layer.task.name for layer in self._frames.layers}
        cut = {n: self.pixels.centre(t) if n in dense else t for n, t in targets.items()}
        return self.pixels.normalize(self.pixels.centre(images)), {
            name: as_tensor(target) for name, target in cut.items()
        }


def as_tensor(target: NDArray[Any]) -> torch.Tensor:
    """Convert a target to the tensor that losses expect; (B, H, W, 3) becomes (B, 3, H, W)."""
    if target.dtype == np.int32:
        return torch.from_numpy(target.astype(np.int64))
    if target.dtype == np.float16:
        target = target.astype(np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(target))
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor
