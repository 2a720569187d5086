"""How calls are split: labels, streams and errors are the same for every function."""

import pytest
import torch

from scoresde.batches import batches
from scoresde.exact import GaussianMixture
from scoresde.noise import SampleNoise
from scoresde.sde import VP

MODEL = GaussianMixture(VP(), [1.0], torch.zeros(1, 2), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("n", "batch", "sizes"),
    [(5, None, [5]), (5, 2, [2, 2, 1]), (5, 9, [5]), (4, 2, [2, 2]), (0, None, [0]), (0, 3, [0])],
)
def test_the_batches_hold_every_sample_once(n, batch, sizes):
    parts = batches(MODEL, n, "cpu", seed=0, batch=batch)
    assert [part.n for part in parts] == sizes
    assert [i for part in parts for i in range(n)[part.rows]] == list(range(n))


def test_a_sample_has_the_same_stream_in_any_batch():
    whole = batches(MODEL, 5, "cpu", seed=3)[0].noise.prior((5, 2))
    parts = [part.noise.prior((part.n, 2)) for part in batches(MODEL, 5, "cpu", seed=3, batch=2)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_given_source_and_no_source_are_passed_on():
    noise = SampleNoise(0, range(3))
    assert batches(MODEL, 3, "cpu", noise=noise)[0].noise is noise
    assert batches(MODEL, 3, "cpu", random=False)[0].noise is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of seed and noise"),
        ({"seed": 0, "noise": SampleNoise(0, range(4))}, "exactly one of seed and noise"),
        ({"seed": 0, "noise": SampleNoise(0, range(4)), "random": False}, "at most one"),
        ({"noise": SampleNoise(0, range(4)), "batch": 2}, "batch needs a seed"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 0, "batch": 0}, "batch must be at least 1"),
        ({"seed": 0, "y": torch.zeros(4, dtype=torch.int64)}, "y must be None"),
    ],
)
def test_bad_arguments_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        batches(MODEL, 4, "cpu", **given)
