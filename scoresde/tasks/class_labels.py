"""Class labels for the samples of a conditional model."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["labels_in_turn", "labels_like", "labels_of"]


def labels_in_turn(classes: int, n: int) -> Tensor:
    """All classes in turn, shape (n,), int64: `labels_like` for equal counts."""
    return torch.arange(n) % classes


def labels_of(labels: Tensor, classes: int, n: int, how: str) -> Tensor:
    """Labels of n samples that are compared with training data.

    Args:
        labels: Labels of the training data, shape (m,), integers in [0, classes).
        classes: Number of classes of the model.
        n: Number of samples.
        how: "shares" gives every class its share of the training data; "uniform" gives equal shares
            to all classes that have training data. A class without training data is never drawn.

    Returns:
        Shape (n,), int64, in the order of `labels_like`.
    """
    counts = torch.bincount(labels.cpu(), minlength=classes)
    return labels_like(counts if how == "shares" else counts.sign(), n)


def labels_like(counts: Tensor, n: int) -> Tensor:
    """n labels whose classes have given shares, rounded by the method of largest remainders.

    Class c has n_c labels, and n_c differs from its exact share of n by less than 1. The labels are
    ordered by the position (j + ½)/n_c of the j-th label of class c. The first labels then have
    nearly the same shares as all labels. Equal counts give all classes in turn.

    Args:
        counts: Data per class, shape (classes,), not negative, with a positive sum.
        n: Number of labels, at least 1.

    Returns:
        Shape (n,), int64.
    """
    exact = n * counts.to(torch.float64) / int(counts.sum())
    each = exact.floor().long()
    # stable: for equal remainders the lower class comes first
    left = (exact - each).argsort(descending=True, stable=True)[: n - int(each.sum())]
    each[left] += 1
    classes = torch.arange(len(counts)).repeat_interleave(each)
    first = each.cumsum(0) - each
    places = (torch.arange(n) - first[classes] + 0.5) / each[classes]
    return classes[places.argsort(stable=True)]
