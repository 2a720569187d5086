"""Options that several commands share: same name, same type, same meaning everywhere."""

from __future__ import annotations

from collections.abc import Callable

import click

from .names import GRIDS, SAMPLERS
from .types import Data, Device, GridName, Integer, Located, Named, OutFolder

__all__ = [
    "checkpoint_option",
    "compile_option",
    "data_option",
    "data_root_option",
    "device_option",
    "grid_option",
    "json_option",
    "out_option",
    "overwrite_option",
    "sampler_option",
    "seed_option",
    "steps_option",
]


def out_option(text: str, required: bool = True) -> Callable:
    """`--out`, a folder."""
    return click.option("--out", required=required, type=OutFolder(), help=text)


device_option = click.option(
    "--device", type=Device(), default="cpu", show_default=True, help="cpu, cuda or cuda:N."
)
data_option = click.option(
    "--data", type=Data(), help="Data set or path; the data it was trained on if not given."
)
checkpoint_option = click.option(
    "--checkpoint",
    required=True,
    type=Located("checkpoints"),
    help="A checkpoint file, or a shipped one by name.",
)
seed_option = click.option(
    "--seed",
    type=Integer(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="Every random number comes from it.",
)
sampler_option = click.option(
    "--sampler",
    type=Named("sampler", SAMPLERS, "parse_sampler"),
    default="dpmpp-2m",
    show_default=True,
    help=f"With parameters ddim:eta=0.5 or dopri5:rtol=1e-4; {', '.join(SAMPLERS)}.",
)
grid_option = click.option(
    "--grid",
    type=GridName("grid", GRIDS, "parse_grid"),
    default="log_snr",
    show_default=True,
    help=f"Time grid, with parameters karras:rho=5, or a JSON file of times; {', '.join(GRIDS)}.",
)
steps_option = click.option(
    "--steps",
    type=Integer(1, 1_000_000, note=": a grid takes about 500 bytes per step"),
    help="Intervals of the time grid; 20 unless --nfe is given.",
)
compile_option = click.option(
    "--compile", "compiled", is_flag=True, help="torch.compile the network."
)
data_root_option = click.option(
    "--data-root",
    type=click.Path(exists=True, file_okay=False),
    help="Folder to look for the data set in first.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace results of other settings in the folder."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the results as JSON, for machines."
)
