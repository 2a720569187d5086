"""Drawing the samples of a comparison: all cells and the reference start from the same noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import __version__
from .._condition import Condition, take_rows
from ..fingerprint import fingerprint
from ..noise import NOISE_VERSION
from ..output.progress import advise_on_memory
from ..samplers import Sampler, Samples, sample
from ..samplers.base import OnStep
from ..score import ScoreModel

__all__ = ["DrawSettings", "draw"]


@dataclass(frozen=True)
class DrawSettings:
    """The settings that all draws of a comparison share.

    Attributes:
        data_shape: Shape of one sample.
        n: Number of samples.
        seed: Seed of x_T and of all other noise.
        t_min: Last time of the grids that have none of their own.
        batch: Samples at a time.
        device: Device of the model.
        y: Condition of each sample, n rows, for a conditional model.
        compiled: Whether the network is compiled, see `Sweep.compile`.
    """

    data_shape: tuple[int, ...]
    n: int
    seed: int
    t_min: float
    batch: int
    device: str = "cpu"
    y: Condition | None = None
    compiled: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all samples, (n, *D)."""
        return (self.n, *self.data_shape)

    def fingerprint(self, model_sha256: str) -> str:
        """Fingerprint of everything that determines the samples of all cells of a model."""
        # Cells of networks that are not compiled were made before there was this setting, too.
        compiled = {"compiled": True} if self.compiled else {}
        return fingerprint(
            {
                "model": model_sha256,
                "noise": NOISE_VERSION,
                "scoresde": __version__,
                "shape": self.shape,
                "dtype": torch.float32,
                "denoise": True,
                **{k: getattr(self, k) for k in ("seed", "t_min", "batch", "device", "y")},
                **compiled,
            }
        )


def draw(
    settings: DrawSettings,
    model: ScoreModel,
    sampler: Sampler,
    ts: Tensor,
    *,
    n: int | None = None,
    denoise: bool = True,
    dtype: torch.dtype = torch.float32,
    on_step: OnStep | None = None,
) -> Samples:
    """Draw samples.

    Args:
        settings: The settings shared by all draws.
        model: Score model, on the device of the settings.
        sampler: The sampler.
        ts: Time grid, shape (N + 1,).
        n: Draw only the first n samples; None for all.
        denoise: Finish with E[x_0 | x] at ts[-1].
        dtype: Dtype of the state.
        on_step: Called after every step, as by `sample`.

    Raises:
        RuntimeError: If memory runs out (the message names a smaller batch), or as for `sample`.
    """
    n = settings.n if n is None else n
    with advise_on_memory(min(settings.batch, n), settings.data_shape, "--batch"):
        return sample(
            model,
            sampler,
            ts,
            (n, *settings.data_shape),
            seed=settings.seed,
            y=None if settings.y is None else take_rows(settings.y, slice(n)),
            batch=settings.batch,
            denoise=denoise,
            device=settings.device,
            dtype=dtype,
            on_step=on_step,
        )
