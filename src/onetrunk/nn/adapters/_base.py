"""The interface of adapter methods and of the modules that they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from onetrunk.errors import BadInput

Weights = tuple[Tensor, Tensor | None]  # of a layer: weight and bias, float64


class Adapter(nn.Module):
    """An adapter of one layer, called as `adapter(x, y)` with the layer's input and output."""

    def run(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return the adapted output of the layer for the input x."""
        y: Tensor = self(x, layer(x))
        return y

    def merged(self, layer: nn.Linear | nn.Conv2d, sizes: Iterable[Sequence[int]]) -> Weights | str:
        """Return the layer's weight and bias with this adapter merged, or why it cannot be merged.

        Args:
            sizes: The sizes (h, w) of the images or maps that reach it.
        """
        return "this kind of adapter cannot be merged"

    @classmethod
    def can_batch(cls, slots: Sequence[nn.Module]) -> bool:
        """Return whether these adapters can run with one matrix per image (see `batched`)."""
        del slots
        return False

    def batched(self, x: Tensor, y: Tensor, tensors: list[Tensor]) -> Tensor:
        """Return the adapted outputs of a mixed batch, with the adapter's tensors per image."""
        raise NotImplementedError

    def faster_by_segment(self, layer: nn.Module) -> bool:
        """Return whether segments are faster than `batched` beside this layer."""
        return True


class Adapted(nn.Module):
    """A layer with one adapter: the plain equivalent of an adapter bank for one domain."""

    def __init__(self, layer: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted output of the layer."""
        return self.adapter(x, self.layer(x))  # type: ignore[no-any-return]


class AdapterMethod(ABC):
    """How adapters of one kind are made. Class attributes declare what the method supports."""

    # Types of layers that it adapts; other layers are ignored.
    layer_types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv2d, nn.Linear)
    # Whether the user may choose a rank.
    takes_rank: ClassVar[bool] = True

    def why_not(self, layer: nn.Module) -> str:
        """Return why this layer takes no adapter; an empty string if it takes one."""
        if isinstance(layer, nn.Linear):
            return ""
        if not isinstance(layer, nn.Conv2d):
            return f"a {type(layer).__name__} is neither a 2-D convolution nor linear"
        if any(k % 2 == 0 for k in layer.kernel_size):
            return "its kernel is even-sized, so no pixel is its center"
        if isinstance(layer.padding, str) or type(layer).__name__.endswith("Same"):
            return ""
        sides = zip(layer.kernel_size, layer.dilation, strict=True)
        if layer.padding != tuple(d * (k - 1) // 2 for k, d in sides):
            return "its padding is not half its kernel, so its map is not aligned with a 1×1's"
        return ""

    @abstractmethod
    def make(self, layer: Any, rank: int | None) -> nn.Module | None:
        """Return a new adapter, without effect at first, for a layer that `why_not` accepts."""


class UserAdapter(AdapterMethod):
    """A user's function `thing(layer)` as an adapter method."""

    layer_types = (nn.Module,)
    takes_rank = False

    def __init__(self, name: str, thing: Any) -> None:
        self.name = name
        self.thing = thing

    def why_not(self, layer: nn.Module) -> str:
        """Return an empty string: the function decides."""
        return ""

    def make(self, layer: nn.Module, rank: int | None) -> nn.Module | None:
        """Call the user's function."""
        adapter = self.thing(layer)
        if adapter is not None and not isinstance(adapter, nn.Module):
            raise BadInput(
                f"adapter {self.name}: expected None or a module", got=type(adapter).__name__
            )
        return adapter
