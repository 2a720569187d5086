"""The difference of two models' log-likelihoods of the same data, datum by datum."""

from __future__ import annotations

from dataclasses import fields

import torch

from .budget import Budget

__all__ = ["budget_difference"]

CHANGES = ("log_prob", "correction", "cut_off", "prior_mismatch")
COSTS = ("nfe", "nfe_derivative")


def budget_difference(a: Budget, b: Budget) -> Budget:
    """log p_a(x_i) − log p_b(x_i) for each datum, as a budget from which `mean_budget` follows.

    Both budgets must be of the same data in the same order, with the same noise. What is common to
    both values then cancels: the spread of the data, most of the dequantization, and part of the
    probes' errors. `mean_budget` computes the standard error from the spread of the differences,
    which contains all that is random. The errors of single differences are not known, because
    those of a and b are correlated.

    Args:
        a: Budget of the first model.
        b: Budget of the second model.

    Returns:
        The differences in nats; `std_error` and its parts are NaN, and the costs are sums.

    Raises:
        ValueError: If the numbers of data differ.
    """
    if len(a.log_prob) != len(b.log_prob):
        raise ValueError(
            f"budgets must be of the same data, got {len(a.log_prob)} and {len(b.log_prob)} data"
        )
    found = {field.name: torch.full_like(a.log_prob, torch.nan) for field in fields(Budget)}
    found |= {name: getattr(a, name) - getattr(b, name) for name in CHANGES}
    found |= {name: getattr(a, name) + getattr(b, name) for name in COSTS}
    return Budget(**found | {"terms": a.log_prob.new_empty(len(a.log_prob), 0)})
