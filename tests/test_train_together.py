"""Several processes that train together, with threads in place of processes."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.distributed import HashStore

from scoresde.data import Dataset, DataSpec
from scoresde.distributed import Ranks
from scoresde.distributed.watch import Watch
from scoresde.loss import Objective
from scoresde.nets import MLP
from scoresde.score import NetworkScore, Preconditioning
from scoresde.sde import VP
from scoresde.train import Examples, Training, TrainSettings, make_optimizer
from scoresde.train.checks import doubts

POINTS = torch.linspace(-1, 1, 80, dtype=torch.float32).reshape(40, 2)
DATA = Dataset("points", POINTS, torch.arange(40) % 3, DataSpec((2,), -1, 1, classes=3))


def settings(**changes):
    given = {"steps": 20, "batch": 16, "warmup": 0, "learning_rate": 1e-3, "validation": 0.1}
    return TrainSettings(**given | changes)


class Faulty(nn.Module):
    """A network that gives NaN in one of its calls."""

    def __init__(self, bad_call):
        super().__init__()
        self.linear, self.bad_call, self.calls = nn.Linear(2, 2), bad_call, 0

    def forward(self, x, label, y=None):
        bad = self.calls == self.bad_call
        self.calls += 1
        return self.linear(x) * (math.nan if bad else 1.0)


def trained(size, make, objective=None, **changes):
    """For each rank: the records of its steps, and its weights and history."""
    store = HashStore()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        initial = make(0).state_dict()

    def one(rank):
        ranks = Ranks(rank, size, rank, store, Watch(store, rank, size)) if size > 1 else Ranks()
        net = nets[rank]
        model = NetworkScore(net, VP(), Preconditioning())
        training = Training(
            model, DATA, objective or Objective(t_min=1e-3), settings(**changes), ranks=ranks
        )
        records = list(training.steps(make_optimizer(net)))
        weights = torch.cat([p.detach().flatten() for p in net.parameters()])
        return records, weights, training

    nets = [make(rank) for rank in range(size)]
    for net in nets:
        net.load_state_dict(initial)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@pytest.mark.parametrize("size", [2, 3])
def test_the_rows_of_the_ranks_are_the_rows_of_the_batch(size):
    whole = Examples(DATA, settings()).batch(5, None)
    parts = [Examples(DATA, settings()).of(rank, size).batch(5, None) for rank in range(size)]
    for value, *own in zip(whole, *parts, strict=True):
        assert torch.equal(value, torch.cat(own))


@pytest.mark.parametrize(
    ("dtype", "size", "changes", "tolerance"),
    [
        (torch.float64, 2, {"steps": 12}, 1e-10),
        (torch.float64, 3, {"accumulate": 6, "steps": 8}, 1e-10),
        (torch.float32, 3, {}, 1e-5),
    ],
)
@pytest.mark.by_default("dtype0")
def test_any_number_of_ranks_gives_the_same_training(dtype, size, changes, tolerance):
    def make(_):
        return MLP((2,), 16, 2, dropout=0.3, classes=3).to(dtype)

    objective = Objective(t_min=1e-3, times="second_moment")
    ((alone, weights, one),) = trained(1, make, objective, **changes)
    for records, own, training in trained(size, make, objective, **changes):
        assert torch.allclose(own, weights, rtol=tolerance, atol=tolerance)
        for a, b in zip(alone, records, strict=True):
            assert b.loss == pytest.approx(a.loss, rel=tolerance)
            assert b.grad_norm == pytest.approx(a.grad_norm, rel=tolerance)
            assert torch.allclose(a.t, b.t, rtol=10 * tolerance)  # learned from the errors
        assert torch.equal(training.history.counts, one.history.counts)
        squares = training.history.squares
        assert torch.allclose(squares, one.history.squares, rtol=10 * tolerance)


def test_a_bad_step_of_one_rank_is_skipped_by_all():
    runs = trained(2, lambda rank: Faulty(2 if rank == 1 else -1), steps=4, max_skipped=1)
    for records, weights, _ in runs:
        assert [step.skipped for step in records] == [False, False, True, False]
        assert torch.equal(weights, runs[0][1])
        assert weights.isfinite().all()


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(2), nn.Dropout(0.1), nn.AlphaDropout(0.1)])
def test_a_layer_that_mixes_rows_or_draws_by_process_gets_one_warning(layer):
    """Our own dropout gets none: `trained` would fail, since warnings are errors."""
    net = Faulty(-1)
    net.layer = layer
    model = NetworkScore(net, VP(), Preconditioning())
    found = list(doubts(model, DATA, settings(), Ranks(0, 2)))
    assert [text.partition(",")[0] for text in found] == [f"the network has {type(layer).__name__}"]
    assert not list(doubts(model, DATA, settings(), Ranks()))


def test_more_ranks_than_rows_are_refused():
    model = NetworkScore(MLP((2,), 8, 1), VP(), Preconditioning())
    with pytest.raises(ValueError, match="batch must be at least the number of processes, 3"):
        Training(model, DATA, Objective(), settings(batch=2), ranks=Ranks(0, 3))
