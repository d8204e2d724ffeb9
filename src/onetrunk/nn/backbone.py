"""Backbones: the plain networks that trunks start from, built in or timm's, as one interface."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.errors import BadInput, Failed
from onetrunk.nn.checkpoint_names import published, translate
from onetrunk.progress import say

# Most transformers are built for one size; these switches of timm's free them, tried in order.
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)


@dataclass
class Backbone:
    """A plain network and what onetrunk has to know of it."""

    arch: str
    licence: str | None  # of its pretrained weights
    stages: dict[str, tuple[str, ...]]  # modules of each stage; "" stands for what no module holds
    reductions: tuple[int, ...]  # input pixels per pixel of each map of the pyramid
    size: tuple[int, int] | None = None  # that it was built for
    decoded: bool = False  # its last map is a decoder's, which dense heads read as it is

    def forward(
        self, net: Any, x: Tensor, pooled: bool, maps: Sequence[int]
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Pooled features (B, C) and these maps (B, C, h, w) of the pyramid."""
        if not self.arch.startswith("timm/"):
            pyramid = net.forward_pyramid(x)
            return net.pooled(pyramid) if pooled else None, [pyramid[i] for i in maps]
        if not maps:
            return net.forward_head(net.forward_features(x), pre_logits=True), []
        last, pyramid = net.forward_intermediates(x, indices=list(maps))
        return net.forward_head(last, pre_logits=True) if pooled else None, pyramid


def build(arch: str, pretrained: bool | str | Path) -> tuple[nn.Module, Backbone]:
    """The backbone `timm/NAME`, or a built-in, with its weights."""
    if arch.startswith("timm/"):
        net, backbone = _timm(arch, pretrained is True)
    else:
        net, backbone = _builtin(arch)
        if pretrained is True:
            raise BadInput(
                f"{arch} has no weights of its own to download",
                got="pretrained = true",
                try_="pretrained = false, or the path of a file",
            )
    if not isinstance(pretrained, bool):
        backbone.licence = load_weights(net, arch, Path(pretrained))
    return net, backbone


def _timm(arch: str, pretrained: bool) -> tuple[nn.Module, Backbone]:
    import timm
    from timm.models import group_parameters

    name = arch.removeprefix("timm/")
    if not timm.is_model(name):
        raise BadInput("unknown timm model", got=name, available=timm.list_models())
    for options in _ANY_SIZE:
        try:
            net: Any = _create(name, pretrained, options)
            break
        except TypeError:
            if not options:
                raise
    for need in ("forward_features", "forward_head", "forward_intermediates"):
        if not hasattr(net, need):
            raise BadInput(f"{arch} has no {need}: it is no trunk", got=type(net).__name__)
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
        stages,
        tuple(int(info["reduction"]) for info in net.feature_info),
        tuple(config["input_size"][1:]) if config.get("fixed_input_size") else None,
    )


def _create(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """timm's model; where its weights cannot be had, one line that says how to give them."""
    import timm

    if not pretrained:
        return timm.create_model(name, num_classes=0, **options)
    hub = logging.getLogger("huggingface_hub")  # a line for each of many tries, else
    level = hub.level
    say(f"the weights of timm/{name}: from this machine's cache, else from the network")
    hub.setLevel(logging.ERROR)
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **options)
    except TypeError:  # an option that this model does not take
        raise
    except Exception as error:  # of whatever library fetches them
        config = timm.get_pretrained_cfg(name)
        where = config.url if config else ""
        if config and config.hf_hub_id:
            where = f"model.safetensors of https://huggingface.co/{config.hf_hub_id}"
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise Failed(
            f"the pretrained weights of timm/{name} could not be fetched ({reason}); try: "
            f"download {where or 'them'} elsewhere and say pretrained = 'PATH', or pretrained = "
            "false"
        ) from None
    finally:
        hub.setLevel(level)


def _builtin(arch: str) -> tuple[nn.Module, Backbone]:
    from onetrunk.nn import networks as nets

    net = nets.build(arch)
    return net, Backbone(
        arch,
        None,
        {stage.name: (stage.module,) for stage in net.stages},
        tuple(stage.reduction for stage in net.stages),
        decoded=net.decoded,
    )


def _cover(net: nn.Module, names: set[str]) -> tuple[str, ...]:
    """The fewest modules whose parameters are exactly these; "" for what no such module holds."""
    found: list[str] = []

    def visit(module: nn.Module, path: str) -> None:
        below = [f"{path}{name}" for name, _ in module.named_parameters()]
        if below and path and names.issuperset(below):
            found.append(path.removesuffix("."))
        elif names.intersection(below):
            if names.intersection(f"{path}{name}" for name in module._parameters):
                found.append("")
            for key, child in module.named_children():
                visit(child, f"{path}{key}.")

    visit(net, "")
    return tuple(dict.fromkeys(found))


def load_weights(net: nn.Module, arch: str, path: Path) -> str | None:
    """Weights from a file: safetensors, or a state dict read without running its pickle's code.

    Their licence, where the file is one that is known.
    """
    if not path.is_file():
        raise BadInput("pretrained: no such file", got=path.name)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).split("\n")[0][:160]
        raise BadInput(f"pretrained: {path.name} holds no plain tensors ({reason})") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadInput(
            f"pretrained: expected a state dict in {path.name}", got=type(state).__name__
        )
    state = {key.removeprefix("module."): value for key, value in state.items()}
    classifier = getattr(net, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    expected = net.state_dict()
    known = None
    if (foreign := translate(state, expected, arch)) is not None:
        state, known = foreign.tensors, published(path)
        what = f"{known.name}, {known.licence}" if known else "licence unknown"
        say(f"{path.name}: weights in {foreign.naming}'s names ({what}), renamed for {arch}")
    extra = [
        k for k in state if k not in expected and not k.startswith(tuple(f"{h}." for h in heads))
    ]
    lacking = [k for k in expected if k not in state]
    unequal = [
        f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
        for k, v in expected.items()
        if k in state and state[k].shape != v.shape
    ]
    parts = (("missing", lacking), ("not of this trunk", extra), ("of other shape", unequal))
    faults = [
        f"{what}: {', '.join(names[:8])}" + (f" … ({len(names)})" if len(names) > 8 else "")
        for what, names in parts
        if names
    ]
    if faults:
        raise BadInput(f"pretrained: {path.name} does not fit {arch}; " + "; ".join(faults))
    net.load_state_dict({k: v for k, v in state.items() if k in expected})
    return known.licence if known else None
