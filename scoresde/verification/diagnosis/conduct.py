"""What the doctor tests besides the conventions: single evaluations, the ends, and the weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..._condition import take_rows
from ..._tensor import NonFiniteError
from ...evaluation import evaluating
from ...score import FIRST_TIME, ScoreModel
from ..findings import Finding, failed, info, passed
from ..laws.calls import batch_mates, deterministic, modes
from ..probe import Probe
from .measure import Measured
from .points import Points
from .reading import Reading

__all__ = ["HIDDEN", "conduct"]

TIMES = 256  # at which the model must be finite
COMPARING = ("no batch mates", "train and eval mode")  # laws that compare two evaluations
LEAST_WEIGHTS = 256  # of a matrix that is judged
EDGE = 1.05
HIDDEN = "data hidden at t = 1"
VISIBLE = 0.3  # share of the signal in the noise at t = 1 above which samples are clearly biased


def conduct(model: ScoreModel, measured: Measured, reading: Reading) -> tuple[Finding, ...]:
    """The laws about finite values, repeated evaluations, batch mates, modes, ends and weights.

    Args:
        model: The model.
        measured: Its data, and the claim.
        reading: The last reading, whose process is judged.
    """
    points = measured.points
    probe = Probe(model, tuple(points.x.shape[1:]), points.x.device, points.seed, points.y)
    laws = {
        "finite at all times": lambda: _finite(model, measured),
        "same answer twice": lambda: deterministic(probe),
        "no batch mates": lambda: batch_mates(probe),
        "train and eval mode": lambda: modes(probe),
        HIDDEN: lambda: _hidden(measured, reading),
        "finite weights": lambda: _weights(model),
        "trained weights": lambda: _trained(model),
    }
    found = {}
    for name, law in laws.items():
        repeats = found.get("same answer twice")
        if name in COMPARING and repeats is not None and repeats.verdict == "fail":
            continue
        try:
            finding = law()
        except Exception as error:  # code of the user may raise anything
            finding = failed(f"the evaluation raised {type(error).__name__}", "")
        found[name] = replace(finding, law=name)
    return tuple(found.values())


def _finite(model: ScoreModel, measured: Measured) -> Finding:
    """ε is finite at many times, of which each sample of a batch has its own."""
    points, sde = measured.points, model.sde
    first = max(FIRST_TIME, measured.subject.claim.meaning.t_least(sde))
    times = torch.linspace(first, model.t_most, TIMES, dtype=torch.float64)
    bad = []
    with evaluating(model), torch.no_grad():
        for start in range(0, TIMES, points.batch):
            t = times[start : start + points.batch]
            bad += _not_finite(model, points, t)
    if not bad:
        return passed(f"ε is finite at {TIMES} times from {first:.3g} to {model.t_most:.3g}")
    where = f"from t = {min(bad):.3g} to {max(bad):.3g}"
    text = f"ε is NaN or infinite at {len(bad)} of {TIMES} times, {where}"
    return failed(text, "look for a log, root or division that fails at these labels")


def _not_finite(model: ScoreModel, points: Points, t: Tensor) -> list[float]:
    """Those of some times at which ε is not finite, or the model says so."""
    device, n = points.x.device, min(len(points.x), points.batch)
    rows = torch.arange(len(t)) % n
    bound = model if points.y is None else model.given(take_rows(points.y, rows))
    rows, t = rows.to(device), t.to(device)
    x = model.sde.perturb(points.x[rows], t, points.noise(slice(0, n), 0)[rows])
    try:
        return t[~bound.eps(x, t).flatten(1).isfinite().all(1)].tolist()
    except NonFiniteError:
        if len(t) == 1:
            return t.tolist()
    halves = t.cpu().chunk(2)
    return [time for half in halves for time in _not_finite(model, points, half)]


def _hidden(measured: Measured, reading: Reading) -> Finding:
    """The signal is small in the noise at t = 1, from which sampling starts."""
    last = reading.sde.nodes([1.0])[0]
    left = last.alpha * measured.points.std * abs(reading.data.scale) / last.sigma
    text = f"the signal at t = 1 is {left:.2g} of the noise (α std/σ)"
    if left <= VISIBLE:
        return passed(text)
    advice = "raise β_max or σ_max to that of the training, or check the number of levels"
    return failed(
        f"{text}: the schedule ends too early, and sampling from pure noise is wrong", advice
    )


def _weights(model: ScoreModel) -> Finding:
    """All weights are finite; and whether they were rounded."""
    tensors = {n: p.detach() for n, p in model.named_parameters() if p.is_floating_point()}
    bad = [name for name, p in tensors.items() if not bool(p.isfinite().all())]
    if bad:
        return failed(
            f"{len(bad)} tensors hold NaN or infinities, first {bad[0]}",
            "read the file again, or take an earlier one",
        )
    for dtype in (torch.bfloat16, torch.float16):
        wide = [p for p in tensors.values() if p.dtype != dtype]
        if wide and all(torch.equal(p.to(dtype).to(p.dtype), p) for p in wide):
            name = str(dtype).removeprefix("torch.")
            return info(f"all weights are numbers of {name}: they were rounded to it")
    return passed(f"{len(tensors)} tensors")


def _trained(model: ScoreModel) -> Finding:
    """No block has weights that look like independent random numbers, as of a new network."""
    drawn, tensors = {}, 0
    for name, p in model.named_parameters():
        if p.ndim < 2 or p.numel() < LEAST_WEIGHTS or not bool(p.isfinite().all()):
            continue
        tensors += 1
        if _is_drawn(p.detach().flatten(1).double().cpu()):
            drawn.setdefault(name.rsplit(".", 2)[0], []).append(name)
    blocks = [block for block, names in drawn.items() if len(names) > 1 and "." in block]
    if not blocks:
        return passed(f"none of {tensors} matrices looks newly drawn, of two or more in one block")
    advice = "compare the keys of the file with those of the network: some may not have been loaded"
    text = f"the weights of {blocks[0]} look like random numbers that were never trained"
    text += f", and those of {len(blocks) - 1} more blocks" if blocks[1:] else ""
    return failed(text, advice)


def _is_drawn(w: Tensor) -> bool:
    """Whether a matrix looks like independent uniform or normal numbers.

    The largest singular value of n × m independent numbers of standard deviation s tends to
    s (√n + √m), the edge of the Marchenko–Pastur law; training makes larger ones.
    """
    centred, spread = w - w.mean(), float(w.std())
    if spread == 0 or min(w.shape) < 8:
        return False
    fourth = float((centred / spread).pow(4).mean())
    if float(torch.linalg.matrix_norm(w, 2)) > EDGE * spread * sum(n**0.5 for n in w.shape):
        return False
    uniform = float(centred.abs().max()) < 1.02 * 3**0.5 * spread
    return uniform or abs(fourth - 3) < 5 * (24 / w.numel()) ** 0.5
