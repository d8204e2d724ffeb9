"""What universality costs in time and bytes, each figure beside the plain network of the same weights.

    python benchmarks/model.py [--quick] [--json FILE] [--device cuda] [--dtype bfloat16]

Every ratio is the median over interleaved pairs: one run of the one, one of the other, again and
again, so that whatever else the machine does meets both. A training step is forward, loss, backward
and SGD with momentum over all parameters; inference is without gradients, in eval mode.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import onetrunk
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.measure.budget import budget
from onetrunk.model import nets
from onetrunk.model.trunk import Trunk
from onetrunk.model.universal import Universal

CLASSES = 10
Run = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """How to measure."""

    batch: int
    rounds: int
    device: torch.device
    dtype: torch.dtype
    few: int  # domains
    many: int
    mixed: int  # domains of the largest mixed batch

    def images(self, size: int) -> Tensor:
        """A batch, channels last on a GPU, where that is the faster layout."""
        x = torch.randn(self.batch, 3, size, size, device=self.device)
        if self.device.type == "cuda":
            x = x.to(memory_format=torch.channels_last)
        return x


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    target: float
    least: bool = False  # the target is a lower bound
    note: str = ""


class Plain(nn.Module):
    """The network without banks."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        self.trunk = nets.build(arch)
        self.head = nn.Linear(self.trunk.num_features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.trunk(x))
        return logits


def universal(
    arch: str, plain: Plain, count: int, size: int, adapters: str, to: Setting
) -> Universal:
    """The same weights under this many domains."""
    task = Task("classify", "classify", tuple(f"c{i}" for i in range(CLASSES)))
    trunk = Trunk(arch, adapters=adapters)
    names = trunk.shared()
    with torch.no_grad():
        for name, tensor in plain.trunk.state_dict().items():
            names[name].copy_(tensor)
    domains = [Domain(f"d{i}", None, [task], size=size) for i in range(count)]
    model = Universal(trunk, domains).to(to.device)
    with torch.no_grad():
        for name in model.domains:
            head = model.heads_of(name).head("classify")
            head.get_parameter("weight").copy_(plain.head.weight)
            head.get_parameter("bias").copy_(plain.head.bias)
    return model.to(memory_format=torch.channels_last) if to.device.type == "cuda" else model  # type: ignore[call-overload, no-any-return]


def ratio(one: Run, other: Run, setting: Setting) -> tuple[float, float]:
    """Median of time(one)/time(other) over interleaved pairs, and the other's seconds."""

    def seconds(run: Run) -> float:
        if setting.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if setting.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(2):  # warm
        one()
        other()
    pairs = [(seconds(one), seconds(other)) for _ in range(setting.rounds)]
    return statistics.median(a / b for a, b in pairs), statistics.median(b for _, b in pairs)


def infer(module: nn.Module, call: Callable[[], object], setting: Setting) -> Run:
    """Inference."""

    def run() -> object:
        module.eval()
        with torch.inference_mode(), cast(setting):
            return call()

    return run


def train(module: nn.Module, call: Callable[[], Tensor], setting: Setting) -> Run:
    """A training step towards classes drawn once."""
    target = torch.randint(0, CLASSES, (setting.batch,), device=setting.device)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

    def run() -> None:
        module.train()
        with cast(setting):
            loss = F.cross_entropy(call().float(), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


def cast(setting: Setting) -> torch.autocast | nullcontext[None]:
    """Autocast, where a smaller type is asked for."""
    if setting.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(setting.device.type, setting.dtype)


def mixed_call(model: Universal, x: Tensor, names: list[str]) -> Callable[[], Tensor]:
    """One pass over a mixed batch, its answers stacked."""
    return lambda: torch.stack([out["classify"] for out in model(x, domain=names)])


def figures(arch: str, size: int, setting: Setting) -> Iterator[Figure]:
    """All lines of one trunk."""
    torch.manual_seed(0)
    plain = Plain(arch).to(setting.device)
    x = setting.images(size)
    if setting.device.type == "cuda":
        plain = plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wide = arch != "resnet20"
    loop_target = 10.0 if setting.device.type == "cuda" else 2.5
    for count in (setting.few, setting.many):
        model = universal(arch, plain, count, size, "none", setting)
        first = next(iter(model.domains))

        def pure(model: Universal = model, first: str = first) -> Tensor:
            logits: Tensor = model(x, domain=first)["classify"]
            return logits

        for what, make in (("inference", infer), ("train", train)):
            value, base = ratio(
                make(model, pure, setting), make(plain, lambda: plain(x), setting), setting
            )
            yield Figure(
                f"{arch}_pure_{count}_{what}_ratio", value, 1.05, note=f"{base * 1e3:.1f} ms"
            )
        among = list(model.domains)[: setting.mixed]
        names = [among[i % len(among)] for i in range(setting.batch)]
        mixed = mixed_call(model, x, names)
        for what, make, target in (("inference", infer, 1.10), ("train", train, 1.6)):
            value, base = ratio(
                make(model, mixed, setting), make(plain, lambda: plain(x), setting), setting
            )
            yield Figure(
                f"{arch}_mixed_{len(among)}_{what}_ratio",
                value,
                target,
                note=f"{base * 1e3:.1f} ms",
            )
        if count == setting.few:
            found = budget(model)
            heads = sum(
                p.numel() * 4 for n in model.domains for p in model.heads_of(n).parameters()
            )
            one = sum(t.numel() * t.element_size() for t in plain.trunk.state_dict().values())
            value = (found.universal.bytes - heads) / one
            yield Figure(
                f"{arch}_bytes_{count}_ratio", value, 1.05, note=f"{count} networks: {count:.2f}"
            )
        else:
            one_pass = infer(model, mixed_call(model, x[: len(among)], among), setting)

            def each(model: Universal = model, among: list[str] = among) -> None:
                for i, name in enumerate(among):
                    model(x[i : i + 1], domain=name)

            value, base = ratio(infer(model, each, setting), one_pass, setting)
            yield Figure(
                f"{arch}_loop_over_mixed_{len(among)}_ratio",
                value,
                1.0 if wide and setting.device.type != "cuda" else loop_target,
                least=True,
                note=f"{base * 1e3:.1f} ms",
            )
    model = universal(arch, plain, setting.few, size, "parallel", setting)
    among = list(model.domains)
    names = [among[i % len(among)] for i in range(setting.batch)]
    value, base = ratio(
        infer(model, mixed_call(model, x, names), setting),
        infer(model, lambda: model(x, domain=among[0]), setting),
        setting,
    )
    yield Figure(
        f"{arch}_parallel_mixed_{len(among)}_over_pure_ratio",
        value,
        1.8 if wide else 1.1,
        note=f"{base * 1e3:.1f} ms",
    )


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and rough: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, help="64; 256 on a GPU")
    parser.add_argument("--rounds", type=int, help="pairs a figure")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    device = torch.device(given.device)
    setting = Setting(
        batch=given.batch or (8 if given.quick else 256 if device.type == "cuda" else 64),
        rounds=given.rounds or (2 if given.quick else 15),
        device=device,
        dtype=getattr(torch, given.dtype),
        few=3 if given.quick else 10,
        many=8 if given.quick else 100,
        mixed=8 if given.quick else 64,
    )
    console = Console()
    table = Table("figure", "measured", "target", "", "beside")
    kept: dict[str, float | str] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {device_name(device)}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onetrunk": getattr(onetrunk, "__version__", "0"),
        "seed": given.seed,
        "batch": setting.batch,
        "rounds": setting.rounds,
        "dtype": given.dtype,
    }
    for arch, size in (
        ("resnet20", 16 if given.quick else 32),
        ("resnet26", 16 if given.quick else 64),
    ):
        for figure in figures(arch, size, setting):
            good = figure.value >= figure.target if figure.least else figure.value <= figure.target
            sign = "≥" if figure.least else "≤"
            table.add_row(
                figure.name,
                f"{figure.value:.3f}",
                f"{sign} {figure.target:g}",
                "yes" if good else "no",
                figure.note,
            )
            kept[figure.name] = round(figure.value, 4)
            print(f"{figure.name} {figure.value:.3f}", file=sys.stderr, flush=True)
    table.caption = ", ".join(f"{key} {kept[key]}" for key in ("date", "machine", "torch", "batch"))
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()


if __name__ == "__main__":
    main()
