"""The solution that samplers are measured against: an accurate probability-flow ODE from x_T."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..grid import uniform
from ..metrics import paired_rmse
from ..samplers import ProbabilityFlowODE, Samples, sample
from ..score import ScoreModel
from .outputs import save_arrays, write_json
from .records import estimate_to_json, load_array, read_json
from .running import OnProgress, advise_on_memory

__all__ = ["Reference"]

METHOD = "dopri8"
CHECKED = 16  # samples on which the reference's own error is measured


@dataclass(frozen=True)
class Reference:
    """dopri8 at rtol = atol = `tolerance` with a float64 state, then the final denoising.

    The network keeps its dtype: with the digits' float32 network at 1e-6 the end points agree
    with those of the network in float64 to 2e-7.

    Attributes:
        tolerance: rtol = atol.
        seed: Seed of x_T.
        t_min: Last time.
        batch: Samples at a time.
        device: Where the model is.
        y: Class labels, shape (n,), or None.
    """

    tolerance: float
    seed: int
    t_min: float
    batch: int
    device: str = "cpu"
    y: Tensor | None = None

    def solve(
        self, model: ScoreModel, shape: tuple[int, ...], folder: Path, on_progress: OnProgress
    ) -> Tensor:
        """The solution of shape (n, *D), float32, from `folder` if it is there already.

        Its error is bounded by solving the first samples again at ten times the tolerance: the
        difference is about the error of the looser solution.
        """
        arrays, about = folder / "reference.npz", folder / "reference.json"
        if not (arrays.exists() and about.exists()):
            began = time.perf_counter()
            exact = self._sample(model, shape, self.tolerance, on_progress)
            seconds = time.perf_counter() - began
            few = (min(shape[0], CHECKED), *shape[1:])
            loose = self._sample(model, few, 10 * self.tolerance)
            error = paired_rmse(loose.x, exact.x[: few[0]])
            save_arrays(arrays, x=exact.x.float().cpu().numpy())
            write_json(
                about,
                {
                    "method": METHOD,
                    "tolerance": self.tolerance,
                    "nfe": exact.nfe,
                    "seconds": seconds,
                    "error": estimate_to_json(error),
                    "error_tolerance": 10 * self.tolerance,
                },
            )
        on_progress(100, 100, "")
        return load_array(arrays, "x")

    @staticmethod
    def about(folder: Path) -> dict[str, Any] | None:
        """What `solve` found out about the solution in a folder; None without one."""
        path = folder / "reference.json"
        return read_json(path) if path.exists() else None

    def _sample(
        self,
        model: ScoreModel,
        shape: tuple[int, ...],
        tolerance: float,
        on_progress: OnProgress | None = None,
    ) -> Samples:
        chunks, begun = math.ceil(shape[0] / self.batch), 0

        def on_step(step: int, t: float, x: Tensor) -> None:
            nonlocal begun
            begun += step == 1
            if on_progress is not None:
                on_progress(int(100 * (begun - t) / chunks), 100, f"t = {t:.3f}")

        with advise_on_memory(min(self.batch, shape[0]), shape[1:], "--batch"):
            return sample(
                model,
                ProbabilityFlowODE(METHOD, tolerance, tolerance),
                uniform(model.sde, 1, self.t_min),
                shape,
                seed=self.seed,
                y=None if self.y is None else self.y[: shape[0]],
                batch=self.batch,
                denoise=True,
                device=self.device,
                dtype=torch.float64,
                on_step=on_step,
            )
