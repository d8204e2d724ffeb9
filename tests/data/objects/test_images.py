"""Images in memory in the form that the pixel pipeline reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from onetrunk.data.objects.images import raw_of


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_floats_that_numpy_lacks_are_converted(kind: torch.dtype) -> None:
    image = torch.linspace(0, 1, 48).reshape(3, 4, 4)
    raw = raw_of(image.to(kind), Path())
    assert isinstance(raw, np.ndarray)
    np.testing.assert_allclose(raw.astype(float), image.permute(1, 2, 0), atol=4e-3)
