"""Laws of use: dtypes, copies, and the cost of an evaluation."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from pickle import Pickler

import torch
from torch.autograd.graph import saved_tensors_hooks

from ..._text import reason_of
from ...evaluation import evaluating
from ...likelihood.trace.jacobian import linearize
from ...score import NetworkScore, ScoreModel
from ..findings import Finding, failed, info, passed, warned
from ..probe import MIDDLE, Probe, bare_network, distance, watched

__all__ = ["COST_LAWS", "PRACTICE_LAWS"]

N = 4
BATCHES = (1, 64)
SECONDS = 0.3  # that one measurement of time should take
HALF_LIMIT = 0.1  # largest relative difference in bfloat16 without a warning


def double_precision(probe: Probe) -> Finding:
    """The model accepts float64 states, and runs in float64 after `.double()`."""
    x = probe.points(N, dtype=torch.float64)
    try:
        out = probe.eps(x)
    except Exception as error:  # code of the user
        advice = "cast x to the network's dtype; solvers with small tolerances need float64 states"
        return warned(f"states in float64: {reason_of(error)}", advice)
    if out.dtype != torch.float64:
        advice = "eps must return the dtype of x"
        return failed(f"{out.dtype} for states in float64", advice)
    if isinstance(probe.double, str):
        advice = "the rounding of a likelihood cannot be measured: --dtype float64 needs this"
        return warned(f"a copy in float64: {probe.double}", advice)
    gap = distance(probe.eps(x, model=probe.double), out)
    return passed(f"runs; the rounding of ε is {gap:.1e}", gap)


def half_precision(probe: Probe) -> Finding | None:
    """A network under autocast in bfloat16 gives nearly the same ε."""
    if not isinstance(probe.model, NetworkScore) or probe.model.autocast is not None:
        return None
    x, model = probe.points(N), copy.copy(probe.model)
    model.autocast = torch.bfloat16
    advice = "do not use --dtype bfloat16 with this network"
    try:
        gap = distance(probe.eps(x, model=model), probe.eps(x))
    except Exception as error:  # code of the user
        return warned(reason_of(error), advice)
    measured = f"relative difference {gap:.1e}"
    return passed(measured, gap) if gap <= HALF_LIMIT else warned(measured, advice, gap)


def copies(probe: Probe) -> Finding:
    """A deep copy gives the same ε."""
    x = probe.points(N)
    try:
        model = copy.deepcopy(probe.model)
    except Exception as error:  # code of the user
        return warned(reason_of(error), "copy.deepcopy is used by training and averaging")
    gap = distance(probe.eps(x, model=model), probe.eps(x))
    if gap > probe.tolerance:
        return failed(f"a copy differs by {gap:.1e}", "its state is outside the module", gap)
    return passed(f"a copy differs by {gap:.1e}", gap)


def pickles(probe: Probe) -> Finding:
    """The model can be pickled."""
    try:
        Pickler(_Nowhere()).dump(probe.model)
    except Exception as error:  # code of the user
        advice = "define functions and classes in a module; only worker processes need this"
        return warned(reason_of(error), advice)
    return passed("can be sent to worker processes")


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: object) -> int:
        return memoryview(data).nbytes


def cost(probe: Probe) -> Finding:
    """Seconds of an evaluation, in a batch of 1 and of 64."""
    parts, first = [], math.nan
    for n in dict.fromkeys((BATCHES[0], probe.batch(BATCHES[1]))):
        x, model = probe.points(n), probe.bound(n)
        with evaluating(model):
            (seconds,) = _seconds(probe, lambda x=x, model=model: model.eps(x, MIDDLE))
        first = seconds if n == 1 else first
        parts.append(f"{1e3 * seconds:.3g} ms for {n}")
    return info(", ".join(parts), first)


def overhead(probe: Probe) -> Finding | None:
    """What the wrapper adds to the time of the network."""
    network = bare_network(probe.model)
    if network is None:
        return None
    x, bound = probe.points(1), probe.bound(1)
    with evaluating(bound):
        with watched(bound) as (model, calls):
            model.eps(x, MIDDLE)
        if len(calls) != 1:
            return info(f"not measured: {len(calls)} calls of the network")
        call = calls[0]
        alone, whole = _seconds(
            probe, lambda: network(*call.args, **call.kwargs), lambda: bound.eps(x, MIDDLE)
        )
    extra = max(0.0, whole - alone)
    share = extra / max(whole, 1e-9)
    return info(f"adds {1e6 * extra:.0f} µs, {share:.0%} of an evaluation of one sample", extra)


def _seconds(probe: Probe, *calls: Callable[[], object]) -> list[float]:
    """The least time of each function, called in turn, at most 20 times.

    Nothing is repeated after `SECONDS` have passed.
    """
    began, least = time.perf_counter(), [math.inf] * len(calls)
    for _ in range(20):
        for i, call in enumerate(calls):
            least[i] = min(least[i], _once(probe, call))
        if time.perf_counter() - began > SECONDS:
            break
    return least


def _once(probe: Probe, call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    if probe.device.type == "cuda":
        torch.cuda.synchronize(probe.device)
    return time.perf_counter() - began


def memory(probe: Probe) -> Finding:
    """Memory of the weights, and what one sample keeps for a derivative pass."""
    weights = _weight_bytes(probe.model)
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return value

    own = {p.untyped_storage().data_ptr() for p in probe.model.parameters()}
    x, model = probe.points(1), probe.bound(1)
    text = f"{weights / 1e6:.3g} MB of weights"
    try:
        with evaluating(model), saved_tensors_hooks(keep, lambda value: value):
            linearize(lambda point: model.eps(point, MIDDLE), x)
    except RuntimeError:  # not differentiable: another law tells it
        return info(text, weights)
    size = sum(size for pointer, size in kept.items() if pointer not in own)
    text += f"; {size / 1e6:.3g} MB per sample for a derivative pass"
    return info(text, float(size))


def _weight_bytes(model: ScoreModel) -> float:
    tensors = [*model.parameters(), *model.buffers()]
    return float(sum(value.numel() * value.element_size() for value in tensors))


PRACTICE_LAWS: Mapping[str, Callable[[Probe], Finding | None]] = {
    "float64": double_precision,
    "bfloat16 autocast": half_precision,
    "copies": copies,
    "pickles": pickles,
}
COST_LAWS: Mapping[str, Callable[[Probe], Finding | None]] = {
    "cost of an evaluation": cost,
    "wrapper": overhead,
    "memory": memory,
}
