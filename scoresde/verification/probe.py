"""The points at which `scoresde.check` evaluates a model, and the calls of the network inside."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._condition import Condition, map_condition
from .._text import reason_of
from ..evaluation import evaluating
from ..noise import SampleNoise
from ..score import FIRST_TIME, ScoreModel
from ..score.sets import only_present

__all__ = ["NetworkCall", "Probe", "bare_network", "distance", "tensors_in", "watched"]

DATA_STD = 0.5  # of the points, roughly that of data between −1 and 1
COPIED_BYTES = 2**30  # weights beyond which no copy of a model is made
BATCH_NUMBERS = 2**20  # of the states of one evaluation, at most
MIDDLE = 0.5  # the time of laws that do not depend on time


class Sharp(NamedTuple):
    """A model for comparisons that rounding limits, and the dtype of its states."""

    model: ScoreModel
    dtype: torch.dtype


@dataclass(frozen=True)
class Probe:
    """A model with points and conditions for it.

    Attributes:
        model: The model.
        shape: Shape of one sample.
        device: Where the points are.
        seed: Seed of the points.
        y: The condition, with any number of rows, or None.
    """

    model: ScoreModel
    shape: tuple[int, ...]
    device: torch.device
    seed: int = 0
    y: Condition = None
    dtype: torch.dtype = field(default=torch.float32, kw_only=True)

    @property
    def first_time(self) -> float:
        """The least time at which the model may be evaluated."""
        return max(FIRST_TIME, self.model.t_least)

    def noise(self, n: int, number: int = 0, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal numbers, shape (n, *D); other numbers for another `number`.

        At the padding of sets, whose sizes are those of the first n conditions, they are 0.
        """
        source = SampleNoise(self.seed, range(number * 1000, number * 1000 + n))
        drawn = source.prior((n, *self.shape)).to(self.device, dtype or self.dtype)
        return only_present(self.model.given(self.condition(range(n))), drawn)

    def points(self, n: int, t: float = MIDDLE, dtype: torch.dtype | None = None) -> Tensor:
        """States x_t for normal data of standard deviation 0.5, shape (n, *D)."""
        node = self.model.sde.nodes([t])[0]
        std = math.hypot(node.alpha * DATA_STD, node.sigma)
        return self.noise(n, dtype=dtype) * std

    def batch(self, n: int) -> int:
        """n, or fewer if samples are large."""
        return max(1, min(n, BATCH_NUMBERS // math.prod(self.shape)))

    def condition(self, rows: Sequence[int]) -> Condition:
        """The conditions of some samples: the rows of `y` in turn; None without a condition."""
        if self.y is None:
            return None
        index = torch.tensor(rows, device="cpu")
        return map_condition(lambda leaf: leaf[(index % len(leaf)).to(leaf.device)], self.y)

    def bound(self, n: int) -> ScoreModel:
        """The model with the conditions of n samples."""
        return self.model.labelled(self.condition(range(n)), n, self.device)

    def eps(
        self,
        x: Tensor,
        t: Tensor | float = MIDDLE,
        rows: Sequence[int] | None = None,
        model: ScoreModel | None = None,
    ) -> Tensor:
        """ε(x, t), evaluated as samplers do it, with copies of the arguments and of the result.

        Args:
            x: States.
            t: Time.
            rows: Which conditions the states have; the first ones if not given.
            model: The model or a copy of it; the model if not given.
        """
        model = model or self.model
        y = self.condition(range(len(x)) if rows is None else rows)
        t = t.clone() if isinstance(t, Tensor) else t
        with evaluating(model):
            return model.labelled(y, len(x), self.device).eps(x.clone(), t).clone()

    @property
    def rounding(self) -> float:
        """The relative rounding error of the least exact floating dtype in the model."""
        dtypes = {p.dtype for p in self.model.parameters() if p.is_floating_point()}
        dtypes |= {self.dtype, getattr(self.model, "autocast", None) or self.dtype}
        return max(torch.finfo(dtype).eps for dtype in dtypes)

    @property
    def tolerance(self) -> float:
        """The largest relative difference that counts as rounding: √ε, half of the digits.

        Kernels of other batch sizes add in another order, and a network enlarges the difference.
        """
        return math.sqrt(self.rounding)

    @cached_property
    def spare(self) -> ScoreModel:
        """A copy of the model that may be changed; the model itself if it cannot be copied."""
        try:
            return self.model if self._large else copy.deepcopy(self.model)
        except Exception:  # code of the user; another law tells it
            return self.model

    @property
    def _large(self) -> bool:
        size = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return size > COPIED_BYTES

    @cached_property
    def double(self) -> ScoreModel | str:
        """A copy of the model in float64, or the reason why there is none."""
        if self._large:
            return "not made of weights above 1 GB"
        try:
            model = copy.deepcopy(self.model).double()
            if hasattr(model, "autocast"):
                model.autocast = None
            x = self.points(2, dtype=torch.float64)
            out = self.eps(x, model=model)
        except Exception as error:  # code of the user
            return reason_of(error)
        return model if out.dtype == torch.float64 else f"the output is {out.dtype}"

    @property
    def sharp(self) -> Sharp:
        """The copy in float64, or else the model itself."""
        if isinstance(self.double, str):
            return Sharp(self.model, self.dtype)
        return Sharp(self.double, torch.float64)

    @property
    def sharp_tolerance(self) -> float:
        """`tolerance` of the model that `sharp` gives; networks may compute labels in float32."""
        return self.tolerance if isinstance(self.double, str) else FLOAT32_LABELS


# A float64 network whose embedding of the time is computed in float32 repeats this much.
FLOAT32_LABELS = 1e-6


def distance(a: Tensor, b: Tensor) -> float:
    """‖a − b‖/‖b‖, NaN if the result is not finite."""
    a, b = a.to(torch.float64), b.to(torch.float64)
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


@dataclass
class NetworkCall:
    """One call of the network inside a model.

    Attributes:
        args: Its arguments.
        kwargs: Its keyword arguments.
        before: Copies of the tensors among the arguments, as they were before the call.
        outputs: The tensors in its result.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    before: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)

    @property
    def changed_arguments(self) -> bool:
        """Whether the network changed one of its arguments in place."""
        now = tensors_in([*self.args, *self.kwargs.values()])
        pairs = zip(now, self.before, strict=True)
        return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def bare_network(model: ScoreModel) -> Callable | None:
    """The network or function that a model wraps; None for a model of another kind."""
    net = getattr(model, "net", None)
    return getattr(model, "function", None) if net is None else net


@contextmanager
def watched(model: ScoreModel) -> Iterator[tuple[ScoreModel, list[NetworkCall]]]:
    """A model to be evaluated inside the block, and the list of calls of its network.

    The list stays empty for a model of a kind that wraps no network.
    """
    calls: list[NetworkCall] = []
    network = bare_network(model)

    def begin(_: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        before = [leaf.clone() for leaf in tensors_in([*args, *kwargs.values()])]
        calls.append(NetworkCall(args, kwargs, before))

    def end(_: object, __: object, ___: object, out: Any) -> None:
        calls[-1].outputs = list(tensors_in(out))

    if isinstance(network, nn.Module):
        hooks = [
            network.register_forward_pre_hook(begin, with_kwargs=True),
            network.register_forward_hook(end, with_kwargs=True),
        ]
        try:
            yield model, calls
        finally:
            for hook in hooks:
                hook.remove()
    elif network is None:
        yield model, calls
    else:

        def spied(*args: Any, **kwargs: Any) -> Any:
            begin(None, args, kwargs)
            out = network(*args, **kwargs)
            end(None, args, kwargs, out)
            return out

        view = copy.copy(model)
        view.function = spied
        yield view, calls


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and mappings, and in objects with a `sample`."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in tensors_in(item)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in tensors_in(item)]
    return tensors_in(getattr(value, "sample", ()))
