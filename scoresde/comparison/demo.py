"""The demonstration: ten samplers on shipped checkpoints, in three minutes on two cores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .case import STRIPS, Case, prepare_case
from .request import BenchRequest

__all__ = ["prepare_demo"]

DIGITS = BenchRequest(
    checkpoint="digits-vp",
    samplers=(
        *("ddim", "dpmpp-2m", "heun", "edm", "ancestral", "euler-maruyama", "reverse-diffusion"),
        *("pc", "annealed-langevin:steps=1:step_size=1.5", "dopri5"),
    ),
    nfe=(5, 10, 20, 50),
    n=128,
    reference_tolerance=1e-5,
    likelihood=128,
)
FASHION = BenchRequest(  # its data are not needed
    checkpoint="fashion-mnist-vp",
    samplers=("ddim", "dpmpp-2m", "ancestral"),
    nfe=(20,),
    n=16,
    reference_tolerance=None,
    quality=False,
)


def prepare_demo(folder: Path, overwrite: bool = False) -> Case:
    """Plan a comparison of ten samplers on the digits, and samples of Fashion-MNIST.

    The recommended settings are compared as well, and the likelihood of test digits is measured.

    Args:
        folder: Folder for the results.
        overwrite: Replace results of other settings in the folder.

    Raises:
        CheckpointError: If a checkpoint cannot be read.
        ValueError: If the folder holds results of other settings.
    """
    options = {"overwrite": overwrite, "command": "demo"}
    strip = prepare_case(FASHION, folder / STRIPS / "fashion-mnist", **options)
    return replace(prepare_case(DIGITS, folder, **options), strips=(strip,))
