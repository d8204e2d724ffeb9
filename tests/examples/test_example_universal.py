"""The example runs on domains of noise, and prints what its page describes."""

import importlib.util
from pathlib import Path

import pytest
import torch

import onetrunk as ot

FILE = Path(__file__).parents[2] / "examples" / "universal.py"


def test_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("universal_example", FILE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    classes = ot.Task("classify", "classify", ("x", "y"))
    sizes = {"a": 16, "b": 16, "c": 24}
    domains = [ot.Domain(name, None, [classes], size=size) for name, size in sizes.items()]
    images = {name: torch.randn(3, 3, size, size) for name, size in sizes.items()}
    example.run(ot.Trunk("resnet20"), domains, images, tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("'classify': (2,)") == 6
    assert "same predictions to the bit: True" in printed
    assert "folded 19 norms" in printed
    assert float(printed.split("largest difference ")[1].split()[0]) < 1e-5
    assert {file.name for file in tmp_path.iterdir()} >= {"a.pack", "a.onnx"}
