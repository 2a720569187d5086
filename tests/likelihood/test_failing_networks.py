"""For every function of a likelihood, a network that fails gives an error and not a number."""

import math
import re
import time
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache

import pytest
import torch
from torch import nn

from scoresde import _deferred
from scoresde._tensor import NonFiniteError
from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import (
    DDPMVLB,
    ContinuousVLB,
    Dequantized,
    Ode,
    Path,
    choose_trace,
    decode,
    decoder_std,
    encode,
    interpolate,
    log_likelihood,
    neglected,
    optimal_variances,
    round_trip,
    sample_with_log_prob,
)
from scoresde.nets import MLP
from scoresde.score import FunctionScore, NetworkScore, Preconditioning
from scoresde.sde import VP

DOUBLE = torch.float64
ODE = Ode(rtol=1e-2, atol=1e-2)
SPEC = DataSpec((2,), -1.0, 1.0, 8)
LEVELS = torch.tensor([[0, 3], [5, 7]])
X = torch.tensor([[0.1, -0.4], [0.7, 0.2]], dtype=DOUBLE)
PATH = Path(steps=6, nodes=4)


ROUTES = {
    "ode": lambda m: log_likelihood(m, X, ODE),
    "per_sample": lambda m: log_likelihood(m, X, replace(ODE, per_sample=True)),
    "path": lambda m: log_likelihood(m, X, PATH, seed=0),
    "dequantized ode": lambda m: log_likelihood(m, LEVELS, Dequantized(SPEC, ODE), seed=0),
    "dequantized path": lambda m: log_likelihood(m, LEVELS, Dequantized(SPEC, PATH), seed=0),
    "ddpm_vlb": lambda m: log_likelihood(m, LEVELS, DDPMVLB(20, SPEC), seed=0),
    "continuous_vlb": lambda m: log_likelihood(m, LEVELS, ContinuousVLB(SPEC, strata=8), seed=0),
    "optimal_variances": lambda m: optimal_variances(m, LEVELS, DDPMVLB(20, SPEC), seed=0),
    "sample_with_log_prob": lambda m: sample_with_log_prob(m, (2, 2), ODE, seed=0),
    "encode": lambda m: encode(m, X, ODE),
    "decode": lambda m: decode(m, X, ODE),
    "round_trip": lambda m: round_trip(m, X, ODE),
    "interpolate": lambda m: interpolate(m, X[:1], X[1:], 3, ODE),
    "choose_trace": lambda m: choose_trace(m, X, seed=0),
    "neglected": lambda m: neglected(m, X, 1e-3, order=2),
    "decoder_std": lambda m: decoder_std(m, X, 1e-3, seed=0),
}
WITH_DERIVATIVES = [
    "ode",
    "per_sample",
    "path",
    "dequantized ode",
    "dequantized path",
    "sample_with_log_prob",
    "choose_trace",
    "neglected",
]
every_route = pytest.mark.parametrize("route", ROUTES)


class Failing:
    """ε of N(0, I) whose k-th evaluation gives something else."""

    def __init__(self, sde, k=None, bad=None):
        self.sde, self.k, self.bad, self.calls = sde, k, bad, 0

    def __call__(self, x, t):
        self.calls += 1
        if self.calls == self.k:
            return self.bad(x)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return x * (sigma / (alpha**2 + sigma**2)).reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def run(route, k=None, bad=None):
    """Number of calls of a network that fails at the k-th call; k = None: never."""
    network = Failing(VP(), k, bad)
    ROUTES[route](FunctionScore(network.sde, network))
    return network.calls


@cache
def total(route):
    """Number of calls of a network that never fails."""
    return run(route)


@pytest.fixture(autouse=True)
def soon():
    """Limits processor time, which does not depend on other work of the machine."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 2


@every_route
@pytest.mark.by_default(
    "ode", "path", "ddpm_vlb", "sample_with_log_prob", "interpolate", "dequantized path"
)
def test_not_finite_at_first_in_the_middle_and_at_last(route, monkeypatch):
    def message(k, value):
        with pytest.raises(NonFiniteError) as caught:
            run(route, k, lambda x: torch.full_like(x, value) * x)
        return str(caught.value)

    middle = (total(route) + 1) // 2
    found = [message(1, math.nan), message(middle, math.inf), message(total(route), math.nan)]
    wanted = r"network output at t=\d[\d.e-]*(\.\.\S+)?: \d+ non-finite values of \d+"
    assert all(re.fullmatch(wanted, text) for text in found), found
    # on an accelerator, where the checks are read at the end
    monkeypatch.setattr(_deferred, "on_accelerator", lambda x: True)
    assert message(middle, math.inf) == found[1]


@every_route
def test_one_value_of_one_sample(route):
    """An error is raised even if only one value of one sample fails."""

    def spoil(x):
        return torch.where(torch.arange(x.numel()).reshape(x.shape) == 1, math.nan, x)

    with pytest.raises(RuntimeError, match=r": 1 non-finite values of \d+"):
        run(route, (total(route) + 1) // 2, spoil)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda x: x[:, :1], r"network returned \(\d+, 1\) for x of shape \(\d+, 2\)"),
        (lambda x: torch.cat([x, x]), r"network returned \(\d+, 2\) for x of shape \(\d+, 2\)"),
        (lambda x: x.detach().long(), r"network returned torch\.int64, a floating dtype is needed"),
        (lambda x: None, "network returned NoneType"),
    ],
    ids=["shape", "batch", "dtype", "nothing"],
)
@every_route
def test_of_another_shape_or_dtype(route, bad, message):
    with pytest.raises(RuntimeError, match=message):
        run(route, 1, bad)


@every_route
def test_of_another_shape_at_last(route):
    with pytest.raises(RuntimeError, match=r"network returned \(\d+, 1\) for x of shape"):
        run(route, total(route), lambda x: x[:, :1])


@pytest.mark.parametrize("route", WITH_DERIVATIVES)
def test_derivative_not_finite(route):
    """√|x − x| has an output, 0, and no derivative."""

    def kinked(x):
        return (x - x.detach()).abs().sqrt()

    # where the path is followed without derivatives, one that fails there is not asked for
    k = 1 if route not in ("path", "dequantized path") else total(route)
    with pytest.raises(RuntimeError, match=r"derivative of the network at t=.*non-finite"):
        run(route, k, kinked)


@pytest.mark.parametrize("route", WITH_DERIVATIVES)
def test_a_network_that_detaches_x_is_refused_though_its_weights_have_gradients(route):
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x, label, y=None):
            return self.weight * x.detach()

    with pytest.raises(RuntimeError, match="not differentiable"):
        ROUTES[route](NetworkScore(Detached().to(DOUBLE), VP(), Preconditioning()))


@pytest.mark.parametrize("route", WITH_DERIVATIVES)
def test_not_differentiable(route):
    k = 1 if route not in ("path", "dequantized path") else total(route)
    with pytest.raises(RuntimeError, match="not differentiable"):
        run(route, k, lambda x: x.detach())


@every_route
def test_global_generators_are_left_alone(route, rng_untouched):
    """No function draws from torch's global generators or seeds them."""
    assert run(route) > 0


def numbers(result):
    """All tensors and numbers of a result, in the order of its fields."""
    if isinstance(result, torch.Tensor):
        return [result]
    if is_dataclass(result):
        return [n for f in fields(result) for n in numbers(getattr(result, f.name))]
    if isinstance(result, tuple):
        return [n for item in result for n in numbers(item)]
    return [torch.tensor(result, device="cpu")] if isinstance(result, float | int) else []


def equal(got, want):
    pairs = list(zip(numbers(got), numbers(want), strict=True))
    return all(a.dtype == b.dtype and a.device == b.device for a, b in pairs) and all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs
    )


def wild_network():
    """A float32 network with random weights in every layer, in training mode."""
    net = MLP((2,), width=16, depth=1)
    generator = torch.Generator().manual_seed(0)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=generator)
    return NetworkScore(net, VP(), Preconditioning(target="edm"))


@contextmanager
def default_float64():
    torch.set_default_dtype(DOUBLE)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic():
    # `torch.use_deterministic_algorithms` sets the same flag, and imports torch's compiler
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode("default")


SURROUNDINGS = {
    "autocast": lambda: [torch.autocast("cpu", torch.bfloat16)],
    "inference mode": lambda: [torch.inference_mode()],
    "no gradients": lambda: [torch.no_grad()],
    "gradients": lambda: [torch.enable_grad()],
    "default dtype": lambda: [default_float64()],
    "default device": lambda: [torch.device("meta")],
    "deterministic": lambda: [deterministic()],
}
TOGETHER = ["autocast", "inference mode", "default dtype", "default device", "deterministic"]


def in_surroundings(route, names, model):
    want = ROUTES[route](model)
    with ExitStack() as stack:
        for name in names:
            for context in SURROUNDINGS[name]():
                stack.enter_context(context)
        got = ROUTES[route](model)
    assert equal(got, want)


@every_route
@pytest.mark.by_default("ode", "path", "ddpm_vlb", "sample_with_log_prob", "interpolate")
def test_surroundings_do_not_matter(route):
    """All contexts around a call together change no bit."""
    in_surroundings(route, TOGETHER, wild_network())


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
@every_route
def test_no_surrounding_matters(route, name):
    in_surroundings(route, [name], wild_network())


@pytest.mark.parametrize("route", WITH_DERIVATIVES)
def test_a_model_made_in_inference_mode_is_differentiable(route):
    with torch.inference_mode():
        model = GaussianMixture(VP(), [1.0], torch.zeros(1, 2), 0.25 * torch.eye(2)[None])
    ROUTES[route](model)


def _in_place(eps, buffers):
    def change(x, t):
        out = eps(x, t)
        x.mul_(3)
        t.mul_(0.5)
        return out

    return change


def _own_input(eps, buffers):
    return lambda x, t: x.copy_(eps(x, t)).view_as(x)


def _same_buffer(eps, buffers):
    def fill(x, t):
        buffer = buffers.setdefault((x.shape, x.dtype), torch.empty_like(x.detach()))
        return buffer.detach().copy_(eps(x, t))

    return fill


@pytest.mark.slow
@pytest.mark.parametrize("habit", [_in_place, _own_input, _same_buffer])
@every_route
def test_networks_that_reuse_memory(route, habit):
    """They give the numbers of a well-behaved network."""
    network = Failing(VP())
    want = ROUTES[route](FunctionScore(VP(), network))
    got = ROUTES[route](FunctionScore(VP(), habit(network, {})))
    assert equal(got, want)


@every_route
def test_class_labels_are_asked_for_before_the_first_evaluation(route):
    model = NetworkScore(Uncalled(2), VP(), Preconditioning())
    with pytest.raises(ValueError, match="y must be given: the network takes 2 classes"):
        ROUTES[route](model)
    with pytest.raises(
        ValueError, match="y must hold classes 0 to 1, got 2|y must have leading dim"
    ):
        ROUTES[route](model.given(torch.tensor([0, 2])))


class Uncalled(torch.nn.Module):
    """A network that must not be reached."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x, label, y=None):
        raise AssertionError("the network was called")
