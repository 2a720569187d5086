import math

import pytest
import torch

from scoresde.data import DENSITIES, DataSource, DataSpec, load_dataset


@pytest.mark.parametrize("name", DENSITIES)
def test_planar_samples_are_reproducible_and_inside_the_window(name):
    train, test = load_dataset(name), load_dataset(name, "test")
    assert train.x.shape == (20_000, 2)
    assert train.x.dtype == torch.float32
    assert test.x.shape == (5_000, 2)
    assert torch.equal(train.x, load_dataset(name).x)
    assert not torch.isin(test.x, train.x).all(dim=1).any()
    assert train.spec == DataSpec((2,), -4, 4, name=name)
    assert train.x.abs().max() <= 4


EXACT = [name for name, density in DENSITIES.items() if density.log_prob is not None]


@pytest.mark.parametrize("name", EXACT)
def test_exact_density_integrates_to_one_and_its_samples_follow_it(name):
    log_prob = DENSITIES[name].log_prob
    # Midpoints of [−4, 4]², 400 a side: 0.02 apart, a fifth of the narrowest ring's deviation.
    side = (torch.arange(400, dtype=torch.float64) + 0.5) / 50 - 4
    grid = torch.cartesian_prod(side, side)
    log_p = log_prob(grid)
    p = log_p.exp() / 50**2
    # mixture3 has 1e-11 of its mass outside; the midpoint rule is exact to rounding elsewhere,
    # except near the pole of the rings at the origin, where there is no mass.
    assert p.sum() == pytest.approx(1, abs=1e-6)
    inside = p > 0
    entropy = -(p[inside] * log_p[inside]).sum()
    x = load_dataset(name).x.double()
    log_p_x = log_prob(x)
    # Also for the constant log-density of the checkerboard, whose standard error is zero.
    error = log_p_x.std() / math.sqrt(len(x)) + 1e-6
    assert abs(log_p_x.mean() + entropy) < 4 * error
    # The mean log-density does not see where the mass lies; compare the mass in 8×8 boxes.
    expected = p.reshape(8, 50, 8, 50).sum(dim=(1, 3))
    box = torch.floor(x + 4).long()
    counts = torch.zeros(8, 8).index_put((box[:, 0], box[:, 1]), torch.ones(len(x)), True)
    deviation = (len(x) * expected * (1 - expected)).sqrt()
    # 5 standard errors for 64 boxes at once; 3 more counts where the box is all but empty.
    assert ((counts - len(x) * expected).abs() < 5 * deviation + 3).all()


def test_density_of_the_reference_mixture():
    # Values of an independent scipy implementation.
    x = torch.tensor([[0.0, 0.0], [-1.0, 0.5], [2.0, -1.5], [-3.0, 2.0]], dtype=torch.float64)
    expected = [-4.830100591403447, -0.5082470469516286, -10.52117451513309, -33.36538990508581]
    log_prob = load_dataset("mixture3").log_prob
    torch.testing.assert_close(
        log_prob(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )
    assert log_prob(x.float()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2\), got \(4, 3\)"):
        log_prob(torch.zeros(4, 3))


def test_checkerboard_has_no_density_on_the_other_colour_or_outside():
    log_prob = DENSITIES["checkerboard"].log_prob
    x = torch.tensor([[-3.0, -3.0], [-3.0, -1.0], [5.0, -3.0], [-5.0, -5.0]])
    assert log_prob(x).tolist() == pytest.approx([-math.log(32), -math.inf, -math.inf, -math.inf])


def test_density_takes_no_scale():
    with pytest.raises(ValueError, match="moons takes no levels, low, high or size"):
        load_dataset(DataSource("moons", levels=8))
