"""Typed access to methods of tensors that torch leaves without annotations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.utils.hooks import RemovableHandle


def change_gradient(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Replace the gradient of a tensor by `change(gradient)` until the handle is removed."""
    handle = tensor.register_hook(change)  # type: ignore[no-untyped-call]  # torch has no types here
    assert isinstance(handle, RemovableHandle)
    return handle
