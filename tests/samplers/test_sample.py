"""`sample`: refused arguments, labels, counts and results."""

import pytest
import torch

from scoresde import grid
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.samplers import DDIM, Ancestral, sample
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP, SubVP

TS = grid.uniform(VP(), 3)


def _never(x, t):
    raise AssertionError("the network was called")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": ()}, r"shape must be \(n, \*D\)"),
        ({"shape": (-1, 2)}, "shape must be"),
        ({"shape": (2, 0)}, "shape must be"),
        ({"seed": None}, "exactly one of seed and noise"),
        ({"noise": BatchNoise(0)}, "exactly one of seed and noise"),
        ({"seed": None, "noise": BatchNoise(0), "batch": 1}, "batch needs a seed"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, "seed must be at least 0 and less than"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"dtype": torch.float16}, "dtype must be float32 or float64"),
        ({"dtype": torch.int64}, "dtype must be float32 or float64"),
        ({"y": torch.zeros(3, dtype=torch.long)}, r"y must have shape \(2,\)"),
        ({"x_init": torch.zeros(3, 2)}, r"x_init must have shape \(2, 2\)"),
        ({"ts": torch.tensor([0.0, 1.0])}, "must decrease strictly"),
        ({"ts": torch.tensor([1.0, 0.5, 0.5])}, "must decrease strictly"),
        ({"ts": torch.tensor([1.0])}, "N ≥ 1"),
        ({"ts": torch.tensor([1.1, 0.5])}, r"must lie in \[0, 1\]"),
        ({"ts": torch.tensor([1.0, -0.1])}, r"must lie in \[0, 1\]"),
        ({"ts": torch.tensor([1.0, float("nan")])}, r"must lie in \[0, 1\]"),
        ({"ts": torch.tensor([1.0, 0.0])}, "t_min must be greater than 0 for VP"),
    ],
)
def test_bad_arguments_are_refused_before_the_network_is_called(changes, message):
    arguments = {"ts": TS, "shape": (2, 2), "seed": 0, **changes}
    with pytest.raises(ValueError, match=message):
        sample(FunctionScore(VP(), _never), DDIM(), **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "digits-vp"}, "model must be of type ScoreModel, got str"),
        ({"sampler": "ddim"}, "sampler must be of type Sampler, got str"),
        ({"sampler": DDIM}, "sampler must be of type Sampler, got the class DDIM"),
        ({"shape": 4}, r"shape must be \(n, \*D\), got 4"),
        ({"dtype": "float32"}, "dtype must be of type dtype, got str"),
    ],
)
def test_arguments_of_another_type(changes, message):
    arguments = {"model": FunctionScore(VP(), _never), "sampler": DDIM(), "ts": TS, "shape": (2, 2)}
    with pytest.raises(TypeError, match=message):
        sample(**{**arguments, **changes}, seed=0)


def test_t_zero_is_refused_where_sigma_vanishes_and_allowed_under_ve(elementwise):
    ts = torch.tensor([1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="t_min must be greater than 0 for SubVP"):
        sample(elementwise(SubVP()), DDIM(), ts, (1, 1), seed=0)
    assert bool(torch.isfinite(sample(elementwise(VE()), DDIM(), ts, (1, 1), seed=0).x).all())


def test_starts_from_the_prior_of_the_sde(elementwise, sde):
    noise = BatchNoise(0)
    out = sample(elementwise(sde), DDIM(), grid.uniform(sde, 1), (4000, 1), noise=noise)
    # 4 standard errors of a standard deviation from 4,000 draws
    assert float(out.x_init.std()) == pytest.approx(sde.prior_std, rel=4 / (2 * 4000) ** 0.5)


def test_labels_follow_their_samples():
    class Labelled(FunctionScore):
        def eps(self, x, t):
            seen.append(self.y.tolist())
            return super().eps(x, t)

    seen: list[list[int]] = []
    model = Labelled(VP(), lambda x, t: x)
    sample(model, DDIM(), grid.uniform(VP(), 1), (5, 1), seed=0, batch=2, y=torch.arange(5))
    # a list per evaluation of a chunk
    assert [label for labels in seen for label in labels] == [0, 1, 2, 3, 4]
    assert model.y is None


def test_nfe_counts_the_chunk_and_the_denoise_once(elementwise):
    model = elementwise(VP())
    out = sample(model, DDIM(), TS, (5, 1), seed=0, batch=2, denoise=True)
    assert out.nfe == 4
    assert model.nfe.forward == 12  # three chunks


def test_max_nfe_counts_the_denoise(elementwise):
    sample(elementwise(VP()), DDIM(), TS, (2, 1), seed=0, max_nfe=3)
    with pytest.raises(RuntimeError, match="limit of 3 network evaluations"):
        sample(elementwise(VP()), DDIM(), TS, (2, 1), seed=0, max_nfe=3, denoise=True)


def test_a_noise_source_of_one_s_own(elementwise):
    a = sample(elementwise(VP()), Ancestral(), TS, (3, 1), seed=9)
    b = sample(elementwise(VP()), Ancestral(), TS, (3, 1), noise=SampleNoise(9, range(3)))
    assert torch.equal(a.x, b.x)
    assert (a.seed, b.seed) == (9, None)


def test_no_gradient_is_recorded():
    weight = torch.ones(1, requires_grad=True)
    out = sample(FunctionScore(VP(), lambda x, t: weight * x), DDIM(), TS, (2, 1), seed=0)
    assert not out.x.requires_grad


def test_samples_that_overflow_are_an_error():
    model = FunctionScore(VP(), lambda x, t: torch.full_like(x, 3e38))
    with pytest.raises(RuntimeError, match=r"samples at t=0.001: 4 non-finite values of 4"):
        sample(model, DDIM(), grid.uniform(VP(), 4), (2, 2), seed=0)
