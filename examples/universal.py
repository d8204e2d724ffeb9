"""One network for three domains: predict a mixed batch, move a pack, fold, export, count.

    python examples/universal.py [--arch timm/resnet18] [--pretrained]

Nothing is trained here, so the labels are guesses; what matters is that every way of asking gives
the same ones.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich import print
from torch import Tensor

import onetrunk as ot


def story(
    trunk: ot.Trunk, domains: Sequence[ot.Domain], images: dict[str, Tensor], folder: Path
) -> None:
    """From a plain trunk to an ONNX file; `images`: a few normalized ones of each domain."""
    before = copy.deepcopy(trunk)
    torch.manual_seed(0)
    model = ot.Universal(trunk, domains).eval()
    names = list(images)
    print(f"{trunk.arch} made universal: {', '.join(names)}; {len(trunk.banks())} banks")

    # One pass over a mixed batch (images of one size share it), as one list of predictions.
    mixed = [name for name in names for _ in range(2)]
    batch = [image for name in names for image in images[name][:2]]
    with torch.no_grad():
        predictions = model(batch, domain=mixed)
    for name, prediction in zip(mixed, predictions, strict=True):
        said = {task: tuple(value.shape) for task, value in prediction.items()}
        print(f"  {name}: {said}")

    # A domain as one file, into a fresh copy of the trunk: the same answers to the bit.
    one = names[0]
    path = model.pack(one).save(folder / f"{one}.pack")
    other = ot.Universal(before).eval()
    other.load_pack(path)
    with torch.no_grad():
        ours, theirs = model(images[one], domain=one), other(images[one], domain=one)
    same = all(torch.equal(ours[task], theirs[task]) for task in ours)
    print(f"{path.name}: {path.stat().st_size:,} bytes; answers the same to the bit: {same}")

    # Folded: a plain network, no banks, no norms where they could go into convolutions.
    plain = model.for_domain(one)
    print(str(plain.report))

    # Exported, and read by ONNX Runtime.
    import onnxruntime

    file = ot.export(model, folder / f"{one}.onnx", domain=one)
    session = onnxruntime.InferenceSession(str(file))
    outputs = [output.name for output in session.get_outputs()]
    got = dict(zip(outputs, session.run(None, {"images": images[one].numpy()}), strict=True))
    worst = max(float(np.abs(got[f"{one}/{t}"] - v.numpy()).max()) for t, v in ours.items())
    print(f"{file.name}: {file.stat().st_size:,} bytes; largest difference {worst:.1e}")

    print(ot.budget(model))


def main() -> None:
    """The story over three embedded domains."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", default="timm/resnet18")
    parser.add_argument("--pretrained", action="store_true", help="timm's weights (a download)")
    given = parser.parse_args()
    domains = [ot.Domain(name, f"pocket:{name}") for name in ("digits", "fashion", "emoji")]
    images = {domain.name: domain.test.batch(np.arange(4))[0] for domain in domains}
    trunk = ot.Trunk(given.arch, pretrained=given.pretrained)
    with tempfile.TemporaryDirectory() as folder:
        story(trunk, domains, images, Path(folder))


if __name__ == "__main__":
    main()
