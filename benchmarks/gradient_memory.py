"""The memory and the time of gradients through samples and log-likelihoods.

    python benchmarks/gradient_memory.py --steps 5 --steps 10 --steps 20 --repeats 2

Each row is one gradient of a mean with respect to all weights and to x. It is computed twice: as
`grad=True` does it, which computes each evaluation again in the backward pass, and as autograd
alone does it, which keeps the activations of all evaluations. The memory is the largest sum, at any
time of forward and backward pass, of the bytes that autograd keeps for backward passes, each memory
counted once and the weights not counted. It is counted when a tensor is saved and when the graph
that needs it is freed, so that it is the same in every run. The time is the least of several runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from unittest import mock

import click
import torch
from script import least_seconds, print_header
from torch import Tensor, nn

from scoresde.grid import log_snr
from scoresde.likelihood import Path, log_likelihood
from scoresde.nets import MLP, UNet
from scoresde.samplers import DPMSolverMultistep, sample
from scoresde.score import NetworkScore, ScoreModel
from scoresde.sde import VP

MIB = 2**20
# Where the model of a call is made one whose evaluations are computed again.
PLACES = ("scoresde.samplers.differentiated", "scoresde.likelihood.methods")


class Keeping:
    """Counts the bytes that autograd keeps, each memory once, and their largest sum."""

    def __init__(self, net: nn.Module) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
        self.uses: Counter[int] = Counter()
        self.now = self.most = 0

    def add(self, tensor: Tensor) -> None:
        """One more use of the tensor's memory."""
        place = tensor.untyped_storage().data_ptr()
        if place not in self.weights:
            self.uses[place] += 1
            self.now += tensor.untyped_storage().nbytes() if self.uses[place] == 1 else 0
            self.most = max(self.most, self.now)

    def drop(self, tensor: Tensor) -> None:
        """One use less."""
        place = tensor.untyped_storage().data_ptr()
        if place not in self.weights:
            self.uses[place] -= 1
            self.now -= tensor.untyped_storage().nbytes() if self.uses[place] == 0 else 0


class Kept:
    """One saved tensor; it lives as long as the graph that needs it."""

    def __init__(self, tensor: Tensor, keeping: Keeping) -> None:
        # Attached, a saved result would hold the node that holds it.
        self.tensor, self.keeping = tensor.detach(), keeping
        keeping.add(tensor)

    def __del__(self) -> None:
        self.keeping.drop(self.tensor)


@dataclass(frozen=True)
class Case:
    """A network and what is differentiated: maps (model, x, N) to a number."""

    name: str
    net: nn.Module
    x: Tensor
    value: Callable[[ScoreModel, Tensor, int], Tensor]


def samples(model: ScoreModel, x: Tensor, n: int) -> Tensor:
    """The mean square of samples after n steps."""
    ts = log_snr(model.sde, n)
    out = sample(model, DPMSolverMultistep(2), ts, x_init=x, seed=0, grad=True)
    return out.x.square().mean()


def log_probs(model: ScoreModel, x: Tensor, n: int) -> Tensor:
    """The mean log p with n nodes of two probes and n steps."""
    found = log_likelihood(model, x, Path(n, n, trace="hutchinson:probes=2"), seed=0, grad=True)
    return found.log_prob.mean()


def cases() -> list[Case]:
    """The rows of the table."""
    torch.manual_seed(0)
    unet = UNet((1, 16, 16), channels=32, multipliers=(1, 2), blocks=1, attention=(8,))
    mlp = MLP((16,), width=256, depth=3)
    images, vectors = torch.randn(4, 1, 16, 16), torch.randn(256, 16)
    return [
        Case("samples, U-Net", unet, images, samples),
        Case("samples, MLP", mlp, vectors, samples),
        Case("log p, U-Net", unet, images, log_probs),
        Case("log p, MLP", mlp, vectors, log_probs),
    ]


def gradient(case: Case, n: int, plain: bool) -> None:
    """The gradient, by autograd alone if `plain`."""
    model = NetworkScore(case.net, VP())
    x = case.x.clone().requires_grad_()

    def unchanged(model: ScoreModel, *rest: object) -> ScoreModel:
        return model

    patches = [
        mock.patch(f"{place}.with_gradients", unchanged) if plain else nullcontext()
        for place in PLACES
    ]
    with patches[0], patches[1]:
        torch.autograd.grad(case.value(model, x, n), [x, *case.net.parameters()])


def largest(case: Case, n: int, plain: bool) -> float:
    """Largest memory of one gradient in MiB."""
    keeping = Keeping(case.net)
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: Kept(tensor, keeping), lambda kept: kept.tensor
    )
    with hooks:
        gradient(case, n, plain)
    return keeping.most / MIB


@click.command(help=__doc__.partition("\n")[0])
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    multiple=True,
    default=(5, 10, 20),
    show_default=True,
    help="N of the rows.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=2, show_default=True)
def main(steps: tuple[int, ...], repeats: int) -> None:
    """Print the table."""
    print_header()
    print()
    print("| gradient of | N | MiB, all kept | MiB, computed again | seconds | computed again |")
    print("|---|---|---|---|---|---|")
    for case in cases():
        for n in steps:
            kept, again = (largest(case, n, plain) for plain in (True, False))
            seconds = least_seconds(
                [lambda p=p: gradient(case, n, p) for p in (True, False)],  # noqa: B023
                repeats,
            )
            print(
                f"| {case.name} | {n} | {kept:.1f} | {again:.1f} | {seconds[0]:.2f} | "
                f"{seconds[1]:.2f} ({seconds[1] / seconds[0]:.2f}×) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
