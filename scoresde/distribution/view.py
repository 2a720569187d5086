"""`Distribution`: a score model as a distribution of `torch.distributions`.

d = scoresde.Distribution(model)                    # p(x)
d = scoresde.Distribution(model, y)                 # p(x | y)
d.sample((100,)), d.rsample((100,)), d.log_prob(x)
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterable, Sequence
from typing import NoReturn

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from .._condition import Condition, leaves, map_condition, take_rows
from .._reachable import float_parameters
from .._tensor import check_integer, check_shape, check_type
from ..likelihood import LikelihoodMethod, Ode, Path, log_likelihood
from ..likelihood.methods import as_method
from ..noise import SampleNoise, check_seed
from ..samplers import Sampler, sample
from ..samplers.recommended import data_shape
from ..score import ScoreModel
from .conditions import batched

__all__ = ["Distribution"]

# More than the 20 of `sample`: what is drawn shall have the density that `log_prob` states.
DEFAULT_NFE = 50


class Distribution(torch.distributions.Distribution):
    """p(x), or p(x | y), of a score model, with the methods of `torch.distributions`.

        sample(S)    draws, shape (*S, *batch_shape, *event_shape); S is an integer or a shape
        rsample(S)   the same draws, differentiable in y and the weights of the model
        log_prob(x)  log p in nats, shape (*S, *batch_shape), differentiable in x, y and the weights

    As in `torch.distributions`, `rsample` and `log_prob` keep graphs if gradients are enabled and
    x, y or a parameter of the model requires gradients. Those of a loaded model do not. The draws
    of `sample` never have gradients.

    **Randomness.** The k-th draw of a distribution is sample k of `scoresde.sample` with this seed.
    Each call continues where the last one ended: two calls for 5 draws give the same as one call
    for 10. Only a new distribution repeats the draws. For B conditions, draw k is samples
    k B … k B + B − 1. Row i of every call of `log_prob` has the stream (seed, i) for what is random
    in the method. So `log_prob` of the same tensor always has the same value.

    **Conditions.** A condition of one sample gives the batch shape (). Every dimension before its
    own ones is a batch dimension: vectors of length V in a tensor (B, V), or classes in a tensor
    (B,), give (B,). If the model does not say what it takes, the first dimension of y is the batch.

    **Support.** Real numbers. For quantized data p is the density of the dequantized data at the
    model's scale, as everywhere in `log_likelihood`; samples are not rounded to levels. The draws
    are brought to σ = 0 at the end, log p is that of data with noise of σ(t_min), which is small.

    Mean, variance and entropy are not known in closed form, and raise NotImplementedError.

    Args:
        model: Score model.
        y: Condition, which a conditional model needs: numbers or tensors; None for the one that
            is bound to the model, or for no condition.
        shape: Shape *D of one sample; None if the model knows it.
        seed: Integer in [0, 2^64).
        sampler: The sampler; None for the recommended one.
        nfe: Evaluations for each draw; None for 50, or for a sampler that chooses its own steps.
        method: How log p is computed, or its text. None: `Ode`, where its trace is exact (up to
            D = 16), otherwise `Path`, which has random errors: see `log_likelihood`.
        batch: Samples at a time; None = all at once.
        validate_args: Whether `log_prob` checks the shape of x; None for torch's default.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If one is out of range, the condition does not suit the model, neither `shape`
            nor the model tells the shape of a sample, or its samples are decoded latents.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(
        self,
        model: ScoreModel,
        y: Condition = None,
        shape: Sequence[int] | None = None,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        nfe: int | None = None,
        method: LikelihoodMethod | str | None = None,
        batch: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_type("model", model, ScoreModel)
        if model.decoder is not None:
            raise ValueError(
                "model must be one of the data themselves, got one of latents, whose log p(x) is "
                "not known; model.decoded_by(None) is the model of its latents"
            )
        if sampler is not None:
            check_type("sampler", sampler, Sampler)
        self.model, self.seed, self.sampler = model, check_seed(seed), sampler
        self.batch = None if batch is None else check_integer("batch", batch, minimum=1)
        adaptive = sampler is not None and sampler.adaptive
        self.nfe = DEFAULT_NFE if nfe is None and not adaptive else nfe
        event = _event(model, shape)
        batch_shape, self.y = batched(model, y)
        self._own_batch = len(batch_shape)
        self.method = _method(method, event)
        self._indices = _Indices()
        super().__init__(batch_shape, event, validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """Real numbers, one event of `event_shape`."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> Distribution:
        """This distribution with a larger batch shape; both take their draws from one sequence."""
        wanted = Size(batch_shape)
        try:
            fits = torch.broadcast_shapes(self.batch_shape, wanted) == wanted
        except RuntimeError:
            fits = False
        if not fits:
            old, new = tuple(self.batch_shape), tuple(wanted)
            raise ValueError(f"batch_shape must be an expansion of {old}, got {new}")
        expanded = copy.copy(self)
        expanded._batch_shape = wanted
        return expanded

    def sample(self, sample_shape: int | Sequence[int] = ()) -> Tensor:
        """The next draws, without gradients.

        Args:
            sample_shape: A number of draws, or their shape.
        """
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: int | Sequence[int] = ()) -> Tensor:
        """The next draws as a differentiable function of y and the weights; see `sample`'s `grad`.

        Args:
            sample_shape: A number of draws, or their shape.
        """
        if not isinstance(sample_shape, Iterable):
            sample_shape = (sample_shape,)
        drawn = [check_integer("sample_shape", n, minimum=0) for n in sample_shape]
        whole = Size((*drawn, *self.batch_shape))
        n, y = math.prod(whole), self._rows(whole)
        indices, size = self._indices.take(n), self.batch or max(n, 1)
        parts = []
        for begin in range(0, max(n, 1), size):
            rows = slice(begin, min(begin + size, n))
            parts.append(self._draw(indices[rows], None if y is None else take_rows(y, rows)))
        return torch.cat(parts).reshape(*whole, *self.event_shape)

    def _draw(self, indices: Sequence[int], y: Condition) -> Tensor:
        """The samples with these indices, given y, which has one entry for each."""
        noise, shape = SampleNoise(self.seed, indices), (len(indices), *self.event_shape)
        given = {"nfe": self.nfe, "noise": noise, "y": y, "grad": self._has_gradients(y)}
        return sample(self.model, self.sampler, shape=shape, **given).x

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) in nats, in the dtype of the value.

        Args:
            value: Points, whose shape ends with `event_shape`. The dimensions before are broadcast
                with `batch_shape`.

        Raises:
            TypeError: If the value is not a tensor of float32 or float64.
            ValueError: As for `log_likelihood`, and on a wrong shape.
        """
        check_type("value", value, Tensor)
        if self._validate_args and value.numel() > 0:  # torch cannot check an empty tensor
            self._validate_sample(value)
        before = value.shape[: value.ndim - len(self.event_shape)]
        whole = torch.broadcast_shapes(before, self.batch_shape)
        x = value.expand((*whole, *self.event_shape)).reshape(-1, *self.event_shape)
        y = self._rows(whole)
        grad = self._has_gradients(y) or (torch.is_grad_enabled() and x.requires_grad)
        given = {"y": y, "batch": self.batch, "grad": grad}
        found = log_likelihood(self.model, x, self.method, seed=self.seed, **given)
        return found.log_prob.to(value.dtype).reshape(whole)

    @property
    def mean(self) -> Tensor:
        """Not known."""
        self._unknown("mean", "d.sample(n).mean(0)")

    @property
    def variance(self) -> Tensor:
        """Not known."""
        self._unknown("variance", "d.sample(n).var(0)")

    def entropy(self) -> Tensor:
        """Not known."""
        self._unknown("entropy", "-d.log_prob(d.sample(n)).mean(0)")

    def _unknown(self, what: str, estimate: str) -> NoReturn:
        raise NotImplementedError(
            f"the {what} of a score model has no closed form; estimate it by {estimate}"
        )

    def _rows(self, whole: Size) -> Condition:
        """The condition of every sample of a shape that ends with the batch shape, flattened."""

        def rows(leaf: Tensor) -> Tensor:
            own = leaf.shape[self._own_batch :]
            return leaf.expand((*whole, *own)).reshape(-1, *own)

        return None if self.y is None else map_condition(rows, self.y)

    def _has_gradients(self, y: Condition) -> bool:
        if not torch.is_grad_enabled():
            return False
        given = [] if y is None else [leaf for _, leaf in leaves(y)]
        return any(tensor.requires_grad for tensor in (*given, *float_parameters(self.model)))

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"Distribution({type(self.model).__name__}, {shapes}, seed={self.seed})"


class _Indices:
    """The indices of samples that were not drawn yet, shared by a distribution's expansions."""

    def __init__(self) -> None:
        self._next, self._lock = 0, threading.Lock()

    def take(self, n: int) -> range:
        """The next n of them."""
        with self._lock:
            self._next += n
            return range(self._next - n, self._next)


def _event(model: ScoreModel, shape: Sequence[int] | None) -> Size:
    """The shape *D of one sample, from the model or from the caller."""
    known = data_shape(model)
    if shape is None and known is None:
        raise ValueError("shape must be given as (*D,): the model does not know that of its data")
    event = known if shape is None else check_shape((0, *shape))[1:]
    if known is not None and event != known:
        raise ValueError(f"shape must be {known} for the model's data, got {event}")
    return Size(event)


def _method(method: LikelihoodMethod | str | None, event: Size) -> LikelihoodMethod:
    """The method of `log_prob`: one for points."""
    if method is None:
        return Path() if Ode().needs_noise(torch.empty(0, *event)) else Ode()
    method = as_method(method)
    if method.of_levels:
        raise ValueError(f"method must give the density of points, got {method!r}")
    return method
