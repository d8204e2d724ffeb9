"""Export to ONNX: one domain as its folded plain network, or all domains of one size in one file.

One domain: input `images` (batch, 3, H, W); outputs named DOMAIN/TASK. All: a second input `domain`
(batch,), each image's place in the list of domains in the metadata; every head answers every image,
and image i's own are those of its domain. The batch is free, the size is the domain's. What a
reader needs beside the network, the labels and the pixels' contract, is one JSON document in the
file's metadata under the key `onetrunk`; docs/onnx.md reads it.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.errors import BadInput, Failed, Missing
from onetrunk.nn.card import Card
from onetrunk.nn.universal import Universal

FORMAT = 1
KEY = "onetrunk"
AGREE = 1e-4  # relative: ONNX Runtime against PyTorch


class _One(nn.Module):
    """One domain's predictions as a tuple, in the order of its tasks."""

    def __init__(self, plain: nn.Module, card: Card) -> None:
        super().__init__()
        self.plain = plain
        self.tasks = [task.name for task in card.tasks]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to one tensor a task."""
        out: dict[str, Tensor] = self.plain(images)
        return tuple(out[task] for task in self.tasks)


class _All(nn.Module):
    """All domains' predictions as a tuple, domain by domain; `domain` chooses the banks' slots."""

    def __init__(self, model: Universal) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, domain: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) and (B,) to one tensor a domain and task."""
        out: dict[str, dict[str, Tensor]] = self.model(images, domain=domain)
        cards = self.model.domains.values()
        return tuple(out[card.name][task.name] for card in cards for task in card.tasks)


def export(model: Universal, path: str | PathLike[str], domain: str | None = None) -> Path:
    """Write an ONNX file of one domain, or of all; checked against PyTorch before it is there."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise Missing(package, "onnx", "export to ONNX")
    to = Path(path)
    if not to.parent.is_dir():
        raise BadInput("export: no such folder", got=str(to.parent), try_="make it first")
    cards = list(model.domains.values())
    if not cards:
        raise BadInput("export: expected a model with domains", got="none")
    if model.trunk.norm == "shared-batch":
        raise BadInput(
            "the norm 'shared-batch' keeps no statistics: an exported network would answer each image "
            "by its batch",
            try_="a trunk with norm = 'domain'",
        )
    # A copy, in ONNX Runtime's own type and place: the model may go on learning meanwhile.
    if domain is not None:
        plain = model.for_domain(domain).float().cpu()
        cards = [model.domains[domain]]
        inputs: tuple[Tensor, ...] = (example(cards),)
        net: nn.Module = _One(plain, cards[0])
    else:
        check_one_size(cards)
        whole = copy.deepcopy(model).eval().float().cpu()
        inputs = (example(cards), whole.index([cards[i % len(cards)].name for i in range(3)]))
        net = _All(whole)
    _write(net.eval(), inputs, cards, model.trunk.licence, to)
    return to


def check_one_size(cards: list[Card]) -> None:
    """All domains of one file have one size."""
    sizes = {card.name: "×".join(map(str, card.pixels.size)) for card in cards}
    if len(set(sizes.values())) > 1:
        raise BadInput(
            "one file holds domains of one size",
            got=", ".join(f"{name} {size}" for name, size in sizes.items()),
            try_="export(model, path, domain=NAME), one file for each",
        )


def example(cards: list[Card]) -> Tensor:
    """Images to trace with: three of them, since an exporter takes one for a size of its own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, *cards[0].pixels.size, generator=generator)


def document(cards: list[Card], licence: str | None) -> dict[str, Any]:
    """What a reader needs: labels and the pixels' contract, domain by domain."""
    keep = ("domain", "tasks", "pixels")
    domains = [{key: card.to_json()[key] for key in keep} for card in cards]
    return {"format": FORMAT, "domains": domains, "licence": licence}


def _write(
    net: nn.Module, inputs: tuple[Tensor, ...], cards: list[Card], licence: str | None, to: Path
) -> None:
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = tuple({0: batch} for _ in inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            torch.export.export(net, inputs, dynamic_shapes=shapes, strict=False),
            dynamo=True,
            input_names=["images", "domain"][: len(inputs)],
            output_names=[f"{card.name}/{task.name}" for card in cards for task in card.tasks],
            verbose=False,
        )
        want = net(*inputs)
    if program is None:
        raise Failed("the exporter made no program; try: report this trunk")
    program.model.metadata_props[KEY] = json.dumps(document(cards, licence), ensure_ascii=False)
    beside = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        program.save(str(beside))
        error = max(
            _difference(got, tensor) for got, tensor in zip(_run(beside, inputs), want, strict=True)
        )
        if not error <= AGREE:
            raise Failed(
                f"ONNX Runtime answers otherwise than PyTorch, by {error:.1e}; "
                "try: report this trunk"
            )
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, to)
    finally:
        beside.unlink(missing_ok=True)


def _run(path: Path, inputs: tuple[Tensor, ...]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    got: list[Any] = session.run(None, feed)
    return got


def _difference(got: Any, want: Tensor) -> float:
    scale = want.abs().max().clamp_min(torch.finfo(want.dtype).tiny)
    return float((torch.from_numpy(got) - want).abs().max() / scale)
