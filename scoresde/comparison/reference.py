"""The reference solution for samplers: the probability-flow ODE from x_T, solved accurately."""

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
from ..samplers.steps import count_evaluations
from ..score import ScoreModel
from ..sde import SDE
from .checked import estimates_to_json
from .draw import DrawSettings, draw
from .limit import NO_LIMIT, TimeLimit
from .plan import ADAPTIVE_FACTOR

__all__ = ["REFERENCE", "Reference"]

METHOD = "dopri8"
REFERENCE = "reference.npz"
CHECKED = 16  # samples on which the reference's own error is measured


@dataclass(frozen=True)
class Reference:
    """dopri8 at rtol = atol = `tolerance` with a float64 state, then the final denoising.

    The network keeps its dtype: for the digits at 1e-6, the end points of the float32 network and
    of the float64 network agree to 2e-7.

    Attributes:
        tolerance: rtol = atol.
        settings: The settings shared by all draws.
        made_from: Fingerprint of the model and of all settings that determine its samples.
    """

    tolerance: float
    settings: DrawSettings
    made_from: str = ""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of everything that determines the solution."""
        return fingerprint([self.made_from, METHOD, self.tolerance, CHECKED])

    def likely_evaluations(self, sde: SDE) -> float:
        """Evaluations per sample that solution and check are likely to take on a network."""
        sampler = ProbabilityFlowODE(METHOD, self.tolerance, self.tolerance)
        return self.with_check(ADAPTIVE_FACTOR * count_evaluations(sde, sampler, self._grid(sde)))

    def with_check(self, evaluations: float) -> float:
        """Evaluations per sample of the solution, with those of the check of its error.

        The check solves for the first samples only. An 8th-order method at ten times the tolerance
        takes 10^(−1/8) times as many steps.

        Args:
            evaluations: Those of the solution alone.
        """
        return evaluations * (1 + 10 ** (-1 / 8) * self._checked / self.settings.n)

    def solve(
        self,
        model: ScoreModel,
        folder: Path,
        on_progress: OnProgress,
        limit: TimeLimit = NO_LIMIT,
    ) -> Part:
        """Solve the ODE, and write the solution with an estimate of its error.

        The first samples are solved again at ten times the tolerance. The difference is about the
        error of the looser solution, and so bounds the error of the tighter one.

        Args:
            model: Score model.
            folder: Folder for the solution.
            on_progress: Called after every step, with a percentage.
            limit: The time at which the work ends.

        Raises:
            OutOfTimeError: If the time is over before the solution is complete.

        Returns:
            The solution as array "x", of shape (n, *D), float32, and plain data on its error.
        """
        chunks, begun = math.ceil(self.settings.n / self.settings.batch), 0

        def on_step(step: int, t: float, x: Tensor) -> None:
            nonlocal begun
            limit.check()
            begun += step == 1
            on_progress(int(100 * (begun - t) / chunks), 100, f"t = {t:.3f}")

        began = time.perf_counter()
        exact = self.solution(model, self.tolerance, on_step=on_step)
        seconds = time.perf_counter() - began
        few = self._checked
        loose = self.solution(model, 10 * self.tolerance, few)
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

    @property
    def _checked(self) -> int:
        """Number of samples on which the error of the solution is measured."""
        return min(self.settings.n, CHECKED)

    def find(self, folders: Iterable[Path]) -> Part | None:
        """The solution from the first folder that has it; None if it must be computed."""
        found = (load_part(folder / REFERENCE, self.fingerprint) for folder in folders)
        return next((part for part in found if part is not None), None)

    def solution(
        self,
        model: ScoreModel,
        tolerance: float,
        n: int | None = None,
        on_step: OnStep | None = None,
    ) -> Samples:
        """The end points of the first n samples, or of all for n = None, in float64."""
        sampler = ProbabilityFlowODE(METHOD, tolerance, tolerance)
        ts = self._grid(model.sde)
        return draw(
            self.settings,
            model,
            sampler,
            ts,
            n=n,
            dtype=torch.float64,
            on_step=on_step,
        )

    def _grid(self, sde: SDE) -> Tensor:
        """The first and the last time."""
        return uniform(sde, 1, self.settings.t_min)
