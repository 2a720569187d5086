"""The reference solution is denoised, has the right classes, and knows its own error."""

import math

import pytest
import torch

from scoresde.comparison import reference as reference_module
from scoresde.comparison.draw import DrawSettings
from scoresde.comparison.reference import Reference
from scoresde.metrics import Estimate
from scoresde.score import ScoreModel
from scoresde.sde import VP

T_MIN, STD = 0.05, 0.5


class Labelled(ScoreModel):
    """N(y, 0.5²) for label y."""

    def eps(self, x, t):
        node = self.sde.at(t, x)
        self.nfe.add_forward(node.t)
        gap = x - node.alpha * self.y.reshape(-1, 1).to(x)
        return node.sigma * gap / ((STD * node.alpha) ** 2 + node.sigma**2)


@pytest.fixture
def reference():
    """Four samples in two chunks, of the classes 0 and 3 in turn."""
    y = torch.tensor([0, 3, 3, 0])
    return Reference(1e-6, DrawSettings((1,), n=4, seed=1, t_min=T_MIN, batch=3, y=y))


def test_it_is_the_exact_flow_of_each_class_denoised(reference):
    """The flow of a Gaussian is affine, and so is E[x_0 | x_t]."""
    out = reference.solution(Labelled(VP()), 1e-8)
    first, last = VP().nodes(torch.tensor([1.0, T_MIN], dtype=torch.float64))
    mean = reference.settings.y[:, None].double()
    spread, end = (math.hypot(STD * node.alpha, node.sigma) for node in (first, last))
    x = last.alpha * mean + end / spread * (out.x_init - first.alpha * mean)
    clean = mean + last.alpha * STD**2 / end**2 * (x - last.alpha * mean)
    # the tolerance over some ten steps
    assert torch.allclose(out.x, clean, rtol=0, atol=1e-6)
    assert out.x.dtype == torch.float64


def test_its_error_is_the_difference_to_a_looser_solution(reference, tmp_path, monkeypatch):
    compared = []

    def compare(loose, exact):
        compared.append((loose - exact).abs().max())
        return Estimate(0.5, 0.1, (4,), "paired_rmse")

    monkeypatch.setattr(reference_module, "paired_rmse", compare)
    reference.solve(Labelled(VP()), tmp_path, lambda done, total, note: None)
    (gap,) = compared
    # of one tolerance they would be the same to the last bit
    assert 0 < float(gap) < 1e-3
