"""Export to ONNX: one domain as its folded plain network, or all domains of one size in one file.

One domain: input `images` (batch, 3, H, W); outputs named DOMAIN/TASK. All domains: a second input
`domain` (batch,), the place of each image's domain in the list of domains in the metadata; every
head runs on every image, and the outputs for image i are those of its domain. The batch size is
free, the image size is that of the domain. The key `onetrunk` of the metadata holds a JSON document
with the labels and the pixel settings; docs/onnx.md shows how to use it.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.errors import BadInput, Failed, Missing
from onetrunk.nn.card import Card
from onetrunk.nn.universal import Universal
from onetrunk.store.atomic import atomic_path
from onetrunk.store.places import check_file

FORMAT = 1
KEY = "onetrunk"
TOLERANCE = 1e-4  # relative, ONNX Runtime against PyTorch


class _OneDomain(nn.Module):
    """The predictions of one domain as a tuple, in the order of its tasks."""

    def __init__(self, plain: nn.Module, card: Card) -> None:
        super().__init__()
        self.plain = plain
        self.tasks = [task.name for task in card.tasks]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) to one tensor per task."""
        out: dict[str, Tensor] = self.plain(images)
        return tuple(out[task] for task in self.tasks)


class _AllDomains(nn.Module):
    """The predictions of all domains as a tuple; `domain` chooses the slots of the banks."""

    def __init__(self, model: Universal) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, domain: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) and (B,) to one tensor per domain and task."""
        out = self.model(images, domain=domain)
        cards = self.model.domains.values()
        return tuple(out[card.name][task.name] for card in cards for task in card.tasks)


def export(model: Universal, path: str | PathLike[str], domain: str | None = None) -> Path:
    """Write an ONNX file, after comparing its outputs with those of PyTorch.

    Args:
        domain: The domain to export; by default all of them.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise Missing(package, "onnx", "export to ONNX")
    path = Path(path)
    check_onnx_path(path)
    cards = list(model.domains.values())
    if not cards:
        raise BadInput("export: expected a model with domains", got="none")
    if not model.trunk.norm_method.exports:
        raise BadInput(
            "export: with this norm the prediction for an image depends on its batch",
            got=f"norm = {model.trunk.norm!r}",
            try_="a trunk with norm = 'domain'",
        )
    # A copy in float32 on the CPU, for ONNX Runtime; the model may be in training.
    if domain is not None:
        plain = model.for_domain(domain).float().cpu()
        cards = [model.domains[domain]]
        inputs: tuple[Tensor, ...] = (example(cards),)
        net: nn.Module = _OneDomain(plain, cards[0])
    else:
        check_one_size(cards)
        copied = copy.deepcopy(model).eval().float().cpu()
        inputs = (example(cards), copied.index([cards[i % len(cards)].name for i in range(3)]))
        net = _AllDomains(copied)
    _write(net.eval(), inputs, cards, model.trunk.licence, path)
    return path


def check_onnx_path(path: Path) -> None:
    """Raise BadInput for a path that an ONNX file cannot be written to."""
    if path.suffix.lower() != ".onnx":
        raise BadInput(
            "export: expected a file name that ends in .onnx",
            got=path.name,
            try_=str(path.with_suffix(".onnx")),
        )
    if not path.parent.is_dir():
        raise BadInput("export: no such folder", got=str(path.parent), try_="create it first")
    check_file(path, "OUT.onnx")


def check_one_size(cards: list[Card]) -> None:
    """Raise BadInput for domains of different sizes."""
    sizes = {card.name: "×".join(map(str, card.pixels.size)) for card in cards}
    if len(set(sizes.values())) > 1:
        raise BadInput(
            "export: expected domains of one size for one file",
            got=", ".join(f"{name} {size}" for name, size in sizes.items()),
            try_="export(model, path, domain=NAME), one file per domain",
        )


def example(cards: list[Card]) -> Tensor:
    """Return images to trace with: three, because exporters specialize on a batch of one."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, *cards[0].pixels.size, generator=generator)


def document(cards: list[Card], licence: str | None) -> dict[str, Any]:
    """Return the labels and pixels of each domain."""
    keep = ("domain", "tasks", "pixels")
    domains = [{key: card.to_json()[key] for key in keep} for card in cards]
    return {"format": FORMAT, "domains": domains, "licence": licence}


def _write(
    net: nn.Module, inputs: tuple[Tensor, ...], cards: list[Card], licence: str | None, path: Path
) -> None:
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = tuple({0: batch} for _ in inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        program = torch.onnx.export(
            torch.export.export(net, inputs, dynamic_shapes=shapes, strict=False),
            dynamo=True,
            input_names=["images", "domain"][: len(inputs)],
            output_names=[f"{card.name}/{task.name}" for card in cards for task in card.tasks],
            verbose=False,
        )
        expected = net(*inputs)
    if program is None:
        raise Failed("torch's exporter returned no program", try_="report this trunk")
    program.model.metadata_props[KEY] = json.dumps(document(cards, licence), ensure_ascii=False)
    with atomic_path(path) as part:
        program.save(str(part))
        outputs = zip(_run(part, inputs), expected, strict=True)
        error = max(_difference(got, tensor) for got, tensor in outputs)
        if not error <= TOLERANCE:
            raise Failed(
                f"the outputs of ONNX Runtime and PyTorch differ by {error:.1e}",
                try_="report this trunk",
            )


def _run(path: Path, inputs: tuple[Tensor, ...]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    outputs: list[Any] = session.run(None, feed)
    return outputs


def _difference(got: Any, expected: Tensor) -> float:
    scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((torch.from_numpy(got) - expected).abs().max() / scale)
