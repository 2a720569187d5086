"""The solution that samplers are measured against: an accurate probability-flow ODE from x_T."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..fingerprint import fingerprint
from ..grid import uniform
from ..metrics import paired_rmse
from ..samplers import ProbabilityFlowODE, Samples, sample
from ..score import ScoreModel
from .checked import estimates_to_json
from .parts import Part, load_part, save_part
from .running import OnProgress, advise_on_memory

__all__ = ["REFERENCE", "Reference"]

METHOD = "dopri8"
REFERENCE = "reference.npz"
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
        made_from: Fingerprint of the model and of all settings that its samples depend on.
    """

    tolerance: float
    seed: int
    t_min: float
    batch: int
    device: str = "cpu"
    y: Tensor | None = None
    made_from: str = ""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that the solution depends on."""
        return fingerprint([self.made_from, METHOD, self.tolerance, CHECKED])

    def solve(
        self, model: ScoreModel, shape: tuple[int, ...], folder: Path, on_progress: OnProgress
    ) -> Part:
        """The solution as array "x", of shape (n, *D), float32, and what is known of its error.

        Its error is bounded by solving the first samples again at ten times the tolerance: the
        difference is about the error of the looser solution.
        """
        began = time.perf_counter()
        exact = self._sample(model, shape, self.tolerance, on_progress)
        seconds = time.perf_counter() - began
        few = (min(shape[0], CHECKED), *shape[1:])
        loose = self._sample(model, few, 10 * self.tolerance)
        about = {
            "method": METHOD,
            "tolerance": self.tolerance,
            "nfe": exact.nfe,
            "seconds": seconds,
            **estimates_to_json({"error": paired_rmse(loose.x, exact.x[: few[0]])}),
            "error_tolerance": 10 * self.tolerance,
        }
        x = exact.x.float().cpu().numpy()
        return save_part(folder / REFERENCE, self.fingerprint, {"x": x}, about)

    def find(self, folders: Iterable[Path]) -> Part | None:
        """The solution from the first folder that has it; None if it must be solved."""
        found = (load_part(folder / REFERENCE, self.fingerprint) for folder in folders)
        return next((part for part in found if part is not None), None)

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
