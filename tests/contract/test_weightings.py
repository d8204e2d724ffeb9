"""Every weighting, built in or TorchJD's, passes the conformance suite."""

import pytest
import torch

from onetrunk.testing import check_weighting
from onetrunk.testing.weightings import Scale
from onetrunk.train.weighting import WEIGHTINGS
from onetrunk.train.weighting._torchjd import TORCHJD

# What stays the same if one unit's loss is multiplied, according to the papers.
SCALE: dict[str, Scale] = {
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
SETTINGS: dict[str, dict[str, object]] = {"fixed": {"ants": 3.0}}


@pytest.mark.parametrize("name", WEIGHTINGS.names)
def test_every_weighting(name: str) -> None:
    if name in TORCHJD:
        pytest.importorskip("torchjd")
    check_weighting(name, SCALE[name], SETTINGS.get(name))


@pytest.mark.parametrize(("name", "settings"), [("fairgrad", {"alpha": 2.0}), ("cagrad", {"c": 0})])
def test_other_settings(name: str, settings: dict[str, object]) -> None:
    pytest.importorskip("torchjd")
    check_weighting(name, "none", settings)


def test_a_user_weighting() -> None:
    check_weighting("tests.helpers.outside:Inverse", "direction")


def failed_check(name: str, scale: Scale) -> str:
    """Return the name of the check that a weighting does not pass."""
    with pytest.raises(AssertionError) as error:
        check_weighting(name, scale)
    return [entry.name for entry in error.traceback if entry.name.startswith("check_")][-1]


@pytest.mark.parametrize(
    ("thing", "scale", "check"),
    [
        ("NotSaved", "none", "check_resume"),
        ("ByPosition", "weights", "check_order"),
        ("DrawsGlobally", "direction", "check_weighting"),  # at its end
        ("SumsLosses", "weights", "check_single_unit"),
        ("Inverse", "weights", "check_scale"),
    ],
)
def test_the_suite_finds_errors(thing: str, scale: Scale, check: str) -> None:
    assert failed_check(f"tests.helpers.outside:{thing}", scale) == check


def test_the_suite_finds_another_scale() -> None:
    assert failed_check("equal", "direction") == "check_scale"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@pytest.mark.parametrize("name", WEIGHTINGS.names)
def test_every_weighting_on_a_gpu(name: str) -> None:
    check_weighting(name, SCALE[name], SETTINGS.get(name), torch.device("cuda"))
