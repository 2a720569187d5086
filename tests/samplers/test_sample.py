"""`sample`: refused arguments, labels, counts and results."""

import numpy as np
import pytest
import torch
from torch import nn

from scoresde import grid
from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.samplers import DDIM, EDM, Ancestral, AnnealedLangevin, ProbabilityFlowODE, sample
from scoresde.samplers.choice import choose
from scoresde.samplers.recommended import recommended
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
        ({"noise": BatchNoise(0)}, "exactly one of seed and noise"),
        ({"seed": None, "noise": BatchNoise(0), "batch": 1}, "batch needs a seed"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, "seed must be at least 0 and less than"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"dtype": torch.float16}, "dtype must be float32 or float64"),
        ({"dtype": torch.int64}, "dtype must be float32 or float64"),
        (
            {"y": torch.zeros(3, dtype=torch.long)},
            "y must be None: FunctionScore takes no condition",
        ),
        ({"x_init": torch.zeros(3, 2)}, r"x_init must have shape \(2, 2\)"),
        ({"x_init": torch.full((2, 2), torch.nan)}, "x_init must be finite"),
        ({"n": 3}, r"n must be the first entry of shape, \(2, 2\), got 3"),
        ({"n": -1}, "n must be at least 0"),
        ({"shape": None}, r"shape must be given as \(n, \*D\)"),
        ({"nfe": 5}, "nfe must be None if ts is given"),
        ({"ts": None, "nfe": 0}, "nfe must be at least 1, got 0"),
        ({"ts": None, "nfe": 10**7}, "nfe must be at most 100000"),
        ({"device": "gpu"}, "device must be cpu, cuda or cuda:N, got 'gpu'"),
        ({"ts": None, "nfe": 1}, "nfe must be at least 2, for one step and the final"),
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
    arguments = {"sampler": DDIM(), "ts": TS, "shape": (2, 2), "seed": 0, **changes}
    with pytest.raises(ValueError, match=message):
        sample(FunctionScore(VP(), _never), **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "digits-vp"}, "model must be of type ScoreModel, got str"),
        ({"sampler": "ddim"}, "sampler must be of type Sampler, got str"),
        ({"sampler": DDIM}, "sampler must be of type Sampler, got the class DDIM"),
        ({"shape": 4}, r"shape must be \(n, \*D\), got 4"),
        ({"dtype": "float32"}, "dtype must be of type dtype, got str"),
        ({"n": 2.5}, "n must be an integer, got 2.5"),
        ({"ts": None, "nfe": 2.5}, "nfe must be an integer, got 2.5"),
        ({"x_init": torch.zeros(2, 2, dtype=torch.int64)}, "x_init must hold floating numbers"),
        ({"x_init": np.zeros((2, 2))}, "x_init must be a tensor, got ndarray"),
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
    sample(model, DDIM(), grid.uniform(VP(), 1), (5, 1), batch=2, y=torch.arange(5), denoise=False)
    # a list per evaluation of a chunk
    assert [label for labels in seen for label in labels] == [0, 1, 2, 3, 4]
    assert model.y is None


def test_nfe_counts_the_chunk_and_the_denoise_once(elementwise):
    model = elementwise(VP())
    out = sample(model, DDIM(), TS, (5, 1), seed=0, batch=2)
    assert out.nfe == 4
    assert model.nfe.forward == 12  # three chunks


def test_max_nfe_counts_the_denoise(elementwise):
    sample(elementwise(VP()), DDIM(), TS, (2, 1), seed=0, max_nfe=3, denoise=False)
    with pytest.raises(RuntimeError, match="limit of 3 network evaluations"):
        sample(elementwise(VP()), DDIM(), TS, (2, 1), seed=0, max_nfe=3)


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


class TestWhatIsLeftOpen:
    """Sampler, times, shape, number, seed, device and dtype that the caller does not give."""

    @pytest.fixture
    def mixture(self):
        return GaussianMixture(VP(), [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], [0.1, 0.2])

    def test_nothing_is_given(self, mixture):
        out, best = sample(mixture), recommended(mixture, 20)
        assert (out.x.shape, out.x.dtype, out.nfe) == ((16, 2), torch.float32, 20)
        assert (out.sampler, out.grid, out.denoise, out.seed) == (best.sampler, best.grid, True, 0)
        assert torch.equal(out.ts, best.ts)
        named = sample(mixture, best.sampler, best.ts, (16, 2), seed=0)
        assert torch.equal(out.x, named.x)
        assert named.grid is None

    @pytest.mark.parametrize("nfe", [2, 7, np.int64(20), torch.tensor(50)])
    def test_the_number_of_evaluations_includes_the_denoising(self, mixture, nfe):
        assert sample(mixture, nfe=nfe, n=1).nfe == nfe
        out = sample(mixture, nfe=nfe, n=1, denoise=False)
        assert (out.nfe, out.denoise) == (nfe, False)

    @pytest.mark.parametrize(
        ("sampler", "nfe", "steps", "used"),
        [
            (DDIM(), None, 19, 20),
            (EDM(), 12, 5, 11),  # 2N + 1
            (AnnealedLangevin(2), 12, 4, 11),  # 2(N + 1) + 1
        ],
    )
    def test_a_sampler_gets_the_recommended_grid_with_the_most_steps(
        self, mixture, sampler, nfe, steps, used
    ):
        out, best = sample(mixture, sampler, nfe=nfe, n=1), recommended(mixture, steps + 1)
        assert (out.sampler, out.grid, out.nfe) == (sampler, best.grid, used)
        assert torch.equal(out.ts, best.ts)

    def test_one_step_less_without_the_denoising(self, mixture):
        assert len(choose(mixture, EDM(), nfe=5).ts) == 3
        assert len(choose(mixture, EDM(), nfe=4, denoise=False).ts) == 3
        with pytest.raises(
            ValueError, match="nfe must be at least 2, for one step of this sampler, got 1"
        ):
            choose(mixture, EDM(), nfe=1, denoise=False)

    def test_times_alone_get_the_sampler_of_their_number(self, mixture):
        out = sample(mixture, ts=TS, n=1)
        assert out.sampler == recommended(mixture, 4).sampler
        assert (out.grid, out.nfe) == (None, 4)

    def test_a_sampler_with_its_own_steps_takes_no_budget(self, mixture):
        out = sample(mixture, ProbabilityFlowODE(), n=1)
        assert out.ts.tolist() == [1.0, 1e-3]
        with pytest.raises(ValueError, match="nfe must be None for ProbabilityFlowODE"):
            sample(mixture, ProbabilityFlowODE(), nfe=20, n=1)

    def test_the_first_time_of_given_states_is_1(self, mixture):
        start = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
        out = sample(mixture, x_init=start)
        assert torch.equal(out.x_init, start)
        assert float(out.ts[0]) == 1

    def test_the_number_of_samples_follows_the_labels(self):
        class Labelled(FunctionScore):
            data = DataSpec((3,), -1.0, 1.0, None)

            def eps(self, x, t):
                return super().eps(x, t)

        model = Labelled(VP(), lambda x, t: x)
        assert sample(model, y=torch.arange(5)).x.shape == (5, 3)
        assert sample(model.given(torch.arange(4))).x.shape == (4, 3)
        assert sample(model, y=torch.tensor([1] * 2), n=2).x.shape == (2, 3)

    def test_a_shape_that_is_not_that_of_the_data(self, mixture):
        with pytest.raises(ValueError, match=r"shape must be \(n, 2\) for the model's data, got"):
            sample(mixture, shape=(4, 3))
        with pytest.raises(ValueError, match=r"shape of x_init must be \(n, 2\) for the model's"):
            sample(mixture, x_init=torch.zeros(4, 3))
        with pytest.raises(ValueError, match=r"n must be the first entry of the shape of x_init"):
            sample(mixture, x_init=torch.zeros(4, 2), n=3)

    @pytest.mark.parametrize(
        ("of_net", "of_start", "expected"),
        [
            (torch.float64, None, torch.float64),
            (torch.float64, torch.float32, torch.float64),
            (torch.float32, torch.float64, torch.float32),
            (torch.bfloat16, None, torch.float32),
            (None, torch.float64, torch.float64),
            (None, None, torch.float32),
        ],
    )
    def test_the_dtype_follows_the_network_behind_a_function(self, of_net, of_start, expected):
        net = nn.Identity() if of_net is None else nn.Linear(2, 2, dtype=of_net)
        model = FunctionScore(VP(), lambda x, t: net(x.to(of_net or x.dtype)))
        start = None if of_start is None else torch.zeros(3, 2, dtype=of_start)
        out = sample(model, DDIM(), TS, (3, 2), x_init=start)
        assert out.x.dtype == expected
        assert sample(model, DDIM(), TS, (3, 2), dtype=torch.float64).x.dtype == torch.float64

    def test_the_device_follows_the_model(self, mixture):
        assert sample(mixture, n=1, device="cpu").x.device.type == "cpu"
        with pytest.raises(ValueError, match="device must be cpu, where the model is, got cuda"):
            sample(mixture, n=1, device="cuda")
        with pytest.raises(ValueError, match="device must be meta, where the model is, got cpu"):
            sample(mixture.to("meta"), n=1, device="cpu")
