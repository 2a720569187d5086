"""The probability-flow ODE with a step size per sample: a sample does not depend on its batch."""

import pytest
import torch
from torch import nn

from scoresde import grid
from scoresde.ivp import PER_SAMPLE_METHODS, SolverError, Status
from scoresde.noise import SampleNoise
from scoresde.samplers import DDIM, ProbabilityFlowODE, sample
from scoresde.score import FunctionScore, NetworkScore, Preconditioning
from scoresde.sde import VE, VP, TabulatedVP

DOUBLE = torch.float64


def each(method="dopri5", tolerance=1e-5, **options):
    return ProbabilityFlowODE(method, tolerance, tolerance, per_sample=True, **options)


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
@pytest.mark.by_default("dopri5")
def test_every_sample_keeps_the_tolerance(mixture, points, exact_ode, method):
    """The worst sample keeps it, not only the root mean square over the batch."""
    model = mixture(VP())
    exact = exact_ode(model, points, 1e-3)
    for tolerance in (1e-3, 1e-5):
        out = each(method, tolerance).run(model, points, grid.uniform(VP(), 1), None).state
        # the flow may double an error on the way, and some tens of steps add theirs
        assert float((out - exact).norm(dim=1).max()) <= 50 * tolerance


@pytest.mark.by_default("VE", "Linear")
def test_on_every_sde(mixture, points, exact_ode, rms, sde):
    model, start, t_min = mixture(sde), points[::6] * sde.prior_std, 1e-5
    out = each().run(model, start, grid.uniform(sde, 1, t_min), None).state
    assert rms(out, exact_ode(model, start, t_min)) <= 20 * 1e-5


TABLE = TabulatedVP(VP().ddpm_betas(1000))


@pytest.mark.parametrize(
    ("sde", "method"),
    [
        pytest.param(VE(), "dopri5", marks=pytest.mark.slow),
        *((TABLE, method) for method in PER_SAMPLE_METHODS),
    ],
)
@pytest.mark.by_default("dop853")
def test_a_sample_does_not_depend_on_its_batch(mixture, sde, method):
    """Alone, permuted or in chunks it gives the same result to rounding and the same counts.

    This holds where f has kinks (the tabulated SDE), and where an error of order 8 is rounding.
    """
    model, ts = mixture(sde), grid.uniform(sde, 1, 1e-5)
    solver = each(method, 1e-3 if method == "bosh3" else 1e-5)  # its order is 3: many steps
    whole = sample(model, solver, ts, (8, 2), seed=3, dtype=DOUBLE)
    attempts = whole.counts.accepted + whole.counts.rejected
    assert len(set(attempts.tolist())) > 1  # else nobody would have left early
    for order in ([5], [7, 2, 0, 4]):
        noise = SampleNoise(3, order)
        part = sample(model, solver, ts, (len(order), 2), noise=noise, dtype=DOUBLE)
        # the order of sums inside a batch moves the last bits
        assert torch.allclose(part.x, whole.x[order], rtol=1e-10, atol=1e-10)
        assert torch.equal(part.counts.accepted, whole.counts.accepted[order])
        assert torch.equal(part.counts.evaluations, whole.counts.evaluations[order])
    parts = sample(model, solver, ts, (8, 2), seed=3, batch=3, dtype=DOUBLE)
    assert torch.allclose(parts.x, whole.x, rtol=1e-10, atol=1e-10)
    assert torch.equal(parts.counts.rejected, whole.counts.rejected)


class _Net(nn.Module):
    """A small network in float32 whose output for a sample depends on that sample alone."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)

    def forward(self, x, label, y):
        level = label.to(x.dtype)[:, None, None, None].expand_as(x)
        return x + self.last(torch.tanh(self.first(torch.cat([x, level], dim=1))))


@pytest.mark.slow
def test_a_sample_of_a_float32_network_is_the_same_within_the_tolerance():
    """Rounding may change whether a step is accepted, which moves x within the tolerance."""
    model, ts, tolerance = (
        NetworkScore(_Net(), VP(), Preconditioning()),
        grid.uniform(VP(), 1),
        1e-4,
    )
    whole = sample(model, each("dopri5", tolerance), ts, (6, 1, 7, 5), seed=7)
    alone = sample(model, each("dopri5", tolerance), ts, (6, 1, 7, 5), seed=7, batch=1)
    gap = (whole.x - alone.x).abs() / (1 + whole.x.abs())
    assert float(gap.max()) <= 20 * tolerance


def test_counts_and_nfe(mixture):
    model, ts = mixture(VP()), grid.uniform(VP(), 1)
    out = sample(model, each(), ts, (9, 2), seed=0, batch=4, dtype=DOUBLE)
    counts = out.counts
    assert counts.status.tolist() == [Status.DONE] * 9
    attempts = counts.accepted + counts.rejected
    assert torch.equal(counts.evaluations, 2 + 6 * attempts)
    # the network is called as long as anybody runs, and once more for the denoise
    assert out.nfe == int(counts.evaluations.max()) + 1
    # nobody pays for the slowest
    assert int(counts.evaluations.min()) < int(counts.evaluations.max())


def test_the_whole_batch_shares_its_counts_and_a_grid_sampler_has_none(mixture):
    model, ts = mixture(VP()), grid.uniform(VP(), 5)
    together = sample(model, ProbabilityFlowODE(), ts, (3, 2), seed=0, denoise=False)
    assert together.counts.evaluations.tolist() == [together.nfe] * 3
    assert int(together.counts.accepted[0]) > 0
    assert sample(model, DDIM(), ts, (3, 2), seed=0, denoise=False).counts is None


def test_labels_stay_with_their_samples():
    """The label decides how stiff its sample is and when it is done; x[:, 1] marks the sample."""

    class Labelled(FunctionScore):
        def eps(self, x, t):
            batches.append(self.y.tolist())
            assert torch.equal(x[:, 1].sign().long(), self.y % 2 * 2 - 1)
            return super().eps(x, t) * (1 + 10 * self.y[:, None].to(x))

    batches: list[list[int]] = []
    model = Labelled(VP(), lambda x, t: torch.tensor([0.3, 0.0], dtype=DOUBLE) * torch.tanh(x))
    start = torch.tensor([[1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=DOUBLE)
    y = torch.tensor([6, 1, 0, 3])
    sample(
        model,
        each(),
        grid.uniform(VP(), 1, 0.5),
        (4, 2),
        seed=0,
        x_init=start,
        y=y,
        dtype=DOUBLE,
        denoise=False,
    )
    assert batches[0] == [6, 1, 0, 3]
    assert 0 < len(batches[-1]) < 4


def test_progress_is_that_of_the_slowest(elementwise):
    seen = []
    out = sample(
        elementwise(VP()),
        each(),
        grid.uniform(VP(), 5),
        (3, 2, 2),
        seed=0,
        on_step=lambda i, t, x: seen.append((i, t, x)),
        denoise=False,
    )
    assert [i for i, _, _ in seen] == list(range(1, len(seen) + 1))
    times = [t for _, t, _ in seen]
    assert times == sorted(times, reverse=True)
    assert times[-1] == 1e-3
    assert torch.equal(seen[-1][2], out.x)


def test_too_many_steps_is_an_error(mixture):
    model, ts = mixture(VP()), grid.uniform(VP(), 1)
    needed = sample(model, each(), ts, (4, 2), seed=0).counts
    steps = int((needed.accepted + needed.rejected).max())
    sample(model, each(max_steps=steps), ts, (4, 2), seed=0)
    with pytest.raises(SolverError, match=r"of 4 samples, first on sample \d at t=.*more steps"):
        sample(model, each(max_steps=steps - 1), ts, (4, 2), seed=0)


def test_a_fault_of_the_network_is_named_with_its_times(mixture):
    inner = mixture(VP())

    def eps(x, t):
        late = (t < 0.5).reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t < 0.5
        return torch.where(late, float("nan"), inner.eps(x, t))

    with pytest.raises(RuntimeError, match=r"network output at t=0\.\d+\.\.0\.\d+: \d+ non-finite"):
        sample(FunctionScore(VP(), eps), each(), grid.uniform(VP(), 1), (4, 2), seed=0)


def test_rtol_below_float32_is_refused_before_the_network_is_called():
    def never(x, t):
        raise AssertionError("called")

    with pytest.raises(ValueError, match="rtol must be at least 1e-07 in float32, got 1e-09"):
        sample(
            FunctionScore(VP(), never), each(tolerance=1e-9), grid.uniform(VP(), 1), (1, 1), seed=0
        )
