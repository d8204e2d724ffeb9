"""Examples of dense predictions: the image, the truth and the prediction as coloured maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.contact_sheet import colour_classes, colour_normals
from onetrunk.data.drawing import MAGMA, colour_scale
from onetrunk.data.pixels import U8
from onetrunk.data.split import Split
from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.report.thumbnail import Thumbnail

LONGEST = 192  # pixels of a tile
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Tile:
    """One image of an example, with its caption."""

    caption: str
    thumbnail: Thumbnail


@dataclass(frozen=True)
class MapExample:
    """One test image with the true and the predicted map of every task."""

    caption: str
    image: Tile
    truths: tuple[Tile, ...]
    predictions: tuple[Tile, ...]
    file: str


def map_examples(
    split: Split,
    indices: NDArray[np.int64],
    tasks: Sequence[Task],
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
) -> tuple[MapExample, ...]:
    """Return the images with the lowest, the median and the highest error of the first task."""
    first = tasks[0]
    pairs = zip(outputs[first.name], targets[first.name], strict=True)
    error = torch.stack([_image_error(first, output, target) for output, target in pairs])
    known = torch.nonzero(torch.isfinite(error)).flatten()
    if not len(known):
        return ()
    order = known[error[known].argsort(stable=True)].tolist()
    picked = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    examples = []
    for rank, row in list(picked.items())[: min(3, len(order))]:
        index = indices[row : row + 1]
        image: U8 = split.pixels.centre(split.stored(index)[0])[0]
        truths, predictions = [], []
        for task in tasks:
            maps = colour_maps(task, outputs[task.name][row], targets[task.name][row])
            truth, predicted = (
                Thumbnail.of(each, lossless=task.kind == "segment", longest=LONGEST)
                for each in maps
            )
            truths.append(Tile(f"{task.name}: truth", truth))
            predictions.append(Tile(f"{task.name}: predicted", predicted))
        examples.append(
            MapExample(
                f"{rank}: {_describe_error(first, float(error[row]))}",
                Tile("image", Thumbnail.of(image, longest=LONGEST)),
                tuple(truths),
                tuple(predictions),
                split.key(int(index[0])),
            )
        )
    return tuple(examples)


def colour_maps(task: Task, output: Tensor, target: Tensor) -> tuple[U8, U8]:
    """Colour the truth and the prediction of one image alike; black is not labelled."""
    if task.kind == "segment":
        classes = output.argmax(0).to(torch.uint8)
        return colour_classes(target.numpy()), colour_classes(classes.numpy())
    if task.kind == "depth":
        truth, predicted = target.numpy(), output[0].numpy()
        known = truth[truth > 0]
        if task.inverse:  # colour_depth takes metres
            truth = np.where(truth > 0, 1 / np.maximum(truth, 1e-3), 0)
            predicted, known = 1 / np.maximum(predicted, 1e-3), truth[truth > 0]
        span = (float(known.min()), float(known.max())) if len(known) else (1.0, 2.0)
        return colour_depth(truth, span), colour_depth(np.maximum(predicted, 1e-3), span)
    truth_HW3, predicted_HW3 = (normals.permute(1, 2, 0).numpy() for normals in (target, output))
    return colour_normals(truth_HW3), colour_normals(predicted_HW3)


def colour_depth(depth_HW: F32, span: tuple[float, float]) -> U8:
    """Colour metres by inverse depth within a span: near is bright, far is dark, 0 is black."""
    near, far = 1 / max(span[0], 1e-3), 1 / max(span[1], 1e-3)
    inverse = 1 / np.maximum(depth_HW, 1e-3)
    share = 0.1 + 0.9 * np.clip((inverse - far) / max(near - far, 1e-9), 0, 1)
    coloured = colour_scale(MAGMA, share)
    coloured[depth_HW <= 0] = 0
    return coloured


def class_colour(number: int) -> str:
    """Return the colour of a class in a map, in CSS notation."""
    r, g, b = colour_classes(np.full((1, 1), number, np.uint8))[0, 0].tolist()
    return f"rgb({r},{g},{b})"


def _image_error(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """Return the share of wrong pixels, metres or degrees; NaN if no pixel is labelled."""
    if task.kind == "segment":
        known = target != NO_PIXEL
        return (output.argmax(0) != target)[known].float().mean()
    if task.kind == "depth":
        known = target > 0
        return (output[0] - target)[known].abs().mean()
    known = target.norm(dim=0) > 0.5
    cosine = (output * target).sum(0)[known].clamp(-1, 1)
    return torch.rad2deg(torch.acos(cosine)).mean()


def _describe_error(task: Task, error: float) -> str:
    if task.kind == "segment":
        return f"{100 * error:.1f} % of the pixels in the wrong class"
    if task.kind == "depth":
        return f"mean absolute error {error:.3g} {task.unit or 'm'}"
    return f"mean angle {error:.1f}°"
