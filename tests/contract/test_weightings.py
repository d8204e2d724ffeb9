"""Every weighting, built in or TorchJD's, passes the conformance suite."""

import pytest
import torch

from onetrunk.testing import check_weighting
from onetrunk.train.weighting import WEIGHTINGS
from onetrunk.train.weighting._torchjd import TORCHJD

# What stays the same if one unit's loss is multiplied, according to the papers.
SCALE = {
    "equal": "weights",
    "fixed": "weights",
    "rlw": "weights",
    "dwa": "weights",  # ratios of a loss to itself
    "uncertainty": "none",  # it comes to 1/ℓ, but at its own rate
    "famo": "direction",  # gradients of log ℓ
    "stch": "direction",  # the same
    "db-mtl": "direction",  # the same
    "gradnorm": "none",  # it comes to equal lengths, but at its own rate
    "aligned-mtl": "none",
    "cagrad": "none",
    "dualproj": "none",
    "fairgrad": "direction",  # proportional fairness alone (α = 1)
    "imtl-g": "direction",  # equal projections on unit gradients
    "mgda": "none",  # the shortest gradient wins
    "pcgrad": "none",
    "upgrad": "none",
    "config": "direction",  # unit gradients
    "graddrop": "none",
}
SETTINGS = {"fixed": {"ants": 3.0}}


@pytest.mark.parametrize("name", WEIGHTINGS.names)
def test_every_weighting(name):
    if name in TORCHJD:
        pytest.importorskip("torchjd")
    check_weighting(name, SCALE[name], SETTINGS.get(name))


@pytest.mark.parametrize(("name", "settings"), [("fairgrad", {"alpha": 2.0}), ("cagrad", {"c": 0})])
def test_other_settings(name, settings):
    pytest.importorskip("torchjd")
    check_weighting(name, "none", settings)


def test_a_user_weighting(monkeypatch, pytestconfig):
    monkeypatch.syspath_prepend(str(pytestconfig.rootpath))
    check_weighting("tests.helpers.outside:Inverse", "direction")


@pytest.mark.parametrize(
    ("thing", "scale", "message"),
    [
        ("Forgets", "none", "after resuming"),
        ("ByPlace", "weights", "off"),
        ("Draws", "direction", "generator"),
        ("Heavy", "weights", "off"),
    ],
)
def test_the_suite_finds_errors(thing, scale, message, monkeypatch, pytestconfig):
    monkeypatch.syspath_prepend(str(pytestconfig.rootpath))
    with pytest.raises(AssertionError, match=message):
        check_weighting(f"tests.helpers.outside:{thing}", scale)


def test_the_suite_finds_another_scale():
    with pytest.raises(AssertionError, match="expected unchanged: direction; got: weights"):
        check_weighting("equal", "direction")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@pytest.mark.parametrize("name", WEIGHTINGS.names)
def test_every_weighting_on_a_gpu(name):
    check_weighting(name, SCALE[name], SETTINGS.get(name), torch.device("cuda"))
