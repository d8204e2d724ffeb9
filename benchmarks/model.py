"""Compare time and bytes of a network with domains with those of the plain network.

    python benchmarks/model.py [--quick] [--json FILE] [--device cuda] [--dtype bfloat16]

The plain network has the same weights. Every ratio is the median over pairs of alternating
measurements, so that other load on the machine affects both equally. A training step is the forward
pass, the loss, the backward pass and SGD with momentum over all parameters; inference is without
gradients, in evaluation mode. Both include the heads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from table import Figures, median, paired
from torch import Tensor, nn

import onetrunk as ot
from onetrunk.nn import networks as nets

CLASSES = 10
Run = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """The settings of the measurement."""

    batch: int
    rounds: int
    device: torch.device
    dtype: torch.dtype
    few: int  # domains
    many: int
    mixed: int  # domains of the largest mixed batch

    def images(self, size: int) -> Tensor:
        """A batch of images, in channels_last layout on a GPU."""
        x = torch.randn(self.batch, 3, size, size, device=self.device)
        if self.device.type == "cuda":
            x = x.to(memory_format=torch.channels_last)
        return x


class Plain(nn.Module):
    """The plain network, without banks."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        self.trunk = nets.build(arch)
        self.head = nn.Linear(self.trunk.num_features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.trunk(x))
        return logits


def universal(
    arch: str, plain: Plain, count: int, size: int, adapters: str, to: Setting
) -> ot.Universal:
    """Return a network with the same weights and this many domains."""
    task = ot.Task("classify", "classify", tuple(f"c{i}" for i in range(CLASSES)))
    trunk = ot.Trunk(arch, adapters=adapters)
    names = trunk.shared()
    with torch.no_grad():
        for name, tensor in plain.trunk.state_dict().items():
            names[name].copy_(tensor)
    domains = [ot.Domain(f"d{i}", None, [task], size=size) for i in range(count)]
    model = ot.Universal(trunk, domains).to(to.device)
    with torch.no_grad():
        for name in model.domains:
            head = model.heads_of(name).head("classify")
            head.get_parameter("weight").copy_(plain.head.weight)
            head.get_parameter("bias").copy_(plain.head.bias)
    return model.to(memory_format=torch.channels_last) if to.device.type == "cuda" else model


def seconds(run: Run, device: torch.device) -> float:
    """Return the seconds of a call, including the work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Ratios:
    """The rows of the table: ratios of median times."""

    def __init__(self, figures: Figures, setting: Setting) -> None:
        self.figures, self.setting = figures, setting

    def add(self, name: str, one: Run, other: Run, aim: str = "") -> None:
        """Time both in pairs, after two rounds that are not counted."""
        device, base = self.setting.device, []

        def plain() -> float:
            base.append(seconds(other, device))
            return base[-1]

        paired(lambda: seconds(one, device), plain, 2)
        base.clear()
        value = median(paired(lambda: seconds(one, device), plain, self.setting.rounds))
        shown = f"{value:.3f} of {median(base) * 1e3:.1f} ms"
        self.figures.add(f"{name}_ratio", value, shown, aim)


def infer(module: nn.Module, call: Callable[[], object], setting: Setting) -> Run:
    """Return a function that runs inference."""

    module.eval()

    def run() -> object:
        with torch.inference_mode(), cast(setting):
            return call()

    return run


def train(module: nn.Module, call: Callable[[], Tensor], setting: Setting) -> Run:
    """Return a function that runs a training step with fixed random classes."""
    target = torch.randint(0, CLASSES, (setting.batch,), device=setting.device)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)
    module.train()

    def run() -> None:
        with cast(setting):
            loss = F.cross_entropy(call().float(), target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return run


def cast(setting: Setting) -> torch.autocast | nullcontext[None]:
    """Return autocast for a type smaller than float32."""
    if setting.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(setting.device.type, setting.dtype)


def mixed_call(model: ot.Universal, x: Tensor, names: list[str]) -> Callable[[], Tensor]:
    """Return a function that predicts a mixed batch in one pass and stacks the outputs."""
    return lambda: torch.stack([out["classify"] for out in model(x, domain=names)])


def measure(arch: str, size: int, setting: Setting, figures: Figures) -> None:
    """Add all figures of one trunk."""
    ratios = Ratios(figures, setting)
    plain = Plain(arch).to(setting.device)
    if setting.device.type == "cuda":
        plain = plain.to(memory_format=torch.channels_last)
    x = setting.images(size)
    for count in (setting.few, setting.many):
        model = universal(arch, plain, count, size, "none", setting)
        among = list(model.domains)[: setting.mixed]
        pure = pure_call(model, x, among[0])
        with torch.no_grad():  # check that the outputs are equal before timing
            torch.testing.assert_close(
                model.eval()(x, domain=among[0])["classify"], plain.eval()(x)
            )
        mixed = mixed_call(model, x, [among[i % len(among)] for i in range(setting.batch)])
        for what, make, aim in (("inference", infer, "1.10"), ("train", train, "1.6")):
            bare = make(plain, lambda: plain(x), setting)
            name = f"{arch}_pure_{count}_{what}"
            ratios.add(name, make(model, pure, setting), bare, "at most 1.05")
            name = f"{arch}_mixed_{len(among)}_{what}"
            ratios.add(name, make(model, mixed, setting), bare, f"at most {aim}")
        if count == setting.few:
            add_bytes(arch, plain, model, figures)
        else:
            add_loop(arch, model, among, x[: len(among)], ratios)
    model = universal(arch, plain, setting.few, size, "parallel", setting)
    among = list(model.domains)
    mixed = mixed_call(model, x, [among[i % len(among)] for i in range(setting.batch)])
    ratios.add(
        f"{arch}_parallel_mixed_{len(among)}_over_pure",
        infer(model, mixed, setting),
        infer(model, pure_call(model, x, among[0]), setting),
        "at most 1.1" if arch == "resnet20" else "at most 1.8",
    )


def pure_call(model: ot.Universal, x: Tensor, name: str) -> Callable[[], Tensor]:
    """Return a function that predicts a batch of one domain."""
    return lambda: model(x, domain=name)["classify"]


def add_bytes(arch: str, plain: Plain, model: ot.Universal, figures: Figures) -> None:
    """Add the ratio of bytes without heads: all domains in one network to one plain network."""
    heads = [t for n in model.domains for t in model.heads_of(n).state_dict().values()]
    one = sum(t.numel() * t.element_size() for t in plain.trunk.state_dict().values())
    every = ot.budget(model).universal.bytes - sum(t.numel() * t.element_size() for t in heads)
    count = len(model.domains)
    shown = f"{every / one:.3f}, apart {count}"
    figures.add(f"{arch}_bytes_{count}_ratio", every / one, shown, "at most 1.05")


def add_loop(arch: str, model: ot.Universal, among: list[str], x: Tensor, ratios: Ratios) -> None:
    """Add the ratio of one pass per image to one pass, for a batch with a domain per image."""

    def each() -> None:
        for i, name in enumerate(among):
            model(x[i : i + 1], domain=name)

    setting = ratios.setting
    aim = "at least 10" if setting.device.type == "cuda" else "at least 2.5"
    ratios.add(
        f"{arch}_loop_over_mixed_{len(among)}",
        infer(model, each, setting),
        infer(model, mixed_call(model, x, among), setting),
        aim if arch == "resnet20" or setting.device.type == "cuda" else "",
    )


def main() -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and fast, to test the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    device = torch.device(given.device)
    batch = 256 if device.type == "cuda" else 64
    setting = Setting(batch, 15, device, getattr(torch, given.dtype), 10, 100, 64)
    if given.quick:
        setting = replace(setting, batch=8, rounds=2, few=3, many=8, mixed=8)
    figures = Figures(given.seed)
    for arch, size in (("resnet20", 32), ("resnet26", 64)):
        measure(arch, size // 2 if given.quick else size, setting, figures)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    threads = torch.get_num_threads()
    figures.values |= {"batch": setting.batch, "rounds": setting.rounds, "threads": threads}
    title = f"one network beside the plain one: {where}, {threads} threads, batch {setting.batch}"
    figures.finish(f"{title}, {given.dtype}", given.json)


if __name__ == "__main__":
    main()
