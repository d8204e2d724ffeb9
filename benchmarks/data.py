"""Time the loader of onetrunk and that of torchvision on augmented batches of 64-pixel images.

The torchvision loader is ImageFolder, transforms (resize if needed, pad-and-crop, flip, to tensor,
normalize) and a DataLoader with two worker processes. Both read the same files, which are written
first: random images with structure at every scale, so that decoding JPEG and PNG has a realistic
cost. Rates are images per second in batches, with their labels.
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
    """Write class folders of RGB images: noise at several octaves."""
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
    """Return the loader of torchvision, as in its tutorials."""
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
    """Return the images per second over one epoch."""
    began, count = time.perf_counter(), 0
    for images, _ in loader:
        count += len(images)
    return count / (time.perf_counter() - began)


def our_rate(steps: object, batches: int) -> float:
    """Return the images per second over a number of batches."""
    began, count = time.perf_counter(), 0
    for _ in range(batches):
        (batch,) = next(steps)  # type: ignore[call-overload]
        count += len(batch.images)
    return count / (time.perf_counter() - began)


def domain_of(root: Path, cache: Path) -> ot.Domain:
    """Return the folder as a domain with the same augmentation."""
    folder = f"folder:{root}"
    return ot.Domain("bench", folder, size=SIZE, flip=True, augment={"pad": PAD}, cache=cache)


def compare(figures: Figures, name: str, side: int, ending: str, count: int, quick: bool) -> None:
    """Time both loaders on one folder: the first epoch with decoding, then epochs in pairs."""
    with tempfile.TemporaryDirectory() as scratch:
        root, cache = Path(scratch, "images"), Path(scratch, "cache")
        write_folder(root, count, side, ending)
        loader = usual(root, side)
        theirs_first = usual_rate(loader)
        domain = domain_of(root, cache)
        print(f"  {len(domain.index):,} images listed before timing, as ImageFolder does")
        began = time.perf_counter()
        steps = iter(ot.Loader([domain], BATCH, seed=SEED))
        batches = len(domain.train) // BATCH
        for _ in range(batches):
            next(steps)
        # our first epoch decodes the images of all splits
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
    """Return the anonymous memory, in MB, of a process that has loaded 400 batches."""
    code = MEMORY.format(here=str(Path(__file__).parent), root=str(root), cache=str(cache))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def memory(figures: Figures, quick: bool) -> None:
    """Measure anonymous memory with few and with ten times as many images, in two epochs."""
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
    """Time both folders, then measure memory."""
    args = options(__doc__ or "")
    figures = Figures(SEED)
    count = 640 if args.quick else 4000
    compare(figures, "jpeg256", 256, "jpg", count, args.quick)
    compare(figures, "png64", 64, "png", count, args.quick)
    if os.path.exists("/proc/self/status"):
        memory(figures, args.quick)
    figures.finish("data: onetrunk beside ImageFolder + DataLoader (2 workers)", args.json)


if __name__ == "__main__":
    main()
