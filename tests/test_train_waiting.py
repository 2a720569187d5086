"""Training on an accelerator, with the CPU in its place.

The loop treats a tensor as one on an accelerator if `on_accelerator` says so. Then no step may read
a number, and its results are those of the CPU.
"""

import math
import threading

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from scoresde import _deferred
from scoresde._condition import ConditionSpec
from scoresde.data import Dataset, DataSpec, Stream
from scoresde.ema import EMA, PowerEMA
from scoresde.loss import Objective
from scoresde.nets import UNet, embedding
from scoresde.score import NetworkScore, Preconditioning
from scoresde.sde import VP
from scoresde.tasks.train.history import Means
from scoresde.train import (
    Examples,
    Training,
    TrainSettings,
    examples,
    loop,
    make_optimizer,
    record,
    update,
)
from scoresde.train.reading import Next

ATEN = torch.ops.aten


class Reads(TorchDispatchMode):
    """Counts the numbers that the host reads."""

    seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        read = (ATEN._local_scalar_dense.default, ATEN.is_nonzero.default, ATEN.equal.default)
        self.seen += func in read
        return func(*args, **(kwargs or {}))


class Late(record.TrainStep):
    """A record whose numbers have not arrived before they are read."""

    arrived = False


@pytest.fixture
def accelerator(monkeypatch):
    for module in (_deferred, embedding, record, update):
        monkeypatch.setattr(module, "on_accelerator", lambda x: True)
    monkeypatch.setattr(loop, "TrainStep", Late)


class Faulty(nn.Module):
    """A linear network with BatchNorm that gives NaN in the forward passes named in `bad`."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.bad, self.calls = bad, 0
        self.register_buffer("total", torch.zeros(2))

    def forward(self, x, label, y=None):
        self.calls += 1
        x = x * (math.nan if self.calls in self.bad else 1.0)
        self.total = self.total + x.detach().sum(0)  # assigned anew
        return self.linear(self.norm(x))


def points(n: int = 12) -> Dataset:
    x = torch.arange(2 * n, dtype=torch.float32).reshape(n, 2) / n - 1
    return Dataset("points", x, None, DataSpec((2,), -1, 1))


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"steps": 6, "batch": 4, "warmup": 0, "learning_rate": 1e-2, **changes})


def training(net: nn.Module, data: Dataset | None = None, **changes) -> Training:
    objective = changes.pop("objective", Objective(t_min=1e-3))
    model = NetworkScore(net, VP(), Preconditioning())
    return Training(model, data or points(), objective, settings(**changes))


def everything(net: nn.Module, **changes) -> tuple[dict, dict, Training]:
    """Weights, buffers, state of Adam and averages after a training, and the log's row."""
    made = training(net, **changes)
    optimizer, means = make_optimizer(net), Means()
    averages = EMA(net), PowerEMA(net, 0.1)
    for step in made.steps(optimizer):
        for average in averages:
            average.update(net, step.left_out)
        means.add(step)
    tensors = dict(net.state_dict())
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{i}.{name}": value for name, value in state.items()}
    for i, average in enumerate(averages):
        tensors |= {f"average {i} {name}": value for name, value in average.averages.items()}
        tensors[f"updates {i}"] = torch.tensor(average.updates)
    return tensors, means.to_dict(), made


def net_of(*bad: int) -> Faulty:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Faulty(*bad)


@pytest.mark.parametrize("bad", [(), (1, 2, 5)])
def test_results_are_those_of_the_cpu(bad, monkeypatch, request):
    """Skipped steps included: weights, buffers, Adam, averages with their counts, and the log."""
    wanted, row, _ = everything(net_of(*bad), max_skipped=3)
    request.getfixturevalue("accelerator")
    found, other, _ = everything(net_of(*bad), max_skipped=3)
    assert row == other
    for name, value in wanted.items():
        if name.startswith("average"):  # w̄ + c (w − w̄) instead of torch's lerp
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(found[name], value), name


@pytest.mark.parametrize("times", ["uniform", "log_snr", "log_normal", "ladder"])
def test_no_step_reads_a_number(accelerator, times):
    """Nor with flips, labels that are dropped, micro-batches, levels and averages."""
    x = torch.arange(8 * 16).reshape(8, 1, 4, 4) % 4
    spec = DataSpec((1, 4, 4), -1, 1, levels=4, classes=2)
    net = UNet((1, 4, 4), 4, (1,), 1, [], classes=2)
    objective = Objective(times=times, t_min=1e-3)
    data = Dataset("pictures", x, torch.arange(8) % 2, spec)
    options = {"flip": True, "label_dropout": 0.5, "accumulate": 2}
    made = training(net, data, objective=objective, **options)
    ema, steps = EMA(net), made.steps(make_optimizer(net))
    ema.update(net, next(steps).left_out)
    with Reads() as reads:
        step = next(steps)
        ema.update(net, step.left_out)
        assert reads.seen == 0
        assert step.loss > 0
    assert reads.seen == 1


def test_divergence_is_told_some_steps_later_by_its_step_and_before_a_checkpoint(accelerator):
    net = net_of(3)
    steps = training(net, steps=60).steps(make_optimizer(net))
    for _ in range(6):
        next(steps)
    with pytest.raises(RuntimeError, match="diverged at step 3: loss nan, gradient norm nan"):
        list(steps)
    assert 6 < net.calls < 20
    net = net_of(3)
    made = training(net, steps=60)
    steps = made.steps(make_optimizer(net))
    for _ in range(4):
        next(steps)
    with pytest.raises(RuntimeError, match="diverged at step 3"):
        made.watch.settle()
    with pytest.raises(RuntimeError, match="diverged at step 6"):  # the last one
        list(training(net_of(6)).steps(make_optimizer(net_of())))


def test_a_buffer_that_a_skipped_step_makes_is_none_again(accelerator):
    net = net_of(1)
    net.register_buffer("total", None)
    net.forward = lambda x, label, y=None: _first(net, x)
    steps = training(net, max_skipped=1).steps(make_optimizer(net))
    assert next(steps).skipped
    assert net.total is None


def _first(net, x):
    net.total = x.detach().sum(0)
    return net.linear(x) * math.nan


def labelled() -> Dataset:
    x = torch.arange(9 * 4).reshape(9, 1, 2, 2) % 4
    spec = DataSpec((1, 2, 2), -1, 1, levels=4, classes=3)
    return Dataset("pictures", x, torch.arange(9) % 3, spec)


@pytest.mark.parametrize("free", [0, 10**6], ids=["read ahead", "kept"])
def test_batches_made_elsewhere_are_those_of_the_cpu(free, monkeypatch):
    """`cpu:0` is not the device `cpu`, but computes the same numbers."""
    monkeypatch.setattr(examples, "free_memory", lambda device: free)
    made = settings(batch=4, flip=True, label_dropout=0.5)
    here = Examples(labelled(), made)
    there = here.to(torch.device("cpu:0"))
    assert there.place.startswith("the data, 0.00036 MB, are kept on" if free else "the next batch")
    for n in (0, 1, 5, 2):
        for a, b in zip(*(e.batch(n, ConditionSpec(3)) for e in (here, there)), strict=True):
            assert torch.equal(a, b)


def test_a_stream_is_read_by_the_thread_of_its_caller():
    class Batches:
        def __iter__(self):
            threads.add(threading.current_thread())
            yield points().x

    threads = set()
    made = Examples(Stream(Batches(), points().spec), settings(), device=torch.device("cpu:0"))
    assert torch.equal(made.batch(0, None)[0], points().x[:4])
    assert threads == {threading.current_thread()}


def test_the_next_batch_is_taken_while_this_one_is_used():
    begun, taken = threading.Event(), []

    def take(n):
        taken.append(n)
        if n == 7:
            raise ValueError("broken")
        if len(taken) == 2:
            begun.set()
        return n

    ahead = Next(take, 8)
    assert ahead(3) == 3
    assert begun.wait(10)  # nobody has asked for batch 4
    assert [ahead(n) for n in (4, 6)] == [4, 6]
    with pytest.raises(ValueError, match="broken"):
        ahead(7)
    assert taken == [3, 4, 5, 6, 7]  # and nothing beyond the last step
