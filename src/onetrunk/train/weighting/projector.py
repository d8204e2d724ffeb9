"""Projection of gradients onto the cone of those that conflict with no unit's.

For gradients Jᵀu the projection is Jᵀv with v the least vᵀGv above u (Quinton & Rey, "Jacobian
descent for multi-objective optimization", 2024, arXiv:2406.16232, proposition 1). With G = L·Lᵀ and
v = u + z it is a non-negative least squares, min ‖Lᵀz + Lᵀu‖ over z ≥ 0, which Lawson & Hanson's
method (1974) solves exactly. TorchJD's own way goes through quadprog, whose licence is the GPL.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onetrunk.errors import Missing

Floats = NDArray[np.float64]
REGULAR = 1e-4  # of the gradients' total squared length, so that G has an inverse; TorchJD's


def project(above: Floats, gram: Floats) -> Floats:
    """The v of every row u of `above`."""
    try:
        from scipy.optimize import nnls
    except ImportError:
        raise Missing("scipy", "torchjd", "this weighting") from None
    total = np.trace(gram)
    regular = gram / (total if total > 0 else 1.0) + REGULAR * np.eye(len(gram))
    root = np.linalg.cholesky(regular).T
    rows = [u + nnls(root, -root @ u)[0] for u in above.reshape(-1, len(gram))]
    return np.stack(rows).reshape(above.shape)
