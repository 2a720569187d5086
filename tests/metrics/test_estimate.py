import math

import numpy as np
import pytest
import torch

from scoresde.metrics import (
    Estimate,
    GaussianKernel,
    GaussianStats,
    PCAFeatures,
    frechet_distance,
    mmd2,
    paired_rmse,
    sliced_wasserstein,
)

TWO_SAMPLE = [mmd2, sliced_wasserstein, frechet_distance, paired_rmse]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("value", "std_error", "text"),
    [
        (0.0123, 0.0004, "0.0123 ± 0.0004"),
        (0.01234, 0.00015, "0.01234 ± 0.00015"),
        (704.3, 12.3, "704 ± 12"),
        (1.234e-8, 3e-9, "1.23e-08 ± 3e-09"),
        (0.5, math.nan, "0.5 ± nan"),
        (0.0, 0.0, "0 ± 0"),
    ],
)
def test_estimate_prints_the_digits_its_error_allows(value, std_error, text):
    assert str(Estimate(value, std_error, (10,), "m")) == text


@pytest.mark.parametrize("metric", TWO_SAMPLE)
def test_metrics_flatten_and_leave_arguments_and_global_rng_alone(metric):
    x, y = normal(12, 1, 2, 3), normal(12, 1, 2, 3, seed=1).float()
    copies, state = (x.clone(), y.clone()), torch.get_rng_state()
    result = metric(x, y)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert result == metric(x.flatten(1), y.flatten(1))  # also: nothing random is left
    assert result.n == ((12,) if metric is paired_rmse else (12, 12))


@pytest.mark.parametrize("metric", TWO_SAMPLE)
def test_metrics_refuse_bad_samples(metric):
    x, bad = normal(5, 3), normal(5, 3)
    bad[2, 1] = math.nan
    with pytest.raises(ValueError, match="x must hold at least 2 samples, got 1"):
        metric(x[:1], x)
    with pytest.raises(ValueError, match="reference must hold at least 2 samples, got 0"):
        metric(x, x[:0])
    with pytest.raises(ValueError, match="x must be finite, got 1 non-finite values of 15"):
        metric(bad, x)
    with pytest.raises(ValueError, match="must have the same"):
        metric(x, normal(5, 4))
    with pytest.raises(ValueError, match="x must have at least one dimension"):
        metric(torch.zeros(5, 0), x)
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got ndarray"):
        metric(x.numpy(), x)


def test_paired_rmse_of_known_errors():
    x = normal(3, 1, 2, 2)
    sizes = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    # of root mean square 1, which its mean is not
    shape = torch.tensor([1.0, 0.0, -1.0, 2**0.5], dtype=torch.float64).reshape(1, 1, 2, 2)
    result = paired_rmse(x + sizes * shape, x)
    # Errors 1, 2, 6: mean 3, variance 7.
    assert result.value == pytest.approx(3.0, rel=1e-14)
    assert result.std_error == pytest.approx(math.sqrt(7 / 3), rel=1e-14)


def test_paired_rmse_needs_equal_shapes():
    with pytest.raises(ValueError, match=r"same shape, got \(4, 2\) and \(5, 2\)"):
        paired_rmse(normal(4, 2), normal(5, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: sliced_wasserstein(x, x, projections=1), "projections must be at least 2"),
        (lambda x: sliced_wasserstein(x, x, seed=-1), "seed must be at least 0, got -1"),
        (lambda x: PCAFeatures.fit(x, 0), "d must be at least 1, got 0"),
        (lambda x: GaussianKernel(0.0), "bandwidth must be greater than 0, got 0.0"),
        (lambda x: GaussianStats.of([]), "features must hold at least 1 samples"),
    ],
)
def test_options_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call(normal(6, 3))


def test_counts_must_be_integers():
    with pytest.raises(TypeError, match="projections must be an integer, got 2.5"):
        sliced_wasserstein(normal(6, 3), normal(6, 3), projections=2.5)


def test_options_are_taken_as_numbers_of_numpy_and_torch():
    x, y = normal(9, 3), normal(9, 3, seed=1)
    want = sliced_wasserstein(x, y, projections=8, seed=1)
    assert sliced_wasserstein(x, y, projections=np.int64(8), seed=torch.tensor(1)) == want
    kernel = GaussianKernel(np.float32(1.5))
    assert type(kernel.bandwidth) is float
    assert kernel == GaussianKernel(torch.tensor(1.5))
    assert PCAFeatures.fit(x, np.int64(2))(x).shape == (9, 2)


@pytest.mark.parametrize("metric", TWO_SAMPLE[:3])
def test_complex_features_are_refused(metric):
    with pytest.raises(TypeError, match="x must hold real numbers, got torch.complex128"):
        metric(normal(6, 3) * 1j, normal(6, 3))
