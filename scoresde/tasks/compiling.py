"""`--compile`: the network of a command, compiled once and before anything is timed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from .._condition import Condition, take_rows
from .._tensor import NonFiniteError
from .._text import reason_of
from ..evaluation import count_nfe, evaluating, own_context
from ..likelihood.trace.jacobian import linearize
from ..score import NetworkScore, ScoreModel
from .given import GivenModel
from .live import LiveModel

__all__ = ["check_compiles", "compile_network", "is_compiled"]


def check_compiles(given: GivenModel) -> None:
    """Raise ValueError unless a model is a `NetworkScore`, or a guided one that is made of them."""
    if isinstance(given, LiveModel) and not _networks(given.model):
        raise ValueError(
            f"compiled: must be False for {given.name}, which is a {type(given.model).__name__}; "
            "only the network of a NetworkScore is compiled"
        )


def compile_network(
    model: ScoreModel,
    rows: int,
    shape: Sequence[int],
    dtype: torch.dtype,
    y: Condition | None = None,
    derivatives: bool = False,
) -> None:
    """Compile the networks of a model for batches of `rows`, and run it once.

    The first run compiles, so that later timings do not hold it. Smaller batches are filled up to
    `rows`, because another compilation takes longer than the evaluation of the added rows. If the
    derivative pass cannot be compiled, one warning says so, and evaluations with derivatives run
    without the compiled network. The network of a classifier that guides is not compiled.

    Args:
        model: A `NetworkScore`, or a guided model that is made of them; changed in place.
        rows: Largest number of samples of a batch.
        shape: Shape of a sample.
        dtype: Dtype of the state.
        y: Condition of at least `rows` samples, or None.
        derivatives: Whether derivative passes will follow.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x = torch.zeros(rows, *shape, dtype=dtype, device=device)
    y = None if y is None else take_rows(y, slice(rows))
    networks = _networks(model)
    for network in networks:
        network.compile(rows=rows)
    bound = model.labelled(y, rows, device)
    with own_context(), evaluating(bound), count_nfe(bound):
        _without_check(bound, x)
        if not derivatives:
            return
        try:
            _derivative(bound, x)
        except Exception as error:
            for network in networks:
                network.eager_derivatives = True
            warnings.warn(
                f"--compile: the derivative pass runs without it: {reason_of(error)}", stacklevel=2
            )


def is_compiled(model: ScoreModel) -> bool:
    """Whether `compile_network` has been called for a model."""
    return any(network.rows is not None for network in _networks(model))


def _networks(model: ScoreModel) -> list[NetworkScore]:
    """The score models inside a model, or itself, whose networks can be compiled; each once."""
    return [module for module in model.modules() if isinstance(module, NetworkScore)]


def _without_check(model: ScoreModel, x: Tensor) -> None:
    """One evaluation; a network may dislike x = 0, and the results are checked later."""
    with suppress(NonFiniteError):
        model.eps(x, model.t_most)


def _derivative(model: ScoreModel, x: Tensor) -> None:
    """One evaluation with a derivative pass."""
    with warnings.catch_warnings(), suppress(NonFiniteError):
        # torch's compiler looks at the gradient of an input that has none
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        linearize(lambda point: model.eps(point, model.t_most), x).vjp(x)
