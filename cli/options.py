"""Options that several commands share: same name, same type, same meaning everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = [
    "GRIDS",
    "SAMPLERS",
    "Commas",
    "Integer",
    "Real",
    "checkpoint_option",
    "compile_option",
    "data_root_option",
    "device_option",
    "grid_option",
    "json_option",
    "known",
    "out_option",
    "overwrite_option",
    "sampler_option",
    "seed_option",
    "steps_option",
]


# What `scoresde.registry` knows, for help texts that must not import torch; a test compares them.
SAMPLERS = (
    *("ddim", "dpm-2", "dpm-3", "dpmpp-2s", "dpmpp-3s", "dpmpp-2m", "dpmpp-3m", "dpmpp-3m-copied"),
    *("unipc", "deis", "deis-rho", "exp-ab", "ipndm", "angular"),
    *("heun", "euler", "midpoint", "heun2", "heun3", "rk4"),
    *("dopri5", "dopri8", "dop853", "bosh3", "fehlberg2", "adaptive-heun"),
    *("ancestral", "euler-maruyama", "reverse-diffusion", "edm", "sde-dpmpp-2m", "sde-dpmpp-3m"),
    *("sa-solver", "restart", "gotta-go-fast", "pc", "annealed-langevin"),
)
GRIDS = ("uniform", "quadratic", "cosine", "log_snr", "karras", "arctan", "logit")


class Integer(click.IntRange):
    """An integer in a range; an error names value and range whatever is wrong.

    `note` is what the error adds if the value is too large: why.
    """

    def __init__(self, min: int | None = None, max: int | None = None, note: str = "") -> None:
        super().__init__(min, max)
        self.note = note

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The integer, or `click.BadParameter`."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not {_allowed(self, 'an integer')}", param, ctx)
        too_large = self.max is not None and number > self.max
        if too_large or (self.min is not None and number < self.min):
            note = self.note if too_large else ""
            self.fail(f"{value} is not {_allowed(self, 'an integer')}{note}", param, ctx)
        return number


class Real(click.FloatRange):
    """A number in a range; unlike click's, it refuses NaN."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or `click.BadParameter`."""
        try:
            number = float(value)
            if not math.isnan(number):
                return super().convert(number, param, ctx)
        except (ValueError, click.BadParameter):
            pass
        self.fail(f"{value} is not {_allowed(self, 'a number')}", param, ctx)


class Commas(click.ParamType):
    """Values of one type, separated by commas."""

    name = "a,b,..."

    def __init__(self, item: click.ParamType) -> None:
        self.item = item

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """The values, or `click.BadParameter`."""
        texts = [text.strip() for text in value.split(",")]
        if not all(texts):
            self.fail(f"{value!r} has an empty entry; write a,b,c", param, ctx)
        return tuple(self.item.convert(text, param, ctx) for text in texts)


def _allowed(kind: click.IntRange | click.FloatRange, noun: str) -> str:
    """The range in words: `a number above 0 and below 1`."""
    low = "above" if kind.min_open else "at least"
    high = "below" if kind.max_open else "at most"
    ends = [(low, kind.min), (high, kind.max)]
    return noun + " " + " and ".join(f"{word} {end}" for word, end in ends if end is not None)


def out_option(text: str) -> Callable:
    """`--out`, a folder."""
    return click.option(
        "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help=text
    )


def _device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    import torch

    try:
        device = torch.device(value)
    except RuntimeError as error:
        raise click.BadParameter(f"{value!r} is not a device; cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise click.BadParameter(
            f"{value!r} is not here: {torch.cuda.device_count()} CUDA devices; use cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise click.BadParameter(f"{value!r} is not supported; cpu, cuda or cuda:N")
    return value


device_option = click.option(
    "--device", default="cpu", show_default=True, callback=_device, help="cpu, cuda or cuda:N."
)


def known(parse: str) -> Callable[[click.Context, click.Parameter, str], str]:
    """A callback that refuses text which a parser of `scoresde.registry` refuses."""

    def check(ctx: click.Context, param: click.Parameter, value: str) -> str:
        from scoresde import registry
        from scoresde.plain import ConfigError

        try:
            getattr(registry, parse)(value)
        except ConfigError as error:
            raise click.BadParameter(str(error)) from error
        return value

    return check


checkpoint_option = click.option(
    "--checkpoint", required=True, help="A checkpoint file, or a shipped one by name."
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
    default="dpmpp-2m",
    show_default=True,
    callback=known("parse_sampler"),
    help=f"With parameters ddim:eta=0.5 or dopri5:rtol=1e-4; {', '.join(SAMPLERS)}.",
)
grid_option = click.option(
    "--grid",
    default="log_snr",
    show_default=True,
    callback=known("parse_grid"),
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
    "--data-root", type=click.Path(), help="Folder to look for the data set in first."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace results of other settings in the folder."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the results as JSON, for machines."
)
