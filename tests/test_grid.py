"""Laws of the time grids: exact ends, strict order, and the variable with equal steps."""

import itertools
import math

import numpy as np
import pytest
import torch

from scoresde import grid
from scoresde.samplers import DDIM, sample
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP, CosineVP, SubVP, TabulatedVP, cosine_betas

STEPS = [1, 2, 3, 5, 10, 18, 19, 20, 21, 37, 999, 1000, 1001]

# σ of Karras et al.'s grid for N = 18, σ from 0.002 to 80, ρ = 7, computed in numpy; the last
# of the paper's values is the 0 of the final denoise.
EDM_SIGMAS = [
    80, 57.58598472124816, 40.78557379650796, 28.37458460415684, 19.35245298032522,
    12.91008238075732, 8.400935309099816, 5.315194521796382, 3.256821519765537,
    1.923339837040052, 1.088170636545279, 0.5853481231945422, 0.2964422844791573,
    0.1395164687310168, 0.05994731123547159, 0.02293451837233338, 7.528019962784078e-3,
    2.000000000000003e-3,
]  # fmt: skip


@pytest.mark.parametrize("name", grid.GRIDS)
def test_ends_are_exact_and_times_decrease(sde, name):
    for steps, (t_min, t_max) in itertools.product(STEPS, [(1e-3, None), (1e-5, 0.7)]):
        if steps > 37 and t_max is None and steps != 1000:
            continue  # large grids take most of the time
        ts = grid.GRIDS[name](sde, steps, t_min, t_max)
        case = (steps, t_min, t_max)
        assert ts.shape == (steps + 1,), case
        assert ts.dtype == torch.float64, case
        assert float(ts[0]) == (t_max or sde.t_regular), case
        assert float(ts[-1]) == t_min, case
        assert bool((ts.diff() < 0).all()), case


@pytest.mark.parametrize(
    ("name", "coordinate"),
    [
        ("uniform", lambda sde, t: t),
        ("quadratic", lambda sde, t: torch.sqrt(t)),
        ("log_snr", lambda sde, t: sde.lam(t)),
        ("cosine", lambda sde, t: torch.acos(2 * (t - 1e-4) / (sde.t_regular - 1e-4) - 1)),
        ("karras", lambda sde, t: (sde.sigma(t) / sde.alpha(t)) ** (1 / 7)),
        ("arctan", lambda sde, t: torch.atan2(sde.sigma(t), sde.alpha(t))),
        ("logit", lambda sde, t: sde.sigma(t) / (sde.sigma(t) + sde.alpha(t))),
    ],
)
def test_each_grid_spaces_its_coordinate_equally(sde, name, coordinate):
    values = coordinate(sde, grid.GRIDS[name](sde, 100, 1e-4))
    steps = values.diff()
    # λ near t = 1 has lost up to 9 of 16 digits to 1 − σ (TabulatedVP, CosineVP: λ of t), and
    # arccos near its ends half of them: √(1e-16) against steps of 3e-2
    rtol = 1e-6 if name == "cosine" else 1e-9
    torch.testing.assert_close(steps, steps.mean().expand(100), rtol=rtol, atol=0)


def test_karras_is_the_edm_grid():
    """EDM's grid is this one under VE, where x/α and σ/α are x and σ."""
    sde = VE(sigma_min=0.002, sigma_max=80.0)
    sigmas = sde.sigma(grid.karras(sde, 17, t_min=0.0))
    np.testing.assert_allclose(sigmas, EDM_SIGMAS, rtol=1e-13)


def test_rho_moves_karras_from_equal_sigma_to_equal_log_sigma():
    sde = VE()
    linear = sde.sigma(grid.karras(sde, 50, rho=1.0))
    torch.testing.assert_close(linear.diff(), linear.diff()[:1].expand(50), rtol=1e-9, atol=0)
    # (σ^{1/ρ} − 1) ρ → log σ, with an error of (log σ_max/σ_min)²/ρ = 73/ρ in log σ
    geometric = grid.karras(sde, 50, rho=1e5)
    torch.testing.assert_close(geometric, grid.log_snr(sde, 50), rtol=0, atol=1e-3)


def test_log_snr_spaces_the_logit_of_the_noise_share_of_the_variance(sde):
    ts = grid.log_snr(sde, 50)
    share = sde.sigma(ts) ** 2 / (sde.alpha(ts) ** 2 + sde.sigma(ts) ** 2)
    steps = torch.logit(share).diff()
    # 1 − share is 4e-5 at t = 1: the share keeps 1e-16/4e-5 of it (VE: 4e-4 of 1e-4)
    torch.testing.assert_close(steps, steps.mean().expand(50), rtol=1e-9, atol=0)


def test_the_cosine_schedule_is_the_angle():
    """α = cos θ and σ = sin θ with θ linear in t: equal angles are equal times."""
    torch.testing.assert_close(
        grid.arctan(CosineVP(), 40), grid.uniform(CosineVP(), 40), rtol=0, atol=1e-12
    )


def test_arctan_against_align_your_steps():
    """Theorem 3.1 for N(0, d² I) under VE: σ_i = d tan of equal steps, here in numpy."""
    sde = VE(sigma_min=0.002, sigma_max=80.0)
    angles = np.linspace(np.arctan(80 / 0.5), np.arctan(0.002 / 0.5), 13)
    sigmas = sde.sigma(grid.arctan(sde, 12, t_min=0.0, data_std=0.5))
    np.testing.assert_allclose(sigmas, 0.5 * np.tan(angles), rtol=1e-12)


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (0.5, 0.0), (2.0, -1.2), (0.1, 0.5), (1.0, -40.0)]
)
def test_logit_against_its_definition(sde, scale, shift):
    """log(σ/α) = shift + scale logit(u) with equal steps in u, and so in 1 − u."""
    ts = grid.logit(sde, 30, scale=scale, shift=shift)
    share = (-sde.lam(ts) - shift) / scale
    u, rest = torch.sigmoid(share), torch.sigmoid(-share)
    # where all u round to 1, 1 − u still has its digits
    steps = (rest if float(rest.max()) < 0.5 else u).diff()
    # λ of t is good to 1e-10 (see above), times 30 steps and 1/scale
    torch.testing.assert_close(steps, steps.mean().expand(30), rtol=1e-7, atol=0)


def test_logit_of_rectified_flow_and_of_the_variance():
    """α + σ = 1 makes u = σ, and α² + σ² = 1 makes it σ²."""
    ts = grid.logit(VP(), 20, scale=0.5)
    steps = (VP().sigma(ts) ** 2).diff()
    torch.testing.assert_close(steps, steps.mean().expand(20), rtol=1e-9, atol=0)
    wide = grid.logit(VP(), 20, scale=1e4)
    # the logistic function is linear to (Δλ/a)² = 1e-6 of the span
    torch.testing.assert_close(VP().lam(wide), VP().lam(grid.log_snr(VP(), 20)), rtol=0, atol=1e-5)


def test_cosine_is_as_fine_at_one_end_as_at_the_other():
    ts = grid.cosine(VP(), 32, 1e-3, 0.9)
    torch.testing.assert_close(ts + ts.flip(0), torch.full_like(ts, 0.901), rtol=0, atol=1e-15)
    # (1 − cos(π/N))/2 of the interval
    assert float(ts[0] - ts[1]) == pytest.approx(0.899 * (1 - math.cos(math.pi / 32)) / 2)


def test_a_grid_from_a_list():
    ts = [1.0, 0.5, 0.25]
    for given in (ts, tuple(ts), torch.tensor(ts), np.array(ts)):
        got = grid.check_grid(given)
        assert got.dtype == torch.float64
        assert got.tolist() == ts
    assert grid.check_grid(torch.tensor([1, 0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("ts", "message"),
    [
        ([1.0], r"must have shape \(N \+ 1,\) with N ≥ 1, got \(1,\)"),
        ([[1.0, 0.5]], r"must have shape \(N \+ 1,\) with N ≥ 1, got \(1, 2\)"),
        ([1.0, math.nan], r"must lie in \[0, 1\]"),
        ([1.1, 0.5], r"must lie in \[0, 1\]"),
        ([1.0, -0.1], r"must lie in \[0, 1\]"),
        ([1.0, 0.5, 0.5, 0.1], r"must decrease strictly, got t\[1\] = 0.5 and t\[2\] = 0.5"),
        ([0.1, 0.5], r"must decrease strictly, got t\[0\] = 0.1 and t\[1\] = 0.5"),
    ],
)
def test_bad_lists_are_refused(ts, message):
    with pytest.raises(ValueError, match=message):
        grid.check_grid(ts)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": -5}, ValueError, "steps must be at least 1, got -5"),
        ({"steps": 1.5}, TypeError, "steps must be an integer, got 1.5"),
        ({"steps": True}, TypeError, "steps must be an integer, got True"),
        ({"t_min": 1.0}, ValueError, "t_min must be less than 1.0, got 1.0"),
        ({"t_min": -1e-3}, ValueError, "t_min must be at least 0, got -0.001"),
        ({"t_min": math.nan}, ValueError, "t_min must be finite, got nan"),
        ({"t_max": 1.5}, ValueError, "t_max must be at most 1, got 1.5"),
        ({"t_min": 0.5, "t_max": 0.5}, ValueError, "t_min must be less than 0.5, got 0.5"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    for make in grid.GRIDS.values():
        with pytest.raises(error, match=message):
            make(VP(), **({"steps": 10} | arguments))


@pytest.mark.parametrize("make", [grid.log_snr, grid.karras, grid.arctan, grid.logit])
@pytest.mark.parametrize("sde", [VP(), SubVP()], ids=["VP", "SubVP"])
def test_grids_in_lam_need_noise_at_their_end(make, sde):
    with pytest.raises(ValueError, match="t_min must be greater than 0 for"):
        make(sde, 10, t_min=0.0)


@pytest.mark.parametrize("rho", [0, -1.0, math.nan])
def test_rho_must_be_positive(rho):
    with pytest.raises(ValueError, match="rho must be"):
        grid.karras(VP(), 10, rho=rho)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (grid.arctan, {"data_std": 0}, "data_std must be greater than 0, got 0"),
        (grid.logit, {"scale": -1.0}, "scale must be greater than 0, got -1.0"),
        (grid.logit, {"shift": math.inf}, "shift must be finite, got inf"),
    ],
)
def test_parameters_of_grids_are_checked(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(VP(), 10, **arguments)


LADDERS = [TabulatedVP(VP().ddpm_betas(1000)), TabulatedVP(cosine_betas(10))]


@pytest.mark.parametrize("name", grid.GRIDS)
@pytest.mark.parametrize("sde", LADDERS, ids=["1000", "10"])
def test_snapped_grids_are_distinct_times_of_the_ladder(sde, name):
    n = len(sde.betas)
    allowed = {float(t) for t in sde.ladder(n)}
    for steps in (1, 2, 3, 5, 9, 10, 37, 999):
        if steps > n - 1:
            continue
        ts = grid.snapped(sde, grid.GRIDS[name](sde, steps))
        assert ts.shape == (steps + 1,)
        assert set(ts.tolist()) <= allowed
        assert bool((ts.diff() < 0).all())
        assert (float(ts[0]), float(ts[-1])) == (1.0, 1 / n)
        grid.check_on_ladder(sde, ts)
        assert torch.equal(grid.snapped(sde, ts), ts)
    whole = grid.snapped(sde, grid.GRIDS[name](sde, n - 1))
    assert torch.equal(whole, sde.ladder(n))


def test_snapping_takes_the_nearest_where_there_is_room():
    sde = LADDERS[0]
    ts = grid.uniform(sde, 37, 0.004, 0.9)
    nearest = (ts * 1000).round() / 1000
    torch.testing.assert_close(grid.snapped(sde, ts), nearest, rtol=0, atol=1e-15)


def test_the_end_of_a_snapped_grid_does_not_depend_on_the_steps():
    """Also halfway between two levels. All cells of a comparison must end at one time."""
    sde = TabulatedVP(cosine_betas(12))
    for t_min in (3.5 / 12, 2.5 / 12, 0.3):
        ends = {float(grid.snapped(sde, grid.uniform(sde, n, t_min))[-1]) for n in range(1, 9)}
        assert len(ends) == 1


@pytest.mark.parametrize("seed", range(20))
def test_snapping_moves_no_time_much_further_than_it_must(seed):
    """With the same ends no other choice has a largest move smaller by over half a level."""
    sde = TabulatedVP(cosine_betas(12))
    ts = torch.rand(6, generator=torch.Generator().manual_seed(seed)).double().sort().values
    ts = ts.flip(0) ** (1 + seed % 3)
    k = (12 * ts - 1).clamp(min=0)
    ends = {round(float(k[0])), round(float(k[-1]))}
    if max(ends) - min(ends) < 5:
        with pytest.raises(grid.LadderError):
            grid.snapped(sde, ts)
        return
    choices = [c[::-1] for c in itertools.combinations(range(12), 6)]
    same_ends = [c for c in choices if {c[0], c[-1]} == ends]
    best = min(max(abs(a - b) for a, b in zip(c, k.tolist(), strict=True)) for c in same_ends)
    got = 12 * grid.snapped(sde, ts) - 1
    assert float((got - k).abs().max()) <= best + 0.5 + 1e-9


def test_more_times_than_levels_are_refused():
    sde = LADDERS[1]
    message = "11 times do not fit between t = 1 and 0.001, where the model has 10 of its 10 discre"
    with pytest.raises(grid.LadderError, match=message):
        grid.snapped(sde, grid.uniform(sde, 10))
    with pytest.raises(grid.LadderError, match="4 times do not fit between t = 0.5 and 0.3"):
        grid.snapped(sde, grid.uniform(sde, 3, 0.3, 0.5))


def test_what_has_no_ladder_cannot_be_snapped():
    with pytest.raises(ValueError, match="VE has no discrete times of its own"):
        grid.snapped(VE(), grid.uniform(VE(), 3))
    with pytest.raises(ValueError, match="must decrease strictly"):
        grid.snapped(LADDERS[0], torch.tensor([0.5, 0.5]))


def test_times_off_the_ladder_are_named():
    sde = LADDERS[1]
    grid.check_on_ladder(sde, torch.tensor([1.0, 0.3 + 1e-10, 0.1], dtype=torch.float64))
    for off in (0.3 + 1e-8, 0.35, 0.01):
        with pytest.raises(ValueError, match=f"t = {off} is not one of the 10 discrete times i/10"):
            grid.check_on_ladder(sde, torch.tensor([1.0, off], dtype=torch.float64))


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        np.array,
        torch.tensor,
        lambda ts: np.array(ts[::-1])[::-1],
        lambda ts: [np.float64(t) for t in ts],
        lambda ts: [torch.tensor(t, dtype=torch.float64) for t in ts],
    ],
)
def test_grids_in_any_container_are_the_same_grid(container):
    ts = [1.0, 0.5, 2**-9]
    want = sample(FunctionScore(VP(), torch.sub), DDIM(), torch.tensor(ts), (2, 2), seed=0)
    got = sample(FunctionScore(VP(), torch.sub), DDIM(), container(ts), (2, 2), seed=np.int64(0))
    assert got.ts.dtype == torch.float64
    assert torch.equal(got.ts, want.ts)
    assert torch.equal(got.x, want.x)


@pytest.mark.parametrize("ts", ["1", 0.5, None, ["a", "b"], [1.0, None], [[1.0], 0.5], [1j, 0.5]])
def test_what_is_no_grid_is_named(ts):
    with pytest.raises((TypeError, ValueError), match="a time grid must h"):
        grid.check_grid(ts)


def test_numpy_scalars_make_the_same_grid():
    for name, make in grid.GRIDS.items():
        want = make(VP(), 5, 2**-9, 0.75)
        got = make(VP(), np.int64(5), np.float32(2**-9), torch.tensor(0.75))
        assert torch.equal(got, want), name
        with pytest.raises(TypeError, match="steps must be an integer, got 5.0"):
            make(VP(), np.float64(5.0))
        with pytest.raises(TypeError, match="steps must be an integer, got True"):
            make(VP(), np.bool_(True))
