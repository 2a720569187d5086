"""Running averages of a network's weights; samples are drawn with the averages."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from .._tensor import check_fits, check_integer, check_number

__all__ = ["EMA", "WeightAverage"]

_HALF = (torch.float16, torch.bfloat16)


class WeightAverage(ABC):
    """A running average w̄ of a network's parameters and floating-point buffers.

        w̄ ← d_n w̄ + (1 − d_n) w,   n = 0, 1, 2, ...

    with n the number of earlier updates and w̄ = w at the start. A subclass defines the decay d_n.
    A skipped step of the training is no update. All averages are updated together, in few kernels.

    Buffers of other dtypes (counters, masks) are copied. Averages of half-precision weights are
    kept in float32, where an update by 1e-4 of the difference is not lost to rounding. Buffers that
    are not in the network's `state_dict` are constants of the architecture and are left alone.

    Attributes:
        averages: The averaged tensors by name; the names are those of `net.state_dict()`.
    """

    def __init__(self, net: nn.Module) -> None:
        """Start the average at the network's present weights.

        Args:
            net: The bare network, not a DistributedDataParallel wrapper.
        """
        self._updates = 0
        self._left_out: Tensor | None = None  # how many of these were none, on an accelerator
        self.averages = {
            name: value.to(torch.float32 if value.dtype in _HALF else value.dtype, copy=True)
            for name, value in _state(net).items()
        }

    @property
    def updates(self) -> int:
        """Number of updates made so far; reading it waits for an accelerator."""
        if self._left_out is not None:
            self._updates, self._left_out = self._updates - int(self._left_out), None
        return self._updates

    @abstractmethod
    def decay_after(self, n: int | Tensor) -> float | Tensor:
        """d_n of the update after n others, in [0, 1); a tensor of shape () if n is one."""

    @torch.no_grad()
    def update(self, net: nn.Module, left_out: bool | Tensor = False) -> None:
        """One step of the average towards the network's present weights.

        Args:
            net: The network given at construction, or one with the same names and shapes.
            left_out: Whether the step is skipped, so that the average stays as it is. The host does
                not read a bool tensor of shape (), on the device of the averages. The network must
                then hold finite values in both cases.

        Raises:
            ValueError: If names or shapes differ; the average is then unchanged.
        """
        state = _state(net)
        check_fits(state, self.averages, "the averaged network")
        if left_out is True:
            return
        pairs = [(average, state[name].to(average)) for name, average in self.averages.items()]
        _foreach(torch._foreach_copy_, [p for p in pairs if not p[0].is_floating_point()])
        pairs = [p for p in pairs if p[0].is_floating_point()]
        if isinstance(left_out, Tensor):
            self._move_unless(left_out, pairs)
        else:
            _foreach(torch._foreach_lerp_, pairs, 1.0 - self.decay_after(self.updates))
        self._updates += 1

    def _move_unless(self, left_out: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """w̄ ← w̄ + (1 − d_n)(w − w̄) with a factor of 0 if `left_out`, computed on its device."""
        if self._left_out is None:
            self._left_out = torch.zeros((), dtype=torch.float64, device=left_out.device)
        toward = (1.0 - self.decay_after(self._updates - self._left_out)) * ~left_out
        self._left_out += left_out
        averages, values = ([pair[i] for pair in pairs] for i in (0, 1))
        change = torch._foreach_sub(values, averages)
        torch._foreach_mul_(change, toward.to(averages[0]))
        torch._foreach_add_(averages, change)

    @contextlib.contextmanager
    def applied(self, net: nn.Module) -> Iterator[nn.Module]:
        """Context in which the network holds the averaged weights.

        At the end, also after an exception, the earlier weights are restored bit for bit; changes
        made to the weights inside the block are lost.

        Args:
            net: The network given at construction, or one with the same names and shapes.

        Yields:
            The given network.

        Raises:
            ValueError: If names or shapes differ; nothing is swapped then.
        """
        state = _state(net)
        check_fits(state, self.averages, "the averaged network")
        saved = {name: value.clone() for name, value in state.items()}
        try:
            _copy(self.averages, state)
            yield net
        finally:
            # The state is read anew: code in the block may have moved the network or its data.
            _copy(saved, _state(net))

    def restore(self, updates: int, averages: Mapping[str, Tensor]) -> None:
        """Continue from a saved average; the decay stays that of this object.

        Args:
            updates: Number of updates made, at least 0.
            averages: The averaged tensors by name; they are copied.

        Raises:
            TypeError: If `updates` is not an integer.
            ValueError: If `updates` is negative, or names or shapes differ from the network's;
                nothing is changed then.
        """
        updates = check_integer("updates", updates, minimum=0)
        check_fits(averages, self.averages, "the averaged network")
        _copy(averages, self.averages)
        self._updates, self._left_out = updates, None


class EMA(WeightAverage):
    """Exponential moving average of a network's weights, whose length grows in a warm-up.

        w̄ ← d_n w̄ + (1 − d_n) w,   d_n = min(decay, (1 + n) / (10 + n)),   n = 0, 1, 2, ...

    The warm-up lets the share of the random initial weights vanish sooner: after n updates this
    share is ∏ d_i. It is the warm-up of TensorFlow's
    `tf.train.ExponentialMovingAverage(decay, num_updates)`.

    Attributes:
        decay: Upper limit of d_n, in [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float = 0.999) -> None:
        """Start the average at the network's present weights.

        Args:
            net: The bare network, not a DistributedDataParallel wrapper.
            decay: Upper limit of d_n, in [0, 1).

        Raises:
            ValueError: If `decay` is outside [0, 1).
        """
        self.decay = float(check_number("decay", decay, at_least=0, below=1))
        super().__init__(net)

    def decay_after(self, n: int | Tensor) -> float | Tensor:
        """d_n of the update after n others: min(decay, (1 + n) / (10 + n))."""
        ratio = (1 + n) / (10 + n)
        return ratio.clamp(max=self.decay) if isinstance(n, Tensor) else min(self.decay, ratio)


def _state(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, sharing the network's memory."""
    # Not named_parameters, which leaves out the second name of a tied weight: the averages could
    # then not be loaded into a fresh network.
    return {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}


def _foreach(
    function: Callable[..., None], pairs: list[tuple[Tensor, Tensor]], *arguments: float
) -> None:
    """Apply one of torch's functions of lists to pairs; it refuses an empty list."""
    if pairs:
        function(*([pair[i] for pair in pairs] for i in (0, 1)), *arguments)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
