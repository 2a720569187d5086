"""What `scoresde restore` says of its samples, and the files that it writes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import DataSpec
from ..inverse import Mask, Operator
from ..metrics import interval_coverage
from ..output.files import save_arrays
from ..output.restored import Tiles, save_restoration
from .restore_input import Readings, Values

__all__ = ["ARRAYS", "PICTURE", "Restored"]

ARRAYS, PICTURE = "restored.npz", "restored.png"
INTERVALS = (0.5, 0.9, 0.95)
SAMPLES_SHOWN = 3


@dataclass(frozen=True)
class Restored:
    """Samples for each measurement.

    Attributes:
        spec: What the data are.
        operator: A.
        readings: Measurements, with the data if they are known.
        noise: Standard deviation of the noise, in the unit of the measurements.
        scaled: Samples at the model's scale, shape (n, S, *D), float64.
        effective: Least effective number of particles of each sample, (n, S), or None.
    """

    spec: DataSpec
    operator: Operator
    readings: Readings
    noise: float
    scaled: Tensor
    effective: Tensor | None = None

    @property
    def values(self) -> Values:
        """The scale of the values."""
        return Values(self.spec)

    @property
    def samples(self) -> Tensor:
        """Values of the samples, shape (n, S, *D)."""
        return self.values.of(self.scaled.flatten(0, 1)).reshape(self.scaled.shape)

    @property
    def std(self) -> Tensor:
        """Their standard deviation, shape (n, *D); 0 for one sample."""
        return self.samples.std(1, correction=min(1, self.samples.shape[1] - 1))

    @property
    def hidden(self) -> Tensor | None:
        """True where a mask measures nothing, shape *D; None for other operators."""
        return ~self.operator.keep if isinstance(self.operator, Mask) else None

    def summary(self) -> dict[str, Any]:
        """The numbers of summary.json."""
        found: dict[str, Any] = {"unit": self.values.unit, "std": float(self.std.mean())}
        found["residual"] = self._residual()
        if self.readings.truth is not None:
            found |= {"error": self._errors(), "intervals": self._intervals()}
        if self.effective is not None:
            least, mean = float(self.effective.min()), float(self.effective.mean())
            found["effective_particles"] = {"mean": mean, "least": least}
        return found

    def _residual(self) -> dict[str, float]:
        """Root mean square of y − A x of the samples; that of the truth is the noise."""
        n, s = self.scaled.shape[:2]
        y = self.readings.y.repeat_interleave(s, 0)
        gap = (y - self.operator.A(self.scaled.flatten(0, 1))).reshape(n, -1)
        rms = gap.square().mean(1).sqrt() / self.values.factor
        return {"rms": float(rms.mean()), "noise": self.noise}

    def _errors(self) -> dict[str, Any]:
        """Root mean square errors, and the PSNR of images, with standard errors over data."""
        truth, samples = self.readings.truth, self.samples
        each = (samples - truth[:, None]).flatten(2).square().mean(2).mean(1).sqrt()
        mean = (samples.mean(1) - truth).flatten(1).square().mean(1).sqrt()
        found = {"rms_of_samples": _estimate(each), "rms_of_mean": _estimate(mean)}
        if self.values.peak is not None:
            found["psnr_of_samples"] = _estimate(_psnr(each, self.values.peak))
            found["psnr_of_mean"] = _estimate(_psnr(mean, self.values.peak))
        return found

    def _intervals(self) -> dict[str, list[dict[str, Any]]]:
        """Coverage of central intervals, of all numbers and of those that a mask hides."""
        point, parts = self.readings.point, {}
        if self.noise > 0:  # without noise what is measured is exact, and has no interval
            parts["all"] = (self.scaled, point)
        hidden = self.hidden
        if hidden is not None:
            parts["hidden"] = (self.scaled[:, :, hidden], point[:, hidden])
        return {
            name: [
                {"interval": share, **_estimate(interval_coverage(samples, truth, share))}
                for share in INTERVALS
            ]
            for name, (samples, truth) in parts.items()
            if truth.numel()
        }

    def write(self, out: Path, settings: dict[str, Any]) -> list[str]:
        """Write the arrays, and a picture of images.

        Returns:
            The names of the files.
        """
        samples = self.samples
        tensors = {"samples": samples, "mean": samples.mean(1), "std": self.std}
        tensors["measurement"] = self.values.of_measurement(self.readings.y, self.operator)
        if self.readings.truth is not None:
            tensors["truth"] = self.readings.truth
        if self.hidden is not None:
            tensors["keep"] = self.operator.keep
        arrays = {name: _array(tensor) for name, tensor in tensors.items()}
        if self.effective is not None:
            arrays["effective"] = self.effective.numpy()
        save_arrays(
            out / ARRAYS,
            **arrays,
            spec=np.array(json.dumps(self.spec.to_dict())),
            settings=np.array(json.dumps(settings)),
        )
        if not self.spec.is_image:
            return [ARRAYS]
        self._draw(out / PICTURE, f"{settings['operator']}, {settings['method']}")
        return [ARRAYS, PICTURE]

    def _draw(self, path: Path, title: str) -> None:
        """A row for the truth, the measurement, some samples, the mean and the spread."""
        readings, mean = self.readings, self.scaled.mean(1)
        rows = [] if readings.truth is None else [Tiles("truth", self._truth())]
        rows.append(self._measured_row())
        shown = min(SAMPLES_SHOWN, self.scaled.shape[1])
        rows += [Tiles(f"sample {i + 1}", self._shades(self.scaled[:, i])) for i in range(shown)]
        captions = ()
        if readings.truth is not None and self.values.peak is not None:
            errors = (self.samples.mean(1) - readings.truth).flatten(1).square().mean(1).sqrt()
            found = _psnr(errors, self.values.peak).tolist()
            captions = tuple(f"{value:.1f} dB" for value in found)
        rows.append(Tiles(f"mean of {self.scaled.shape[1]}", self._shades(mean), captions))
        largest = float(self.std.max())
        spread = self.std.mean(1, keepdim=True) / (largest or 1.0)
        rows.append(Tiles(f"std, white:\n{largest:.2g}", spread))
        save_restoration(path, rows, title)

    def _measured_row(self) -> Tiles:
        """The measurement as it is if it is an image, and otherwise the nearest x to grey."""
        y, operator = self.readings.y, self.operator
        if self.hidden is not None:
            return Tiles("measured", self._shades(operator.A_adjoint(y)), hidden=self.hidden.all(0))
        black, width = self._ends
        ones = torch.ones(1, *operator.shape, dtype=y.dtype)
        if len(operator.measured) == 3 and operator.measured[0] in (1, 3):
            return Tiles("measured", (y - operator.A(black * ones)) / width)
        grey = (black + width / 2) * ones  # where A says nothing
        return Tiles("A⁺ y", self._shades(grey + operator.A_dagger(y - operator.A(grey))))

    @property
    def _ends(self) -> tuple[float, float]:
        """Black at the model's scale, and the distance of white from it."""
        if self.spec.levels is not None:
            return self.values.offset, self.values.factor
        return self.spec.low, self.spec.span

    def _shades(self, x: Tensor) -> Tensor:
        """Data at the model's scale as shades from 0, black, to 1, white."""
        black, width = self._ends
        return (x - black) / width

    def _truth(self) -> Tensor:
        """Shades of the truth; levels without their place in the cell."""
        quantized = self.spec.levels is not None
        return self.readings.truth if quantized else self._shades(self.readings.point)


def _psnr(rms: Tensor, peak: float) -> Tensor:
    """20 log₁₀(peak/rms), in decibel."""
    return 20 * torch.log10(peak / rms.clamp(min=torch.finfo(rms.dtype).tiny))


def _estimate(values: Tensor) -> dict[str, float | None]:
    """Mean and standard error of one value for each datum."""
    n = len(values)
    error = float(values.std()) / math.sqrt(n) if n > 1 else None
    return {"value": float(values.mean()), "std_error": error}


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
