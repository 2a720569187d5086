import math

import numpy as np
import pytest
import torch

from scoresde.data import Dataset, DataSpec, load_dataset
from scoresde.scaling import scale_warning
from scoresde.sde import VE, VP, CosineVP, SubVP, TabulatedVP, cosine_betas

SDES = [VP(), SubVP(), CosineVP(), TabulatedVP(tuple(cosine_betas(1000))), VE(0.01, 50.0)]
ids = {"ids": lambda value: type(value).__name__}


def normal(mean, std, dimensions=2, n=4000):
    """Data from N(mean, std²)."""
    x = mean + std * np.random.default_rng(0).standard_normal((n, dimensions))
    return dataset(torch.from_numpy(x).float())


def dataset(x, low=None, high=None, levels=None):
    low, high = (float(x.min()), float(x.max()) + 1e-6) if low is None else (low, high)
    return Dataset("d", x, None, DataSpec(tuple(x.shape[1:]), low, high, levels))


@pytest.mark.parametrize("sde", SDES, **ids)
@pytest.mark.parametrize("name", ["digits", "rings", "checkerboard"])
def test_shipped_data_suit_every_sde(sde, name):
    assert scale_warning(sde, load_dataset(name)) is None


@pytest.mark.parametrize("sde", SDES, **ids)
def test_the_warning_begins_where_samples_are_off_by_a_seventh_of_their_deviation(sde):
    """KL = ½ δ² for a shift of δ prior deviations, and δ = √0.02 = 0.141 at the bound."""
    last = sde.nodes(torch.tensor([1.0], dtype=torch.float64))[0]
    shift = math.sqrt(0.02) * sde.prior_std / last.alpha
    # The estimated mean is off by up to 0.02 of the deviation, which is a thousandth of the shift.
    std = shift / 20
    if last.alpha * std > 0.02 * sde.prior_std or std < 1:
        std = 1.0
    assert scale_warning(sde, normal(0.97 * shift, std)) is None
    assert "too large for the SDE" in scale_warning(sde, normal(1.03 * shift, std))


def test_one_dimension_in_another_unit_is_enough():
    data = normal(0, 1, dimensions=5)
    data.x[:, 3] = 50 * data.x[:, 3] + 100
    message = scale_warning(VP(), data)
    assert "scale each column" in message
    mean, std = data.x[:, 3].double().mean(), data.x[:, 3].double().std(correction=0)
    assert f"(x - {mean:.4g})/{std:.4g}" in message


def test_the_scaling_that_is_named_ends_the_warning():
    data = normal(127, 74)
    message = scale_warning(VP(), data)
    assert message.startswith("the data of d are too large")
    scaled = (data.x - data.x.mean(0)) / data.x.std(0)
    assert scale_warning(VP(), dataset(scaled)) is None


def test_quantized_data_are_judged_on_their_scale():
    levels = torch.randint(256, (500, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    assert scale_warning(VP(), dataset(levels, -1, 1, 256)) is None
    message = scale_warning(VP(), dataset(levels, 0, 255, 256))
    assert "data.low and data.high near -1 and 1, not 0 and 255" in message


def test_structure_finer_than_the_last_noise_is_told_unless_there_is_none():
    tiny = normal(0, 1e-4)
    assert "too small for the SDE: they extend over 0.0001" in scale_warning(VP(), tiny)
    black = torch.zeros(9, 1, 2, 2).byte()
    assert scale_warning(VP(), dataset(black, -1, 1, 256)) is None
    assert "extend over 0.001, but" in scale_warning(VP(), dataset(black, 0, 1e-3, 256))
    constant = dataset(torch.zeros(9, 2), -1, 1)
    assert scale_warning(VP(), constant) is None
    large = dataset(torch.full((9, 2), 1e5), -1, 1)
    assert scale_warning(VP(), large).endswith("by x - 1e+05, or choose another SDE")
