"""Find the norms that can be merged into a layer, from one recorded pass.

A batch norm with running statistics is merged into a convolution or linear layer if it is the only
reader of that layer's output, each of the two runs once, and neither shares its weights. Between
the two may be a flattening that keeps the channels, as between a transformer's linear layer and its
BatchNorm1d.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.nn.bank import Replacement
from onetrunk.nn.norms import OWN_STATISTICS, is_norm
from onetrunk.nn.tensor_uses import Call, Owners, Uses, record_uses

LAYERS = {"linear": 2, "conv1d": 3, "conv2d": 4, "conv3d": 5}  # dimensions of the output
RESHAPES = frozenset({"flatten", "reshape", "view"})


class Pairs:
    """For each norm of a pass the `layer` to merge it into, or the `reason` why there is none."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        owners = Owners(module)
        uses = record_uses(module, x)
        self.layer: dict[nn.Module, nn.Module] = {}
        self.reason: dict[nn.Module, str] = {}
        for call in uses.calls:
            if call.name != "batch_norm":
                continue
            norm = owners.only(_argument(call, 1, "running_mean"), "running_mean")
            if norm is None:
                continue
            layer = _layer_before(uses, owners, call, norm)
            if isinstance(layer, str):
                self.reason[norm] = layer
            else:
                self.layer[norm] = layer


def remainder(norm: nn.Module) -> nn.Module | None:
    """Return a norm without its affine map: an identity, or its activation.

    Returns None for a class that may compute something else.
    """
    forward: Callable[..., Any] = type(norm).forward
    if isinstance(norm, BatchNormAct2d) and forward is BatchNormAct2d.forward:
        rest = [m for m in (norm.drop, norm.act) if not isinstance(m, nn.Identity)]
        return rest[0] if len(rest) == 1 else nn.Sequential(*rest)
    if isinstance(norm, _BatchNorm) and forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
        return nn.Identity()
    return None


def why_not_folded(part: nn.Module) -> str:
    """Return why this layer of a folded network could not be merged; empty for any other layer."""
    if isinstance(part, Replacement) and part.why_not_folded:
        return part.why_not_folded
    if isinstance(part, _BatchNorm):
        return "takes the batch's own statistics" if part.running_mean is None else "did not run"
    if type(part).__name__ == "Affine":
        return "does not follow a convolution directly"
    return OWN_STATISTICS if is_norm(part) else ""


def _layer_before(uses: Uses, owners: Owners, call: Call, norm: nn.Module) -> nn.Module | str:
    """Return the layer into which a norm's call can be merged, or why there is none."""
    if remainder(norm) is None:
        return "its class may do more than normalize"
    if _argument(call, 5, "training"):
        return "takes the batch's own statistics"
    if len(uses.readers(call.args[1])) != 1:
        return "runs more than once"
    x: Tensor = call.args[0]
    made = uses.maker(x)
    if made is not None and made.name in RESHAPES and x.ndim == 2:
        before = made.args[0]
        if before.shape[-1] != x.shape[-1] or not uses.only_reader(x, call):
            return "follows a reshaping"
        x, call, made = before, made, uses.maker(before)
        if made is None or made.name != "linear":
            return "follows a reshaping"
    elif made is not None and made.name in LAYERS and x.ndim != LAYERS[made.name]:
        return "its channels are not those of the layer before it"
    if made is None or made.name not in LAYERS:
        return f"follows {made.name if made else 'the input'}, not a convolution or linear layer"
    if not uses.only_reader(x, call):
        return "something else reads its input"
    weight, bias = _argument(made, 1, "weight"), _argument(made, 2, "bias")
    layer = owners.only(weight, "weight")
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "the layer before it computes or shares its weight"
    if bias is not layer.bias or (bias is not None and owners.only(bias, "bias") is not layer):
        return "the layer before it computes or shares its bias"
    if len(uses.readers(weight)) != 1:
        return "the layer before it runs more than once"
    return layer


def _argument(call: Call, place: int, name: str) -> Any:
    """Return an argument of a torch function, by position or by name."""
    return call.args[place] if len(call.args) > place else call.kwargs.get(name)
