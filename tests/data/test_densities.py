import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
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


CURVES = ("moons", "spirals", "swissroll")


@pytest.mark.parametrize("name", DENSITIES)
def test_exact_density_integrates_to_one_and_its_samples_follow_it(name):
    log_prob = DENSITIES[name].log_prob
    # Midpoints of [−4, 4]², 400 a side: 0.02 apart, a fifth of the narrowest ring's deviation. On
    # curves 0.083 apart suffice for smooth p: the error is exp(−2π² (0.1/0.083)²) = 4e-13.
    count = 96 if name in CURVES else 400
    side = (torch.arange(count, dtype=torch.float64) + 0.5) * (8 / count) - 4
    grid = torch.cartesian_prod(side, side)
    log_p = log_prob(grid)
    p = log_p.exp() * (8 / count) ** 2
    # mixture3 has 1e-11 of its mass outside; the midpoint rule is exact to rounding elsewhere,
    # except near the pole of the rings at the origin, where there is no mass.
    assert p.sum() == pytest.approx(1, abs=1e-6)
    inside = p > 0
    entropy = -(p[inside] * log_p[inside]).sum()
    # The stated value has 8 decimals. Of gaussians8 a share of 4/8 · 3e-7 lies outside the window,
    # where −log p is about 15.
    assert DENSITIES[name].entropy == pytest.approx(float(entropy), abs=4e-6)
    x = load_dataset(name, "test").x.double()
    log_p_x = log_prob(x)
    # Also for the constant log-density of the checkerboard, whose standard error is zero.
    error = log_p_x.std() / math.sqrt(len(x)) + 1e-6
    assert abs(log_p_x.mean() + entropy) < 4 * error
    # The mean log-density does not see where the mass lies; compare the mass in 8×8 boxes.
    expected = p.reshape(8, count // 8, 8, count // 8).sum(dim=(1, 3))
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


def test_density_on_a_curve_is_the_integral_over_its_angle():
    """Against scipy's adaptive quadrature of the definition, near the curves and far away."""
    angle = {
        "moons": (lambda a: 1 / math.pi, (0, math.pi)),
        "spirals": (lambda a: 2 * a / (3 * math.pi) ** 2, (0, 3 * math.pi)),
        "swissroll": (lambda a: 1 / (3 * math.pi), (1.5 * math.pi, 4.5 * math.pi)),
    }
    place = {
        "moons": lambda a: (2 * math.cos(a) - 1, 2 * math.sin(a) - 0.5),
        "spirals": lambda a: (a / math.pi * math.cos(a), a / math.pi * math.sin(a)),
        "swissroll": lambda a: (a / 1.5 / math.pi * math.cos(a), a / 1.5 / math.pi * math.sin(a)),
    }
    points = [(0.3, 0.9), (-1.0, 1.4), (3.1, 0.1), (2.2, -2.0)]
    for name in CURVES:
        std = 0.15 if name == "moons" else 0.1
        weight, ends = angle[name]
        found = DENSITIES[name].log_prob(torch.tensor(points, dtype=torch.float64))
        for point, log_p in zip(points, found.exp().tolist(), strict=True):
            signs = (1,) if name == "swissroll" else (1, -1)

            def integrand(a, sign, at=point, name=name, std=std, weight=weight):
                x, y = place[name](a)
                far = (at[0] - sign * x) ** 2 + (at[1] - sign * y) ** 2
                normal = math.exp(-far / (2 * std**2)) / (2 * math.pi * std**2)
                return weight(a) * normal / (1 if name == "swissroll" else 2)

            cuts = np.linspace(*ends, 13)
            expected = sum(
                scipy.integrate.quad(integrand, a, b, (sign,), epsabs=0, epsrel=1e-11)[0]
                for sign in signs
                for a, b in zip(cuts[:-1], cuts[1:], strict=True)
            )
            assert log_p == pytest.approx(expected, rel=1e-9)


def test_entropies_of_independent_formulas():
    """The rings by one integral over the radius; 8 Gaussians that hardly overlap."""
    radius = np.linspace(0.01, 4, 4000)
    p = sum(scipy.stats.norm.pdf(radius, ring, 0.1) for ring in (1, 2, 3)) / 3
    entropy = -scipy.integrate.trapezoid(p * np.log(p / (2 * math.pi * radius)), radius)
    assert DENSITIES["rings"].entropy == pytest.approx(entropy, abs=1e-7)
    # Neighbours are 11.5 standard deviations apart, so that their overlap is below 1e-7.
    entropy = math.log(8) + 1 + math.log(2 * math.pi * 0.04)
    assert DENSITIES["gaussians8"].entropy == pytest.approx(entropy, abs=1e-6)
