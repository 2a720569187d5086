"""The half widths in the files of `scoresde likelihood`."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from scoresde.data import load_dataset
from scoresde.likelihood import Budget
from scoresde.tasks.likelihood import files as score_files
from scoresde.tasks.likelihood.files import Budgets, Scores
from scoresde.tasks.likelihood.request import ScoreRequest


def budget(log_prob):
    """A budget without random errors."""
    x = torch.tensor(log_prob, dtype=torch.float64)
    zeros = {f.name: torch.zeros_like(x) for f in fields(Budget)}
    return Budget(**zeros | {"log_prob": x, "dof": torch.full_like(x, 9.0)})


@pytest.mark.parametrize("refined", [True, False])
@pytest.mark.parametrize("precise", [True, False])
def test_half_widths_hold_the_bounds_of_what_solver_and_dtype_change(
    monkeypatch, tmp_path, refined, precise
):
    """Two changes are measured; they add 2 (1 + 8/2) times their root mean square."""
    data = load_dataset("digits", "test")
    for name in ("save_budget", "extremes", "budget_table"):
        monkeypatch.setattr(score_files, name, lambda *_: "")
    solver = budget([-100.0, -200.3]) if refined else None  # of the first data
    dtype = budget([-100.4, -200.0]) if precise else None
    base = budget([-100.0, -200.0, -300.0])
    request, budgets = ScoreRequest("digits-vp"), Budgets(base, solver, dtype)
    Scores(request, data.spec, data, np.arange(3), {}, budgets).write(tmp_path, {})
    wanted = 10 * (refined * 0.3 + precise * 0.4) / np.sqrt(2) / (64 * np.log(2))
    with np.load(tmp_path / "per_image.npz") as file:
        assert file["half_width"] == pytest.approx([wanted] * 3, rel=1e-12)  # sums in float64
