"""Students as models: their settings, what is refused, and what they learn on a mixture."""

import copy
from dataclasses import replace

import pytest
import torch

import scoresde
from scoresde.data import Dataset, DataSpec
from scoresde.distillation.student import (
    check_teacher,
    loss_of,
    method_label,
    parse_method,
    students_of,
)
from scoresde.ema import EMA
from scoresde.exact import GaussianMixture
from scoresde.guidance import ClassifierFree
from scoresde.nets import MLP
from scoresde.plain import ConfigError
from scoresde.samplers import DDIM, EDM, Consistency, ProbabilityFlowODE, sample
from scoresde.score import NetworkScore, Preconditioning
from scoresde.score.distilled import Distilled
from scoresde.sde import VE, VP, TabulatedVP
from scoresde.train import Training, TrainSettings, make_optimizer

T_MIN = 1e-3


def student(steps=4, method="progressive", sde=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MLP((2,), width=8)
    model = NetworkScore(net, sde or VP(), Preconditioning(target="edm"))
    model.distilled = Distilled(method, T_MIN, steps=steps)
    model.data = DataSpec((2,), -1, 1)
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    ("nfe", "steps"), [(None, 4), (1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (20, 4)]
)
def test_a_student_takes_as_many_of_its_steps_as_evaluations_allow(nfe, steps):
    model = student()
    found = sample(model, n=3, nfe=nfe)
    assert (found.nfe, found.sampler, found.denoise) == (steps, DDIM(), False)
    whole = sample(model, n=3).ts
    assert torch.equal(found.ts, whole[:: 4 // steps])
    jumps = sample(student(None, "consistency"), n=3, nfe=nfe)
    assert (jumps.nfe, jumps.denoise) == (min(nfe or 4, 4), True)


def test_other_samplers_and_times_are_refused_before_an_evaluation():
    model = student()
    for sampler in (EDM(), DDIM(0.5), Consistency()):
        with pytest.raises(ValueError, match="sampler must be DDIM for a student of 4 steps"):
            sample(model, sampler, n=2)
    with pytest.raises(ValueError, match="sampler must be Consistency for a student"):
        sample(student(None, "consistency"), DDIM(), n=2)
    with pytest.raises(ValueError, match="ts must be among the times of a student of 4 steps"):
        sample(model, ts=[1.0, 0.5, T_MIN], n=2)
    some = sample(model, n=2).ts[[0, 1, 4]]
    assert sample(model, ts=some, n=2).nfe == 2
    with pytest.raises(ValueError, match="nfe must be None if ts is given"):
        sample(model, ts=some, n=2, nfe=2)
    assert model.nfe.forward == 4 + 2


def test_what_needs_a_score_is_refused():
    model, x = student(), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="model must have a score, got a student of 4 steps"):
        scoresde.log_likelihood(model, x, seed=0)
    with pytest.raises(ValueError, match="model must be no student"):
        ClassifierFree(model, 2.0)


def test_a_student_is_saved_and_loaded(tmp_path):
    model = student()
    scoresde.save(tmp_path / "s.safetensors", model)
    loaded = scoresde.load(tmp_path / "s.safetensors").model
    assert loaded.distilled == model.distilled
    assert torch.equal(sample(loaded, n=3).x, sample(model, n=3).x)
    assert loaded.given(None).distilled == model.distilled


@pytest.mark.parametrize(
    "text",
    [
        *("progressive", "progressive:steps=1:start=2"),
        *("consistency:solver=ddim", "consistency-training"),
    ],
)
def test_a_text_makes_a_method_and_a_method_a_text(text):
    method = parse_method(text)
    assert parse_method(method_label(method)) == method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("progresive", "did you mean progressive"),
        ("progressive:steps=3", "steps must be a power of two, got 3"),
        ("progressive:steps=0", "steps must be at least 1"),
        ("progressive:start=48", "start must be a power of two, got 48"),
        ("progressive:steps=8:start=8", "start must be above steps = 8, got 8"),
        ("consistency:solver=euler", "solver must be"),
        ("consistency:first=20:last=10", "last must be at least 20"),
        ("consistency-training:first=1", "first must be at least 2"),
    ],
)
def test_wrong_methods_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_method(text)


def test_teachers_that_cannot_be_distilled_are_refused():
    table = TabulatedVP(VP().ddpm_betas(1000))
    rounded = NetworkScore(
        MLP((2,), width=8), table, Preconditioning("eps", "rounded_index", scale_input=False)
    )
    with pytest.raises(ValueError, match="has rounded labels"):
        check_teacher(rounded)
    with pytest.raises(ValueError, match="is a student of 4 steps"):
        check_teacher(student())


SETTINGS = TrainSettings(steps=200, batch=128, learning_rate=5e-3, warmup=20, cooldown=100)


def trained(method, teacher, settings=SETTINGS, seed=0):
    """The students of a method, one after the other, on data of the teacher."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = MLP((1,), width=32)
    data = Dataset("mixture", teacher.sample(2048, seed=0).float(), None, DataSpec((1,), -1, 1))
    model = NetworkScore(net, teacher.sde, Preconditioning(target="edm", sigma_data=1.0))
    found = []
    for about in students_of(parse_method(method), T_MIN):
        loss = loss_of(about, found[-1] if found else teacher)
        training, ema = Training(model, data, loss, settings), EMA(net, 0.98)
        for _ in training.steps(make_optimizer(net)):
            ema.update(net)
        with ema.applied(net):
            found.append(copy.deepcopy(model).eval().requires_grad_(False))
        found[-1].distilled = about
    return found


def errors(teacher, students, n=500):
    """RMS distances from the end points of the exact ODE, of students and of the teacher's DDIM."""
    sde = teacher.sde
    z = torch.randn(n, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    start = {"x_init": z * sde.start_std(1.0), "seed": 0, "denoise": False}
    exact = ProbabilityFlowODE("dopri8", rtol=1e-9, atol=1e-9)
    end = sample(teacher, exact, [1.0, T_MIN], **start).x

    def distance(x):
        return float((x - end).square().mean().sqrt())

    first = {"x_init": start["x_init"].float(), "seed": 0}
    own = [distance(sample(one, **first, nfe=one.distilled.steps or 1).x) for one in students]
    ts = [1.0, T_MIN]
    return own, distance(sample(teacher, DDIM(), ts, **start).x)


@pytest.mark.slow
def test_students_end_where_the_exact_ode_of_a_mixture_ends():
    """One evaluation, where one DDIM step of the exact teacher is off by 0.7.

    The teacher of the first progressive student is DDIM in 4 steps, whose own error is the floor.
    So short trainings leave less than half of the error, and longer ones a tenth.
    """
    teacher = GaussianMixture(VE(0.01, 10.0), [0.3, 0.7], [[-1.2], [0.8]], [0.3, 0.4])
    own, one_step = errors(teacher, trained("progressive:steps=1:start=4", teacher))
    assert one_step > 0.5
    assert own[-1] < 0.5 * one_step, own
    few = replace(SETTINGS, steps=300, warmup=30, cooldown=150)
    own, _ = errors(teacher, trained("consistency:first=10:last=20", teacher, few))
    assert own[-1] < 0.5 * one_step, own
