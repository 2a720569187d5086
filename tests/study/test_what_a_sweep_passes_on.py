"""What a sweep hands to `sample`: labels, tolerances; and what it counts as the network's time."""

import statistics

import pytest
import torch

from scoresde.metrics import paired_rmse
from scoresde.study import reference as reference_module
from scoresde.study import sweep as sweep_module
from scoresde.study.reference import Reference


@pytest.fixture
def calls(monkeypatch):
    """(sampler, labels, samples) of every call of `sample` by a sweep and by a reference."""
    found = {"sweep": [], "reference": []}

    def watch(module, name):
        real = module.sample

        def watched(model, sampler, *arguments, **options):
            out = real(model, sampler, *arguments, **options)
            found[name].append((sampler, options["y"], out.x))
            return out

        monkeypatch.setattr(module, "sample", watched)

    watch(sweep_module, "sweep")
    watch(reference_module, "reference")
    return found


def test_labels_reach_every_sample(sweep, run, calls, tmp_path):
    """Of the cells, of the reference, and of its first samples that are solved again."""
    y = torch.arange(24) % 3
    run(sweep(samplers=("ddim",), budgets=(4,), tolerance=1e-3, quality=False, y=y), tmp_path)
    assert [labels.tolist() for _, labels, _ in calls["sweep"]] == [y.tolist()]
    assert [labels.tolist() for _, labels, _ in calls["reference"]] == [y.tolist(), y[:16].tolist()]


def test_the_error_of_the_reference_is_that_of_a_looser_one(mixture, calls, sweep, tmp_path):
    model = sweep().model
    Reference(1e-4, seed=5, t_min=1e-3, batch=16).solve(model, (24, 2), tmp_path, lambda *_: None)
    (tight, _, exact), (loose, _, again) = calls["reference"]
    assert (tight.rtol, tight.atol) == (1e-4, 1e-4)
    assert (loose.rtol, loose.atol) == (1e-3, 1e-3)
    assert paired_rmse(again, exact[:16]).value > 0


def test_the_first_pass_of_the_network_is_not_timed(sweep, monkeypatch):
    """It warms up: with it the median of these times would be 3.5."""
    durations = [100.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    ticks = iter(sum(([0.0, duration] for duration in durations), []))
    monkeypatch.setattr(sweep_module.time, "perf_counter", lambda: next(ticks))
    seconds = sweep_module._bare_seconds(sweep(samplers=("ddim",), budgets=(4,), quality=False))
    assert seconds == statistics.median(durations[1:]) == 3.0
