"""Whether a device computes what the CPU computes: every sampler and every likelihood method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from gpu_rows import Rows
from gpu_speed import Sizes
from torch import Tensor

import scoresde
from scoresde.data import DataSpec
from scoresde.grid import log_snr
from scoresde.likelihood import DDPMVLB, METHODS, ContinuousVLB, Dequantized, log_likelihood
from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.samplers import sample
from scoresde.score import NetworkScore

__all__ = ["agreement"]

CHECKPOINT = "digits-vp"
# The largest difference of a sample's value, and of log p in nats. Sums in another order differ by
# rounding, which the network and the steps of a solver enlarge.
ALLOWED = {torch.float64: 1e-8, torch.float32: 1e-2}
# Of adaptive samplers and of likelihood methods, so that they take few evaluations.
TOLERANCES = "rtol=1e-2:atol=1e-2"
OF_LIKELIHOODS = "rtol=1e-1:atol=1e-1"
# Samplers that take many evaluations by default.
SHORTENED = {
    "annealed-langevin": "annealed-langevin:steps=3",
    "gotta-go-fast": "gotta-go-fast:rtol=3e-1:atol=3e-1",
}
N = 2

Run = Callable[[NetworkScore], Tensor]


def agreement(rows: Rows, device: torch.device, sizes: Sizes) -> None:
    """A row for each sampler and method in both precisions: the largest difference from the CPU."""
    loaded = scoresde.load(CHECKPOINT)
    k = scoresde.load_dataset("digits", split="test").x[:N]
    for dtype, allowed in ALLOWED.items():
        model = copy.deepcopy(loaded.model).to(dtype)
        there = copy.deepcopy(model).to(device)
        for name, run in runs(model, loaded.data, k, dtype, sizes.steps):
            with rows.row("agreement", f"{name} {str(dtype)[6:]}") as row, without_tf32():
                row["difference"] = float((run(there).cpu() - run(model)).abs().max())
                if not row["difference"] <= allowed:
                    row["error"] = f"above {allowed:g}"


def runs(
    model: NetworkScore, spec: DataSpec, k: Tensor, dtype: torch.dtype, steps: int
) -> Iterator[tuple[str, Run]]:
    """What is compared, by name: functions of a model on any device.

    Args:
        model: The model, for its grid.
        spec: What the data are.
        k: Levels of data.
        dtype: Dtype of samples and data.
        steps: Steps of a sampler and of a variational bound.
    """
    ts, shape = log_snr(model.sde, steps), (N, *spec.shape)
    for name in SAMPLERS:
        sampler = parse_sampler(SHORTENED.get(name, name))
        if sampler.adaptive and name not in SHORTENED:
            sampler = parse_sampler(f"{name}:{TOLERANCES}")
        yield name, lambda model, sampler=sampler: sample(model, sampler, ts, shape, dtype=dtype).x
    methods = {
        name: Dequantized(spec, name if name == "path" else f"{name}:{OF_LIKELIHOODS}", dtype=dtype)
        for name in METHODS
    }
    methods["vlb-continuous"] = ContinuousVLB(spec, strata=steps, dtype=dtype)
    methods["vlb-ddpm"] = DDPMVLB(steps, spec, dtype=dtype)
    for name, method in methods.items():
        yield (
            f"likelihood {name}",
            lambda model, method=method: (
                log_likelihood(
                    model, k.to(next(model.parameters()).device), method, seed=0
                ).log_prob
            ),
        )


@contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions in float32 with all of its digits; by default a GPU may round to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
