"""The steps that students learn from, against samplers and the closed form of a Gaussian."""

import pytest
import torch

from scoresde.distillation import Progressive, ProgressiveLoss
from scoresde.distillation.steps import ddim_step, heun_step, two_step_target
from scoresde.distillation.student import (
    loss_of,
    parse_method,
    student_preconditioning,
    students_of,
)
from scoresde.exact import GaussianMixture
from scoresde.samplers import DDIM, sample
from scoresde.samplers.students import own_times
from scoresde.score import NetworkScore, Preconditioning
from scoresde.sde import VE, VP, Linear, SubVP

SDES = [VP(), SubVP(), VE(0.01, 10.0), Linear()]
MEAN, STD = 0.6, 0.7
FLOAT64 = {"rtol": 1e-10, "atol": 1e-10}  # rounding; λ goes through its inverse


def gaussian(sde):
    return GaussianMixture(sde, [1.0], [[MEAN]], [STD**2])


def states(n=6):
    return torch.linspace(-2, 2, n, dtype=torch.float64).reshape(n, 1)


def flow(sde, x, t, s):
    """The exact ODE of N(m, v): (x − α m)/√(α² v + σ²) is constant."""
    t, s = sde.at(t, x), sde.at(s, x)
    std = [(n.alpha**2 * STD**2 + n.sigma**2) ** 0.5 for n in (t, s)]
    return s.alpha * MEAN + (x - t.alpha * MEAN) * std[1] / std[0]


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_one_step_to_the_target_is_two_steps_of_the_teacher(sde):
    """The target solves the paper's equation, with x_s from the sampler; each row has its times."""
    model = GaussianMixture(sde, [0.4, 0.6], [[-1.0], [1.0]], [0.1, 0.3])
    x = states(3) * sde.start_std(sde.t_regular)
    times = torch.tensor([[0.9, 0.6, 0.3], [0.5, 0.2, 0.01], [sde.t_regular, 0.5, 1e-3]])
    times = times.double()
    t, m, s = (sde.at(times[:, i], x) for i in range(3))
    target = two_step_target(model, x, t, m, s)
    for row, ts in enumerate(times):
        options = {"x_init": x[row : row + 1], "denoise": False, "seed": 0}
        end = sample(model, DDIM(), ts, **options).x
        first, last = sde.nodes([ts[0], ts[2]])
        ratio = last.sigma / first.sigma
        paper = (end - ratio * x[row]) / (last.alpha - ratio * first.alpha)
        torch.testing.assert_close(target[row], paper[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ddim_step(x, target, t, s)[-1], end[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_target_of_a_linear_teacher_in_closed_form(sde):
    """Data N(0, v): each DDIM step multiplies x/α by (v + σ̂ σ̂')/(v + σ̂²)."""
    v, x, ts = 0.5, states(), (0.8, 0.45, 0.1)
    model = GaussianMixture(sde, [1.0], [[0.0]], [v])
    nodes = [sde.at(torch.full((len(x),), t, dtype=torch.float64), x) for t in ts]
    a, b, c = (float(n.sigma[0] / n.alpha[0]) for n in nodes)
    scaled = x / nodes[0].alpha
    end = scaled * (v + a * b) / (v + a**2) * (v + b * c) / (v + b**2)
    want = scaled + (end - scaled) / (1 - c / a)  # Euler's slope from a to c
    torch.testing.assert_close(two_step_target(model, x, *nodes), want, **FLOAT64)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_step_of_heun_has_order_2(sde):
    """The error of one step falls by 2³ when its length in σ/α is halved."""
    model, x, errors = gaussian(sde), states(), []
    low = float(sde.sigma(0.5) / sde.alpha(0.5))
    for share in (0.1, 0.05):
        t = sde.t_of_sigma(torch.full((len(x),), low * (1 + share), dtype=torch.float64))
        s = torch.full((len(x),), 0.5, dtype=torch.float64)
        end = heun_step(model, x, sde.at(t, x), sde.at(s, x))
        errors.append(float((end - flow(sde, x, t, s)).abs().max()))
    assert 6.5 < errors[0] / errors[1] < 9.5  # 8 up to the next term of the error


def test_a_student_that_is_its_teacher_at_the_target_has_no_loss():
    """The loss is weighted by max(SNR, 1), and its times are those of the student."""
    sde = VP()
    about = students_of(parse_method("progressive:steps=2:start=8"), 1e-3)[-1]
    loss = loss_of(about, gaussian(sde))
    assert isinstance(loss, ProgressiveLoss)
    x0, eps = states(4), states(4).flip(0)
    u = torch.tensor([0.0, 0.4999, 0.5, 1.0], dtype=torch.float64)
    losses, t, errors = loss(gaussian(sde), x0, u, eps)
    own = own_times(sde, about, 2)
    assert t.tolist() == [own[0], own[0], own[1], own[1]]
    for i in range(4):
        n, row = sde.nodes([t[i]])[0], slice(i, i + 1)
        first = 2 * (i // 2)
        at = [sde.at(loss.times[k : k + 1], x0[row]) for k in range(first, first + 3)]
        x = n.alpha * x0[row] + n.sigma * eps[row]
        square = (gaussian(sde).x0(x, at[0]) - two_step_target(gaussian(sde), x, *at)) ** 2
        snr = (n.alpha / n.sigma) ** 2
        assert float(losses[i]) == pytest.approx(max(snr, 1) * float(square), rel=1e-9)
        assert float(errors[i]) == pytest.approx(snr * float(square), rel=1e-9)


def test_the_times_of_students_are_nested():
    """Every second time of a teacher is one of its student, and all are on one grid of θ."""
    sde = VE(0.01, 10.0)
    abouts = students_of(Progressive(1, 16), 1e-3)
    assert [one.steps for one in abouts] == [8, 4, 2, 1]
    fine = loss_of(abouts[0], gaussian(sde)).times
    for about in abouts[1:]:
        times = loss_of(about, gaussian(sde)).times
        step = (len(fine) - 1) // (len(times) - 1)
        torch.testing.assert_close(times, fine[::step], rtol=1e-12, atol=1e-12)
        assert torch.equal(times[::2], own_times(sde, about, about.steps))
        angle = torch.atan(sde.sigma(times) / sde.alpha(times)).diff()
        torch.testing.assert_close(angle, angle[:1].expand_as(angle), rtol=1e-6, atol=0)


@pytest.mark.parametrize("target", ["eps", "score", "x0", "v", "velocity", "edm"])
def test_a_student_predicts_the_data_in_the_noise(target):
    """Where α = 0.0066, an output that is off by 0.1 must not move x0 by 0.1 σ/α = 15."""
    sde, x = VP(), torch.zeros(1, 1, dtype=torch.float64)
    made = student_preconditioning(Preconditioning(target=target), sde)
    ends = [float(NetworkScore(Constant(v), sde, made).x0(x, 1.0)) for v in (0.0, 0.1)]
    assert abs(ends[1] - ends[0]) <= 0.11


class Constant(torch.nn.Linear):
    """A network that gives one number."""

    condition = None

    def __init__(self, value):
        super().__init__(1, 1, dtype=torch.float64)
        self.value = value

    def forward(self, x, label):
        return torch.full_like(x, self.value)
