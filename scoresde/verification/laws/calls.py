"""Laws of single evaluations: what a model may do with its arguments and with global state."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..._condition import leaves
from ..._reachable import reachable_modules
from ..._text import reason_of
from ...evaluation import count_nfe, evaluating
from ..findings import Finding, failed, judged, passed, warned
from ..probe import MIDDLE, Probe, distance, watched

__all__ = ["CALL_LAWS", "FIRST_LAWS"]

N = 4  # samples of a batch
MIXES = (
    "a layer mixes the samples of a batch (batch norm with batch statistics, attention over the "
    "batch axis); samples and likelihoods would depend on the batch size"
)


def output(probe: Probe) -> Finding:
    """ε has the shape, dtype and device of x."""
    x = probe.points(N)
    out = probe.eps(x)
    if not isinstance(out, Tensor):
        return failed(f"a {type(out).__name__}", "eps must return a tensor like x")
    given, wanted = ((tuple(v.shape), v.dtype, str(v.device)) for v in (out, x))
    names = ("shape", "dtype", "device")
    wrong = [
        f"{name} {a} for x of {name} {b}"
        for name, a, b in zip(names, given, wanted, strict=True)
        if a != b
    ]
    if wrong:
        return failed("; ".join(wrong), "eps must return a tensor like x")
    dtype = str(given[1]).removeprefix("torch.")
    return passed(f"shape {given[0]}, {dtype}, on {given[2]}, as x")


def counted(probe: Probe) -> Finding:
    """Each evaluation adds 1 to the model's counter; if it asks several networks, their number."""
    model = probe.bound(N)
    with evaluating(model), count_nfe(model) as count:
        for method in (model.eps, model.x0, model.score):
            method(probe.points(N), MIDDLE)
    measured = f"{count.forward} counted in 3 evaluations"
    each, rest = divmod(count.forward, 3)
    if rest == 0 and 1 <= each <= model.evaluations:
        return passed(measured)
    advice = "call self.nfe.add_forward(t) once in each evaluation; NFE is wrong otherwise"
    return failed(measured, advice)


def arguments(probe: Probe) -> Finding:
    """An evaluation changes neither x, nor the times, nor the condition."""
    x, t = probe.points(N), torch.full((N,), MIDDLE, dtype=torch.float64, device=probe.device)
    y = probe.bound(N).y
    held = [x, t, *(leaf for _, leaf in leaves(() if y is None else y))]
    before = [value.clone() for value in held]
    with evaluating(probe.model), watched(probe.model) as (model, calls):
        model.given(y).eps(x, t)
    changed = [not torch.equal(a, b) for a, b in zip(held, before, strict=True)]
    if any(changed):
        names = [n for n, c in zip(("x", "t"), changed, strict=False) if c] or ["the condition"]
        advice = "eps must work on a copy of its arguments"
        return failed(f"{' and '.join(names)} changed in place", advice)
    if any(call.changed_arguments for call in calls):
        measured = "the network changes its input; it gets a copy here"
        return warned(measured, "harmless in scoresde, but wrong results elsewhere")
    return passed("x, t and y are as before")


def memory(probe: Probe) -> Finding:
    """The result of an evaluation keeps its values when the model is evaluated again."""
    x = probe.points(N)
    bound = probe.bound(N)
    with evaluating(bound), watched(bound) as (model, calls):
        first = model.eps(x, MIDDLE)
        held = [first, *(out for call in calls for out in call.outputs)]
        kept = [out.clone() for out in held]
        model.eps(-x, 0.9)
    same = [torch.equal(a, b) for a, b in zip(held, kept, strict=True)]
    if not same[0]:
        advice = "eps must return new memory; multistep samplers keep earlier results"
        return failed("the second evaluation overwrote the result of the first", advice)
    if not all(same):
        measured = "the network returns the same buffer again; it is copied here"
        return warned(measured, "harmless in scoresde, but wrong results elsewhere")
    return passed("a second evaluation leaves the first result as it is")


def deterministic(probe: Probe) -> Finding:
    """Two evaluations of the same point agree."""
    x = probe.points(N)
    gap = distance(probe.eps(x), probe.eps(x))
    advice = "switch off what is random, such as F.dropout with training=True"
    if 0 < gap <= probe.tolerance:
        advice = "results repeat only to rounding; torch.use_deterministic_algorithms may help"
        return warned(f"relative difference {gap:.1e}", advice, gap)
    return judged("relative difference", gap, 0.0, advice)


def batch_mates(probe: Probe) -> Finding:
    """Sample i does not depend on the other samples, on their number, or on its place."""
    model, dtype = probe.sharp
    x = probe.points(N, dtype=dtype)
    want = probe.eps(x, model=model)
    others = torch.cat([x[:1], 3 * x[1:]])
    back = list(reversed(range(N)))
    try:
        alone = probe.eps(x[1:2], rows=[1], model=model)
    except Exception as error:  # code of the user
        return failed(f"a single sample: {reason_of(error)}", MIXES)
    gap = max(
        distance(alone, want[1:2]),
        distance(probe.eps(x[back], rows=back, model=model), want[back]),
        distance(probe.eps(others, model=model)[:1], want[:1]),
    )
    return judged("other mates: relative difference", gap, probe.sharp_tolerance, MIXES)


def modes(probe: Probe) -> Finding:
    """Evaluation mode set by samplers is that of `model.eval()`, whatever the mode before."""
    x, model = probe.points(N), probe.spare
    before = [(module, module.training) for module in reachable_modules(model)]
    try:
        model.train()
        trained = probe.eps(x, model=model)
        model.eval()
        evaluated = probe.eps(x, model=model)
        model.train()
        again = probe.eps(x, model=model)
    finally:
        model.train(before[0][1])
        for module, training in before:
            module.training = training
    gap = max(distance(trained, evaluated), distance(again, evaluated))
    advice = (
        "call model.eval() before sampling: the network's own train() does more than to set "
        "`training`, or a network is used that cannot be found"
    )
    return judged("relative difference", gap, probe.tolerance, advice)


def global_random_numbers(probe: Probe) -> Finding:
    """An evaluation neither uses nor seeds global random generators."""
    before = _random_states(probe)
    probe.eps(probe.points(N))
    after = _random_states(probe)
    used = [name for name, state in before.items() if state != after[name]]
    if used:
        advice = "the network draws or seeds random numbers: results differ from run to run"
        return failed(f"the generator of {', '.join(used)} was used", advice)
    return passed("not used")


def _random_states(probe: Probe) -> dict[str, object]:
    numpy = np.random.get_state(legacy=False)["state"].values()
    states = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": [np.asarray(value).tobytes() for value in numpy],
        "random": random.getstate(),
    }
    if probe.device.type == "cuda":
        states["torch.cuda"] = torch.cuda.get_rng_state(probe.device).numpy().tobytes()
    return states


FIRST_LAWS: Mapping[str, Callable[[Probe], Finding | None]] = {
    "output": output,
    "global random numbers": global_random_numbers,
    "same answer twice": deterministic,
}
CALL_LAWS: Mapping[str, Callable[[Probe], Finding | None]] = {
    "evaluations counted": counted,
    "arguments unchanged": arguments,
    "memory of its own": memory,
    "no batch mates": batch_mates,
    "train and eval mode": modes,
}
