"""Laws of score models: conversions, preconditioning, labels, counting, and refusals."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from scoresde import grid
from scoresde.evaluation import evaluating
from scoresde.likelihood import (
    DDPMVLB,
    ContinuousVLB,
    Ode,
    Path,
    decode,
    encode,
    log_likelihood,
    neglected,
)
from scoresde.samplers import DDIM, sample
from scoresde.score import (
    FunctionScore,
    NetworkScore,
    Preconditioning,
    ScoreModel,
    count_nfe,
    reverse_drift,
    wrap,
)
from scoresde.sde import VE, VP, CosineVP, SubVP, TabulatedVP

TARGETS = ["eps", "x0", "v", "score", "edm"]
LABELS = ["log_sigma", "edm", "time", "index"]
SHAPES = [(), (1,), (2,), (64,), (1, 28, 28), (3, 32, 32), (4, 16, 16), (3, 28, 20), (1, 33, 17)]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class ExactNet(nn.Module):
    """An ideal network. It undoes the input scale and finds the time from its label.

    Written from the papers' definitions, with σ_data = 0.5.
    """

    def __init__(self, exact, target, label, t=None, dtype=torch.float64, scaled=True):
        super().__init__()
        self.exact, self.target, self.label, self.t, self.scaled = exact, target, label, t, scaled
        self.weight = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.seen = []

    def forward(self, x, label, y):
        self.seen.append((x, label, y))
        sde, dtype = self.exact.sde, x.dtype
        t = torch.full((len(x),), self.t).double() if self.t is not None else self.time(sde, label)
        a, s = sde.alpha(t), sde.sigma(t)
        a, s = (value.reshape(-1, *[1] * (x.ndim - 1)) for value in (a, s))
        sigma_data = 0.5 if self.target == "edm" else 1.0
        x = x.double()
        if self.scaled:
            x = x * torch.sqrt(a**2 * sigma_data**2 + s**2)
        if self.target == "edm":
            ratio = s / a
            total = ratio**2 + 0.25
            skip, scale = 0.25 / total, 0.5 * ratio / torch.sqrt(total)
            return ((self.exact.x0(x, t) - skip * x / a) / scale).to(dtype)
        return getattr(self.exact, self.target)(x, t).to(dtype)

    def time(self, sde, label):
        if self.label == "time":
            return label
        if self.label == "index":
            return (label.double() + 1) / len(sde.betas)
        return sde.t_of_lam(-label if self.label == "log_sigma" else -4 * label)


def network(exact, target, label="log_sigma", **options):
    return NetworkScore(
        ExactNet(exact, target, label, **options), exact.sde, Preconditioning(target, label)
    )


def relative_error(got, want):
    return float((got.double() - want).abs().max() / want.abs().max())


def quantities(model):
    """All quantities that a model gives at (x, t)."""
    return [model.eps, model.score, model.x0, model.v, partial(reverse_drift, model)]


@pytest.mark.parametrize("target", TARGETS)
def test_every_native_target_gives_the_exact_quantities(sde, gaussian, target):
    """Every label under VP and under a table; a label is made of the time before the network."""
    exact = gaussian(sde, 3)
    t = torch.tensor([0.9, 0.4, 0.05, 0.002], dtype=torch.float64)
    x = sde.perturb(exact.sample(4, seed=1), t, normal(4, 3))
    labels = {VP: LABELS[:-1], TabulatedVP: LABELS}.get(type(sde), LABELS[:1])
    for label in labels:
        model = network(exact, target, label)
        for quantity in ("eps", "x0", "v", "score"):
            got, want = getattr(model, quantity)(x, t), getattr(exact, quantity)(x, t)
            # The time read off a rounded label is right to about 1e-12; times 1/α or 1/σ (up to
            # 5e3) where the target asks for it, and what else has been measured: 3e-9 in all.
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


# Which end of time multiplies a target's rounding by 1/α or 1/σ is a property of the target, not
# of the code. Everything not excepted here must keep float32's accuracy.
CANCELS = {
    "eps": {"x0": "noise", "v": "noise"},
    "x0": {"eps": "data", "v": "data", "score": "data"},
    "v": {},
    "score": {"x0": "noise", "v": "noise"},
    "edm": {},
}


@pytest.mark.parametrize("end", ["data", "noise"])
@pytest.mark.parametrize("target", TARGETS)
def test_float32_does_not_cancel_at_either_end(sde, gaussian, target, end):
    exact = gaussian(sde, 3)
    # At 1e-5 and σ = 1e-6 (subVP) the test's own way to EDM's F would cancel in float64.
    t = {"data": 1e-3 if target == "edm" else 1e-5, "noise": sde.t_regular}[end]
    x = sde.perturb(exact.sample(50, seed=2), t, normal(50, 3, seed=3)).float()
    narrow = network(exact, target, t=t, dtype=torch.float32)
    for quantity in ("eps", "x0", "v", "score"):
        if CANCELS[target].get(quantity) == end:
            continue
        got, want = getattr(narrow, quantity)(x, t), getattr(exact, quantity)(x.double(), t)
        assert got.dtype == torch.float32
        # a few roundings of 6e-8 each
        assert relative_error(got, want) < 1e-6, quantity


def test_conversions_of_any_callable(sde, mixture):
    """score, x0 and v of a bare ε, against the exact ones."""
    exact = mixture(sde)
    model = FunctionScore(sde, exact.eps)
    t = torch.tensor([0.8, 0.3, 0.1], dtype=torch.float64)
    x = sde.perturb(exact.sample(3, seed=0), t, normal(3, 2))
    for quantity in ("eps", "x0", "v", "score"):
        got, want = getattr(model, quantity)(x, t), getattr(exact, quantity)(x, t)
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)  # 1/α up to 27


@pytest.mark.parametrize("make", ["function", "network", "exact"])
@pytest.mark.by_default("VP", "VE", "Linear")
def test_all_kinds_of_time_agree(sde, gaussian, make):
    exact = gaussian(sde, 2)
    model = {
        "function": FunctionScore(sde, exact.eps),
        "network": network(exact, "v"),
        "exact": exact,
    }[make]
    x = normal(3, 2)
    node = sde.nodes(torch.tensor([0.3], dtype=torch.float64))[0]
    each = torch.full((3,), 0.3, dtype=torch.float64)
    for quantity in quantities(model):
        want = quantity(x, 0.3)
        for t in (torch.tensor(0.3, dtype=torch.float64), each, node, sde.at(each, x)):
            torch.testing.assert_close(quantity(x, t), want, rtol=1e-12, atol=1e-12)
        for t in (0.3, node, each[:0]):
            assert quantity(x[:0], t).shape == (0, 2)


def test_any_data_shape(sde, gaussian):
    """Every shape under VP and each kind of shape under all SDEs, which see the times alone."""
    shapes = SHAPES if isinstance(sde, VP) else [(), (2,), (3, 28, 20)]
    for shape, dtype in itertools.product(shapes, [torch.float32, torch.float64]):
        exact = gaussian(sde, *shape) if shape else FunctionScore(sde, lambda x, t: x)
        models = [exact, FunctionScore(sde, lambda x, t: 0.5 * x)]
        models.append(NetworkScore(_Constant(0.5, dtype), sde, Preconditioning("edm")))
        for n, t in ((2, torch.tensor([0.2, 0.9])), (1, 0.4)):
            x = normal(n, *shape).to(dtype)
            for model in models:
                for out in (model.eps(x, t), model.x0(x, t), model.v(x, t), model.score(x, t)):
                    assert out.shape == x.shape, (shape, dtype)
                    assert out.dtype == dtype, (shape, dtype)
                    assert bool(torch.isfinite(out).all()), (shape, dtype)


class _Constant(nn.Module):
    """Returns its input times a parameter, and keeps what it was called with."""

    def __init__(self, value=1.0, dtype=torch.float32):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=dtype))
        self.calls = []

    def forward(self, x, label, y):
        self.calls.append((x, label, y))
        return self.value * x


@pytest.mark.parametrize(
    ("label", "want"),
    [
        # σ/α of VP at t = 0.5, from an independent implementation: λ = −1.227567734411
        ("log_sigma", 1.227567734411),
        ("edm", 1.227567734411 / 4),
        ("time", 0.5),
    ],
)
def test_what_the_network_is_told(label, want):
    net = _Constant(dtype=torch.float64)
    model = NetworkScore(net, VP(), Preconditioning(label=label))
    model.eps(torch.zeros(3, 2, dtype=torch.float64), 0.5)
    model.eps(torch.zeros(3, 2, dtype=torch.float64), torch.tensor([0.5, 0.1, 0.5]).double())
    for _, label, y in net.calls:
        assert label.shape == (3,)
        assert y is None
        assert [float(label[0]), float(label[2])] == pytest.approx([want] * 2, abs=1e-12)


def test_the_index_of_a_discrete_model():
    net = _Constant(dtype=torch.float64)
    sde = TabulatedVP(VP().ddpm_betas(1000))
    model = NetworkScore(net, sde, Preconditioning(label="index"))
    for t in (1.0, 0.5, 1e-3, 1e-5):
        model.eps(torch.zeros(1, 2, dtype=torch.float64), t)
    assert [float(call[1]) for call in net.calls] == pytest.approx([999, 499, 0, 0], abs=1e-9)
    assert not model.snapped
    with pytest.raises(ValueError, match="label 'index' needs a TabulatedVP, got SubVP"):
        NetworkScore(net, SubVP(), Preconditioning(label="index"))
    with pytest.raises(ValueError, match="label 'rounded_index' needs a TabulatedVP, got VE"):
        NetworkScore(net, VE(), Preconditioning(label="rounded_index"))


def test_rounded_labels_are_integers_at_any_time():
    """One common time, one per sample, a node; off the ladder, and at both ends."""
    net = _Constant(dtype=torch.float64)
    sde = TabulatedVP(VP().ddpm_betas(100))
    model = NetworkScore(net, sde, Preconditioning(label="rounded_index"))
    assert model.snapped
    t = torch.tensor([1.0, 0.50402, 0.5049, 0.01, 1e-5, 0.996], dtype=torch.float64)
    x = torch.zeros(6, 2, dtype=torch.float64)
    wanted = [99, 49, 49, 0, 0, 99]
    model.eps(x, t)
    assert net.calls[-1][1].tolist() == wanted
    for time, label in zip(t.tolist(), wanted, strict=True):
        model.x0(x[:1], time)
        model.x0(x[:1], sde.nodes(torch.tensor([time], dtype=torch.float64))[0])
        assert [call[1].tolist() for call in net.calls[-2:]] == [[label], [label]]


@pytest.mark.parametrize("target", TARGETS)
def test_rounding_and_interpolation_agree_on_the_ladder_and_only_there(gaussian, target):
    sde = TabulatedVP(VP().ddpm_betas(50))
    exact = gaussian(sde, 3)
    net = ExactNet(exact, target, "index")
    between = NetworkScore(net, sde, Preconditioning(target, "index"))
    rounded = NetworkScore(net, sde, Preconditioning(target, "rounded_index"))
    ladder = sde.ladder(50)
    x = sde.perturb(exact.sample(50, seed=1), ladder, normal(50, 3))
    for quantity in ("eps", "score", "x0", "v"):
        got, want = getattr(rounded, quantity)(x, ladder), getattr(between, quantity)(x, ladder)
        # the interpolated label is within 1e-14 of the integer; times 1/α or 1/σ up to 2e2
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    off = (ladder[:-1] - 0.004)[:, None]
    x = x[:-1]
    assert relative_error(rounded.eps(x, off[:, 0]), between.eps(x, off[:, 0])) > 1e-3


@pytest.mark.parametrize(("target", "std"), [("eps", 1.0), ("v", 1.0), ("edm", 0.5)])
def test_inputs_have_unit_variance(sde, target, std):
    """If the data have the variance 1, or σ_data² for EDM's target."""
    net = _Constant(dtype=torch.float64)
    model = NetworkScore(net, sde, Preconditioning(target, sigma_data=0.5))
    for t in (1e-4, 0.1, 0.5, sde.t_regular):
        # the variance of a sum of independent terms, without a random number
        a, s = float(sde.alpha(t)), float(sde.sigma(t))
        x = torch.full((1, 1), math.sqrt((a * std) ** 2 + s**2), dtype=torch.float64)
        model.eps(x, t)
        assert float(net.calls[-1][0]) == pytest.approx(1.0, rel=1e-12)
    plain = NetworkScore(net, sde, Preconditioning(target, scale_input=False))
    plain.eps(x, 0.3)
    assert torch.equal(net.calls[-1][0], x)


@pytest.mark.parametrize("target", TARGETS)
def test_unscaled_inputs_too(sde, gaussian, target):
    exact = gaussian(sde, 3)
    net = ExactNet(exact, target, "log_sigma", scaled=False)
    model = NetworkScore(net, sde, Preconditioning(target, scale_input=False))
    x = normal(4, 3)
    torch.testing.assert_close(model.eps(x, 0.4), exact.eps(x, 0.4), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_the_reverse_process_has_the_marginals_of_the_forward_one(sde, gaussian, eta):
    """For Gaussian data: dm/dt = A m + B and dv/dt = 2 A v − η² g², with drift A x + B.

    m = 0.3 α and v = α²/4 + σ² are the forward moments; their slopes by differences.
    """
    model = gaussian(sde)
    t, h = 0.37, 1e-5
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    at_0, at_1 = reverse_drift(model, ends, t, eta).flatten().tolist()

    def moments(u):
        a, s = float(sde.alpha(u)), float(sde.sigma(u))
        return 0.3 * a, a**2 / 4 + s**2

    (m, v), (m_up, v_up), (m_down, v_down) = moments(t), moments(t + h), moments(t - h)
    slope, g = at_1 - at_0, float(sde.g(t))
    # central differences: h² times a third derivative, and 1e-16/h of rounding
    assert slope * m + at_0 == pytest.approx((m_up - m_down) / (2 * h), rel=1e-6, abs=1e-9)
    assert 2 * slope * v - (eta * g) ** 2 == pytest.approx((v_up - v_down) / (2 * h), rel=1e-6)


def test_labels_follow_their_samples():
    net = _Constant()
    model = NetworkScore(net, VP(), Preconditioning())
    y = torch.tensor([3, 1, 4, 1])
    bound = model.given(y)
    x = torch.zeros(4, 2)
    bound.eps(x, 0.5)
    bound.take(slice(1, 3)).eps(x[1:3], 0.5)
    bound.take(torch.tensor([2, 0])).eps(x[:2], 0.5)
    bound.take(torch.tensor([False, False, False, True])).eps(x[:1], 0.5)
    bound.given(None).eps(x, 0.5)
    model.eps(x, 0.5)
    seen = [None if y is None else y.tolist() for _, _, y in net.calls]
    assert seen == [[3, 1, 4, 1], [1, 4], [4, 3], [1], None, None]
    assert model.y is None
    assert model.take(slice(0, 1)) is model
    assert model.nfe.forward == 6  # bound models count into the model's own counter


def test_each_quantity_is_one_evaluation(sde, gaussian):
    exact = gaussian(sde, 2)
    models = [
        exact,
        FunctionScore(sde, lambda x, t: x),
        NetworkScore(_Constant(), sde, Preconditioning()),
    ]
    x = torch.zeros(5, 2)
    for model in models:
        for n, call in enumerate(quantities(model)):
            call(x, 0.5)
            assert model.nfe.forward == n + 1
        model.given(torch.zeros(5)).eps(x, torch.full((5,), 0.5))
        assert model.nfe.forward == 6
        assert model.nfe.derivative == 0


def test_counting_inside_a_block():
    model = FunctionScore(VP(), lambda x, t: x)
    x = torch.zeros(1, 1)
    model.eps(x, 0.5)
    with count_nfe(model) as outer:
        model.eps(x, 0.5)
        with count_nfe(model) as inner:
            model.eps(x, 0.5)
            model.nfe.add_derivative()
            model.nfe.add_derivative()
        model.eps(x, 0.5)
    assert (inner.forward, inner.derivative) == (1, 2)
    assert (outer.forward, outer.derivative) == (3, 2)
    assert (model.nfe.forward, model.nfe.derivative) == (4, 2)


class Uncounted(ScoreModel):
    """A model of the user, who wrote `eps` alone."""

    def eps(self, x, t):
        return x * self.sde.at(t, x).sigma


def test_a_call_of_eps_that_counts_nothing_is_one_evaluation():
    class Twice(Uncounted):
        def eps(self, x, t):
            return super().eps(x, t) + super().eps(x, t)

    for model, calls in ((Uncounted(VP()), 1), (Twice(VP()), 2)):
        with count_nfe(model) as count:
            model.score(torch.ones(2, 3), 0.5)
        assert count.forward == model.nfe.forward == calls
        with pytest.raises(RuntimeError, match="limit of 0"), count_nfe(model, limit=0):
            model.eps(torch.ones(2, 3), 0.5)


def test_the_limit_stops_a_runaway():
    model = FunctionScore(VP(), lambda x, t: x)
    x = torch.zeros(1, 1)
    model.eps(x, 0.5)

    def run(n):
        for _ in range(n):
            model.eps(x, 0.25)

    with count_nfe(model, limit=3) as counted:
        run(3)
    assert counted.forward == 3
    message = r"the limit of 3 network evaluations was reached at t=0.25; raise max_nfe or loosen"
    with pytest.raises(RuntimeError, match=message), count_nfe(model, limit=3) as counted:
        run(4)
    assert counted.forward == 3  # final although the block was left by an error
    run(10)  # and the limit has gone with its block


@pytest.mark.parametrize(("outer", "inner"), [(2, None), (2, 100), (100, 2)])
def test_the_tighter_of_two_limits_holds(outer, inner):
    model = FunctionScore(VP(), lambda x, t: x)
    x = torch.zeros(1, 1)
    with count_nfe(model, outer), count_nfe(model, inner):
        model.eps(x, 0.5)
        model.eps(x, 0.5)
        with pytest.raises(RuntimeError, match="the limit of 2 network evaluations"):
            model.eps(x, 0.5)


def _broken(kind):
    """A callable that fails at t < 0.5, and the message of the error."""

    def eps(x, t):
        if float(t.min()) >= 0.5:
            return x
        if kind == "nan":
            return torch.where(torch.arange(x.numel()).reshape(x.shape) < 3, math.nan, x)
        if kind == "inf":
            return x / torch.zeros_like(x)
        return {
            "shape": x[:, :1],
            "batch": x[:1],
            "integer": x.long(),
            "bool": x > 0,
            "tuple": (x[:, :1], x),
            "empty": (),
            "mapping": {"eps": x},
            "none": None,
        }[kind]

    return eps


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", r"network output at t=0.25: 3 non-finite values of 8"),
        ("inf", r"network output at t=0.25: 8 non-finite values of 8"),
        ("shape", r"network returned \(4, 1\) for x of shape \(4, 2\)"),
        ("batch", r"network returned \(1, 2\) for x of shape \(4, 2\)"),
        ("integer", r"network returned torch.int64, a floating dtype is needed"),
        ("bool", r"network returned torch.bool, a floating dtype is needed"),
        ("tuple", r"returned a tuple whose first entry has shape \(4, 1\) for x of shape \(4, 2\)"),
        (
            "empty",
            r"network returned a tuple whose first entry is NoneType for x of shape \(4, 2\)",
        ),
        ("mapping", r"network returned a dict whose entry 'sample' is NoneType for x of shape"),
        ("none", r"network returned NoneType for x of shape \(4, 2\)"),
    ],
)
@pytest.mark.parametrize("quantity", ["eps", "score", "x0", "v"])
def test_a_broken_network_is_named(kind, message, quantity):
    class Net(nn.Module):
        def forward(self, x, label, y):
            return _broken(kind)(x, label)

    models = [
        FunctionScore(VP(), _broken(kind)),
        NetworkScore(Net(), VP(), Preconditioning(label="time")),
    ]
    x = torch.ones(4, 2)
    for model in models:
        getattr(model, quantity)(x, 0.75)
        with pytest.raises(RuntimeError, match=message):
            getattr(model, quantity)(x, 0.25)


def test_times_per_sample_are_named_as_a_range():
    model = FunctionScore(VP(), _broken("nan"))
    with pytest.raises(RuntimeError, match=r"network output at t=0.25\.\.0.5: 3 non-finite"):
        model.eps(torch.ones(2, 2), torch.tensor([0.25, 0.5]))


def test_large_values_are_not_mistaken_for_infinite_ones():
    model = FunctionScore(VP(), lambda x, t: torch.full_like(x, 3e38))
    assert bool(torch.isfinite(model.eps(torch.zeros(4, 2), 0.5)).all())


def test_a_wider_or_narrower_result_is_cast_to_the_state():
    for dtype in (torch.float64, torch.bfloat16):
        model = FunctionScore(VP(), lambda x, t, dtype=dtype: x.to(dtype))
        assert model.eps(torch.zeros(4, 2), 0.5).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_network_computes_in_its_own_dtype(dtype):
    net = _Constant(dtype=dtype)
    model = NetworkScore(net, VP(), Preconditioning())
    for state in (torch.float32, torch.float64):
        assert model.eps(torch.zeros(2, 2, dtype=state), 0.5).dtype == state
        x, label, _ = net.calls[-1]
        assert x.dtype == dtype
        # bf16 would tell only 507 of 1000 time labels apart
        assert label.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_that_a_function_uses_computes_in_its_own_dtype(dtype):
    net = nn.Linear(3, 3).to(dtype)

    def function(x, t):
        return net(x)

    models = (FunctionScore(VP(), function), wrap(function, VP(), "eps", label="time"))
    for model, state in itertools.product(models, (torch.float32, torch.float64)):
        x = torch.ones(2, 3, dtype=state)
        assert model.eps(x, 0.5).dtype == state
        assert torch.equal(model.eps(x, 0.5), net(x.to(dtype)).to(state))


def test_autocast_is_for_the_network_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.weight = nn.Parameter(torch.randn(64, 64, generator=generator) / 8)

        def forward(self, x, label, y):
            assert label.dtype == torch.float32
            out = x @ self.weight
            self.dtype = out.dtype
            return out

    net = Net()
    x = normal(16, 64).float()
    for sde in (VP(), VE(), CosineVP()):
        for t in (1e-3, 1.0):
            plain, narrow = (
                NetworkScore(net, sde, Preconditioning("v"), autocast).eps(x, t).detach()
                for autocast in (None, torch.bfloat16)
            )
            assert net.dtype == torch.bfloat16
            assert narrow.dtype == torch.float32
            assert bool(torch.isfinite(narrow).all())
            # bf16 has 8 bits: 4e-3 per product, averaged over 64 of them
            assert relative_error(narrow, plain.double()) < 2e-2


def test_derivatives_pass_through(sde, gaussian):
    """VJP and JVP of ε, in eager and functional form: a likelihood needs them."""
    exact = gaussian(sde, 3)
    ones = torch.ones(4, 3, dtype=torch.float64)
    for model in (exact, FunctionScore(sde, exact.eps), network(exact, "v")):
        x = normal(4, 3).requires_grad_()
        (eager,) = torch.autograd.grad(model.eps(x, 0.3).sum(), x)
        _, forward = torch.func.jvp(partial(model.eps, t=0.3), (x.detach(),), (ones,))
        # ε = σ (x − α m)/(α²/4 + σ²)
        a, s = float(sde.alpha(0.3)), float(sde.sigma(0.3))
        want = torch.full((4, 3), s / (a**2 / 4 + s**2), dtype=torch.float64)
        torch.testing.assert_close(eager, want, rtol=1e-10, atol=0)
        torch.testing.assert_close(forward, want, rtol=1e-10, atol=0)


def test_arguments_are_not_changed(sde, gaussian):
    exact = gaussian(sde, 2)
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    for model in (FunctionScore(sde, exact.eps), network(exact, "edm")):
        x = torch.ones(2, 2, dtype=torch.float64)
        for call in (model.eps, model.score, model.x0, model.v):
            call(x, t)
        reverse_drift(model, x, t)
        assert torch.equal(x, torch.ones(2, 2, dtype=torch.float64))
        assert t.tolist() == [0.3, 0.7]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"target": "noise"},
            ValueError,
            "target must be one of eps, x0, v, score, edm, denoiser, velocity, got",
        ),
        ({"label": "noise"}, ValueError, "label must be one of log_sigma, edm, time, index, "),
        ({"label_scale": 0}, ValueError, "label_scale must not be 0"),
        ({"label_offset": math.nan}, ValueError, "label_offset must be finite, got nan"),
        ({"label_scale": math.inf}, ValueError, "label_scale must be finite, got inf"),
        ({"sigma_data": 0}, ValueError, "sigma_data must be greater than 0, got 0"),
        ({"sigma_data": math.nan}, ValueError, "sigma_data must be finite, got nan"),
        ({"sigma_data": "1"}, TypeError, "sigma_data must be a number, got '1'"),
    ],
)
def test_bad_preconditionings_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Preconditioning(**arguments)


def test_the_ends_of_time(sde, gaussian):
    x = torch.zeros(2, 2)
    for model in (gaussian(sde, 2), FunctionScore(sde, lambda x, t: x)):
        assert bool(torch.isfinite(model.score(x, 1.0)).all())
        for t in (-0.1, 1.1, math.nan, torch.tensor([0.5, 1.1])):
            with pytest.raises(ValueError, match="times must lie in"):
                model.score(x, t)
        if isinstance(sde, (VE, CosineVP)):
            assert bool(torch.isfinite(model.score(x, 0.0)).all())
        else:
            with pytest.raises(ValueError, match="t_min must be greater than 0"):
                model.score(x, 0.0)


def test_dropout_is_off_while_sampling_and_back_after():
    class Dropping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, x, label, y=None):
            return self.dropout(self.linear(x))

    model = NetworkScore(Dropping(), VP(), Preconditioning())
    model.net.linear.eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.net.dropout.training
    assert not model.net.linear.training


def test_an_output_cut_off_from_x_is_refused_where_derivatives_are_wanted():
    model = FunctionScore(VP(), lambda x, t: x.detach())
    x = torch.ones(3, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"t=0.5 is not differentiable in x"):
        model.eps(x, 0.5)
    assert model.eps(x.detach(), 0.5).shape == (3, 2)


def conditional(classes=3, **options):
    """A network that says its number of classes, and returns them."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.classes = classes

        def forward(self, x, label, y=None):
            return 0 * x if y is None else 0 * x + y[:, None]

    return NetworkScore(Net(), VP(), Preconditioning(), **options)


X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueError, "y must be given: the network takes 3 classes and was not trained wi"),
        ([0, 1, 2, 3], ValueError, "y must hold classes 0 to 2, got 3"),
        (torch.tensor([0, -1, 2, 0]), ValueError, "y must hold classes 0 to 2, got -1"),
        ([0, 1, 2], ValueError, r"y must have leading dimension 4, or 1 .* got shape \(3,\)"),
        (3, ValueError, "y must hold classes 0 to 2, got 3"),
        (torch.zeros(4, 1).long(), ValueError, r"y must have shape \(4,\), .*, got \(4, 1\)"),
        ({"class": [0, 1, 2, 0]}, ValueError, "y must be one tensor for 3 classes, got a dict"),
        ([0.0, 1.0, 2.0, 0.0], TypeError, "y must hold integer class labels, got torch.float64"),
        ("dog", TypeError, "y must be a tensor of numbers, got str"),
        ([True] * 4, TypeError, "y must hold integer class labels, got torch.bool"),
    ],
)
def test_class_labels_are_checked_before_the_network(y, error, message):
    model = conditional()
    with pytest.raises(error, match=message):
        model.labelled(y, 4, "cpu")
    with pytest.raises(error, match=message):
        sample(model, DDIM(), [1.0, 0.1], (4, 2), seed=0, y=y)
    with pytest.raises(error, match=message):
        log_likelihood(model, X, y=y, seed=0)
    assert model.nfe.forward == 0


def test_class_labels_are_taken_from_any_container():
    model = conditional()
    want = sample(model, DDIM(), [1.0, 0.1], (4, 2), seed=0, y=torch.tensor([0, 1, 2, 0])).x
    same = sample(model, DDIM(), [1.0, 0.1], (4, 2), seed=0, y=torch.tensor([1] * 4)).x
    for y in (1, [1], np.int32(1), torch.tensor(1)):  # one condition for all samples
        assert torch.equal(sample(model, DDIM(), [1.0, 0.1], (4, 2), seed=0, y=y).x, same)
    for y in ([0, 1, 2, 0], np.array([0, 1, 2, 0], np.uint8), torch.tensor([0, 1, 2, 0]).int()):
        assert torch.equal(sample(model, DDIM(), [1.0, 0.1], (4, 2), seed=0, y=y).x, want)


@pytest.mark.parametrize("wrapper", [nn.DataParallel, AveragedModel])
def test_a_wrapper_does_not_hide_the_classes(wrapper):
    model = NetworkScore(wrapper(conditional().net), VP(), Preconditioning())
    assert model.classes == 3
    with pytest.raises(ValueError, match="y must be given: the network takes 3 classes"):
        model.eps(X, 0.5)


def test_a_network_with_classes_is_not_asked_without_labels():
    model = conditional()
    for quantity in quantities(model):
        with pytest.raises(ValueError, match="y must be given: the network takes 3 classes"):
            quantity(X, 0.5)
    model.unconditional = True  # as label dropout would have made it
    for quantity in quantities(model):
        quantity(X, 0.5)
    bound = model.given(torch.tensor([0, 1, 2, 2]))
    assert bound.eps(X, 0.5)[:, 0].tolist() == [0, 1, 2, 2]


def test_a_model_needs_an_sde():
    with pytest.raises(TypeError, match="sde must be of type SDE, got function"):
        FunctionScore(lambda x, t: x, VP())
    with pytest.raises(TypeError, match="sde must be of type SDE, got str"):
        NetworkScore(_Constant(), "vp", Preconditioning())


def test_models_without_classes_refuse_labels(gaussian):
    for model in (conditional(None), gaussian(VP(), 2), FunctionScore(VP(), lambda x, t: x)):
        with pytest.raises(ValueError, match="y must be None: .* takes no condition"):
            model.labelled([0, 1, 2, 0], 4, "cpu")


def test_labels_of_a_foreign_network_may_be_any_integers():
    model = NetworkScore(_Constant(), VP(), Preconditioning())
    assert model.labelled([5, -1], 2, "cpu").y.tolist() == [5, -1]


def test_no_model_of_discrete_labels_is_asked_below_the_first():
    sde = TabulatedVP(VP().ddpm_betas(100))
    for label in ("index", "rounded_index"):
        model = NetworkScore(_Constant(), sde, Preconditioning(label=label))
        assert model.t_least == 0.01
        assert model.first_time(None) == 0.01
        assert model.first_time(0.01) == 0.01
        with pytest.raises(ValueError, match="t_min must be at least 0.01 for this model, got 0.0"):
            model.first_time(0.0099)
    model = NetworkScore(_Constant(0.3), sde, Preconditioning(label="index"))
    for run in (log_likelihood, encode):
        assert run(model, X, Ode(rtol=1e-2, atol=1e-2)).t_min == 0.01
        with pytest.raises(ValueError, match="t_min must be at least 0.01"):
            run(model, X, Ode(t_min=1e-3))
    before = model.nfe.forward
    for refused in (
        lambda: sample(model, DDIM(), grid.uniform(sde, 5), (4, 2), seed=0),
        lambda: log_likelihood(model, X, Path(t_min=1e-3), seed=0),
        lambda: log_likelihood(model, X, ContinuousVLB(t_min=1e-3), seed=0),
        lambda: log_likelihood(model, X, DDPMVLB([1.0, 0.5, 0.005]), seed=0),
        lambda: neglected(model, X, 1e-3, seed=0),
        lambda: decode(model, X, Ode(t_min=1e-3)),
    ):
        with pytest.raises(ValueError, match="t_min must be at least 0.01"):
            refused()
    assert model.nfe.forward == before
    assert NetworkScore(_Constant(), sde, Preconditioning()).first_time(None) == 1e-5
