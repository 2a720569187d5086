"""Evaluating a model: counted calls, evaluation mode, independence of the caller's context.

Several threads may evaluate one model at the same time. Counts and limits belong to the block that
asked for them. A module leaves evaluation mode when the last block that uses it has ended.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._reachable import reachable_modules

__all__ = [
    "NFE",
    "count_nfe",
    "evaluating",
    "held_in_evaluation",
    "name_time",
    "own_context",
    "repeating",
    "seeded",
    "training",
]

_LOCK = threading.Lock()  # protects the counts, `_HELD` and `_TRAINED`
_GLOBAL = threading.RLock()  # protects torch's global generators


@dataclass
class NFE:
    """Evaluations of a model so far: forward passes, and derivative passes (JVP or VJP).

    A call with a batch counts once, so that the count is per sample. A model's own `nfe` is the
    total of all threads; `count_nfe` counts one block of one thread.

    Attributes:
        forward: Forward passes.
        derivative: Derivative passes.
        limit: Largest number of forward passes; None for any number.
        repeated: Forward and derivative passes in `repeating` blocks, which count here alone.
    """

    forward: int = 0
    derivative: int = 0
    limit: int | None = None
    repeated: int = 0

    def add_forward(self, t: float | Tensor) -> None:
        """Count one forward pass at time t, here and in the blocks around this call.

        Raises:
            RuntimeError: If a limit is reached; nothing is counted then.
        """
        if self._is_repeated():
            return
        counts = self._counts()
        with _LOCK:
            for count in counts:
                if count.limit is not None and count.forward >= count.limit:
                    raise RuntimeError(
                        f"the limit of {count.limit} network evaluations was reached at "
                        f"{name_time(t)}; raise max_nfe or loosen rtol and atol"
                    )
            for count in counts:
                count.forward += 1

    def add_derivative(self) -> None:
        """Count one derivative pass, here and in the blocks around this call."""
        if self._is_repeated():
            return
        counts = self._counts()
        with _LOCK:
            for count in counts:
                count.derivative += 1

    def _counts(self) -> list[NFE]:
        return [self, *(block for total, block in _BLOCKS.get() if total is self)]

    def _is_repeated(self) -> bool:
        """Whether a `repeating` block is around this call, which then counts as `repeated`."""
        if _REPEATING.get():
            with _LOCK:
                for count in self._counts():
                    count.repeated += 1
        return _REPEATING.get()


# The `count_nfe` blocks around the present call, each with the model's total count.
_BLOCKS: ContextVar[tuple[tuple[NFE, NFE], ...]] = ContextVar("blocks", default=())

_REPEATING: ContextVar[bool] = ContextVar("repeating", default=False)


@contextmanager
def repeating() -> Iterator[None]:
    """A block whose passes serve a gradient alone; no limit of evaluations holds for them."""
    token = _REPEATING.set(True)
    try:
        yield
    finally:
        _REPEATING.reset(token)


@contextmanager
def count_nfe(model: nn.Module, limit: int | None = None) -> Iterator[NFE]:
    """Count a model's evaluations inside the block.

    Only calls of this thread (or asynchronous task) are counted, and bounded by the limit.

    Args:
        model: A score model. Its counter is `nfe`, shared by models bound with `given`.
        limit: Raise RuntimeError at one more forward pass. The limits of outer blocks hold as well.

    Yields:
        The counts of this block.
    """
    inside = NFE(limit=limit)
    _BLOCKS.set((*_BLOCKS.get(), (model.nfe, inside)))
    try:
        yield inside
    finally:
        _BLOCKS.set(tuple(entry for entry in _BLOCKS.get() if entry[1] is not inside))


@dataclass
class _Held:
    """A module that `evaluating` blocks keep in evaluation mode, and its earlier mode."""

    module: nn.Module
    training: bool
    blocks: int = 0


_HELD: dict[int, _Held] = {}
# Number of `training` blocks that use each module, by the module's id.
_TRAINED: Counter[int] = Counter()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block (no dropout), and every module's earlier mode after it.

    Networks that a function of the model uses are switched as well, see `reachable_modules`. If
    blocks of several threads use a module, the last block to end restores its mode.

    Args:
        model: Any module.

    Raises:
        RuntimeError: If a training step with a module is running, which would lose its dropout; at
            the end, if a module was put in training mode meanwhile.
    """
    with held_in_evaluation(list(reachable_modules(model))):
        yield


@contextmanager
def held_in_evaluation(modules: Sequence[nn.Module]) -> Iterator[None]:
    """`evaluating` for a model whose `reachable_modules` are known."""
    with _LOCK:
        for module in modules:
            if _TRAINED[id(module)]:
                raise RuntimeError(
                    f"{type(module).__name__} is being trained, so that it cannot be evaluated at "
                    "the same time; evaluate a copy of the network"
                )
        for module in modules:
            held = _HELD.setdefault(id(module), _Held(module, module.training))
            held.blocks += 1
            if module.training and held.blocks == 1:
                module.training = False
    try:
        yield
        disturbed = [module for module in modules if module.training]
    finally:
        with _LOCK:
            for module in modules:
                held = _HELD[id(module)]
                held.blocks -= 1
                if held.blocks == 0:
                    del _HELD[id(module)]
                    if held.training:
                        module.training = True
    if disturbed:
        raise RuntimeError(
            f"{type(disturbed[0]).__name__} was put in training mode while it was being evaluated, "
            "so that the result is not valid; give each thread its own copy of the network"
        )


@contextmanager
def training(net: nn.Module) -> Iterator[None]:
    """Training mode inside the block; meanwhile `evaluating` refuses the network's modules."""
    held = Counter(id(module) for module in net.modules())
    with _LOCK:
        _TRAINED.update(held)
        net.train()
    try:
        yield
    finally:
        with _LOCK:
            _TRAINED.subtract(held)


@contextmanager
def seeded(seed: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore their states after it.

    Networks draw initial weights and dropout from these generators. Blocks of several threads wait
    for each other.

    Args:
        seed: Integer in [0, 2^64).
        devices: CUDA devices whose generators are seeded too.
    """
    with _GLOBAL, torch.random.fork_rng(devices):
        # Not torch.manual_seed, which would seed the generators of all devices.
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def own_context(keep_gradients: bool = False) -> Iterator[None]:
    """A context that shields results from the caller's context; also a decorator.

    Gradients are off, and `torch.autocast` and `torch.inference_mode` regions around the block have
    no effect inside. In an autocast region backward passes would run in half precision, and tensors
    made in inference mode cannot be differentiated through.

    Args:
        keep_gradients: Gradients stay on or off, as they are.
    """
    with ExitStack() as stack:
        gradients = keep_gradients and torch.is_grad_enabled()
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def name_time(t: float | Tensor) -> str:
    """The time or the range of times of one evaluation, for messages."""
    if not isinstance(t, Tensor):
        return f"t={t:.6g}"
    if t.numel() == 0:
        return "no time"
    low, high = float(t.detach().min()), float(t.detach().max())
    return f"t={low:.6g}" if low == high else f"t={low:.6g}..{high:.6g}"
