"""Precision, recall, density and coverage, counted by loops and by closed forms."""

import math

import numpy as np
import pytest
import torch

from scoresde.metrics import Balls, classifier_accuracy, copying, density_coverage, precision_recall
from scoresde.metrics.neighbours import _expected


def sampler(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def distance(a, b):
    return math.dist(a.tolist(), b.tolist())


def radius(rows, i, k):
    return sorted(distance(rows[i], other) for other in rows)[k]


def test_every_score_counted_by_loops():
    normal, k = sampler(), 3
    x, y = normal(14, 2), 0.8 * normal(20, 2) + 0.2
    real, fake = ([radius(rows, i, k) for i in range(len(rows))] for rows in (y, x))
    inside = [[distance(a, b) <= r for b, r in zip(y, real, strict=True)] for a in x]
    back = [[distance(a, b) <= r for b, r in zip(x, fake, strict=True)] for a in y]
    found = precision_recall(x, y, k)
    assert found.precision.value == pytest.approx(np.mean([any(row) for row in inside]))
    assert found.recall.value == pytest.approx(np.mean([any(row) for row in back]))
    scores = density_coverage(x, Balls.around(y, k))
    held = np.mean(np.minimum(np.sum(inside, 0), k)) / k
    curve = _expected(np.arange(15), 20, k)  # of 0 to 14 good samples
    found_held = np.interp(14 * scores.clipped_coverage.value, np.arange(15), curve)
    assert found_held == pytest.approx(min(held, curve[-1]))

    small = [min(r, sorted(real)[9]) for r in real]  # the lower median of 20, as torch takes it
    counts = [sum(distance(a, b) <= r for b, r in zip(y, small, strict=True)) for a in x]
    own = [
        sum(distance(a, b) <= r for j, (b, r) in enumerate(zip(y, small, strict=True)) if j != i)
        for i, a in enumerate(y)
    ]
    fidelity = np.mean(np.minimum(counts, k)) / np.mean(np.minimum(own, k))
    assert scores.clipped_density.value == pytest.approx(min(fidelity, 1))


@pytest.mark.parametrize(("n", "m", "k"), [(40, 25, 3), (6, 30, 5)])
def test_the_expected_clipped_coverage_of_equal_distributions(n, m, k):
    """1,500 repetitions on a line: a spread of at most 0.1 makes an error of 0.003."""
    draw = np.random.default_rng(0)
    values = []
    for _ in range(1500):
        x, y = draw.random(n), draw.random(m)
        reach = np.sort(np.abs(y[:, None] - y), 1)[:, k]
        held = (np.abs(x - y[:, None]) <= reach[:, None]).sum(1)
        values.append(np.minimum(held, k).mean() / k)
    error = 4 * np.std(values) / 1500**0.5
    assert _expected(np.array([0, n]), m, k)[1] == pytest.approx(np.mean(values), abs=error)
    assert _expected(np.array([0, n]), m, k)[0] == 0


def test_clipped_scores_are_the_share_of_good_samples():
    """40 % of the samples lie far away; outliers of the reference excuse none of them."""
    normal = sampler()
    x, y = normal(400, 3), normal(500, 3)
    x[:160] += 100
    y[:3] += 100 * normal(3, 3)  # their balls reach over everything
    found = density_coverage(x, y)
    assert found.clipped_density.value == pytest.approx(0.6, abs=0.06)
    assert found.clipped_coverage.value == pytest.approx(0.6, abs=0.06)
    assert precision_recall(x, y).precision.value > 0.9  # which is why they are clipped


def test_equal_samples_have_full_scores_and_errors_above_0():
    x = sampler()(30, 2)
    found = [*precision_recall(x, x), *density_coverage(x, x)]
    values = {each.name: each.value for each in found}
    assert values["precision_k3"] == values["recall_k3"] == 1
    assert values["clipped_density_k5"] == values["clipped_coverage_k5"] == 1
    assert all(each.std_error > 0 for each in found)


@pytest.mark.parametrize("function", [precision_recall, density_coverage])
def test_errors_are_not_below_the_spread(function):
    """They are known to be wide: up to twice the spread, see the module."""
    normal = sampler(1)
    found = [function(1.2 * normal(60, 3), normal(80, 3)) for _ in range(60)]
    for each in zip(*found, strict=True):
        spread = np.std([score.value for score in each], ddof=1)
        error = np.mean([score.std_error**2 for score in each]) ** 0.5
        assert 0.85 < error / spread < 3, each[0].name


def test_copying_is_one_half_for_new_data_and_rises_by_half_the_share_of_copies():
    normal = sampler()
    train, held_out, x = normal(300, 2), normal(200, 2), normal(200, 2)
    new = copying(x, train, held_out)
    assert new.interval()[0] < 0.5 < new.interval()[1]
    x[:60] = train[:60]
    some = copying(x, train, held_out)
    assert some.value == pytest.approx(0.65, abs=3 * some.std_error)
    assert some.interval()[0] > 0.5
    assert copying(train[:20], train, held_out).value == 1
    assert copying(x + 50, train, held_out).value == 0
    assert copying(train[:20], train, train[:9]).value == 0.5  # ties count half


def test_five_per_cent_of_copies_are_seen_among_6000_samples():
    """The value rises by 0.025, which is 4.7 standard errors."""
    normal = sampler(2)
    train, held_out, x = normal(500, 2), normal(6000, 2), normal(6000, 2)
    clean = copying(x, train, held_out)
    x[:300] = train[:300]
    found = copying(x, train, held_out)
    assert found.value - clean.value == pytest.approx(0.025, abs=0.003)
    assert found.interval()[0] > 0.5 > clean.interval()[0]


def test_copying_counts_pairs():
    x, train, held_out = (torch.tensor(v)[:, None] for v in ([0.1, 2.0], [0.0, 9.0], [0.5, 3.0]))
    # distances 0.1 and 2 against 0.5 and 3: three of four pairs are nearer
    assert copying(x, train, held_out).value == 0.75


def test_the_accuracy_of_a_classifier_between_two_gaussians():
    """The best one for a shift δ of both halves: Φ(δ/2) of the total shift."""
    normal = sampler()
    same = classifier_accuracy(normal(400, 4), normal(500, 4))
    assert same.interval()[0] < 0.5 < same.interval()[1]
    moved = classifier_accuracy(normal(2000, 4) + 0.75, normal(3000, 4))
    best = 0.5 * (1 + math.erf(0.75 / 2**0.5))  # |δ| = 1.5, Φ(0.75)
    assert best - 0.02 < moved.value < best + 0.01
    scaled = classifier_accuracy(1.5 * normal(500, 4), normal(500, 4))
    assert scaled.value > 0.6  # the squares see the scale
    assert classifier_accuracy(normal(50, 4) + 30, normal(90, 4)).value == 1


def test_too_few_rows_are_refused():
    normal = sampler()
    with pytest.raises(ValueError, match="rows must hold at least 4 samples, got 3"):
        precision_recall(normal(9, 2), normal(3, 2))
    with pytest.raises(ValueError, match="at least 4 samples, got 3 and 9"):
        classifier_accuracy(normal(3, 2), normal(9, 2))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        Balls.around(normal(9, 2), 0)
