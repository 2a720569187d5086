"""`scoresde.check` finds every broken law, and no law is broken by models that are right."""

import copy
import functools
import math
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from scoresde.exact import GaussianMixture
from scoresde.names import load
from scoresde.nets import MLP, ConditionSpec, UNet
from scoresde.score import FunctionScore, NetworkScore, Preconditioning, ScoreModel, wrap
from scoresde.sde import VE, VP, CosineVP, SubVP, TabulatedVP
from scoresde.verification import contract
from scoresde.verification.contract import LAWS, check
from scoresde.verification.findings import judged
from scoresde.verification.laws import practice
from scoresde.verification.laws.practice import COST_LAWS
from scoresde.verification.laws.process import process
from scoresde.verification.laws.times import own_samples, smooth
from scoresde.verification.probe import Probe

SDE, CPU = VP(), torch.device("cpu")
LADDER = TabulatedVP(SDE.ddpm_betas(1000))
NOT_ALL = {"noise at t = 1", "noise of own samples"}  # of a network without training
CONDITIONAL = {"condition has an effect", "conditions follow samples"}
NETWORKS = {"bfloat16 autocast", "wrapper"}


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    """Costs are measured with few calls."""
    monkeypatch.setattr(practice, "SECONDS", 0.0)


def exact_eps(x, t, sde=SDE, std=0.5):
    """ε̂ for data N(0, std² I): σ x/(α² std² + σ²)."""
    node = sde.at(t, x)
    factor = node.sigma / ((node.alpha * std) ** 2 + node.sigma**2)
    return (factor.to(x) if isinstance(factor, torch.Tensor) else factor) * x


class Own(ScoreModel):
    """A model of one's own that is right; the broken ones below change one method each."""

    condition = ConditionSpec()

    def __init__(self, sde=SDE):
        super().__init__(sde)

    def eps(self, x, t):
        self.nfe.add_forward(self.sde.at(t, x).t)
        return self.formula(x, t)

    def formula(self, x, t):
        return exact_eps(x, t, self.sde)


class Labelled(Own):
    """Data N(0, s_y²) with s_y = 0.3, 0.6, 0.9 for the classes 0, 1, 2."""

    condition, needs_labels = ConditionSpec(3), True

    def formula(self, x, t):
        node, std = self.sde.at(t, x), 0.3 * (self.y.to(torch.float64) + 1)
        variance = (node.alpha * std.reshape(-1, *[1] * (x.ndim - 1))) ** 2 + node.sigma**2
        return (node.sigma / variance).to(x) * x


class Net(nn.Module):
    """The network of `exact_eps`, with a layer that is random and one that counts in training."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(3, affine=False, eps=0.0)

    def forward(self, x, label, y=None):
        return self.norm(self.dropout(self.scale * exact_eps(x, label)))


def net(**precision):
    """The network as a score model."""
    return NetworkScore(Net(), SDE, Preconditioning("eps", "time", scale_input=False), **precision)


def broken(verdicts):
    """The laws that are not kept, with their verdicts."""
    return {law: verdict for law, verdict in verdicts.items() if verdict in ("warn", "fail")}


RIGHT = {
    "own": lambda: (Own(), (3,), LAWS.keys() - CONDITIONAL - NETWORKS),
    "labelled": lambda: (Labelled(), (2, 3), LAWS.keys() - NETWORKS),
    "network": lambda: (net(), (3,), LAWS.keys() - CONDITIONAL),
    "network in training mode": lambda: (net().train(), (3,), LAWS.keys() - CONDITIONAL),
    "function": lambda: (
        FunctionScore(VE(), functools.partial(exact_eps, sde=VE())),
        (1, 4, 4),
        LAWS.keys() - CONDITIONAL - {"bfloat16 autocast"},
    ),
    "exact": lambda: (
        GaussianMixture(LADDER, [0.5, 0.5], [[0.5, 0.1], [-0.4, 0.3]], [[0.1, 0.02]] * 2),
        None,
        LAWS.keys() - CONDITIONAL - NETWORKS,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_model_that_is_right_keeps_all_laws(name, rng_untouched):
    model, shape, laws = RIGHT[name]()
    modes = [module.training for module in model.modules()]
    report = check(model, shape)
    assert broken(report.verdicts) == {}, report
    assert report.verdicts.keys() == set(laws)
    assert report.passed
    assert modes == [module.training for module in model.modules()]


@pytest.mark.parametrize(
    "name",
    [
        "digits-vp",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("digits-ve", "digits-subvp")),
    ],
)
@pytest.mark.slow
def test_shipped_checkpoints_keep_all_laws(name):
    report = check(load(name).model, load(name).data.shape)
    assert broken(report.verdicts) == {}, report


# Each class breaks one law. The evaluation of the formula is otherwise right.


class WrongShape(Own):
    def formula(self, x, t):
        return super().formula(x, t)[:, :1]


class NotCounted(Own):
    def x0(self, x, t):
        node = self.sde.at(t, x)
        return (x - node.sigma * self.formula(x, t)) / node.alpha


class ChangesX(Own):
    def formula(self, x, t):
        out = super().formula(x, t)
        x.mul_(2)
        return out


class ChangesTimes(Own):
    def formula(self, x, t):
        out = super().formula(x, t)
        if isinstance(t, torch.Tensor):
            t.mul_(0.5)
        return out


class OneBuffer(Own):
    buffers_of = {}

    def formula(self, x, t):
        buffer = self.buffers_of.setdefault((x.shape, x.dtype), torch.empty_like(x))
        out = super().formula(x, t)
        return out if torch.is_grad_enabled() else buffer.copy_(out)


class Random(Own):
    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def formula(self, x, t):
        return super().formula(x, t) * (1 + 0.1 * self.generator.random())


class GlobalRandom(Own):
    def formula(self, x, t):
        random.random()
        return super().formula(x, t)


class Mates(Own):
    def formula(self, x, t):
        out = super().formula(x, t)
        return out + 1e-4 * out.mean(0)


class ByValue(Own):
    """Depends on the largest state, as dynamic thresholding over a batch does."""

    def formula(self, x, t):
        out = super().formula(x, t)
        return out + 1e-3 * (x.abs().amax() > 3)


class BySize(Own):
    def formula(self, x, t):
        return super().formula(x, t) * (1.001 if len(x) == 1 else 1.0)


class NotAlone(Own):
    def formula(self, x, t):
        if len(x) == 1:
            raise ValueError("expected more than 1 value per channel")
        return super().formula(x, t)


class OwnTrain(nn.Module):
    """As networks that merge their weights in eval()."""

    factor = 1.0

    def train(self, mode=True):
        self.factor = 0.5 if mode else 1.0
        return super().train(mode)

    def forward(self, x, t):
        return self.factor * exact_eps(x, t)


class FirstTime(Own):
    def formula(self, x, t):
        one = t.flatten()[0].expand_as(t) if isinstance(t, torch.Tensor) else t
        return super().formula(x, one)


class WrongX0(Own):
    def x0(self, x, t):
        return 1.01 * super().x0(x, t)


class NotFinite(Own):
    def formula(self, x, t):
        t = torch.as_tensor(self.sde.at(t, x).t)
        return super().formula(x, t.flatten() if t.ndim else t) / (t > 1e-4).to(x)


class RoundedTime(Own):
    def formula(self, x, t):
        t = torch.as_tensor(self.sde.at(t, x).t)
        return super().formula(x, (1000 * (t.flatten() if t.ndim else t)).ceil() / 1000)


class ScaledAtNoise(Own):
    """As a network whose labels end before t = 1."""

    def formula(self, x, t):
        late = torch.as_tensor(self.sde.at(t, x).t) > 0.99
        return super().formula(x, t) * torch.where(late, 0.5, 1.0).to(x)


class TooMuch(Own):
    """As a network of another target."""

    def formula(self, x, t):
        late = torch.as_tensor(self.sde.at(t, x).t) > 0.99
        return super().formula(x, t) * torch.where(late, 1.0, 2.5).to(x)


class Detached(Own):
    def formula(self, x, t):
        return super().formula(x.detach(), t).requires_grad_(torch.is_grad_enabled())


class HalfDetached(Own):
    def formula(self, x, t):
        return 0.9 * super().formula(x, t) + 0.1 * super().formula(x.detach(), t)


class AcceptsAllLabels(Labelled):
    def labelled(self, y, n, device):
        return self.given(self.y if y is None else y)


class IgnoresLabels(Labelled):
    def formula(self, x, t):
        return exact_eps(x, t, self.sde)


class TakesWrongRows(Labelled):
    def take(self, rows):
        return self.given(self.y[: len(self.y[rows])])


class AcceptsLabels(Own):
    def labelled(self, y, n, device):
        return self


class Cancelling(Net):
    """Loses 7 bits in every dtype, and all of them in bfloat16."""

    def forward(self, x, label, y=None):
        large = functional.linear(x, 1000 * torch.eye(3).to(x))
        return exact_eps(x, label).to(large) + (
            large - functional.linear(x, 990 * torch.eye(3).to(x)) - 10 * x
        )


class Copied(Own):
    factor = 1.0

    def formula(self, x, t):
        return self.factor * super().formula(x, t)

    def __deepcopy__(self, memo):
        out = copy.copy(self)
        out.factor = 1.01
        return out


class Locked(Own):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


UNIT = torch.eye(3)


def float32_only(x, t):
    return exact_eps(x @ UNIT, t)


def changes_its_input(x, t):
    return x.copy_(exact_eps(x, t))


def one_buffer(x, t, buffers={}):  # noqa: B006
    if torch.is_grad_enabled():
        return exact_eps(x, t)
    return buffers.setdefault((x.shape, x.dtype), torch.empty_like(x)).copy_(exact_eps(x, t))


def function(f):
    return lambda: FunctionScore(SDE, f)


# model, the law, its verdict, and laws that no such model can keep
class Changed(VP):
    """VP with one of its functions replaced."""

    def __init__(self, name, change):
        super().__init__()
        object.__setattr__(self, name, lambda t: change(getattr(VP, name)(self, t)))


BROKEN = {
    "another g": (lambda: Own(Changed("g", lambda g: 1.01 * g)), "forward process", "fail", ()),
    "wrong shape": (WrongShape, "output", "fail", ()),
    "no batch axis": (function(lambda x, t: x[0]), "output", "fail", ()),
    "not counted": (NotCounted, "evaluations counted", "fail", ()),
    "x changed": (
        ChangesX,
        "arguments unchanged",
        "fail",
        ("eps, x0, v and score", "noise of own samples", "differentiable in x"),
    ),
    "times changed": (ChangesTimes, "arguments unchanged", "fail", ()),
    "input changed": (function(changes_its_input), "arguments unchanged", "warn", ()),
    "one buffer": (OneBuffer, "memory of its own", "fail", ()),
    "network's buffer": (function(one_buffer), "memory of its own", "warn", ()),
    "random": (Random, "same answer twice", "fail", ()),
    "global random numbers": (GlobalRandom, "global random numbers", "fail", ()),
    "batch mean": (Mates, "no batch mates", "fail", ("times per sample",)),
    "no batch of one": (NotAlone, "no batch mates", "fail", ("times per sample",)),
    "largest of a batch": (ByValue, "no batch mates", "fail", ()),
    "batch of one": (BySize, "no batch mates", "fail", ("times per sample",)),
    "own train": (function(OwnTrain()), "train and eval mode", "fail", ()),
    "one time for all": (FirstTime, "times per sample", "fail", ()),
    "x0": (WrongX0, "eps, x0, v and score", "fail", ()),
    "infinite": (NotFinite, "finite at both ends", "fail", ()),
    "rounded time": (RoundedTime, "smooth in time", "warn", ()),
    "at noise": (ScaledAtNoise, "noise at t = 1", "warn", ()),
    "another target": (TooMuch, "noise of own samples", "warn", ()),
    "detached": (Detached, "differentiable in x", "fail", ()),
    "half detached": (HalfDetached, "derivative is right", "fail", ()),
    "all labels": (AcceptsAllLabels, "wrong conditions refused", "fail", ()),
    "labels for none": (AcceptsLabels, "wrong conditions refused", "fail", ()),
    "labels without effect": (IgnoresLabels, "condition has an effect", "warn", ()),
    "wrong rows": (TakesWrongRows, "conditions follow samples", "fail", ()),
    "float32 only": (function(float32_only), "float64", "warn", ()),
    "bfloat16": (lambda: net_of(Cancelling()), "bfloat16 autocast", "warn", ()),
    "copy": (Copied, "copies", "fail", ()),
    "not copied": (Locked, "copies", "warn", ("float64", "pickles")),
    "lambda": (function(lambda x, t: exact_eps(x, t)), "pickles", "warn", ()),
}


def net_of(network):
    return NetworkScore(network, SDE, Preconditioning("eps", "time", scale_input=False))


@pytest.mark.parametrize("name", BROKEN)
def test_every_law_is_caught_if_it_is_broken(name):
    make, law, verdict, others = BROKEN[name]
    report = check(make(), (3,))
    found = broken(report.verdicts)
    assert found.pop(law, None) == verdict, str(report)
    assert found.keys() - {"pickles"} <= set(others) - {law}, str(report)
    assert report[law].advice
    assert report.passed is (verdict == "warn" and "fail" not in found.values())


@pytest.mark.parametrize("name", ["log_alpha", "sigma", "f", "g", "t_of_lam"])
def test_every_function_of_an_sde_is_compared_with_the_others(name):
    for change in (lambda value: 1.003 * value, lambda value: math.nan * value):
        assert process(Probe(Own(Changed(name, change)), (3,), CPU)).verdict == "fail"


@pytest.mark.parametrize(
    "sde",
    [VE(), VE(1e-3, 1e4), SubVP(), CosineVP(), LADDER, TabulatedVP(VP().ddpm_betas(30))],
    ids=repr,
)
def test_the_functions_of_our_sdes_belong_together(sde):
    assert process(Probe(Own(sde), (3,), CPU)).verdict == "pass"


def test_every_law_has_a_model_that_breaks_it():
    assert {law for _, law, *_ in BROKEN.values()} == set(LAWS) - set(COST_LAWS)


@pytest.mark.parametrize("several", [False, True])
def test_conditions_are_invented_for_networks_that_say_what_they_take(several):
    """A vector alone, or classes, a vector and an array."""
    torch.manual_seed(0)
    if several:
        options = {"classes": 3, "vector": 2, "array": 1}
        net = UNet((1, 8, 8), channels=8, multipliers=[1], blocks=1, attention=[], **options)
    else:
        net = MLP((3,), width=8, depth=1, vector=2)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.1)
    report = check(NetworkScore(net, SDE), (1, 8, 8) if several else (3,))
    assert broken(report.verdicts).keys() <= NOT_ALL, str(report)
    tested = report["wrong conditions refused"].measured
    assert all(word in tested for word in ("no condition", "a longer vector", "vector with NaN"))
    assert ("class 3" in tested) is several
    assert report["condition has an effect"].value > 0


@pytest.mark.parametrize(
    ("levels", "double"), [(50, True), (50_000, True), (50, False), (1000, False)]
)
def test_rounded_labels_are_told_from_labels_that_change_fast(levels, double):
    """In float64, and in float32 for a network that cannot be copied."""

    def probe(label):
        own = FunctionScore(SDE, lambda x, t: exact_eps(x, t) + torch.sin(label(t)).to(x))
        found = Probe(own, (3,), CPU)
        if not double:
            found.__dict__["double"] = "no copy"
        return smooth(found).verdict

    def column(t):
        return t[:, None] if t.ndim else t

    assert probe(lambda t: (levels * column(t)).floor() / levels) == "warn"
    assert probe(lambda t: column(t)) == "pass"
    assert probe(lambda t: 300 * column(t)) == "pass"


def test_an_error_inside_the_network_is_told_with_its_call():
    def forward(x, t):
        raise KeyError("weights")

    report = check(wrap(forward, SDE, "eps", label="time"), (3,))
    assert report.failures == ("output",)
    assert "raised KeyError" in report["output"].advice
    assert "scoresde called _Function with x (4, 3)" in report["output"].measured


def test_dropout_that_stays_on_is_found():
    model = FunctionScore(SDE, lambda x, t: functional.dropout(exact_eps(x, t)))
    report = check(model, (3,))
    assert report.failures == ("global random numbers", "same answer twice")
    assert report["all other laws"].verdict == "info"


def test_a_wrong_meaning_of_the_output_is_suspect():
    """A trained network that is told to have another target."""
    trained = load("digits-vp").model
    for target in ("eps", "v"):
        probe = Probe(
            NetworkScore(trained.net, trained.sde, Preconditioning(target)), (1, 8, 8), CPU
        )
        assert own_samples(probe).verdict == "warn", target


class TestArguments:
    def test_the_shape_must_be_known(self):
        with pytest.raises(ValueError, match="shape must be given, as"):
            check(Own())

    def test_wrong_types(self):
        with pytest.raises(TypeError, match="model must be of type ScoreModel, got Net"):
            check(Net(), (3,))
        with pytest.raises(ValueError, match="shape must be"):
            check(Own(), (0,))
        with pytest.raises(ValueError, match="seed must"):
            check(Own(), (3,), seed=-1)
        with pytest.raises(ValueError, match="y must have at least one row"):
            check(Labelled(), (3,), torch.zeros(0, dtype=torch.int64))

    def test_a_condition_may_be_given_or_bound(self):
        y = torch.tensor([0, 2])
        given, bound = check(Labelled(), (3,), y), check(Labelled().given(y), (3,))
        for report in (given, bound):
            assert report["condition has an effect"].verdict == "pass"
        assert given["condition has an effect"] == bound["condition has an effect"]
        one = check(Labelled(), (3,), torch.tensor(1))
        assert one["condition has an effect"].verdict == "info"

    def test_progress_names_the_laws(self):
        told = []
        check(Own(), (3,), on_progress=lambda *a: told.append(a))
        assert told == [(i, len(LAWS), law) for i, law in enumerate(LAWS, start=1)]


def test_numbers_are_measured_and_not_constants():
    """The measured differences are those of the models."""
    assert check(HalfDetached(), (3,))["derivative is right"].value == pytest.approx(0.1, rel=0.5)
    assert check(WrongX0(), (3,))["eps, x0, v and score"].value == pytest.approx(0.01, rel=1)
    shares = check(ScaledAtNoise(), (3,))["noise at t = 1"].value
    assert shares == pytest.approx(0.5, rel=0.3)


def test_nan_is_no_small_difference():
    assert judged("difference", math.nan, 1.0, "look").verdict == "fail"
    assert judged("difference", 1.0, 1.0, "look").verdict == "pass"


def test_the_report_is_text_and_data(monkeypatch):
    report = check(WrongX0(), (3,))
    lines = str(report).splitlines()
    assert lines[-1].startswith("WrongX0: ")
    assert lines[-1].endswith(", 0 warn, 1 fail")
    row = next(i for i, line in enumerate(lines) if line.startswith("fail"))
    assert "relative difference" in lines[row]
    assert lines[row + 1].strip().startswith("→ the model's own x0")
    assert report.failures == ("eps, x0, v and score",)
    assert report.plain()["findings"][0]["law"] == "output"
    with pytest.raises(KeyError):
        report["unknown"]
    monkeypatch.setattr(contract, "LAWS", {"mine": lambda probe: 1 / 0})
    assert check(Own(), (3,))["mine"].measured == "division by zero"
