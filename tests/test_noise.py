"""Laws of the noise sources: each sample has its own stream, and no global generator is used."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from scoresde import grid
from scoresde._philox import device, normals, uniforms
from scoresde.exact import GaussianMixture
from scoresde.noise import BatchNoise, BrownianNoise, SampleNoise, brownian, check_seed
from scoresde.samplers import EulerMaruyama, sample
from scoresde.sde import VP

SHAPES = [(6,), (6, 2), (6, 1, 5, 3)]
DRAWS = {
    "prior": lambda noise, x: noise.prior(x.shape),
    "increment": lambda noise, x: noise.increment(x, 0.5, 0.4),
    "fresh": lambda noise, x: noise.fresh(x),
    "probe": lambda noise, x: noise.probe(x),
    "uniform": lambda noise, x: noise.uniform(x),
    "times": lambda noise, x: noise.times(x),
}
NORMAL = ("prior", "increment", "fresh", "probe")
UNIFORM = ("uniform", "times")
SOURCES = {
    "sample": lambda seed, n: SampleNoise(seed, range(n)),
    "batch": lambda s, n: BatchNoise(s),
    "brownian": lambda seed, n: BrownianNoise(seed, range(n)),
    "brownian-batch": lambda s, n: BrownianNoise(s),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("purpose", DRAWS)
def test_a_sample_sees_the_same_noise_in_any_batch(purpose, shape):
    draw = DRAWS[purpose]
    x = torch.zeros(shape, dtype=torch.float64)
    whole = SampleNoise(3, range(6))
    # two draws in a row: the streams must stay in step as well
    together = [draw(whole, x), draw(whole, x)]
    for rows in ([0], [4], [0, 1, 2], [5, 2, 3]):
        part = SampleNoise(3, rows)
        for want in together:
            assert torch.equal(draw(part, x[rows]), want[rows])


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_purposes_do_not_disturb_one_another(source):
    x = torch.zeros(6, 3, dtype=torch.float64)
    alone = {purpose: draw(source(1, 6), x) for purpose, draw in DRAWS.items()}
    shared = source(1, 6)
    for purpose in reversed(DRAWS):
        assert torch.equal(DRAWS[purpose](shared, x), alone[purpose])
    draws = [tuple(draw.flatten().tolist()) for draw in alone.values()]
    assert len(set(draws)) == len(DRAWS)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_seeds_decide_everything(source):
    x = torch.zeros(4, 3, dtype=torch.float64)
    # 2^32 apart is where generators that keep 32 bits of a seed repeat themselves
    seeds = [0, 1, 2**32, 2**32 + 1, 2**64 - 1]
    for draw in DRAWS.values():
        firsts = [draw(source(seed, 4), x) for seed in seeds]
        assert all(
            torch.equal(a, draw(source(s, 4), x)) for a, s in zip(firsts, seeds, strict=True)
        )
        assert len(torch.cat(firsts).unique()) == 5 * firsts[0].numel()


def test_seed_and_index_are_not_interchangeable():
    draws = [SampleNoise(seed, [index]).prior((1, 3)) for seed, index in ((1, 2), (2, 1), (0, 3))]
    assert len({float(value) for draw in draws for value in draw.flatten()}) == 9


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_float32_sees_the_rounded_noise_of_float64(source):
    x = torch.zeros(4, 3)
    for purpose in ("increment", "fresh", "probe"):
        wide, narrow = (DRAWS[purpose](source(5, 4), x.to(d)) for d in (torch.float64, x.dtype))
        assert narrow.dtype == torch.float32
        assert torch.equal(wide.float(), narrow)
    assert source(5, 4).prior((4, 3)).dtype == torch.float64
    # in float32 some would be rounded to 1
    for purpose in UNIFORM:
        draws = [DRAWS[purpose](source(5, 4), x.to(dtype)) for dtype in (x.dtype, torch.uint8)]
        assert draws[0].dtype == draws[1].dtype == torch.float64
        assert torch.equal(*draws)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("purpose", NORMAL)
def test_draws_are_standard_normal(source, purpose):
    """Kolmogorov–Smirnov; the seed is fixed, so the test either always passes or never."""
    z = DRAWS[purpose](source(11, 100), torch.zeros(100, 500, dtype=torch.float64))
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_uniform_draws_are_uniform(source):
    """Kolmogorov–Smirnov; times are one number for each sample."""
    x = torch.zeros(2000, 5)
    for u, shape in (
        (source(11, 2000).uniform(x), (2000, 5)),
        (source(11, 2000).times(x), (2000,)),
    ):
        assert u.shape == shape
        assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("shape", [(3, 2), (400, 1), (3, 40, 50)])
@pytest.mark.parametrize("purpose", DRAWS)
def test_every_draw_has_an_address(purpose, shape):
    """The address does not depend on whether a draw was made ahead of time."""
    x = torch.zeros(shape, dtype=torch.float64)
    noise, indices = SampleNoise(9, range(5, 5 + shape[0])), range(5, 5 + shape[0])
    make = uniforms if purpose in UNIFORM else normals
    n = 1 if purpose == "times" else math.prod(shape[1:])
    for k in range(12):
        found = DRAWS[purpose](noise, x)
        want = make(9, indices, purpose, n, draw=k)
        assert torch.equal(found.flatten(), want.flatten())


def test_a_draw_does_not_depend_on_the_sizes_of_others():
    """Value j of the k-th draw is the same whatever shapes or dtypes the draws before it had."""
    sizes, noise, plain = (
        [3, 1, 8, 8, 8, 2, 8, 5, 8, 8],
        SampleNoise(2, [4, 1]),
        SampleNoise(2, [4, 1]),
    )
    for k, size in enumerate(sizes):
        dtype = torch.float32 if k % 3 else torch.float64
        found = noise.fresh(torch.zeros(2, size, dtype=dtype))
        whole = plain.fresh(torch.zeros(2, 8, dtype=torch.float64))
        assert torch.equal(found, whole[:, :size].to(dtype))


def test_a_draw_may_be_changed_in_place():
    """It shares no memory with the draws that were made together with it."""
    x = torch.zeros(3, 2, dtype=torch.float64)
    changed, kept = SampleNoise(2, range(3)), SampleNoise(2, range(3))
    for _ in range(10):
        draw = changed.fresh(x)
        assert torch.equal(draw, kept.fresh(x))
        draw.zero_()
        assert draw.untyped_storage().nbytes() == 8 * draw.numel()


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_gives_the_same_draws_as_on_a_gpu(source, monkeypatch):
    """Made as on a GPU, on the CPU. Three draws: the third is made with others ahead of time.

    Uniforms are equal to the bit, normals up to the rounding of log, cos and sin.
    """
    x = torch.zeros(6, 3, dtype=torch.float64)
    plain, noise = source(1, 6), source(1, 6)
    wanted = {purpose: [draw(plain, x) for _ in range(3)] for purpose, draw in DRAWS.items()}
    monkeypatch.setattr(device, "_MADE_ON", {"cpu"})
    for purpose, draw in DRAWS.items():
        for want in wanted[purpose]:
            tolerance = 0 if purpose in UNIFORM else 1e-14
            assert torch.allclose(draw(noise, x), want, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_on_a_gpu_the_host_reads_no_value(monkeypatch):
    """Tensors of the device `meta` have no values, so that reading one raises."""
    monkeypatch.setattr(device, "_MADE_ON", {"meta"})
    x = torch.zeros(6, 3, device="meta")
    noise = BrownianNoise(1, range(6), depth=4)
    draws = [noise.increment(x, 0.7, 0.3), noise.uniform(x), noise.fresh(x), noise.fresh(x)]
    assert all(draw.device.type == "meta" for draw in draws)
    assert noise.prior((6, 3), torch.device("meta")).dtype == torch.float64


def test_streams_are_uncorrelated():
    """Between samples, purposes and successive draws: 4 standard errors of n = 20,000."""
    x = torch.zeros(3, 20_000, dtype=torch.float64)
    noise = SampleNoise(2, range(3))
    streams = torch.cat([DRAWS[p](noise, x) for p in (*NORMAL, "uniform")] + [noise.fresh(x)])
    correlation = torch.corrcoef(streams).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 4 / 20_000**0.5


def test_global_generators_are_neither_read_nor_seeded(rng_untouched):
    x = torch.zeros(2, 3)
    for source in SOURCES.values():
        noise = source(0, 2)
        for draw in DRAWS.values():
            draw(noise, x)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_an_empty_batch(source):
    x = torch.zeros(0, 2, 3)
    for purpose, draw in DRAWS.items():
        assert draw(source(0, 0), x).shape == ((0,) if purpose == "times" else (0, 2, 3))


def test_a_source_serves_the_batch_it_was_made_for():
    with pytest.raises(ValueError, match="this noise serves 3 samples, got a batch of 2"):
        SampleNoise(0, range(3)).prior((2, 5))


@pytest.mark.parametrize(
    "make", [check_seed, BatchNoise, BrownianNoise, lambda seed: SampleNoise(seed, [0])]
)
def test_bad_seeds_are_refused(make):
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=r"seed must be at least 0 and less than 2\*\*64"):
            make(seed)
    for seed in (1.0, "1", True, np.True_, None, np.float64(1)):
        with pytest.raises(TypeError, match="seed must be an integer"):
            make(seed)


def test_seeds_and_indices_may_be_integers_of_numpy_and_torch():
    want = SampleNoise(3, [5, 2**64 - 1]).prior((2, 4))
    for seed in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert type(check_seed(seed)) is int
        assert torch.equal(
            SampleNoise(seed, np.array([5, 2**64 - 1], np.uint64)).prior((2, 4)), want
        )
    assert torch.equal(SampleNoise(3, torch.tensor([5])).prior((1, 4)), want[:1])


@pytest.mark.parametrize("source", [SampleNoise, BrownianNoise])
def test_bad_indices_are_refused(source):
    for index in (-1, 2**64):
        with pytest.raises(ValueError, match=f"each of indices must be at least 0 .*got {index}"):
            source(0, [0, index])
    for index in (0.5, "1", True, None):
        with pytest.raises(TypeError, match="each of indices must be an integer"):
            source(0, [index])


def _increment(noise, x, t, s):
    """W_t − W_s itself."""
    return math.sqrt(t - s) * noise.increment(x, t, s)


def test_a_brownian_path_has_the_other_draws_of_sample_noise():
    x = torch.zeros(3, 4, dtype=torch.float64)
    for source, other in (
        (BrownianNoise(5, [0, 7, 2**64 - 1]), SampleNoise(5, [0, 7, 2**64 - 1])),
        (BrownianNoise(5), BatchNoise(5)),
    ):
        for purpose in set(DRAWS) - {"increment"}:
            assert torch.equal(DRAWS[purpose](source, x), DRAWS[purpose](other, x))


def test_a_brownian_path_shares_no_draw_with_the_other_purposes():
    x = torch.zeros(2, 3, dtype=torch.float64)
    whole = BrownianNoise(5, [0, 1]).increment(x, 1.0, 0.0)  # one draw, W_1
    for draw in DRAWS.values():
        assert not bool(torch.isin(whole, draw(SampleNoise(5, [0, 1]), x)).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_brownian_path_is_the_same_alone_and_in_any_batch(shape, dtype):
    x = torch.zeros(shape, dtype=dtype)
    times = [(1.0, 0.37), (0.37, 0.2), (0.2, 1e-5)]
    noise = BrownianNoise(3, range(6))
    whole = [noise.increment(x, t, s) for t, s in times]
    for rows in ([0], [4], [0, 1, 2], [5, 2, 3]):
        part = BrownianNoise(3, rows)
        for (t, s), want in reversed(list(zip(times, whole, strict=True))):
            got = part.increment(x[rows], t, s)
            assert got.dtype == dtype
            assert torch.equal(got, want[rows])


def test_a_brownian_path_does_not_depend_on_what_was_asked_before():
    times = np.random.default_rng(0).uniform(size=60).tolist() + [0.0, 1.0, 0.5, 2.0**-45]
    pairs = [(max(p), min(p)) for p in zip(times[::2], times[1::2], strict=True)]
    x = torch.zeros(2, 3, dtype=torch.float64)
    noise = BrownianNoise(1, [4, 2])
    once = {pair: noise.increment(x, *pair) for pair in pairs}
    for order in (reversed(pairs), sorted(pairs), [pairs[k // 2] for k in range(8)]):
        again = BrownianNoise(1, [4, 2])
        for pair in order:
            assert torch.equal(again.increment(x, *pair), once[pair])


@pytest.mark.parametrize("spacing", [grid.uniform, grid.log_snr, grid.karras])
def test_increments_of_a_brownian_path_add_up(spacing):
    """On any grid; each grid has a source of its own."""
    x = torch.zeros(3, 4, dtype=torch.float64)
    whole = _increment(BrownianNoise(9, range(3)), x, 1.0, 1e-3)
    for steps in (1, 3, 8, 100):
        noise = BrownianNoise(9, range(3))
        pieces = itertools.pairwise(spacing(VP(), steps, 1e-3).tolist())
        total = sum(_increment(noise, x, t, s) for t, s in pieces)
        assert torch.allclose(total, whole, rtol=0, atol=1e-12)


def test_increments_of_a_brownian_path_are_independent_and_normal():
    """Their variance is t − s, for long, short, dyadic and other intervals."""
    times = [1.0, 0.7, 0.5, 0.3001, 0.3, 0.25, 1e-3, 1e-3 - 1e-6, 1e-6, 0.0]
    n = 20_000
    x = torch.zeros(1, n, dtype=torch.float64)
    noise = BrownianNoise(12, [0])
    z = torch.cat([noise.increment(x, t, s) for t, s in itertools.pairwise(times)])
    for row in z:
        # the seed is fixed, so each test either always passes or never
        assert stats.kstest(row.numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(z).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 4 / n**0.5
    variances = z.var(1)
    # 4 standard errors √(2/n) of a variance of 1
    assert torch.allclose(variances, torch.ones_like(variances), rtol=0, atol=4 * (2 / n) ** 0.5)


def test_a_brownian_path_is_linear_within_its_cells():
    x = torch.zeros(2, 5, dtype=torch.float64)
    coarse, fine = BrownianNoise(3, [0, 1], depth=3), BrownianNoise(3, [0, 1])
    for t in (1.0, 0.875, 0.5, 0.125):  # the ends of cells belong to every depth
        assert torch.equal(coarse.increment(x, t, 0.0), fine.increment(x, t, 0.0))
    slopes = [_increment(coarse, x, t, s) / (t - s) for t, s in ((0.25, 0.2), (0.2, 0.13))]
    assert torch.allclose(*slopes, rtol=1e-12, atol=1e-12)


def test_a_sweep_draws_only_what_is_new(monkeypatch):
    draws = []
    original = brownian._BrownianTree._normals
    monkeypatch.setattr(
        brownian._BrownianTree,
        "_normals",
        lambda self, a: (draws.extend(a), original(self, a))[1],
    )
    noise, x = BrownianNoise(0, [0]), torch.zeros(1, 2)
    for t, s in itertools.pairwise(grid.uniform(VP(), 256).tolist()):
        noise.increment(x, t, s)
    assert len(draws) == len(set(draws))  # no node twice
    assert len(draws) < 256 * (40 - 8 + 2)  # 8 = log₂ 256 levels are shared


def test_samples_on_a_brownian_path_start_where_those_of_the_seed_do():
    model = GaussianMixture(VP(), [1.0], [[0.3, 0.1]], [0.25])
    ts = grid.uniform(VP(), 20)
    coupled = sample(model, EulerMaruyama(), ts, (3, 2), noise=BrownianNoise(4, range(3)))
    seeded = sample(model, EulerMaruyama(), ts, (3, 2), seed=4)
    assert torch.equal(coupled.x_init, seeded.x_init)
    assert not torch.equal(coupled.x, seeded.x)


def test_a_brownian_path_refuses_what_it_cannot_answer():
    x = torch.zeros(2, 3)
    noise = BrownianNoise(0, [0, 1])
    for t, s in ((0.5, 0.5), (0.4, 0.5), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match="0 ≤ s < t ≤ 1"):
            noise.increment(x, t, s)
    with pytest.raises(ValueError, match="this noise serves 2 samples, got a batch of 3"):
        noise.increment(torch.zeros(3, 3), 0.5, 0.4)
    noise.increment(x, 0.5, 0.4)
    with pytest.raises(ValueError, match=r"has shape \(2, 3\), got x of shape \(2, 4\)"):
        noise.increment(torch.zeros(2, 4), 0.5, 0.4)
    for depth, error, match in (
        (0, ValueError, "depth must be at least 1, got 0"),
        (53, ValueError, "depth must be at most 52, got 53"),
        (1.5, TypeError, "depth must be an integer"),
    ):
        with pytest.raises(error, match=match):
            BrownianNoise(0, [0], depth=depth)
