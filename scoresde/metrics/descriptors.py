"""Features without training or download that see gross failures: layout and texture of samples.

Principal directions of the pixels alone are blind to what lies outside them: noise is small in each
of 32 smooth directions, so that saturated noise seems close to clean images. `DescriptorFeatures`
therefore describes a sample in two parts, each whitened on the reference:

    layout    pixels on their leading principal directions; which shapes and classes there are
    texture   how strong each local pattern of 3×3 pixels is at each scale, and how pixel values are
              distributed; or, for vectors, products of pairs and random Fourier features

Each part ends with the logarithm of the energy that its directions leave out. Samples that differ
from the reference only outside the directions differ from it there.

Whitening divides by the spread of the reference. Data without any noise, such as drawings on a
white page, have hardly any spread in some descriptors, and a change that nobody sees would count
for more than a collapse to one image. Every spread therefore has a least value, which is a small
part of the contrast of the data. These are statistics of pixels. They do not measure what people
perceive.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .._philox import normals
from .estimate import as_rows, row_mean
from .features import FeatureSpace, digest_of

__all__ = ["DescriptorFeatures"]

_DIRECTIONS = 16  # of each part
_QUANTILES = 9  # of the pixel values of each channel: least, eighths, largest
_FOURIER = 32  # directions of the random Fourier features
_RATE = 1.5  # standard deviation of their angle for whitened data
_PAIRED = 32  # most leading directions whose products are taken: their number grows as the square
_ROWS_PER_PRODUCT = 4  # fewer rows would fit the reference itself, and not its distribution
_RESOLUTION = 0.1  # of the standard deviation of all values: weaker patterns count as absent
_FAINT = 0.1  # of the same: smallest standard deviation of a quantile
_LEAST_LOG = 0.3  # smallest standard deviation of the logarithm of a strength
_LEFT_OUT = 0.01  # share of the whole variance below which what is left out counts as nothing
_EXACT = 800  # dimensions up to which all principal directions are computed
_PASSES = 6  # over the data for the leading directions of more dimensions
_SPARE = 16  # directions that are computed beside those
_KEPT = 1e-9  # smallest ratio of the variances along two directions
_NARROW = 0.03  # of the largest variance along a direction: narrower directions count as so wide


class DescriptorFeatures(FeatureSpace):
    """Layout and texture of images, or coordinates and dependence of vectors.

    The features have at most 2·17 coordinates: 16 directions of each part, and what these leave
    out. On the reference each has mean 0 and at most variance 1.

    Args:
        reference: Data at the model's scale, shape (m, *D), m ≥ 4. Samples of shape (C, H, W) with
            H, W ≥ 3 are images; all others are vectors.

    Raises:
        TypeError: If `reference` is not a tensor.
        ValueError: If it holds fewer than 4 samples, or values that are not finite.
    """

    def __init__(self, reference: Tensor) -> None:
        rows = as_rows(reference, "reference", minimum=4)
        self.shape = tuple(reference.shape[1:])
        self.images = len(self.shape) == 3 and min(self.shape[1:]) >= 3
        self.name = "layout_texture" if self.images else "layout_pairs"
        self._digest = digest_of({"reference": rows.float()})
        self.scale = float(rows.std()) or 1.0
        std = torch.ones_like(rows[0]) if self.images else _spread(rows)
        self.layout = _Whitening(rows, std)
        self.coordinates = self.layout
        if not self.images:  # products need more directions than the layout shows
            paired = min(_PAIRED, max(2, int((2 * len(rows) / _ROWS_PER_PRODUCT) ** 0.5)))
            self.coordinates = _Whitening(rows, std, most=paired, residual=False)
        described = self._described(rows)
        self.texture = _Whitening(described, self._units(described))

    @property
    def fingerprint(self) -> str:
        """Hash of the reference in float32: everything else follows from it."""
        return self._digest

    def __call__(self, x: Tensor) -> Tensor:
        """Features of samples (n, *D), shape (n, d), float64.

        Raises:
            TypeError: If `x` is not a tensor.
            ValueError: If it is empty, not finite or of another shape than the reference.
        """
        rows = as_rows(x, minimum=1)
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x must have shape (n, {', '.join(map(str, self.shape))}) for {self.name}, "
                f"got {tuple(x.shape)}"
            )
        device, rows = x.device, rows.cpu()
        parts = self.layout(rows), self.texture(self._described(rows))
        return torch.cat(parts, 1).to(device)

    def _described(self, rows: Tensor) -> Tensor:
        """Descriptors before whitening, shape (n, k), in blocks that bound the memory."""
        size = max(1, 2**21 // rows.shape[1])
        return torch.cat([self._block(block) for block in rows.split(size)])

    def _block(self, rows: Tensor) -> Tensor:
        if not self.images:
            return _dependence(self.coordinates(rows))
        images = rows.reshape(-1, *self.shape) / self.scale
        return torch.cat([_patterns(images), _quantiles(images)], 1)

    def _units(self, described: Tensor) -> Tensor:
        """What counts as one unit of each descriptor: its standard deviation, or more."""
        if not self.images:
            return _spread(described)
        least = torch.full_like(described[0], _LEAST_LOG)
        least[-_QUANTILES * self.shape[0] :] = _FAINT
        return torch.maximum(described.std(0), least)


class _Whitening:
    """Standardized coordinates on the leading principal directions, and what these leave out.

    Args:
        rows: The reference, shape (m, k).
        std: What counts as one unit of each column, shape (k,).
        most: Most directions.
        residual: Add log(energy outside the directions)/2, standardized, unless all are kept.
    """

    def __init__(
        self, rows: Tensor, std: Tensor, most: int = _DIRECTIONS, residual: bool = True
    ) -> None:
        self.mean, self.std = row_mean(rows), std
        scaled = (rows - self.mean) / self.std
        lam, basis = _principal(scaled, most)
        kept = max(1, min(most, int((lam > _KEPT * float(lam[0])).sum()), len(rows) // 4))
        least = max(_NARROW * float(lam[0]), 1e-300)
        self.basis, self.scale = basis[:, :kept], lam[:kept].clamp(min=least).rsqrt()
        largest = self.basis.gather(0, self.basis.abs().argmax(0, keepdim=True))
        self.basis = self.basis * largest.sign()
        self.least = _LEFT_OUT * float(scaled.square().sum()) / (len(rows) - 1)
        self.residual = residual and kept < len(std) and self.least > 0
        if self.residual:
            left_out = self._left_out(scaled, scaled @ self.basis)
            self.centre, self.spread = left_out.mean(), left_out.std().clamp(min=_LEAST_LOG)

    def __call__(self, rows: Tensor) -> Tensor:
        scaled = (rows - self.mean) / self.std
        along = scaled @ self.basis
        if not self.residual:
            return along * self.scale
        left_out = (self._left_out(scaled, along) - self.centre) / self.spread
        return torch.cat([along * self.scale, left_out[:, None]], 1)

    def _left_out(self, scaled: Tensor, along: Tensor) -> Tensor:
        energy = (scaled.square().sum(1) - along.square().sum(1)).clamp(min=0)
        return (energy + self.least).log() / 2


def _principal(rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Variances (l,) along leading principal directions (k, l) of centred rows (m, k).

    Above 800 dimensions they are found by subspace iteration from fixed random directions (Halko,
    Martinsson and Tropp 2011, arXiv:0909.4061, algorithm 4.4), because the time of the exact
    solution grows with the cube of the dimension. The subspace holds the directions of large
    variance; those of nearly equal variance may be turned into each other.
    """
    m, k = rows.shape
    if k <= _EXACT:
        lam, basis = torch.linalg.eigh(rows.T @ rows / (m - 1))
        return lam.flip(0), basis.flip(1)
    width = min(most + _SPARE, k, m)
    basis = normals(0, 0, "probe", k * width).reshape(k, width).to(rows)
    for _ in range(_PASSES):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    along = rows @ basis
    lam, turned = torch.linalg.eigh(along.T @ along / (m - 1))
    return lam.flip(0), (basis @ turned).flip(1)


def _spread(rows: Tensor) -> Tensor:
    """Standard deviation of each column, at least a thousandth of the largest one."""
    std = rows.std(0)
    return std.clamp(min=1e-3 * float(std.max()) or 1.0)


def _patterns(images: Tensor) -> Tensor:
    """Strength and sparsity of the 3×3 cosine patterns at each scale, shape (n, k).

    The patterns are the 8 non-constant functions of the discrete cosine transform on 3×3 pixels, of
    each function of the transform over channels. A scale halves the image, until it is smaller than
    3 pixels. With the responses r of a pattern on one image the descriptors are

        log(rms r + _RESOLUTION)   and   log((mean |r| + _RESOLUTION)/(rms r + _RESOLUTION)),

    the second of which tells noise from sparse edges.
    """
    channels = images.shape[1]
    images = torch.einsum("dc,nchw->ndhw", _cosines(channels), images)
    basis, found = _cosines(3), []
    bank = torch.einsum("iy,jx->ijyx", basis, basis).reshape(9, 1, 3, 3)[1:]
    while min(images.shape[2:]) >= 3:
        flat = images.reshape(-1, 1, *images.shape[2:])
        responses = F.conv2d(flat, bank).reshape(len(images), channels * len(bank), -1)
        strength = responses.square().mean(-1).sqrt() + _RESOLUTION
        found += [strength.log(), ((responses.abs().mean(-1) + _RESOLUTION) / strength).log()]
        images = F.avg_pool2d(images, 2)
    return torch.cat(found, 1)


def _quantiles(images: Tensor) -> Tensor:
    """Evenly spaced order statistics of the values of each channel, shape (n, 9 C)."""
    values = images.flatten(2).sort(-1).values
    places = torch.linspace(0, values.shape[-1] - 1, _QUANTILES).round().long()
    return values[..., places].flatten(1)


def _dependence(white: Tensor) -> Tensor:
    """Products of pairs, cosines and sines of whitened coordinates (n, d), shape (n, k)."""
    d = white.shape[1]
    first, second = torch.triu_indices(d, d)
    draws = normals(0, 0, "probe", d * _FOURIER).reshape(d, _FOURIER)
    angles = white @ draws.to(white) * (_RATE / math.sqrt(d))
    return torch.cat([white, white[:, first] * white[:, second], angles.cos(), angles.sin()], 1)


def _cosines(k: int) -> Tensor:
    """Orthonormal discrete cosine transform of k values (DCT-II), shape (k, k)."""
    i = torch.arange(k, dtype=torch.float64)
    basis = (math.pi * (i + 0.5) * i[:, None] / k).cos() * math.sqrt(2 / k)
    basis[0] /= math.sqrt(2)
    return basis
