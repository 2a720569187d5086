"""Laws of the time: times per sample, the two ends, and the meaning of the network's output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...evaluation import evaluating
from ...grid import log_snr, snapped
from ...samplers import DPMSolverMultistep, sample
from ..findings import Finding, failed, info, judged, passed, warned
from ..probe import MIDDLE, Probe, distance

__all__ = ["TIME_LAWS"]

N = 4
# At which the slope in t is measured; the labels of common ladders jump elsewhere.
TIMES = (0.3137263, 0.5127319, 0.7171943)
NEAR = {torch.float64: 1e-6, torch.float32: 1e-4}  # half of the distance of two near times
FAR = 0.03
JUMP = 0.2  # largest relative difference of the slopes of a smooth function

AT_NOISE = 0.3  # largest |ε̂ − x/σ| at t = 1
RATIOS = (0.05, 0.3, 1.0, 3.0)  # σ/α at which the error of ε̂ is measured
NUMBERS = 1024  # least size of the samples for it
STEPS = 12  # of the sampler that draws them

MEANING = "check target, label, its scale and offset, scale_input, SDE; or the network is untrained"


def times_per_sample(probe: Probe) -> Finding:
    """One time for the batch, the same time for each sample, and mixed times agree."""
    model, dtype = probe.sharp
    x = probe.points(N, dtype=dtype)
    ts = torch.tensor([MIDDLE, 0.3, 0.7, MIDDLE], dtype=torch.float64, device=probe.device)
    want = probe.eps(x, model=model)
    mixed = probe.eps(x, ts, model=model)
    gap = max(
        distance(probe.eps(x, torch.full_like(ts, MIDDLE), model=model), want),
        distance(mixed[0], want[0]),
        distance(mixed[1:2], probe.eps(x[1:2], 0.3, rows=[1], model=model)),
    )
    advice = "eps must accept t of shape () and (B,); samplers with own steps per sample use (B,)"
    return judged("relative difference", gap, probe.sharp_tolerance, advice)


def agreement(probe: Probe) -> Finding:
    """ε, x0, v and the score are the same function: x = α x0 + σ ε."""
    (model, dtype), y = probe.sharp, probe.condition(range(N))
    x, node = probe.points(N, dtype=dtype), model.sde.nodes([MIDDLE])[0]
    model = model.labelled(y, N, probe.device)
    with evaluating(model):
        eps, x0, v = (method(x, MIDDLE) for method in (model.eps, model.x0, model.v))
        score = model.score(x, MIDDLE)
    # relative to the terms, not to v, which may be 0
    size = float((node.alpha * eps).norm() + (node.sigma * x0).norm())
    gap = max(
        distance(node.alpha * x0 + node.sigma * eps, x),
        float((node.alpha * eps - node.sigma * x0 - v).norm()) / max(size, 1e-30),
        distance(-node.sigma * score, eps),
    )
    advice = "the model's own x0, v or score does not belong to its eps"
    limit = 10 * probe.sharp_tolerance
    return judged("relative difference", gap, limit, advice)


def ends(probe: Probe) -> Finding:
    """ε, x0 and v are finite at the first time and at t = 1."""
    parts = []
    for t in (probe.first_time, probe.model.t_most):
        model, x = probe.bound(N), probe.points(N, t)
        with evaluating(model):
            values = {name: getattr(model, name)(x, t) for name in ("eps", "x0", "v", "score")}
        for name, value in values.items():
            if not bool(torch.isfinite(value).all()):
                advice = "the network must be finite there, or the grid must end earlier"
                return failed(f"{name} is not finite at t = {t:g}", advice)
        parts.append(f"{float(values['eps'].abs().max()):.2g} at t = {t:g}")
    return passed(f"largest |ε| {', '.join(parts)}")


def smooth(probe: Probe) -> Finding:
    """ε(x, t) does not jump in t: between the labels of a rounded time it would be wrong.

    The slope in t from two near times is compared with the slope from two far times. They agree
    for a smooth function. A function with jumps is flatter between them. One that is smooth and
    changes fast is steeper over the near times.
    """
    if probe.model.snapped:
        return info("not tested: the model says that its labels are rounded")
    near, far = _slopes(probe)
    size = max(float(near.norm()), float(far.norm()), 1e-30)
    gap = float((near - far).norm()) / size
    measured = f"slopes in t over near and far times differ by {gap:.0%}; usual at most {JUMP:.0%}"
    if gap <= JUMP or float(near.norm()) >= float(far.norm()):
        return passed(measured, gap)
    advice = (
        "the network rounds its time: use label 'rounded_index' and a TabulatedVP, or 'index' if "
        "it accepts times between its labels; likelihoods and adaptive samplers are wrong as it is"
    )
    return warned(measured, advice, gap)


def _slopes(probe: Probe) -> tuple[Tensor, Tensor]:
    """(ε(x, t + h) − ε(x, t − h))/2h for a small h and a large h, at several times t."""
    model, dtype = probe.sharp
    steps = torch.tensor([NEAR[dtype], FAR], dtype=torch.float64, device=probe.device)
    steps = torch.cat([steps, -steps])
    ts = torch.tensor(TIMES, dtype=torch.float64, device=probe.device)[:, None] + steps
    x = probe.points(1, dtype=dtype)
    values = [
        probe.eps(x.expand(len(part), *probe.shape), part, rows=[0] * len(part), model=model)
        for part in ts.flatten().split(probe.batch(ts.numel()))
    ]
    eps = torch.cat(values).to(torch.float64).reshape(len(TIMES), 2, 2, -1)
    near, far = ((eps[:, 0] - eps[:, 1]) / (2 * steps[:2, None])).unbind(1)
    # a slope that is rounding alone is 0
    noise = 10 * torch.finfo(dtype).eps * float(eps.abs().max()) / (2 * NEAR[dtype])
    return torch.where(near.abs() > noise, near, 0.0), torch.where(far.abs() > noise, far, 0.0)


def noise_at_one(probe: Probe) -> Finding:
    """At t = 1, where x is noise, a trained network predicts x/σ."""
    t = probe.model.t_most
    sigma = probe.model.sde.nodes([t])[0].sigma
    x = probe.noise(16) * sigma
    gap = float((probe.eps(x, t) - x / sigma).square().mean().sqrt())
    measured = f"RMS of ε̂ − x/σ {gap:.2g}; usual at most {AT_NOISE}"
    if gap <= AT_NOISE:
        return passed(measured, gap)
    return warned(measured, MEANING, gap)


def own_samples(probe: Probe) -> Finding:
    """On samples of the model, ε̂ is a better estimate of the added noise than 0.

    For the best estimate E|ε̂ − ε|² = E|ε|² − E|ε̂|² at each noise level. A wrong target, label or
    input scale breaks this.
    """
    x0 = _samples(probe)
    worst = (-1.0, 0.0, 0.0)
    for number, ratio in enumerate(RATIOS, start=1):
        t = float(probe.model.sde.t_of_lam(-math.log(ratio)))
        if not probe.first_time <= t <= probe.model.sde.t_regular:
            continue
        node = probe.model.sde.nodes([t])[0]
        eps = probe.noise(len(x0), number)
        found = probe.eps(node.alpha * x0 + node.sigma * eps, t)
        error = float((found - eps).norm() / eps.norm())
        slack = 3 * float(found.norm() / eps.norm()) / math.sqrt(eps.numel())
        worst = max(worst, (error - 1 - slack, error, ratio))
    excess, error, ratio = worst
    measured = f"error of ε̂ up to {error:.2f} of that of 0, at σ/α = {ratio:g}; usual at most 1"
    return passed(measured, error) if excess <= 0 else warned(measured, MEANING, error)


def _samples(probe: Probe) -> Tensor:
    """Some samples of the model, denoised."""
    n = max(4, math.ceil(NUMBERS / math.prod(probe.shape)))
    model, sde = probe.model, probe.model.sde
    ts = log_snr(sde, STEPS, max(0.01, model.t_least))
    ts = snapped(sde, ts) if model.snapped else ts
    y = probe.condition(range(n))
    options = {"batch": probe.batch(n), "device": probe.device, "dtype": probe.dtype}
    options |= {"seed": probe.seed, "y": y, "denoise": True}
    return sample(model, DPMSolverMultistep(), ts, (n, *probe.shape), **options).x


TIME_LAWS: Mapping[str, Callable[[Probe], Finding | None]] = {
    "times per sample": times_per_sample,
    "eps, x0, v and score": agreement,
    "finite at both ends": ends,
    "smooth in time": smooth,
    "noise at t = 1": noise_at_one,
    "noise of own samples": own_samples,
}
