import numpy as np
import pytest
import torch

from scoresde._workers import ReadError
from scoresde.data import DataSpec, Stream
from scoresde.data.state import from_plain, to_plain

SPEC = DataSpec((1,), -1, 1, levels=100, classes=3, vector=2)


def batch(first, n):
    k = torch.arange(first, first + n)
    return k[:, None], {"class": k % 3, "vector": torch.stack([k, -k], 1).float()}


class Shuffling:
    """Ten items in batches of 4, 4 and 2; each epoch has another order, as a DataLoader's has."""

    def __init__(self):
        self.epoch, self.given = 0, 0

    def __iter__(self):
        order = np.random.default_rng(self.epoch).permutation(10)
        while self.given < 10:
            rows = torch.from_numpy(order[self.given : self.given + 4])
            self.given += len(rows)
            yield rows[:, None], {"class": rows % 3, "vector": torch.zeros(len(rows), 2)}
        self.epoch, self.given = self.epoch + 1, 0


class Stateful(Shuffling):
    def state_dict(self):
        return {"epoch": self.epoch, "given": torch.tensor(self.given), "more": (1.5, None, [{}])}

    def load_state_dict(self, state):
        assert state["more"] == (1.5, None, [{}])
        self.epoch, self.given = state["epoch"], int(state["given"])


def test_items_do_not_depend_on_the_sizes_of_the_batches():
    batches = [batch(0, 3), batch(3, 1), batch(4, 7)]
    stream = Stream(batches, SPEC)
    taken = [stream.take(k, 4) for k in range(0, 24, 4)]
    x = torch.cat([x for x, _ in taken])
    assert x.dtype == torch.uint8
    assert x[:, 0].tolist() == [k % 11 for k in range(24)]  # three epochs of 11 items
    y = {kind: torch.cat([y[kind] for _, y in taken]) for kind in taken[0][1]}
    assert torch.equal(y["class"], x[:, 0].long() % 3)
    assert torch.equal(y["vector"], torch.cat([x, -x.float()], 1))
    assert torch.equal(stream.take(4, 4)[0], x[4:8])  # earlier items: from the beginning again


@pytest.mark.parametrize("kind", [Shuffling, Stateful])
@pytest.mark.parametrize("done", [0, 3, 4, 9, 13])  # in a batch, between batches, between epochs
def test_a_stream_resumes_where_it_was(kind, done):
    expected = Stream(kind(), SPEC).take(0, 30)[0]
    stopped = Stream(kind(), SPEC)
    for first in range(0, done + 3, 3):  # it may be one batch ahead of the steps
        stopped.take(first, 3)
    done -= done % 3
    state = stopped.state(done)
    assert (state is None) == (kind is Shuffling)
    resumed = Stream(kind(), SPEC)
    said = resumed.resume(done, state)
    assert ("saved state" in said) == (kind is Stateful)
    assert f"and {done} items are skipped" in said or kind is Stateful
    assert torch.equal(resumed.take(done, 30 - done)[0], expected[done:])


def test_states_survive_json():
    state = {3: torch.arange(2, dtype=torch.uint8), "a": (np.arange(2.0), [None, True, "x", {}])}
    found = from_plain(to_plain(state, "it"))
    assert torch.equal(found[3], state[3])
    assert found[3].dtype == torch.uint8
    assert np.array_equal(found["a"][0], state["a"][0])
    assert found["a"][1] == state["a"][1]
    with pytest.raises(TypeError, match="it must hold numbers, text, .*, got object"):
        to_plain({"a": [object()]}, "it")


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (iter([batch(0, 3)]), "ended after 3 items and gave nothing when it was started again"),
        ([], "ended after 0 items"),
        ([batch(0, 3)[0]], r"must be a pair \(x, y\), as the data have 3 classes and a vector"),
        ([batch(98, 3)], r"a batch of the stream: x must hold levels 0 … 99, got 98 … 100"),
        ([torch.zeros(3, 2)], r"x must have shape \(n, 1\) with n at least 1, got \(3, 2\)"),
        ([batch(0, 3)[0].float()], "x must hold integer levels 0 … 99, got torch.float32"),
        ((1 / 0 for _ in range(3)), "the stream cannot be read: division by zero"),
    ],
)
def test_bad_batches(batches, message):
    with pytest.raises(ReadError, match=message):
        Stream(batches, SPEC).take(0, 4)


def test_what_is_no_iterable():
    with pytest.raises(TypeError, match="batches must be an iterable, got int"):
        Stream(3, SPEC)
