"""What a step sees, wherever the data are and whoever reads them."""

import math

import numpy as np
import pytest
import torch

import scoresde.train.order
from scoresde.data import Dataset, DataSpec, Stream
from scoresde.train import Examples, Order, Split, TrainSettings

SPEC = DataSpec((1, 2, 2), -1, 1, levels=64, classes=2)


class Items:
    def __len__(self):
        return 14

    def __getitem__(self, i):
        return torch.full((1, 2, 2), 4 * i) + torch.tensor([[0, 1], [2, 3]]), i % 2


def settings(**changes) -> TrainSettings:
    known = {"steps": 9, "batch": 4, "flip": True, "label_dropout": 0.5, "seed": 3}
    return TrainSettings(**{"warmup": 0, "learning_rate": 1.0, **known, **changes})


def steps(data, order=range(9), **changes):
    examples = Examples(data, settings(**changes))
    return [examples.batch(n, SPEC.condition) for n in order]


def held_in_memory():
    x, y = zip(*(Items()[i] for i in range(14)), strict=True)
    return Dataset("data", torch.stack(x).byte(), torch.tensor(y), SPEC)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_the_same_bytes_for_any_number_of_workers(workers):
    order = [0, 1, 2, 2, 7, 8] if workers == 1 else range(9)  # a resumption begins anywhere
    expected = steps(held_in_memory(), order, validation=0.2)
    found = steps(Dataset.of(Items(), SPEC, workers=workers), order, validation=0.2)
    for step, same in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(step, same, strict=True))


def test_a_stream_in_the_order_of_the_epochs_gives_the_same_batches():
    examples = Examples(data := held_in_memory(), settings())
    rows = torch.cat([examples.rows_of(n) for n in range(9)])
    batches = [(data.x[part], data.labels[part]) for part in rows.split(5)]
    for step, same in zip(steps(Stream(batches, SPEC)), steps(data), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(step, same, strict=True))
    with pytest.raises(ValueError, match="validation must be 0 for a stream of batches, got 0.5"):
        Examples(Stream(batches, SPEC), settings(validation=0.5))


@pytest.fixture
def computed(monkeypatch):
    """Make every order a cipher on the places, as for more than 2^24 data."""
    monkeypatch.setattr(scoresde.train.order, "_LISTED", 0)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000, 4097])
def test_a_computed_order_is_a_permutation(n, computed):
    order = Order(n, 5, 0, "shuffle")
    assert np.array_equal(np.sort(order[np.arange(n)]), np.arange(n))
    assert np.array_equal(order[np.array([n - 1, 0])], order[np.arange(n)][[-1, 0]])


def test_a_computed_order_is_as_random_as_numpys(computed):
    """χ² of two tables of ten by ten, with 81 degrees of freedom and a bound of 4.5 standard
    deviations: places against numbers, and numbers against the next ones."""
    n = 20_000
    for epoch in range(3):
        tenths = Order(n, 1, epoch, "shuffle")[np.arange(n)] * 10 // n
        for other in (np.arange(n) * 10 // n, np.roll(tenths, -1)):
            table = np.bincount(10 * tenths + other, minlength=100)
            assert ((table - n / 100) ** 2 / (n / 100)).sum() < 81 + 4.5 * math.sqrt(2 * 81)


def test_a_computed_split_trains_on_all_that_is_not_held_out(computed):
    split = Split.of(50, settings(validation=0.2))
    held, rows = split.held_rows().tolist(), split.rows(np.arange(40)).tolist()
    assert sorted(held + rows) == list(range(50))
    assert set(split.some_rows(45).tolist()) == set(rows)


def test_an_order_of_a_hundred_million_needs_no_memory():
    order = Order(10**8, 0, 3, "shuffle")
    found = order[np.arange(10**8 - 256, 10**8)]
    assert len(set(found.tolist())) == 256
    assert 0 <= found.min() < 10**7 < 9 * 10**7 < found.max() < 10**8
