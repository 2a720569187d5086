"""The time of a training step beside a bare loop.

    python benchmarks/training.py
    python benchmarks/training.py --device cuda --channels 96 --batch 256 --autocast bfloat16

Both loops train the same U-Net on 8-bit images of 3×32×32, with fused Adam, the objective `simple`
on VP and one average of the weights. The bare loop holds nothing else: it draws its images, times
and noise with torch's own generator on the device, and it neither clips nor looks at the loss. Ours
is the loop of `scoresde train` with its log; dequantization, keyed noise, clipping, checks and the
seeds of dropout are part of it.

The loops take turns in one process. Each entry is the median over the turns, and the ratio is that
of the two times of a turn. On a CPU a time is what the process has computed, so that other programs
disturb it less. `checkpointed` is `train.checkpointing`, beside the same bare loop; two numbers say
what a forward pass in float32 keeps for the backward pass. `--compile` adds a row for compiled
networks.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import torch
from script import print_header
from torch import nn

from scoresde.data import Dataset, DataSpec
from scoresde.loss import Objective
from scoresde.nets import UNet
from scoresde.score import NetworkScore
from scoresde.sde import VP
from scoresde.tasks.train.files import Intervals
from scoresde.tasks.train.run import Run
from scoresde.train import Training, TrainSettings

SPEC = DataSpec((3, 32, 32), -1, 1, levels=256)
IMAGES = 4096


def images() -> torch.Tensor:
    """Random 8-bit images."""
    made = torch.Generator().manual_seed(0)
    return torch.randint(256, (IMAGES, *SPEC.shape), dtype=torch.uint8, generator=made)


def bare(net: nn.Module, settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """A loop with the network, Adam and the average, and nothing else."""
    x = (images().float() / 127.5 - 1).to(device)
    adam = torch.optim.Adam(net.parameters(), settings.learning_rate, fused=True)
    averages, sde = [p.detach().clone() for p in net.parameters()], VP()
    dtype = settings.autocast and getattr(torch, settings.autocast)
    while True:
        x0 = x[torch.randint(IMAGES, (settings.batch,), device=device)]
        t = torch.rand(settings.batch, device=device).clamp(min=1e-5)
        eps = torch.randn_like(x0)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        x_t = alpha[:, None, None, None] * x0 + sigma[:, None, None, None] * eps
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            predicted = net(x_t, (sigma / alpha).log())
        adam.zero_grad(set_to_none=True)
        (predicted.float() - eps).square().mean().backward()
        adam.step()
        torch._foreach_lerp_(averages, [p.detach() for p in net.parameters()], 1e-3)
        yield


def ours(net: nn.Module, settings: TrainSettings, folder: Path, compiled: bool) -> Iterator[object]:
    """The loop of `scoresde train`, without checkpoints and pictures in between."""
    model = NetworkScore(net, VP())
    data = Dataset("noise", images(), None, SPEC)
    rarely = Intervals(log_every=100, save_every=10**9, sample_every=10**9)
    run = Run(folder, Training(model, data, Objective(), settings), {"config": {}}, rarely)
    if compiled:
        run.warm_up()
    return run.steps()


def saved(net: nn.Module, batch: int, checkpointing: bool) -> int:
    """Bytes of the tensors that a forward pass keeps for the backward pass, without the weights."""
    net.train().checkpointing = checkpointing
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    found = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        memory = x.untyped_storage()
        if memory.data_ptr() not in weights:
            found[memory.data_ptr()] = memory.nbytes()
        return x

    device = next(net.parameters()).device
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = net(torch.zeros(batch, *SPEC.shape, device=device), torch.zeros(batch, device=device))
    del out
    net.checkpointing = False
    return sum(found.values())


def synchronized() -> float:
    """The time at which a GPU has done all work."""
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_per_step(
    loops: list[Iterator[object]], turns: int, steps: int, clock: Callable[[], float]
) -> list[list[float]]:
    """The mean time of a step in each turn of each loop; the loops take turns."""
    found: list[list[float]] = [[] for _ in loops]
    for turn in range(turns + 1):
        for loop, times in zip(loops, found, strict=True):
            began = clock()
            for _ in range(steps):
                next(loop)
            if turn:  # the first turn warms up
                times.append((clock() - began) / steps)
    return found


def row(name: str, batch: int, found: list[list[float]]) -> str:
    """A row of the table."""
    first, second = (statistics.median(times) for times in found)
    ratios = sorted(b / a for a, b in zip(*found, strict=True))
    quarter = len(ratios) // 4
    return (
        f"{name:10s} {1e3 * first:9.2f} {1e3 * second:9.2f} {statistics.median(ratios):6.3f} "
        f"{ratios[quarter]:6.3f} … {ratios[-1 - quarter]:.3f} {batch / second:9.1f}"
    )


@click.command(help=__doc__.partition("\n")[0])
@click.option("--device", default="cpu", show_default=True)
@click.option("--channels", type=click.IntRange(1), default=32, show_default=True)
@click.option("--batch", type=click.IntRange(1, IMAGES), default=8, show_default=True)
@click.option("--autocast", type=click.Choice(["bfloat16", "float16"]))
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="Per turn.")
@click.option("--turns", type=click.IntRange(1), default=20, show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Time compiled networks as well.")
def main(
    device: str,
    channels: int,
    batch: int,
    autocast: str | None,
    steps: int,
    turns: int,
    compiled: bool,
) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print_header()
    place = torch.device(device)
    clock = time.process_time
    if place.type == "cuda":
        clock = synchronized
        print(torch.cuda.get_device_name(place))
    settings = TrainSettings(
        steps=2 * (turns + 1) * steps, batch=batch, warmup=0, autocast=autocast
    )
    torch.manual_seed(0)
    net = UNet(SPEC.shape, channels, (1, 2, 2), 2, [16]).to(place)
    if place.type == "cuda":
        net = net.to(memory_format=torch.channels_last)
    weights = sum(p.numel() for p in net.parameters())
    print(f"{weights / 1e6:.2f} M weights, batch {batch}, autocast {autocast}, {turns} turns")
    sizes = [saved(net, batch, checkpointing) / 1e6 for checkpointing in (False, True)]
    print("saved for the backward pass: {:.1f} MB, {:.1f} MB checkpointed\n".format(*sizes))
    columns = f"{'network':10s} {'bare ms':>9s} {'ours ms':>9s} {'ratio':>6s}"
    print(f"{columns} {'quartiles':>15s} {'images/s':>9s}")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("eager", "checkpointed", "compiled")[: 2 + compiled]:
            nets = [copy.deepcopy(net) for _ in range(2)]
            settings = replace(settings, checkpointing=name == "checkpointed")
            if name == "compiled":
                for each in nets:
                    each.compile()
            own = ours(nets[1], settings, Path(folder) / name, name == "compiled")
            loops = [bare(nets[0], settings, place), own]
            print(row(name, batch, seconds_per_step(loops, turns, steps, clock)), flush=True)
            own.close()


if __name__ == "__main__":
    main()
