"""The identity of a model in memory: equal for equal computations, different for others."""

import copy
import functools
import runpy
import subprocess
import sys
import textwrap
from types import FunctionType

import numpy as np
import pytest
import torch
from torch import nn

from scoresde._identity import UnknownIdentityError, identity
from scoresde.nets import MLP
from scoresde.samplers import DDIM, GridSampler
from scoresde.score import FunctionScore, NetworkScore, Preconditioning
from scoresde.sde import VE, VP, TabulatedVP


class Net(nn.Module):
    def __init__(self, scale=2.0):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.scale = scale

    def forward(self, x, t, y=None):
        return self.scale * self.layer(x)


def wrapped(**changes):
    """A model of fixed weights with some parts changed."""
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
    given = {"net": net, "sde": VP(), "preconditioning": Preconditioning("v")} | changes
    return NetworkScore(**given)


def deeper(net):
    """The net with a hook that changes its output."""
    net.register_forward_hook(lambda module, args, out: out + 1)
    return net


class Sub(Net):
    def forward(self, x, t, y=None):
        return self.scale * self.layer(x) + 0


def test_everything_that_changes_a_number_changes_it():
    other = wrapped()
    with torch.no_grad():
        other.net.layer.bias[0] += 1e-7
    sub = wrapped(net=Sub())
    sub.net.load_state_dict(wrapped().net.state_dict())
    buffered = wrapped()
    buffered.net.register_buffer("shift", torch.zeros(1), persistent=False)
    scaled, bound = wrapped(), wrapped().given(torch.tensor([1]))
    scaled.net.scale = 3.0
    models = [
        *(wrapped(), other, sub, buffered, scaled, bound),
        *(wrapped(sde=VP(beta_max=19.0)), wrapped(sde=VE())),
        *(wrapped(preconditioning=Preconditioning("eps")), wrapped(autocast=torch.bfloat16)),
        wrapped(net=deeper(wrapped().net)),
    ]
    assert len({identity(model) for model in models}) == len(models)


def test_what_changes_no_number_does_not_change_it():
    model, wanted = wrapped(), identity(wrapped())
    model.eps(torch.zeros(1, 2), 0.5)  # counts an evaluation
    model.train()
    assert identity(model) == identity(copy.deepcopy(model)) == wanted
    assert identity(wrapped(net=torch.compile(wrapped().net))) == identity(wrapped())


def test_values_that_an_sde_computes_at_first_use_are_not_part_of_it():
    sde = TabulatedVP(VP().ddpm_betas(25))
    before = identity(sde)
    sde.nodes([1.0, 0.5])
    assert identity(sde) == before != identity(TabulatedVP(VP().ddpm_betas(26)))


SHIFT = 1.0


def shifted(x, t, times=1):
    return x + times * SHIFT


def test_functions_are_known_by_code_closure_defaults_and_globals(monkeypatch):
    def closed(value):
        return lambda x, t: x * value

    functions = [
        *(closed(1.0), closed(2.0), closed(np.ones(2)), closed(torch.ones(2)), closed(Net(1.0))),
        *(lambda x, t: x, lambda x, t: x + 1, lambda x, t, a=1: x + a, lambda x, t, a=2: x + a),
        *(functools.partial(shifted, times=2), shifted, torch.sin, wrapped().eps),
    ]
    prints = [identity(FunctionScore(VP(), f)) for f in functions]
    assert len(set(prints)) == len(prints)
    assert identity(closed(np.ones(2))) == identity(closed(np.ones(2)))
    before = identity(shifted)
    monkeypatch.setitem(globals(), "SHIFT", 2.0)
    assert identity(shifted) != before


def test_an_object_of_unknown_content_is_named():
    generator = torch.Generator()

    def noisy(x, t):
        return torch.randn(x.shape, generator=generator)

    with pytest.raises(
        UnknownIdentityError, match=r"content of .*noisy, a Generator, is not known"
    ):
        identity(FunctionScore(VP(), noisy))


class Own(GridSampler):
    def step(self, model, x, t, s, state, noise):
        return x, None


def test_a_sampler_of_the_user_is_known_by_its_code():
    first, step = identity(Own()), Own.step
    try:
        Own.step = lambda self, model, x, t, s, state, noise: (2 * x, None)
        assert identity(Own()) != first
    finally:
        Own.step = step
    assert identity(Own()) == first
    assert identity(DDIM(0.5)) != identity(DDIM()) == identity(DDIM(0.0))


def test_the_order_of_a_set_is_not_part_of_it():
    """Sets are the only constants whose order differs between processes, with the hash seed."""

    def eps(x, t):
        return x if t in {0, 8} else -x

    def with_set(members):
        consts = [members if c == {0, 8} else c for c in eps.__code__.co_consts]
        return FunctionType(eps.__code__.replace(co_consts=tuple(consts)), {})

    one, other = frozenset([0, 8]), frozenset([8, 0])  # 0 and 8 have one place in a small set
    assert list(one) != list(other)
    assert identity(with_set(one)) == identity(with_set(other)) != identity(with_set(frozenset()))


@pytest.mark.slow  # it imports torch once more
def test_it_is_the_same_in_another_process(tmp_path, capsys):
    """Whatever the order of sets there, which depends on the hash seed."""
    program = """
        from scoresde import VP, FunctionScore
        from scoresde._identity import identity
        def eps(x, t):
            return x if t in {0.5, "a", "b", "c"} else -x
        print(identity(FunctionScore(VP(), eps)))
    """
    path = tmp_path / "own.py"
    path.write_text(textwrap.dedent(program))
    there = subprocess.run(
        [sys.executable, path],
        env={"PYTHONHASHSEED": "1", "PATH": ""},
        capture_output=True,
        check=True,
        timeout=120,
        text=True,
    )
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out == there.stdout


def test_our_networks_are_known():
    assert identity(NetworkScore(MLP((2,), width=8), VP()))
