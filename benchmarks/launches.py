"""What the host asks a GPU for, beside the network: operations of one step, and where it waits.

    python benchmarks/launches.py

No GPU is needed. The tensors are on torch's device `meta`, where they have shapes and no values,
and every operation on them is counted. A view or an empty tensor is none. A draw counts as one
kernel with its two operations that name the numbers. An operation of the foreach family counts as
one and may be several launches, and so may `count_nonzero`. The host needs about 5 µs for a launch.

The host *waits* where it reads a number of the device, and where a copy between host and device is
not asynchronous. Numbers are those of one more step. The checks of finiteness are computed at every
evaluation, and read once in 64 evaluations and at the end; this reading is not counted.

- Samplers: a step at the size of `gpu.py`, and the evaluations in it.
- Likelihood: a step of the default method's path; a node, with one evaluation and two derivative
  passes.
- Training: a step of the bare loop of `training.py` and one of the trainer with its average, for
  the same U-Net, which is counted too. The numbers of the record are copied asynchronously.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from gpu_speed import FULL, ON_LARGE
from script import print_header
from torch import Tensor, nn
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from training import SPEC, bare, images

from scoresde import _deferred
from scoresde._philox import device as philox
from scoresde.data import Dataset
from scoresde.ema import EMA
from scoresde.evaluation import count_nfe, own_context
from scoresde.grid import log_snr
from scoresde.likelihood import Path as PathMethod
from scoresde.likelihood import log_likelihood
from scoresde.loss import Objective
from scoresde.names.samplers import parse_sampler
from scoresde.nets import UNet
from scoresde.noise import SampleNoise
from scoresde.score import NetworkScore, Preconditioning
from scoresde.sde import VP
from scoresde.train import Training, TrainSettings, make_optimizer

__all__ = ["Count", "of_nodes", "of_path", "of_sampler", "of_training", "on_pretended_gpu"]

SAMPLERS = (*ON_LARGE, "annealed-langevin:steps=1")
STEPS = 12
DEVICE = "meta"
SHAPE = (256, 3, 32, 32)
_FREE = ("empty", "device", "detach", "alias", "lift_fresh", "_unsafe_view", "set_")


@dataclass(frozen=True)
class Count:
    """What one more step costs beside the network.

    Attributes:
        units: Evaluations in it.
        launches: Operations, by name.
        waits: Where the host waits, and how often.
    """

    units: float
    launches: dict[str, float]
    waits: dict[str, float]

    @property
    def total(self) -> float:
        """All operations."""
        return sum(self.launches.values())


class Counting(TorchDispatchMode):
    """The operations in a block that take time on the device.

    Attributes:
        launches: How often each operation was called.
        waits: Where the host waited: how often, for each line of the package or a script.
        paused: Whether operations are not counted at present.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.paused = False

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = (args, *kwargs.values())
        if not _on_device(inputs):
            return func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        arrives = name == "_to_copy" and kwargs.get("device") == torch.device("cpu")
        if name == "_local_scalar_dense":
            out = 0
        elif arrives:  # what is read on the host is 0
            out = torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        elif name.startswith("_fused"):
            out = None
        else:
            out = func(*args, **kwargs)
        if not self.paused:
            self._count(name, func.is_view, args, kwargs, out)
        return out

    def _count(self, name: str, view: bool, args: tuple, kwargs: dict, out: object) -> None:
        if not view and not name.startswith(_FREE):
            self.launches[name] += 1
        places = _devices((args, out))
        if _caller().startswith("record.py"):  # asynchronous on CUDA
            return
        copied = len(places) == 2 and name in ("copy_", "_to_copy")
        asynchronous = copied and (kwargs.get("non_blocking") or args[2:] == (True,))
        if (copied and not asynchronous) or name == "_local_scalar_dense":
            self.waits[_caller()] += 1

    @contextmanager
    def without(self) -> Iterator[None]:
        """A block whose operations are not counted."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before


def _on_device(values: Any) -> bool:
    """Whether nested values hold a tensor of the device, or the device."""
    if isinstance(values, (list, tuple)):
        return any(map(_on_device, values))
    place = values.device if isinstance(values, Tensor) else values
    return isinstance(place, torch.device) and place.type == DEVICE


def _devices(values: Any) -> set[str]:
    """Types of the devices of all tensors in nested values."""
    if isinstance(values, Tensor):
        # A number on the host is an argument of a launch.
        return {values.device.type} if values.ndim or values.device.type == DEVICE else set()
    if isinstance(values, (list, tuple)):
        return set().union(*map(_devices, values))
    return set()


def _caller() -> str:
    """The innermost line outside torch and outside this file."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and frame.filename != __file__:
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return "?"


class _Network(nn.Module):
    """A network whose forward and derivative passes are not counted."""

    def __init__(self, counts: Counting) -> None:
        super().__init__()
        self.counts = counts
        self.weight = nn.Parameter(torch.ones((), device=DEVICE))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """A tensor like x."""
        with self.counts.without():
            return x.clone()


@contextmanager
def on_pretended_gpu() -> Iterator[None]:
    """A block in which the device `meta` is treated as a GPU."""

    def kernel(kind: str, names: Tensor, purpose: int, n: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros((names.shape[1], n), dtype=dtype, device=names.device)

    made = torch.tensor

    def sent(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        """`torch.tensor`, which makes numbers on the host; to `meta` it copies none."""
        return made(data, device="cpu", **options).to(device or "cpu")

    optimizer = import_module("torch.optim.optimizer")  # torch.optim has no such attribute
    philox._constant.cache_clear()
    with ExitStack() as stack:
        for target, name, value in (
            (philox, "_MADE_ON", {DEVICE}),
            (philox, "maker", lambda device: kernel),
            (_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: [DEVICE]),
            (optimizer, "_get_fused_kernels_supported_devices", lambda: [DEVICE, "cuda"]),
            (torch, "tensor", sent),
            (Tensor, "new_tensor", lambda x, data: sent(data, dtype=x.dtype, device=x.device)),
            (torch, "autocast", lambda *arguments, **options: nullcontext()),
            (_deferred._Waiting, "read", lambda block: None),
        ):
            stack.enter_context(patch.object(target, name, value))
        yield
    philox._constant.cache_clear()


def of_sampler(name: str, shape: tuple[int, ...] = SHAPE, steps: int = STEPS) -> Count:
    """What a sampler costs, in a block `on_pretended_gpu`; units are evaluations."""
    sampler, x = parse_sampler(name), torch.empty(shape, device=DEVICE)

    def run(model: NetworkScore, n: int) -> int:
        with count_nfe(model) as nfe, _deferred.checked_at_end():
            sampler.run(model, x, log_snr(model.sde, n), SampleNoise(0, range(shape[0])))
        return nfe.forward

    return _one_more(run, steps)


def of_path(shape: tuple[int, ...] = SHAPE, steps: int = STEPS) -> Count:
    """What the path of the likelihood's default method costs; units are evaluations."""
    return _of_method(lambda n: PathMethod(steps=n, nodes=1), shape, steps)


def of_nodes(shape: tuple[int, ...] = SHAPE, steps: int = STEPS) -> Count:
    """What its nodes cost, of an evaluation and two derivative passes each."""
    return _of_method(lambda n: PathMethod(steps=2, nodes=n), shape, steps)


def _of_method(method: Callable[[int], PathMethod], shape: tuple[int, ...], steps: int) -> Count:
    x = torch.empty(shape, device=DEVICE)

    def run(model: NetworkScore, n: int) -> int:
        return log_likelihood(model, x, method(n), seed=0).nfe

    return _one_more(run, steps)


def _one_more(run: Callable[[NetworkScore, int], int], steps: int) -> Count:
    """What a run of 2 n steps costs more than one of n steps; the run returns the evaluations."""
    found = []
    for n in (1, steps, 2 * steps):  # the first one makes what is kept
        with Counting() as counted, own_context():
            model = NetworkScore(_Network(counted), VP(), Preconditioning())
            units = run(model, n)
        found.append((counted, units))
    (_, _), (few, less), (many, more) = found
    return Count(
        units=(more - less) / steps,
        launches={k: n / steps for k, n in (many.launches - few.launches).items()},
        waits={k: n / steps for k, n in (many.waits - few.waits).items()},
    )


def of_training(net: nn.Module, batch: int, own: bool) -> Count:
    """What a training step costs, the network included; units are 1.

    Args:
        net: The network, on the device.
        batch: Examples of a step.
        own: The loop of `Training` with its average, instead of the bare loop of `training.py`.
    """
    settings = TrainSettings(steps=10**6, batch=batch, warmup=0)
    if own:
        model, data = NetworkScore(net, VP()), Dataset("noise", images(), None, SPEC)
        loop = _trained(Training(model, data, Objective(), settings))
    else:
        loop = bare(net, settings, torch.device(DEVICE))
    with Counting() as counted:
        for _ in range(2):  # makes the optimizer's state
            next(loop)
        counted.launches, counted.waits = Counter(), Counter()
        next(loop)
    return Count(1.0, dict(counted.launches), dict(counted.waits))


def _trained(training: Training) -> Iterator[None]:
    """The steps of a training with one average, as in `scoresde train`."""
    average = EMA(training.model.net)
    for step in training.steps(make_optimizer(training.model.net)):
        average.update(training.model.net, step.left_out)
        yield


@click.command(help=__doc__.partition("\n")[0])
def main() -> None:
    """Print the table."""
    print_header()
    print(f"\n{'one step of':28s} {'operations':>10s} {'evaluations':>11s} {'waits':>6s}")
    with on_pretended_gpu():
        for name in SAMPLERS:
            _print(name, of_sampler(name))
        _print("likelihood, path", of_path())
        _print("likelihood, node", of_nodes())
        net = UNet(SPEC.shape, *FULL.trained, 2, [16]).to(DEVICE)
        for name, own in (("training, bare loop", False), ("training, trainer", True)):
            _print(name, of_training(net, SHAPE[0], own))


def _print(name: str, count: Count) -> None:
    waits = sum(count.waits.values())
    print(f"{name:28s} {count.total:10.1f} {count.units:11.0f} {waits:6.0f}", flush=True)


if __name__ == "__main__":
    main()
