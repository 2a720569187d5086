"""No step of a sampler makes the host wait for an accelerator.

Tensors of the device "meta" have no numbers, so that each reading of one is an error there.
"""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scoresde import _deferred, grid
from scoresde._deferred import _Waiting, check_finite, checked_at_end
from scoresde._tensor import NonFiniteError
from scoresde.evaluation import own_context
from scoresde.nets import UNet
from scoresde.noise import Noise
from scoresde.samplers import DDIM
from scoresde.score import FunctionScore, NetworkScore
from scoresde.sde import VP

ATEN = torch.ops.aten


class Drawn(Noise):
    """Draws without numbers, made on the device of the state."""

    def _draw(self, shape, purpose, dtype, device):
        return torch.empty(shape, dtype=dtype, device=device)


class Waits(TorchDispatchMode):
    """Records the copies between devices, for which the host waits."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (ATEN._to_copy.default, ATEN.copy_.default):
            source = args[-1] if func is ATEN.copy_.default else args[0]
            self.seen += [func] if source.device != out.device else []
        return out


@pytest.fixture
def waits(monkeypatch):
    """waits(model, sampler, x): the copies in a run, and the number of checks at each reading."""

    def run(model, sampler, x):
        read = []
        monkeypatch.setattr(_Waiting, "read", lambda block: read.append(len(block.counts)))
        with own_context(), Waits() as waited, checked_at_end():
            sampler.run(model, x, grid.log_snr(model.sde, 6), Drawn())
        return waited.seen, read

    return run


def test_no_step_waits(grid_case, waits):
    model = FunctionScore(VP(), lambda x, t: x * t.to(x))
    seen = waits(model, grid_case.sampler, torch.zeros(2, 3, device="meta"))
    assert seen == ([], [grid_case.nfe(6)])


def test_no_part_of_a_network_waits(waits, monkeypatch):
    """Scales, label and class labels included."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # has no device "meta"
    net = UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, classes=3, attention=[4])
    model = NetworkScore(net.to("meta"), VP())
    model = model.given(torch.zeros(2, dtype=torch.int64, device="meta"))
    assert waits(model, DDIM(), torch.zeros(2, 1, 8, 8, device="meta")) == ([], [6])


def test_the_first_failure_is_named_and_ends_the_block_soon(monkeypatch):
    monkeypatch.setattr(_deferred, "on_accelerator", lambda x: True)
    monkeypatch.setattr(_deferred, "EVERY", 3)
    done = []

    def run():
        with checked_at_end():
            for i, value in enumerate((1e38, float("inf"), float("nan"), 0.0)):
                check_finite(torch.tensor([value, 3e38]), lambda i=i: f"at {i}")
                done.append(i)

    with pytest.raises(NonFiniteError, match="^at 1: 1 non-finite values of 2$"):
        run()
    assert done == [0, 1]


def test_an_earlier_failure_replaces_the_exception_that_ends_the_block(monkeypatch):
    """Unless nothing has failed, or the user ends the block."""
    monkeypatch.setattr(_deferred, "on_accelerator", lambda x: True)

    def run(value, error):
        with checked_at_end():
            check_finite(torch.tensor(value), lambda: "the state")
            raise error

    with pytest.raises(NonFiniteError, match="^the state"):
        run(float("nan"), RuntimeError("the solver gave up"))
    with pytest.raises(RuntimeError, match="^the solver gave up"):
        run(0.0, RuntimeError("the solver gave up"))
    with pytest.raises(KeyboardInterrupt):
        run(float("nan"), KeyboardInterrupt())
