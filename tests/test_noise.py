"""Laws of the noise sources: each sample has its own stream, and no global generator is used."""

import numpy as np
import pytest
import torch
from scipy import stats

from scoresde.noise import BatchNoise, SampleNoise, check_seed, uniform

SHAPES = [(6,), (6, 2), (6, 1, 5, 3)]
DRAWS = {
    "prior": lambda noise, x: noise.prior(x.shape),
    "increment": lambda noise, x: noise.increment(x, 0.5, 0.4),
    "fresh": lambda noise, x: noise.fresh(x, 0.5),
    "probe": lambda noise, x: noise.probe(x),
}
SOURCES = {
    "sample": lambda seed, n: SampleNoise(seed, range(n)),
    "batch": lambda s, n: BatchNoise(s),
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
    for purpose in ("fresh", "probe", "increment", "prior"):
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
        assert len({float(value) for first in firsts for value in first.flatten()}) == 5 * 12


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


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("purpose", DRAWS)
def test_draws_are_standard_normal(source, purpose):
    """Kolmogorov–Smirnov; the seed is fixed, so the test either always passes or never."""
    z = DRAWS[purpose](source(11, 100), torch.zeros(100, 500, dtype=torch.float64))
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(uniform(z).flatten().numpy(), "uniform").pvalue > 1e-3


def test_streams_are_uncorrelated():
    """Between samples, purposes and successive draws: 4 standard errors of n = 20,000."""
    x = torch.zeros(3, 20_000, dtype=torch.float64)
    noise = SampleNoise(2, range(3))
    streams = torch.cat([draw(noise, x) for draw in DRAWS.values()] + [noise.fresh(x, 0.1)])
    correlation = torch.corrcoef(streams).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 4 / 20_000**0.5


def test_uniform_is_the_normal_distribution_function():
    z = torch.tensor([-1.0, 0.0, 1.959963984540054])
    assert uniform(z).dtype == torch.float64
    assert uniform(z.double()).tolist() == pytest.approx([0.15865525393145707, 0.5, 0.975])


def test_global_generators_are_neither_read_nor_seeded(rng_untouched):
    x = torch.zeros(2, 3)
    for source in SOURCES.values():
        noise = source(0, 2)
        for draw in DRAWS.values():
            draw(noise, x)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_an_empty_batch(source):
    x = torch.zeros(0, 2, 3)
    for draw in DRAWS.values():
        assert draw(source(0, 0), x).shape == (0, 2, 3)


def test_a_source_serves_the_batch_it_was_made_for():
    with pytest.raises(ValueError, match="this noise serves 3 samples, got a batch of 2"):
        SampleNoise(0, range(3)).prior((2, 5))


@pytest.mark.parametrize("make", [check_seed, BatchNoise, lambda seed: SampleNoise(seed, [0])])
def test_bad_seeds_are_refused(make):
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=r"seed must be at least 0 and less than 2\*\*64"):
            make(seed)
    for seed in (1.0, "1", True, None, np.float64(1)):
        with pytest.raises(TypeError, match="seed must be an integer"):
            make(seed)
