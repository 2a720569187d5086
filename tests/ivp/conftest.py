"""A problem with a known solution, for both kinds of solver."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Problem(NamedTuple):
    """dy/dt = rate(y, t) on [0, 1] with its two ends, each of shape (1, 3)."""

    start: Tensor
    end: Tensor

    @staticmethod
    def rate(y, t, rows=None):
        """(x, l)' with x on a circle of angular speed 20 t, and l = ∫ 3 t² dt."""
        t = torch.as_tensor(t, dtype=y.dtype).reshape(-1, 1)
        x1, x2, w = y[:, :1], y[:, 1:2], 20 * t
        return torch.cat([-w * x2, w * x1, 3 * t * t * torch.ones_like(x1)], dim=1)


@pytest.fixture
def rotation():
    """A circle and an integral: dims=2 and one more number."""
    return Problem(
        torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64),
        torch.tensor([[math.cos(10), math.sin(10), 1.0]], dtype=torch.float64),
    )
