"""Inference on a CPU in pieces of a batch, because new memory is slow.

The C library gives the memory of large maps back to the system when they are freed, so that every
page of the next map is cleared and entered in the page table again. With glibc that starts when
about 64 MB are in use at once. (With MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ raised, no
batch is too large.) Small pieces pay the fixed costs of a pass more often: the calls of its
operations, and the layout of the weights that convolutions compute in every call. The number of
pieces minimizes an estimate of both:

    pieces · (operations · CALL + bytes of weights · WEIGHTS)
    + bytes of the maps that are allocated when more than LIMIT are in use · PAGES

The estimate depends on the network and the size of the images alone: the network runs once with one
image to list its operations. Nothing is timed. A batch is therefore always cut in the same way, and
results can be repeated to the bit; a timed choice would not allow this, as kernels for other batch
sizes may round differently.

Milliseconds of processor time of one thread (AMD EPYC of 2023, busy machine, least of 4 rounds),
and in brackets the new memory. The estimate's choice is within 5 % of the best of each row:

| network, pixels, images | in pieces of | | | | choice |
|---|---|---|---|---|---|
| efficientnet_lite0, 64, 128 | 16: 248 | 32: 220 | 64: 204 | 128: 229 (50 MB) | 43: 211 |
| efficientnet_lite0, 96, 128 | 16: 471 | 32: 444 | 64: 591 | 128: 731 | 22 |
| efficientnet_lite0, 224, 32 | 4: 675 | 8: 884 | 16: 988 | 32: 1287 | 4 |
| resnet20, 48, 128 | 16: 317 | 32: 305 | 64: 289 | 128: 284 | 64 |
| resnet18, 64, 128 | 16: 593 | 32: 504 | 64: 414 | 128: 449 | 64 |

Images are in channels_last layout, as oneDNN otherwise converts the maps before and after every
convolution: the first row takes 295, 252, 293 and 445 ms in the layout of `torch.randn`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CALL = 10e-6  # seconds of calling an operation
WEIGHTS = 0.6e-9  # seconds per byte of a layer's weights, which each call reads and rearranges
PAGES = 0.45e-9  # seconds per byte of new memory
MIXING = 0.03e-9  # seconds per byte of all maps, for slots that differ between images
LIMIT = 64 * 2**20  # bytes that are in use at once; glibc's largest M_TRIM_THRESHOLD
IN_USE = 4  # outputs that are in memory at once
MIN_IMAGES = 8  # of a batch that is cut
MAX_PIECE = 256  # images
DTYPES = (torch.float32, torch.bfloat16)

Run = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Cost:
    """What a pass of a network consists of."""

    operations: int
    weights: int  # bytes
    # Bytes for one image of the output of each operation together with the outputs before it that
    # are still in memory, and of the output alone; in descending order.
    maps: tuple[tuple[int, int], ...]

    def fixed(self) -> float:
        """Return the seconds of a pass that do not depend on the number of images."""
        return self.operations * CALL + self.weights * WEIGHTS

    def pages(self, images: int) -> float:
        """Return the seconds per image of new memory, in pieces of this many images."""
        fresh = itertools.takewhile(lambda each: images * each[0] > LIMIT, self.maps)
        return PAGES * sum(size for _, size in fresh)

    def mixing(self) -> float:
        """Return the seconds per image of slots that differ between the images of a batch."""
        return MIXING * sum(size for _, size in self.maps)

    def seconds(self, images: int, pieces: int) -> float:
        """Return the estimate for a batch in equal pieces, without its arithmetic."""
        return pieces * self.fixed() + images * self.pages(math.ceil(images / pieces))


@lru_cache(maxsize=4096)
def best_count(cost: Cost, images: int) -> int:
    """Return the number of pieces with the lowest estimate, the fewest of equal ones."""
    counts = {math.ceil(images / size) for size in range(1, MAX_PIECE + 1)}
    return min(sorted(counts), key=lambda count: cost.seconds(images, count))


def even(images: int, pieces: int) -> list[int]:
    """Return the sizes of pieces that differ by one image at most, the larger ones first."""
    size, more = divmod(images, pieces)
    return [size + 1] * more + [size] * (pieces - more)


def cut(cost: Cost, images: int) -> list[int]:
    """Return the pieces of a batch of one domain."""
    return even(images, best_count(cost, images))


def cut_mixed(cost: Cost, sizes: Sequence[int]) -> list[int]:
    """Return the pieces of a batch of several domains, sorted by domain.

    They are pieces of the whole batch, which may contain several domains, or pieces of every
    domain's part, whichever has the lower estimate.

    Args:
        sizes: The images of each domain.
    """
    images = sum(sizes)
    together = cost.seconds(images, best_count(cost, images)) + images * cost.mixing()
    apart = sum(cost.seconds(size, best_count(cost, size)) for size in sizes)
    if together <= apart:
        return cut(cost, images)
    return [piece for size in sizes for piece in cut(cost, size)]


def applies(x: Tensor) -> bool:
    """Return whether these images may run in pieces: on a CPU, without gradients or a trace."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    return (
        x.device.type == "cpu"
        and x.dtype in DTYPES
        and not torch.is_grad_enabled()
        # of this thread; `is_in_torch_dispatch_mode` tells of all threads
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
    )


def undisturbed(modules: Iterable[nn.Module]) -> bool:
    """Return whether no module is in training or has a hook that sees the batch."""
    return not _has_any_global_hook() and not any(  # type: ignore[no-untyped-call]
        module.training or module._forward_hooks or module._forward_pre_hooks for module in modules
    )


class Plans:
    """Runs batches of one network in pieces; keeps what a pass of each domain consists of."""

    def __init__(self) -> None:
        self._costs: dict[Hashable, Cost] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_costs": {}}  # a copy may be changed, for example folded

    def clear(self) -> None:
        """Forget the costs of a network that changes."""
        self._costs = {}

    def cost(self, run: Run, x: Tensor, name: str) -> Cost:
        """Return what a pass with images of this size consists of.

        Args:
            run: Runs images of the domain through the network.
        """
        key = name, tuple(x.shape[1:]), x.dtype, torch.is_autocast_enabled("cpu")
        costs = self._costs
        if key not in costs:
            with torch.inference_mode(), _Count() as count:
                run(x[:1])
            costs[key] = count.cost()
        return costs[key]

    def run(
        self, run: Run, x: Tensor, name: str, divisible: Callable[[], bool]
    ) -> dict[str, Tensor]:
        """Return the outputs by task of images of one domain, run in pieces where that is faster.

        Args:
            divisible: Returns whether the outputs in pieces are the same.
        """
        if not applies(x):
            return run(x)
        x = x.contiguous(memory_format=torch.channels_last)
        if len(x) < MIN_IMAGES or not divisible():
            return run(x)
        sizes = cut(self.cost(run, x, name), len(x))
        return run(x) if len(sizes) == 1 else _run_cut(run, x, sizes)


def _run_cut(run: Run, x: Tensor, sizes: Sequence[int]) -> dict[str, Tensor]:
    """Run the pieces one after another; return their outputs by task in one tensor each.

    The outputs are written in place, so that they are never in memory twice.
    """
    outputs: dict[str, Tensor] = {}
    start = 0
    for piece in torch.split(x, list(sizes)):
        for task, values in run(piece).items():
            if task not in outputs:
                outputs[task] = values.new_empty(len(x), *values.shape[1:])
            outputs[task][start : start + len(piece)] = values
        start += len(piece)
    return outputs


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, the bytes of their weights, and the bytes of new maps."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.weights = 0
        self.maps: list[int] = []

    def cost(self) -> Cost:
        """Return what has been counted."""
        ends = range(1, len(self.maps) + 1)
        in_use = (sum(self.maps[max(0, end - IN_USE) : end]) for end in ends)
        maps = sorted(zip(in_use, self.maps, strict=True), reverse=True)
        return Cost(self.operations, self.weights, tuple(maps))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "is_view", False):
            return out
        self.operations += 1
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.weights += sum(t.nbytes for t in given if isinstance(t, nn.Parameter))
        addresses = {tensor.data_ptr() for tensor in given}  # of which some are changed in place
        self.maps += [t.nbytes for t in made if t.data_ptr() not in addresses]
        return out
