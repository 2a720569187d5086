"""A score model is an `nn.Module` like any other: moved, copied, pickled, compiled."""

import copy
import io
import multiprocessing
import pickle

import pytest
import torch
from torch import nn

from scoresde.likelihood.trace.jacobian import linearize
from scoresde.nets import MLP
from scoresde.samplers import DDIM, sample
from scoresde.score import FunctionScore, NetworkScore, Preconditioning, wrap
from scoresde.sde import VE, VP, TabulatedVP

TS = [1.0, 0.5, 0.1]
LADDER = TabulatedVP(VP().ddpm_betas(40))


class Output(dict):
    """A mapping with the entry `sample`, as diffusers returns it."""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(2, 2), nn.Dropout(0.5)
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x, t, y=None):
        return Output(sample=self.dropout(self.linear(x)) + self.shift * t[:, None])


def epsilon(x, t, y=None):
    return x * t.reshape(-1, 1)


def make(kind):
    torch.manual_seed(0)
    if kind == "ours":
        model = NetworkScore(MLP((2,), 8, 1), VP(), Preconditioning("v"))
        nn.init.normal_(model.net.head.weight)
        return model
    if kind == "wrapped":
        return wrap(Net(), LADDER, "eps", label="index")
    if kind == "function in a module":
        return wrap(epsilon, VE(0.01, 9.0), "denoiser")
    return FunctionScore(VP(), epsilon)


KINDS = ["ours", "wrapped", "function in a module", "function"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def draw(model, dtype=torch.float32):
    return sample(model, DDIM(), TS, (3, 2), seed=0, dtype=dtype).x


@every_kind
def test_copies_are_equal_and_independent(kind):
    """Before and after sampling, which leaves counters and cached tables behind."""
    model = make(kind)
    for _ in range(2):
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            before, copied_before = model.nfe.forward, copied.nfe.forward
            assert torch.equal(draw(copied), draw(model))
            assert model.nfe.forward - before == copied.nfe.forward - copied_before > 0
            for parameter in copied.parameters():
                parameter.data.add_(1)
            if list(model.parameters()):
                assert not torch.equal(draw(copied), draw(model))
    assert torch.equal(draw(pickle.loads(pickle.dumps(model))), draw(make(kind)))


@every_kind
def test_states_dtypes_and_modes_are_those_of_the_network(kind):
    model, other = make(kind), make(kind)
    for parameter in other.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(1))
    model.load_state_dict(other.state_dict())
    assert torch.equal(draw(model), draw(other))
    assert all(name.startswith("net.") for name in model.state_dict())
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    double = draw(model.double(), torch.float64)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), draw(other), rtol=1e-4, atol=1e-4)
    assert model.train().training
    assert torch.equal(draw(model, torch.float64), double)  # dropout is off while sampling
    assert model.training
    assert not model.eval().training
    assert model.to("cpu") is model


@pytest.mark.parametrize("kind", KINDS[:3])
def test_compiled_networks(kind):
    want = draw(make(kind))
    inside = make(kind)
    inside.compile(backend="eager")
    assert inside.net._compiled_call_impl is not None
    outside = make(kind)
    outside.net = torch.compile(outside.net, backend="eager")
    for model in (inside, outside, pickle.loads(pickle.dumps(inside))):
        assert torch.equal(draw(model), want)
    with pytest.raises(TypeError, match=r"got OptimizedModule; call model.compile\(\) instead of"):
        draw(torch.compile(make(kind), backend="eager"))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.slow
def test_one_compilation_serves_all_batches():
    """Smaller ones are filled up; evaluations for derivatives have one compilation of their own."""
    made, wanted = [], make("ours").requires_grad_(False)
    model = make("ours").requires_grad_(False)
    model.compile(rows=4, backend=lambda graph, inputs: made.append(inputs) or graph.forward)
    for n in (4, 3, 1):
        x = torch.randn(n, 2, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            torch.testing.assert_close(model.eps(x, 0.4), wanted.eps(x, 0.4))
    assert len(made) == 1
    got, want = (linearize(lambda x, m=m: m.eps(x, 0.4), x) for m in (model, wanted))
    for v in (x, x.cos()):
        torch.testing.assert_close(got.vjp(v), want.vjp(v))
    assert len(made) == 2
    model.eager_derivatives = True
    linearize(lambda x: model.eps(x, 0.4), torch.zeros(5, 2))  # of another size
    assert len(made) == 2


@pytest.mark.slow
def test_models_work_in_a_spawned_process():
    model = make("ours")
    want = draw(model)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = pool.apply(sample, (model, DDIM(), TS, (3, 2)), {"seed": 0, "dtype": torch.float32})
    assert torch.equal(got.x, want)
