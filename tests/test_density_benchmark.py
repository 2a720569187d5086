"""What `benchmarks/densities.py` computes: splits, baselines, and the scale of log p."""

import importlib
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from scoresde.names.config import load_config

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """script(name): a script, which imports others of its folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def part(script):
    """Correlated Gaussian rows far from the standard scale."""
    rng = np.random.default_rng(0)
    x = 50 + rng.standard_normal((120, 3)) @ np.array([[20, 0, 0], [9, 3, 0], [1, 0, 0.1]])
    return script("density_data").Part(x[:60], x[60:90], x[90:])


def test_each_row_is_tested_once_and_never_trained_on(script):
    x = np.arange(53.0)[:, None]
    tested = []
    for each in script("density_data").folds(x, seed=3):
        rows = [set(rows[:, 0]) for rows in (each.train, each.validation, each.test)]
        assert sum(map(len, rows)) == 53
        assert set().union(*rows) == set(x[:, 0])
        tested += each.test[:, 0].tolist()
    assert sorted(tested) == x[:, 0].tolist()


def test_the_gaussian_is_that_of_scipy(script, part):
    found = script("density_fits").gaussian(part)
    expected = scipy.stats.multivariate_normal(
        part.train.mean(0), np.cov(part.train.T, bias=True)
    ).logpdf(part.test)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.slow
def test_log_p_of_the_network_is_in_the_units_of_the_rows(script, part):
    """An untrained network with sigma_data = 1 is the standard normal of standardized rows."""
    fits = script("density_fits")
    config = load_config("rows_vp")
    train = replace(config.train, steps=1, batch=8, warmup=0, cooldown=0, learning_rate=1e-12)
    fitted = fits.fit_network(part, replace(config, train=replace(train, validation=0.0)))
    every, refined, precise = fitted.budgets(part.test, measured=4)
    normal = scipy.stats.norm(part.train.mean(0), part.train.std(0))
    # Noise of t_min makes the variance 1 and adds nothing; the rest is the path's own accuracy.
    np.testing.assert_allclose(every.log_prob, normal.logpdf(part.test).sum(1), atol=1e-3)
    assert (len(refined.log_prob), len(precise.log_prob)) == (4, 4)
    mean = fits.network_mean([(every, refined, precise)], 3, "step 1")
    assert mean.value == pytest.approx(float(every.log_prob.mean()), rel=1e-12)
    error = float(every.log_prob.std()) / math.sqrt(30)
    # Student's t of 29 degrees of freedom; solver and rounding add less than 1e-3
    assert mean.half_width == pytest.approx(2.045 * error, abs=2e-3)
    assert str(mean).endswith("(step 1)")


def test_baselines_are_in_the_units_of_the_rows(script, part):
    pytest.importorskip("sklearn")
    fits = script("density_fits")
    one = fits.mixture(part, [1], [0.0], 1000)
    np.testing.assert_allclose(one, fits.gaussian(part), rtol=1e-6)
    scale = fits.Affine.of(part.train)
    found = fits.kernels(part, [0.4], 1000)
    kernel = scipy.stats.multivariate_normal(np.zeros(3), np.diag((0.4 * scale.std) ** 2))
    expected = [np.log(kernel.pdf(row - part.train).mean()) for row in part.test]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_patches_have_no_mean_and_are_not_shared(script):
    pytest.importorskip("skimage")
    data = script("density_data")
    part = data.patches(160, 40, seed=0)
    assert [x.shape for x in (part.train, part.validation, part.test)] == [
        (160, 63),
        (40, 63),
        (40, 63),
    ]
    last = -part.train.sum(1)  # the pixel that was left out: all 64 have mean 0
    assert np.abs(np.concatenate([part.train, last[:, None]], axis=1)).max() < 1
    assert np.array_equal(part.train, data.patches(160, 40, seed=0).train)
