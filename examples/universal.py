"""One network for three domains: predict a mixed batch, move a pack, fold, export, count.

    python examples/universal.py [--arch timm/resnet18] [--pretrained]

Nothing is trained here, so the predictions are random; the example shows that all ways to run the
network give the same ones.
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


def run(
    trunk: ot.Trunk, domains: Sequence[ot.Domain], images: dict[str, Tensor], folder: Path
) -> None:
    """Go from a plain trunk to an ONNX file.

    Args:
        trunk: The trunk.
        domains: Its domains.
        images: A few normalized images of each domain.
        folder: Where files are written.
    """
    before = copy.deepcopy(trunk)
    torch.manual_seed(0)
    model = ot.Universal(trunk, domains).eval()
    names = list(images)
    print(f"{trunk.arch} with {len(trunk.banks())} banks for {', '.join(names)}")

    # A mixed batch: one pass for all images of one size, one list of predictions.
    mixed = [name for name in names for _ in range(2)]
    batch = [image for name in names for image in images[name][:2]]
    with torch.no_grad():
        predictions = model(batch, domain=mixed)
    for name, prediction in zip(mixed, predictions, strict=True):
        shapes = {task: tuple(value.shape) for task, value in prediction.items()}
        print(f"  {name}: {shapes}")

    # A domain in one file, loaded into a copy of the trunk: the same predictions to the bit.
    one = names[0]
    path = model.pack(one).save(folder / f"{one}.pack")
    other = ot.Universal(before).eval()
    other.load_pack(path)
    with torch.no_grad():
        expected, got = model(images[one], domain=one), other(images[one], domain=one)
    same = all(torch.equal(expected[task], got[task]) for task in expected)
    print(f"{path.name}: {path.stat().st_size:,} bytes; same predictions to the bit: {same}")

    # Folded: a plain network, without banks, and with norms merged into convolutions.
    plain = model.for_domain(one)
    print(str(plain.report))

    # Exported, and run by ONNX Runtime.
    import onnxruntime

    file = ot.export(model, folder / f"{one}.onnx", domain=one)
    session = onnxruntime.InferenceSession(str(file))
    outputs = [output.name for output in session.get_outputs()]
    values = dict(zip(outputs, session.run(None, {"images": images[one].numpy()}), strict=True))
    error = max(float(np.abs(values[f"{one}/{t}"] - v.numpy()).max()) for t, v in expected.items())
    print(f"{file.name}: {file.stat().st_size:,} bytes; largest difference {error:.1e}")

    print(ot.budget(model))


def main() -> None:
    """Run the example with three bundled domains."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", default="timm/resnet18")
    parser.add_argument("--pretrained", action="store_true", help="timm's weights (a download)")
    args = parser.parse_args()
    domains = [ot.Domain(name, f"pocket:{name}") for name in ("digits", "fashion", "emoji")]
    images = {domain.name: domain.test.batch(np.arange(4))[0] for domain in domains}
    trunk = ot.Trunk(args.arch, pretrained=args.pretrained)
    with tempfile.TemporaryDirectory() as folder:
        run(trunk, domains, images, Path(folder))


if __name__ == "__main__":
    main()
