"""Laws of evaluation: counts, limits and modes belong to a call, also if others use the model."""

import copy
import functools
import pickle
import threading
import time

import pytest
import torch
from torch import nn

from scoresde import grid
from scoresde._reachable import reachable_modules
from scoresde.evaluation import (
    count_nfe,
    evaluating,
    own_context,
    repeating,
    seeded,
    training,
)
from scoresde.likelihood import Ode, log_likelihood
from scoresde.nets import MLP
from scoresde.samplers import DDIM, sample
from scoresde.score import FunctionScore, NetworkScore, Preconditioning
from scoresde.sde import VP

TS = grid.log_snr(VP(), 6)


def in_threads(works):
    """Results of the functions, each in its own thread, all begun together; errors are raised."""
    start = threading.Barrier(len(works))
    out = [None] * len(works)

    def run(i, work):
        start.wait(timeout=30)
        try:
            out[i] = work()
        except BaseException as error:
            out[i] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for result in out:
        if isinstance(result, BaseException):
            raise result
    return out


class Dropping(nn.Module):
    """Random in training mode, else a linear map. `wait` is called in each evaluation."""

    def __init__(self, wait=lambda: None):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.5)
        self.wait = wait

    def forward(self, x, label, y=None):
        self.wait()
        return self.dropout(self.linear(x))


def draw(model, n=3, **options):
    return sample(model, DDIM(), TS, (n, 2), seed=0, denoise=False, **options)


class TestThreads:
    def test_counts_and_limits_are_those_of_the_call(self):
        meet = threading.Barrier(3)
        model = NetworkScore(Dropping(lambda: meet.wait(timeout=30)), VP(), Preconditioning())
        # all threads are inside each of their evaluations at the same time
        runs = in_threads([functools.partial(draw, model, max_nfe=k) for k in (None, 6, 6)])
        assert [run.nfe for run in runs] == [6, 6, 6]
        assert model.nfe.forward == 18
        assert model.nfe.limit is None

    def test_a_limit_stops_its_own_call_alone(self):
        model = NetworkScore(Dropping(), VP(), Preconditioning())

        def limited():
            with pytest.raises(RuntimeError, match="the limit of 4 network evaluations was reac"):
                draw(model, max_nfe=4)

        for _ in range(5):
            runs = in_threads([limited, functools.partial(draw, model), limited])
            assert runs[1].nfe == 6
        assert draw(model).nfe == 6

    def test_likelihoods_count_their_own_derivative_passes(self):
        model = NetworkScore(Dropping(), VP(), Preconditioning())
        x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
        want = log_likelihood(model, x, Ode(rtol=1e-3, atol=1e-3))
        work = functools.partial(log_likelihood, model, x, Ode(rtol=1e-3, atol=1e-3))
        for got in in_threads([work] * 3):
            assert (got.nfe, got.nfe_derivative) == (want.nfe, want.nfe_derivative)
            assert torch.equal(got.log_prob, want.log_prob)

    def test_a_call_that_ends_does_not_switch_dropout_on_for_another(self):
        """Of two calls on a network in training mode, the shorter ends while the longer runs."""
        model = NetworkScore(Dropping(), VP(), Preconditioning()).train()
        want = draw(copy.deepcopy(model).eval())
        ended, inside = threading.Event(), threading.Event()

        def on_step(step, t, x):
            inside.set()
            assert ended.wait(timeout=30)

        def short():
            assert inside.wait(timeout=30)
            draw(model, n=1)
            ended.set()

        got, _ = in_threads([functools.partial(draw, model, on_step=on_step), short])
        assert torch.equal(got.x, want.x)
        assert all(module.training for module in model.modules())

    def test_training_mode_from_outside_is_an_error_and_no_number(self):
        model = NetworkScore(Dropping(), VP(), Preconditioning())
        with pytest.raises(RuntimeError, match="was put in training mode while it was being eval"):
            draw(model, on_step=lambda step, t, x: model.train())

    def test_a_training_step_keeps_its_dropout(self):
        """Sampling from a network is refused while a step of its training is going on."""
        model = NetworkScore(Dropping(), VP(), Preconditioning()).eval()
        with training(model.net):
            with pytest.raises(RuntimeError, match="Dropping is being trained"):
                in_threads([functools.partial(draw, model)])
            assert all(module.training for module in model.net.modules())
        draw(model)

    def test_threads_take_turns_with_the_global_generators(self):
        """Each sees the numbers of its own seed, and the state comes back."""
        before = torch.get_rng_state()

        def numbers(seed):
            with seeded(seed):
                first = torch.rand(1)
                time.sleep(0.01)
                return torch.cat([first, torch.rand(1)])

        for seed, got in enumerate(in_threads([functools.partial(numbers, i) for i in range(3)])):
            want = torch.rand(2, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(got, want)
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_first_error_wins(self):
        model = NetworkScore(Dropping(), VP(), Preconditioning())

        def on_step(step, t, x):
            model.train()
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            draw(model, on_step=on_step)


class TestCounting:
    def test_a_block_counts_while_it_is_open(self):
        model = FunctionScore(VP(), lambda x, t: x)
        with count_nfe(model) as counted:
            model.eps(torch.zeros(1, 1), 0.5)
            assert counted.forward == 1
        model.eps(torch.zeros(1, 1), 0.5)
        assert counted.forward == 1
        assert model.nfe.forward == 2

    def test_the_smallest_of_nested_limits_holds(self):
        model = FunctionScore(VP(), lambda x, t: x)
        with count_nfe(model, 3), count_nfe(model, 5) as inner:
            for _ in range(3):
                model.eps(torch.zeros(1, 1), 0.5)
            with pytest.raises(RuntimeError, match="the limit of 3 network"):
                model.eps(torch.zeros(1, 1), 0.5)
        assert inner.forward == model.nfe.forward == 3

    def test_models_are_counted_apart_and_can_be_copied_meanwhile(self):
        one, other = (FunctionScore(VP(), _first) for _ in range(2))
        with count_nfe(one) as counted:
            other.eps(torch.zeros(1, 1), 0.5)
            copy.deepcopy(one).eps(torch.zeros(1, 1), 0.5)
            pickle.loads(pickle.dumps(one)).eps(torch.zeros(1, 1), 0.5)
        assert counted.forward == 0


def _first(x, t):
    return x


GLOBAL = Dropping()


class Owner:
    def __init__(self, net):
        self.net = net

    def eps(self, x, t):
        return self.net(x, t)

    def __call__(self, x, t):
        return self._inner(x, t)

    def _inner(self, x, t):
        return self.net(x, t)


class Slotted:
    __slots__ = ("nets",)

    def __init__(self, net):
        self.nets = {"first": [net]}

    def __call__(self, x, t):
        return self.nets["first"][0](x, t)


class Unregistered(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.nets = [net]
        self.inner = lambda x, t: net(x, t)

    def forward(self, x, t):
        return self.nets[0](x, t)


def _global(x, t):
    return [GLOBAL(x, t) for _ in range(1)][0]


def _default(x, t, *, net=GLOBAL):
    return net(x, t)


def _with(x, t, net):
    return net(x, t)


def _nested(net):
    def call(x, t):
        return net(x, t)

    def eps(x, t):
        return call(x, t)

    return eps


HIDING = {
    "closure": lambda net: lambda x, t: net(x, t),
    "closure of a closure": _nested,
    "attribute in a closure": lambda net: (lambda owner: lambda x, t: owner.net(x, t))(Owner(net)),
    "global": lambda net: _global,
    "keyword default": lambda net: _default,
    "partial": lambda net: functools.partial(_with, net=net),
    "bound method": lambda net: Owner(net).eps,
    "callable object": Owner,
    "slots and containers": Slotted,
    "module's list": Unregistered,
    "method of the module": lambda net: net.forward,
    "decorated": lambda net: torch.no_grad()(lambda x, t: net(x, t)),
    "the module itself": lambda net: net,
}


@pytest.mark.parametrize("how", HIDING)
def test_networks_behind_functions_are_evaluated_too(how):
    """Dropout and batch statistics are off during the call and on again after it."""
    net = GLOBAL if how in ("global", "keyword default") else Dropping()
    net.train()
    net.linear.eval()
    model = FunctionScore(VP(), HIDING[how](net))
    want = draw(FunctionScore(VP(), lambda x, t, linear=net.linear: linear(x))).x
    assert torch.equal(draw(model).x, want)
    assert net.training
    assert net.dropout.training
    assert not net.linear.training


def test_batch_statistics_behind_a_lambda_are_left_alone():
    norm = nn.BatchNorm1d(2)
    norm(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))
    before = copy.deepcopy(norm.state_dict())
    draw(FunctionScore(VP(), lambda x, t: norm(x)))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    assert norm.training


def test_the_search_ends_on_cycles_and_large_objects():
    net = MLP((2,), width=4, depth=1)
    cycle = {"net": net, "numbers": list(range(200_000))}
    cycle["self"] = cycle
    model = FunctionScore(VP(), lambda x, t: cycle["net"](x, t))
    assert net in reachable_modules(model)


@pytest.mark.parametrize("grad", [True, False])
def test_a_context_of_its_own(grad):
    x, weight = torch.ones(2, 2), torch.ones(2, 2)

    @own_context()
    def inside():
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        return (x @ weight).dtype

    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
        assert (x @ weight).dtype == torch.bfloat16
        assert inside() == torch.float32
        assert torch.is_grad_enabled() is grad
        with torch.inference_mode():
            assert inside() == torch.float32
            assert torch.is_inference_mode_enabled()


def test_nested_evaluation_restores_once():
    net = Dropping().train()
    with evaluating(net):
        with evaluating(net):
            assert not net.dropout.training
        assert not net.dropout.training
    assert net.dropout.training


def test_repeated_passes_count_apart_and_have_no_limit():
    model = FunctionScore(VP(), lambda x, t: x)
    x = torch.zeros(1, 2)
    with count_nfe(model, limit=1) as counted:
        model.eps(x, 0.5)
        with repeating():
            model.x0(x, 0.5)
            model.nfe.add_derivative()
    assert (counted.forward, counted.derivative, counted.repeated) == (1, 0, 2)
    assert (model.nfe.forward, model.nfe.derivative, model.nfe.repeated) == (1, 0, 2)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_gradients_are_off_in_a_context_of_ones_own_unless_they_are_kept(enabled, keep):
    with torch.set_grad_enabled(enabled):
        with own_context(keep_gradients=keep):
            assert torch.is_grad_enabled() == (enabled and keep)
        assert torch.is_grad_enabled() == enabled
