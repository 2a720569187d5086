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
from ..output.parts import Part, load_part, save_part
from ..output.progress import OnProgress
from ..samplers import ProbabilityFlowODE, Samples
from ..samplers.base import OnStep
from ..score import ScoreModel
from .checked import estimates_to_json
from .draw import DrawSettings, draw

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
        settings: How the samples are drawn.
        made_from: Fingerprint of the model and of all settings that its samples depend on.
    """

    tolerance: float
    settings: DrawSettings
    made_from: str = ""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that the solution depends on."""
        return fingerprint([self.made_from, METHOD, self.tolerance, CHECKED])

    def solve(self, model: ScoreModel, folder: Path, on_progress: OnProgress) -> Part:
        """Solve the ODE, and write the solution and what is known of its error.

        The first samples are solved again at ten times the tolerance. The difference is about the
        error of the looser solution, and so bounds the error of the other.

        Args:
            model: Score model.
            folder: Where the solution is written.
            on_progress: Told of every step, in per cent.

        Returns:
            The solution as array "x", of shape (n, *D), float32, and plain data on its error.
        """
        chunks, begun = math.ceil(self.settings.n / self.settings.batch), 0

        def on_step(step: int, t: float, x: Tensor) -> None:
            nonlocal begun
            begun += step == 1
            on_progress(int(100 * (begun - t) / chunks), 100, f"t = {t:.3f}")

        began = time.perf_counter()
        exact = self._sample(model, self.tolerance, on_step=on_step)
        seconds = time.perf_counter() - began
        few = min(self.settings.n, CHECKED)
        loose = self._sample(model, 10 * self.tolerance, few)
        about = {
            "method": METHOD,
            "tolerance": self.tolerance,
            "nfe": exact.nfe,
            "seconds": seconds,
            **estimates_to_json({"error": paired_rmse(loose.x, exact.x[:few])}),
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
        tolerance: float,
        n: int | None = None,
        on_step: OnStep | None = None,
    ) -> Samples:
        """The end points of the first n samples in float64; None = of all."""
        sampler = ProbabilityFlowODE(METHOD, tolerance, tolerance)
        ts = uniform(model.sde, 1, self.settings.t_min)
        return draw(self.settings, model, sampler, ts, n=n, dtype=torch.float64, on_step=on_step)
