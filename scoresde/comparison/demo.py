"""The demonstration: ten samplers on shipped checkpoints, in three minutes on two cores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .bench import STRIPS, Bench, prepare_bench
from .request import BenchRequest

__all__ = ["prepare_demo"]

SAMPLERS = (
    "ddim",
    "dpmpp-2m",
    "heun",
    "edm",
    "ancestral",
    "euler-maruyama",
    "reverse-diffusion",
    "pc",
    "annealed-langevin:steps=1:step_size=1.5",
    "dopri5",
)
BUDGETS = (5, 10, 20, 50)
N = 128  # samples per cell, and test digits whose likelihood is measured
DIGITS = "digits-vp"
FASHION = "fashion-mnist-vp"
STRIP_SAMPLERS = ("ddim", "dpmpp-2m", "ancestral")


def prepare_demo(
    folder: Path,
    digits: str | Path | None = None,
    fashion: str | Path | None = None,
    overwrite: bool = False,
) -> Bench:
    """Plan a comparison of ten samplers on the digits, and a strip of samples of Fashion-MNIST.

    The likelihood of test digits is measured as well.

    Args:
        folder: Folder for the results.
        digits: Checkpoint of the digits; None for the shipped one.
        fashion: Checkpoint of Fashion-MNIST, whose data are not needed; None for the shipped one.
        overwrite: Replace results of other settings in the folder.

    Raises:
        CheckpointError: If a checkpoint cannot be read.
        ValueError: If the folder holds results of other settings.
    """
    options = {"overwrite": overwrite, "command": "demo"}
    strip = prepare_bench(
        BenchRequest(
            checkpoint=fashion or FASHION,
            samplers=STRIP_SAMPLERS,
            nfe=(20,),
            n=16,
            reference_tolerance=None,
            quality=False,
        ),
        folder / STRIPS / "fashion-mnist",
        **options,
    )
    bench = prepare_bench(
        BenchRequest(
            checkpoint=digits or DIGITS,
            samplers=SAMPLERS,
            nfe=BUDGETS,
            n=N,
            reference_tolerance=1e-5,
            likelihood=N,
        ),
        folder,
        **options,
    )
    return replace(bench, strips=(strip,))
