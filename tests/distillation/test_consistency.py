"""Consistency functions and their losses, against the exact ODE of a Gaussian."""

import math

import pytest
import torch

from scoresde.distillation import ConsistencyLoss, ConsistencyTraining, consistency_function
from scoresde.distillation.consistency import Levels
from scoresde.distillation.student import loss_of, parse_method, students_of
from scoresde.exact import GaussianMixture
from scoresde.nets import MLP
from scoresde.samplers import Consistency, sample
from scoresde.samplers.students import own_times
from scoresde.score import NetworkScore, Preconditioning, ScoreModel
from scoresde.score.distilled import Distilled
from scoresde.sde import VE, VP, Linear, SubVP

SDES = [VP(), SubVP(), VE(0.01, 10.0), Linear()]
T_MIN, VAR = 1e-3, 0.5


class ExactStudent(ScoreModel):
    """The consistency function of data N(0, v) as a student: one DDIM step from t to t_min is it.

    On a path of the ODE x/√(α² v + σ²) is constant.
    """

    distilled = Distilled("consistency", T_MIN)
    shape = (1,)

    def eps(self, x, t):
        node, end = self.sde.at(t, x), self.sde.at(T_MIN, x)
        stds = [(n.alpha**2 * VAR + n.sigma**2) ** 0.5 for n in (node, end)]
        ratio = end.sigma / node.sigma
        weight = end.alpha - ratio * node.alpha
        weight = weight + (weight == 0)  # any x0 will do at t_min
        x0 = (x * stds[1] / stds[0] - ratio * x) / weight
        return (x - node.alpha * x0) / node.sigma


def exact_solver(model, x, t, s):
    """The exact ODE of the same data, in the place of one step of a solver."""
    return x * ((s.alpha**2 * VAR + s.sigma**2) / (t.alpha**2 * VAR + t.sigma**2)) ** 0.5


def batch(n=64):
    g = torch.Generator().manual_seed(0)
    normals = torch.randn(2, n, 1, generator=g, dtype=torch.float64)
    return VAR**0.5 * normals[0], torch.rand(n, generator=g, dtype=torch.float64), normals[1]


@pytest.mark.parametrize("target", ["edm", "eps", "velocity"])
@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_at_the_last_time_the_function_is_x_itself(sde, target):
    """To the last bit, for any network."""
    model = NetworkScore(MLP((2,), width=8), sde, Preconditioning(target=target))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    end = sde.at(torch.full((5,), T_MIN, dtype=torch.float64), x)
    assert torch.equal(consistency_function(model, x, end, end), x)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_exact_function_has_no_loss_and_a_solver_leaves_that_of_its_order(sde):
    """Squared distances fall by 2⁴ and 2⁶ when the steps are halved: local errors h² and h³."""
    teacher, student = GaussianMixture(sde, [1.0], [[0.0]], [VAR]), ExactStudent(sde)
    levels = Levels.of(sde, 20, T_MIN, 1.0)
    exact = ConsistencyLoss(teacher, exact_solver, (levels,))
    assert float(exact(student, *batch())[2].max()) < 1e-18  # rounding, amplified by σ/σ_min
    # One batch of pairs of levels, each of which has the same first time.
    for solver, least in (("ddim", 12), ("heun", 40)):
        sizes = []
        for n in (80, 160):
            method = parse_method(f"consistency:solver={solver}:first={n}:last={n}")
            (about,) = students_of(method, T_MIN)
            sizes.append(float(loss_of(about, teacher)(student, *batch())[2].mean()))
        assert sizes[0] / sizes[1] > least, solver


def test_training_without_a_teacher_has_the_score_in_its_mean():
    """Given x_t the mean of x_s of consistency training is one DDIM step of the exact teacher.

    So the losses of training and of distillation by DDIM agree to first order: Song et al. 2023,
    theorem 2. The mean is over data and noise of one x_t, drawn from the exact posterior.
    """
    sde, t, s = VP(), 0.6, 0.5
    n, m = sde.nodes([t, s])
    x, count = 0.4, 400_000
    var = 1 / (1 / VAR + n.alpha**2 / n.sigma**2)
    normal = torch.randn(count, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x0 = var * n.alpha / n.sigma**2 * x + var**0.5 * normal
    drawn = m.alpha * x0 + m.sigma * (x - n.alpha * x0) / n.sigma
    teacher = GaussianMixture(sde, [1.0], [[0.0]], [VAR])
    state = torch.tensor([[x]], dtype=torch.float64)
    mean = m.sigma / n.sigma * x + (m.alpha - m.sigma / n.sigma * n.alpha) * teacher.x0(state, t)
    assert abs(float(drawn.mean() - mean)) < 4 * float(drawn.std()) / count**0.5


def test_levels_are_chosen_by_the_normal_law_of_their_logarithm():
    """Against its integral over each interval; weights have mean 1 and are as 1/(σ_{i+1} − σ_i)."""
    sde, d = VE(0.01, 10.0), 0.8
    levels = Levels.of(sde, 12, T_MIN, d)
    sigma = sde.sigma(levels.times)
    assert levels.times[0] == T_MIN
    assert torch.all(sigma.diff() > 0)
    z = (sigma / d * 0.5).log().add(1.1).div(2.0)
    mass = 0.5 * (torch.erf(z / math.sqrt(2))).diff()
    p = torch.cat([levels.cumulated[:1], levels.cumulated.diff()])
    torch.testing.assert_close(p, mass / mass.sum(), rtol=1e-6, atol=1e-9)
    assert float((p * levels.weights).sum()) == pytest.approx(1)
    torch.testing.assert_close(
        levels.weights * sigma.diff(), (levels.weights * sigma.diff())[:1].expand(12)
    )


def test_the_number_of_levels_doubles_during_the_training():
    loss = ConsistencyLoss.of(VP(), ConsistencyTraining(10, 50), None, T_MIN)
    counts = [len(loss.at_step(n, 12).stages[loss.at_step(n, 12).stage].weights) for n in range(12)]
    assert counts == [10] * 3 + [20] * 3 + [40] * 3 + [50] * 3
    assert len(loss.stages[loss.stage].weights) == 50  # of a validation


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_an_exact_student_is_sampled_exactly(sde):
    """One jump ends where the ODE ends; 3 jumps give the data's variance at t_min."""
    student = ExactStudent(sde)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1)
    one = sample(student, Consistency(), x_init=x, nfe=1, seed=0)
    first, last = sde.nodes([sde.t_regular, T_MIN])
    stds = [(n.alpha**2 * VAR + n.sigma**2) ** 0.5 for n in (first, last)]
    assert one.nfe == 1
    torch.testing.assert_close(one.x, x * stds[1] / stds[0], rtol=1e-9, atol=1e-12)
    n = 20_000
    three = sample(student, n=n, nfe=3, seed=0, dtype=torch.float64)
    assert (three.nfe, len(three.ts)) == (3, 4)
    variance = float(three.x.var()) / float(VAR)
    # At σ = 0 the noise of t_min is removed, at most σ_min²; 4 standard errors of a variance.
    assert abs(variance - 1) < 4 * (2 / n) ** 0.5 + 4 * last.sigma / last.alpha


def test_the_times_of_a_consistency_student_are_equal_steps_of_the_angle():
    about = Distilled("consistency", T_MIN, data_std=0.5)
    ts = own_times(VE(0.01, 10.0), about, 2)
    sigma = VE(0.01, 10.0).sigma(ts)
    angle = torch.atan(sigma / 0.5)
    assert float(angle[0] - angle[1]) == pytest.approx(float(angle[1] - angle[2]), rel=1e-6)
