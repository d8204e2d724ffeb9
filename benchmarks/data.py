"""Augmented 64-pixel batches: onetrunk's loader beside torchvision's usual way, in one run.

The usual way is ImageFolder, transforms (resize where needed, pad-and-crop, flip, to tensor,
normalise) and DataLoader with two worker processes. Both read the same files, written for the
occasion: photographs' stand-ins with structure at every scale, so that JPEG and PNG decode at a
realistic cost. Rates are images per second of batches handed out, each with its labels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from table import Figures, median, options
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import onetrunk as ot

SEED = 0
SIZE, PAD, BATCH, WORKERS, CLASSES = 64, 8, 64, 2, 10


def write_folder(root: Path, count: int, side: int, ending: str) -> None:
    """Class folders of images: clouds of noise at octaves, a few edges, 3 channels."""
    rng = np.random.default_rng(SEED)
    for i in range(count):
        picture = np.zeros((side, side, 3), np.float32)
        for octave in (4, 8, 16, 32, side):
            noise = rng.integers(0, 256, (octave, octave, 3), np.uint8)
            layer = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
            picture += np.asarray(layer, np.float32) / octave
        picture *= 255 / picture.max()
        folder = root / f"class{i % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i:06}.{ending}", quality=90)


def usual(root: Path, side: int) -> DataLoader[object]:
    """torchvision's way, as its tutorials write it."""
    steps = [] if side == SIZE else [transforms.Resize((SIZE, SIZE))]
    steps += [
        transforms.RandomCrop(SIZE, padding=PAD),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    folder = datasets.ImageFolder(str(root), transforms.Compose(steps))
    return DataLoader(
        folder, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )


def usual_rate(loader: DataLoader[object]) -> float:
    """Images per second over one epoch."""
    began, count = time.perf_counter(), 0
    for images, _ in loader:
        count += len(images)
    return count / (time.perf_counter() - began)


def our_rate(steps: object, batches: int) -> float:
    """Images per second over so many batches."""
    began, count = time.perf_counter(), 0
    for _ in range(batches):
        (batch,) = next(steps)  # type: ignore[call-overload]
        count += len(batch.images)
    return count / (time.perf_counter() - began)


def domain_of(root: Path, cache: Path) -> ot.Domain:
    """The folder as a domain, with the same augmentation."""
    folder = f"folder:{root}"
    return ot.Domain("bench", folder, size=SIZE, flip=True, augment={"pad": PAD}, cache=cache)


def compare(figures: Figures, name: str, side: int, ending: str, count: int, quick: bool) -> None:
    """One folder, both ways: the first epoch (decoding included), then epochs in pairs."""
    with tempfile.TemporaryDirectory() as scratch:
        root, cache = Path(scratch, "images"), Path(scratch, "cache")
        write_folder(root, count, side, ending)
        loader = usual(root, side)
        theirs_first = usual_rate(loader)
        domain = domain_of(root, cache)
        print(f"  {len(domain.index):,} images listed, as ImageFolder lists them before its epoch")
        began = time.perf_counter()
        steps = iter(ot.Loader([domain], BATCH, seed=SEED))
        batches = len(domain.train) // BATCH
        for _ in range(batches):
            next(steps)
        # our first epoch decodes all splits; its images are those of train that were handed out
        decoded = len(domain.train) + len(domain.val) + len(domain.test)
        first = decoded / (time.perf_counter() - began)
        pairs = [
            (usual_rate(loader), our_rate(steps, 20 * batches)) for _ in range(1 if quick else 5)
        ]
    theirs, ours = median([p[0] for p in pairs]), median([p[1] for p in pairs])
    ratio = median([p[1] / p[0] for p in pairs])
    figures.add(f"{name}_usual_images_per_s", theirs, f"{theirs:,.0f}")
    figures.add(f"{name}_onetrunk_images_per_s", ours, f"{ours:,.0f}")
    aim = "≥ 15" if ending == "jpg" else "≥ 8"
    figures.add(f"{name}_later_epochs_ratio", ratio, f"{ratio:.1f}×", aim)
    figures.add(
        f"{name}_first_epoch_ratio", first / theirs_first, f"{first / theirs_first:.2f}×", "≥ 0.8"
    )


MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from data import BATCH, SEED, domain_of
import onetrunk as ot
steps = iter(ot.Loader([domain_of(Path({root!r}), Path({cache!r}))], BATCH, seed=SEED))
for _ in range(400):
    next(steps)
for line in open("/proc/self/status"):
    if line.startswith("RssAnon"):
        print(int(line.split()[1]) / 1024)
"""


def anonymous_mb(root: Path, cache: Path) -> float:
    """Anonymous memory, in MB, of a process that opened the domain and made 400 batches."""
    code = MEMORY.format(here=str(Path(__file__).parent), root=str(root), cache=str(cache))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def memory(figures: Figures, quick: bool) -> None:
    """Anonymous memory with few and with ten times as many images: when decoding, and later."""
    few, many = (200, 2000) if quick else (2000, 20_000)
    with tempfile.TemporaryDirectory() as scratch:
        built, reopened = [], []
        for count in (few, many):
            root, cache = Path(scratch, f"images{count}"), Path(scratch, f"cache{count}")
            write_folder(root, count, SIZE, "png")
            built.append(anonymous_mb(root, cache))
            reopened.append(anonymous_mb(root, cache))
    for name, (small, large) in (("decoding", built), ("cached", reopened)):
        shown = f"{small:.0f} → {large:.0f} MB"
        figures.add(f"memory_{name}_{few}_mb", small, f"{small:.0f} MB")
        figures.add(f"memory_{name}_{many}_mb", large, f"{large:.0f} MB")
        figures.add(
            f"memory_{name}_ratio", large / small, f"{large / small:.2f}× ({shown})", "≤ 1.10"
        )


def main() -> None:
    """Both folders, then memory."""
    asked = options(__doc__ or "")
    figures = Figures(SEED)
    count = 640 if asked.quick else 4000
    compare(figures, "jpeg256", 256, "jpg", count, asked.quick)
    compare(figures, "png64", 64, "png", count, asked.quick)
    if os.path.exists("/proc/self/status"):
        memory(figures, asked.quick)
    figures.finish("data: onetrunk beside ImageFolder + DataLoader (2 workers)", asked.json)


if __name__ == "__main__":
    main()
