"""The tutorial of simulation-based inference: its exact posterior, and that it runs."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tutorials" / "posterior.py"


@pytest.mark.slow
def test_the_exact_posterior_is_a_density(monkeypatch, tmp_path, capsys):
    """It integrates to 1 over the square, by a sum over cells."""
    words = ["posterior.py", "--steps", "3", "--n", "4", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    made = runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "95% regions" in capsys.readouterr().out
    assert (tmp_path / "posterior.png").is_file()
    centres = (torch.arange(400) + 0.5) / 200 - 1
    cells = torch.cartesian_prod(centres, centres)
    for y in made["y"][:5]:
        total = float(made["exact"](cells, y).double().exp().sum()) * (1 / 200) ** 2
        assert abs(total - 1) < 2e-3  # 401 nodes along θ2, cells of a tenth of the noise
