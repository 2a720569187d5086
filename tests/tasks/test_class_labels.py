"""The labels of samples have the shares of the data, at any number of samples."""

import pytest
import torch

from scoresde.tasks.class_labels import labels_in_turn, labels_like, labels_of

COUNTS = [[1, 1], [137, 15], [5, 0, 3], [0, 0, 7], [1000, 10, 1], [3] * 10, list(range(1, 21))]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("n", [1, 2, 4, 7, 160, 1000])
def test_every_class_has_its_share(counts, n):
    counts = torch.tensor(counts)
    found = labels_like(counts, n)
    share = counts / counts.sum()
    assert found.shape == (n,)
    assert found.dtype == torch.int64
    each = torch.bincount(found, minlength=len(counts))
    assert float((each - n * share).abs().max()) < 1
    assert (each[counts == 0] == 0).all()
    # largest remainders: nobody who was rounded up had a smaller remainder than one rounded down
    rest = n * share.double() - (n * share.double()).floor()
    up = each > n * share
    if bool(up.any()) and bool((~up).any()):
        assert float(rest[up].min()) > float(rest[~up].max()) - 1e-9


@pytest.mark.parametrize("counts", COUNTS)
def test_the_first_labels_have_the_shares_of_all(counts):
    """Each count differs from its share by at most 1, plus rounding of the other classes."""
    counts, n = torch.tensor(counts), 500
    found = labels_like(counts, n)
    share = torch.bincount(found, minlength=len(counts)) / n
    for k in range(1, n + 1):
        each = torch.bincount(found[:k], minlength=len(counts))
        assert float((each - k * share).abs().max()) <= 1 + 0.5 * len(counts) * float(share.max())


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_equal_classes_come_in_turn(classes):
    """At any number of samples, whether it is a multiple of the number of classes or not."""
    assert labels_in_turn(3, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    for n in range(1, 25):
        assert torch.equal(labels_like(torch.ones(classes), n), labels_in_turn(classes, n))


def test_uniform_leaves_out_classes_without_data():
    labels = torch.tensor([0] * 9 + [2])
    assert labels_of(labels, 4, 6, "uniform").tolist() == [0, 2, 0, 2, 0, 2]
    assert sorted(labels_of(labels, 4, 10, "shares").tolist()) == labels.tolist()
    assert labels_of(labels, 4, 3, "shares").tolist() == [0, 0, 0]
