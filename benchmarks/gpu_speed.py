"""Times on a device: a training step, sampling and likelihoods, each beside the bare network."""

from __future__ import annotations

import copy
import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_rows import Rows
from torch import Tensor, nn
from training import SPEC, bare, ours, seconds_per_step

import scoresde
from scoresde.grid import log_snr
from scoresde.likelihood import Path as PathMethod
from scoresde.likelihood import log_likelihood
from scoresde.names.samplers import parse_sampler
from scoresde.nets import UNet
from scoresde.samplers import sample
from scoresde.score import NetworkScore
from scoresde.sde import VP
from scoresde.tasks.compiling import compile_network
from scoresde.train import TrainSettings

__all__ = [
    "FULL",
    "SMALL",
    "Sizes",
    "likelihoods",
    "sampling_large",
    "sampling_small",
    "training_step",
]

ON_LARGE = ("ddim", "dpmpp-2m", "angular", "ancestral", "euler-maruyama", "sde-dpmpp-2m", "pc")
ON_SMALL = ("ddim", "dpmpp-2m", "ancestral", "dop853", "gotta-go-fast")
PEERS: dict[str, dict[str, Any]] = {
    "DDIM": {"clip_sample": False},
    "DPMSolverMultistep": {},
    "DDPM": {"clip_sample": False},
    "UniPCMultistep": {},
}
MODES = ("eager", "compiled")

Forward = Callable[..., Tensor]
Run = Callable[[int], int]


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        trained: Channels and multipliers of the U-Net that is trained.
        large: The same of the U-Net that samples and computes likelihoods.
        shipped: The small network, a shipped checkpoint.
        batches: Images of a training step, of the large network's samples, of the small one's, and
            of its likelihoods.
        method: The likelihood method.
        steps: Steps of a sampler.
        turns: Repetitions.
        training_steps: Steps of training in each turn.
    """

    trained: tuple[int, tuple[int, ...]]
    large: tuple[int, tuple[int, ...]]
    shipped: str
    batches: tuple[int, int, int, int]
    method: PathMethod
    steps: int
    turns: int
    training_steps: int


# 6.46 and 17.2 million weights.
FULL = Sizes(
    trained=(96, (1, 2, 2)),
    large=(128, (1, 2, 2, 2)),
    shipped="fashion-mnist-vp",
    batches=(256, 256, 64, 128),
    method=PathMethod(),
    steps=20,
    turns=3,
    training_steps=5,
)
SMALL = Sizes(
    trained=(8, (1, 2)),
    large=(8, (1, 2)),
    shipped="digits-vp",
    batches=(2, 2, 2, 2),
    method=PathMethod(steps=3, nodes=2),
    steps=3,
    turns=1,
    training_steps=1,
)


def unet(size: tuple[int, tuple[int, ...]], device: torch.device) -> UNet:
    """A U-Net of 3×32×32 with random weights, those of its last layer included."""
    torch.manual_seed(0)
    net = UNet(SPEC.shape, *size, 2, [16])
    nn.init.normal_(net.head.weight, std=1e-2)
    return on(net.eval(), device)


def on(net: nn.Module, device: torch.device) -> Any:
    """A network on the device, in the order of memory that `scoresde train` takes there."""
    net = net.to(device).requires_grad_(False)
    return net.to(memory_format=torch.channels_last) if device.type == "cuda" else net


def half(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast: bfloat16, but none on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else None


def now(device: torch.device) -> float:
    """The time at which the device has done all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def training_step(rows: Rows, device: torch.device, sizes: Sizes) -> None:
    """A step of `scoresde train` and one of a bare loop, eager and compiled."""
    batch, autocast = sizes.batches[0], None if half(device) is None else "bfloat16"
    settings = TrainSettings(steps=10**4, batch=batch, warmup=0, autocast=autocast)
    net = unet(sizes.trained, device).train().requires_grad_(True)
    for mode in MODES:
        with rows.row("training step", mode) as row, tempfile.TemporaryDirectory() as folder:
            nets = [copy.deepcopy(net) for _ in range(2)]
            if mode == "compiled":
                for each in nets:
                    each.compile()
            with closing(ours(nets[1], settings, Path(folder), mode == "compiled")) as own:
                loops = [bare(nets[0], settings, device), own]
                clock = partial(now, device)
                found = seconds_per_step(loops, sizes.turns, sizes.training_steps, clock)
            row["bare_ms"], row["ours_ms"] = (1e3 * statistics.median(times) for times in found)
            row["ratio"] = row["ours_ms"] / row["bare_ms"]
            row["images_per_second"] = 1e3 * batch / row["ours_ms"]


def sampling_large(rows: Rows, device: torch.device, sizes: Sizes) -> None:
    """`sampling` with a U-Net that has random weights."""
    model = NetworkScore(unet(sizes.large, device), VP(), autocast=half(device))
    shape = (sizes.batches[1], *SPEC.shape)
    sampling(rows, "sampling large", ON_LARGE, model, shape, sizes)


def sampling_small(rows: Rows, device: torch.device, sizes: Sizes) -> None:
    """`sampling` with a shipped checkpoint."""
    loaded = scoresde.load(sizes.shipped)
    model = on(loaded.model, device)
    model.autocast = half(device)
    shape = (sizes.batches[2], *loaded.data.shape)
    sampling(rows, "sampling small", ON_SMALL, model, shape, sizes)


def sampling(
    rows: Rows,
    table: str,
    samplers: Sequence[str],
    model: NetworkScore,
    shape: tuple[int, ...],
    sizes: Sizes,
) -> None:
    """Samplers, and loops of diffusers, over as many forward passes of the bare network."""
    forward = bare_forward(model, shape)
    peers = PEERS if importlib.util.find_spec("diffusers") else ()
    runs = {name: our_run(model, name, shape) for name in samplers}
    runs |= {f"diffusers {name}": their_run(name, forward) for name in peers}
    for mode in MODES:
        if mode == "compiled":
            with rows.row(table, "compilation") as row:
                began = time.perf_counter()
                compile_network(model, shape[0], shape[1:], torch.float32)
                row["seconds"] = time.perf_counter() - began
        for name, run in runs.items():
            with rows.row(table, f"{mode} {name}") as row:
                row |= beside_forward(run, forward, sizes)


def bare_forward(model: NetworkScore, shape: tuple[int, ...]) -> Forward:
    """The network alone, under autocast as in `NetworkScore`, with one stored label.

    It takes a stored input in place of None.
    """
    device = next(model.parameters()).device
    stored = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    label = torch.zeros(shape[0], device=device)
    dtype = model.autocast

    def forward(x: Tensor | None = None) -> Tensor:
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            return model.net(stored if x is None else x, label)

    return forward


def our_run(model: NetworkScore, name: str, shape: tuple[int, ...]) -> Run:
    """run(steps): draw samples, and return the evaluations per sample."""
    sampler = parse_sampler(name)
    return lambda steps: (
        sample(model, sampler, log_snr(model.sde, steps), shape, seed=0, denoise=False).nfe
    )


def their_run(name: str, forward: Forward) -> Run:
    """run(steps): the loop of a scheduler of diffusers, with the bare network as its ε."""
    import diffusers

    diffusers.logging.set_verbosity_error()
    scheduler = getattr(diffusers, f"{name}Scheduler")(
        beta_start=1e-4, beta_end=0.02, **PEERS[name]
    )

    @torch.no_grad()
    def run(steps: int) -> int:
        x = torch.randn_like(forward(), dtype=torch.float32)
        scheduler.set_timesteps(steps, device=x.device)
        for t in scheduler.timesteps:
            eps = forward(scheduler.scale_model_input(x, t))
            x = scheduler.step(eps, t, x).prev_sample
        return len(scheduler.timesteps)

    return run


def beside_forward(run: Run, forward: Forward, sizes: Sizes) -> dict[str, Any]:
    """The time of a run over that of its evaluations by the bare network; both take turns."""
    device = forward().device
    run(3)  # warms up
    seconds, ratios = [], []
    for _ in range(sizes.turns):
        began = now(device)
        evaluations = run(sizes.steps)
        ended = now(device)
        for _ in range(evaluations):
            forward()
        seconds.append(ended - began)
        ratios.append(seconds[-1] / (now(device) - ended))
    ratio = statistics.median(ratios)
    per_evaluation = 1e3 * statistics.median(seconds) / evaluations
    return {"nfe": evaluations, "ratio": ratio, "ms_per_evaluation": per_evaluation}


def likelihoods(rows: Rows, device: torch.device, sizes: Sizes) -> None:
    """Images per second of the default likelihood method on the large network."""
    model = NetworkScore(unet(sizes.large, device), VP(), autocast=half(device))
    n = sizes.batches[3]
    made = torch.Generator().manual_seed(0)
    x = (2 * torch.rand((n, *SPEC.shape), generator=made) - 1).to(device)
    for mode in MODES:
        with rows.row("likelihood", mode) as row, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            began = now(device)
            if mode == "compiled":
                compile_network(model, n, SPEC.shape, torch.float32, derivatives=True)
            log_likelihood(model, x, sizes.method, seed=0)
            row["first_seconds"] = now(device) - began  # the compilation is part of it
            began = now(device)
            found = log_likelihood(model, x, sizes.method, seed=0)
            row["images_per_second"] = n / (now(device) - began)
            row["nfe"], row["derivatives"] = found.nfe, found.nfe_derivative
            if model.eager_derivatives:
                row["warning"] = str(told[0].message)
