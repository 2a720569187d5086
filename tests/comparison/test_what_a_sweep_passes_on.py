"""A sweep passes its labels to `sample`, and does not time the first pass of the network."""

import statistics

import pytest
import torch

from scoresde.comparison import draw as draw_module
from scoresde.comparison import measure as measure_module
from scoresde.exact import GaussianMixture


@pytest.fixture
def calls(monkeypatch):
    """Labels of every call of `sample` by a sweep, and by a reference, which is in float64.

    Cells are drawn once, and not again for the spread of their seconds.
    """
    found = {"sweep": [], "reference": []}
    real = draw_module.sample

    def watched(*arguments, **options):
        found["reference" if options["dtype"] is torch.float64 else "sweep"].append(options["y"])
        return real(*arguments, **options)

    monkeypatch.setattr(draw_module, "sample", watched)
    return found


def test_labels_reach_every_sample(sweep, run, calls, monkeypatch, tmp_path):
    """Samples of cells and of the reference, whose first samples are solved twice."""
    monkeypatch.setattr(GaussianMixture, "condition", None)
    y = torch.arange(24) % 3
    run(sweep(samplers=("ddim",), budgets=(4,), tolerance=1e-3, quality=False, y=y), tmp_path)
    assert [labels.tolist() for labels in calls["sweep"]] == [y.tolist()]
    assert [labels.tolist() for labels in calls["reference"]] == [y.tolist(), y[:16].tolist()]


def test_the_first_pass_of_the_network_is_not_timed(sweep, monkeypatch):
    """If it were timed, the median of these times would be 3.5."""
    durations = [100.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    ticks = iter(sum(([0.0, duration] for duration in durations), []))
    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: next(ticks))
    seconds = sweep(
        samplers=("ddim",), budgets=(4,), quality=False, batch=24
    ).cost.evaluation_seconds
    assert seconds == statistics.median(durations[1:]) == 3.0
