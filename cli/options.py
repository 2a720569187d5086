"""Options that several commands share: one name has one type and one meaning everywhere."""

from __future__ import annotations

from collections.abc import Callable

import click

from .lookups import ClassPlace, Data, Device, GridName, GuidanceName, Located, Named, OutFolder
from .names import GRIDS, SAMPLERS
from .types import Integer, Real, Shard

__all__ = [
    "GRID",
    "GUIDANCE",
    "SAMPLER",
    "as_json",
    "batch",
    "checkpoint",
    "compiled",
    "data_root",
    "device",
    "dtype",
    "held_out",
    "late_device",
    "out",
    "overwrite",
    "results",
    "seed",
    "shard",
    "t_min",
    "tolerances",
]

SAMPLER = Named("sampler", SAMPLERS, "names.samplers.parse_sampler", own=True)
GRID = GridName("grid", GRIDS, "names.grids.parse_grid")
GUIDANCE = GuidanceName()
OPEN_UNIT = Real(0, 1, min_open=True, max_open=True)


def out(text: str, required: bool = True) -> Callable:
    """`--out`, a folder."""
    return click.option("--out", required=required, type=OutFolder(), help=text)


def checkpoint(required: bool = True, use: str = "") -> Callable:
    """`--checkpoint`, `--net` and `--sde`; `use` says what an optional checkpoint is for."""
    text = f"{use}A checkpoint file, or a shipped one by name."
    kind = Located("checkpoints")
    return _together(
        click.option("--checkpoint", required=required, type=kind, help=text),
        click.option(
            "--net",
            type=ClassPlace("network"),
            help="Class of the checkpoint's network if it is your own, package.module:Name, with "
            "parameters package.module:Name:key=value. This runs the code of that module.",
        ),
        click.option(
            "--sde", type=ClassPlace("SDE"), help="Class of its SDE if it is your own; as --net."
        ),
    )


def _device(kind: Device) -> Callable:
    """`--device`."""
    text = "cpu, cuda or cuda:N. auto is cuda if this machine has it, else cpu."
    return click.option("--device", type=kind, default="auto", help=text)


device = _device(Device())
late_device = _device(Device(at_once=False))
data = click.option(
    "--data", type=Data(), help="Data set or path; the data it was trained on if not given."
)
seed = click.option(
    "--seed", type=Integer(0, 2**64 - 1), default=0, help="Seed of all random numbers."
)
compiled = click.option("--compile", "compiled", is_flag=True, help="torch.compile the network.")
split = click.option(
    "--split",
    type=click.Choice(["train", "test", "held-out"]),
    help="held-out: the training data left out by train.validation. Default: test, or all of a "
    "file given by --data.",
)
levels = click.option("--levels", type=Integer(2), help="Number of levels of a file's data.")
data_root = click.option(
    "--data-root",
    type=click.Path(exists=True, file_okay=False),
    help="Folder that is searched first for the data set or a relative path.",
)
overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace results of other settings in the folder."
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the results as JSON, for machines."
)


def _together(*options: Callable) -> Callable:
    """One decorator that adds several options in this order."""

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


held_out = _together(data, split, data_root, levels)


shard = click.option(
    "--shard",
    type=Shard(),
    help="Make the i-th of n shares of the batches, on a machine of its own; see `scoresde merge`.",
)


def results(text: str) -> Callable:
    """`--out`, `--overwrite` and `--json`."""
    return _together(out(text), overwrite, as_json)


def batch(default: int, what: str) -> Callable:
    """`--batch`: number of samples or data computed at a time."""
    text = f"{what} at a time."
    return click.option("--batch", type=Integer(1), default=default, help=text)


def dtype(text: str, *names: str) -> Callable:
    """`--dtype`: float32, float64 and further names."""
    return click.option(
        "--dtype", type=click.Choice(["float32", "float64", *names]), default="float32", help=text
    )


def t_min(text: str) -> Callable:
    """`--t-min`, a time between data and noise."""
    return click.option("--t-min", type=OPEN_UNIT, help=text)


def tolerances(default: float, of: str = "") -> Callable:
    """`--rtol` and `--atol`."""
    common = {"type": OPEN_UNIT, "default": default}
    return _together(
        click.option("--rtol", help=f"Relative tolerance{of}.", **common),
        click.option("--atol", help=f"Absolute tolerance{of}.", **common),
    )
