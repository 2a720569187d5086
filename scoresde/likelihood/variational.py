"""A variational bound on given data: prior, diffusion and reconstruction, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import check_integer
from ..data.spec import DataSpec
from ..evaluation import count_nfe, evaluating
from ..noise import Noise, SampleNoise, check_seed
from ..score import ScoreModel
from ..sde import Node
from .decoder import cell_log_prob
from .denoising import Denoising, Draw, Residual
from .dequantize import cell_centre

__all__ = ["VLB", "BoundData"]

Terms = Callable[[Denoising], Iterable[Callable[[], Draw]]]


@dataclass(frozen=True)
class VLB:
    """A variational bound, its three parts, and what is needed to repeat it.

    Attributes:
        log_prob_bound: −(prior + diffusion + reconstruction), an unbiased estimate of a lower
            bound: on the log-probability of the levels for quantized data, on the log-density at
            the scale of x else. Nats, shape (B,), float64.
        prior: KL(q(x_T | x) ‖ N(0, prior_std² I)) (L_T of DDPM), exact, nats, shape (B,).
        diffusion: The part between the first and the last time (Σ L_{t−1}), nats, shape (B,).
        reconstruction: −log p(x | x_{t_min}) (L_0), nats, shape (B,).
        std_error: Standard error of `log_prob_bound` from the spread of its draws, nats, shape
            (B,); NaN for a single draw, which cannot tell.
        bits_per_dim: −log_prob_bound/(D log 2), shape (B,); None for continuous data.
        nfe: Network evaluations per sample, counted; the largest if chunks of the batch differ.
        protocol: `VLB_DDPM` or `VLB_CONTINUOUS`.
        settings: What else two numbers must agree in to be comparable, and the seed; plain data.
    """

    log_prob_bound: Tensor
    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor
    std_error: Tensor
    bits_per_dim: Tensor | None
    nfe: int
    protocol: str
    settings: Mapping[str, str | float | int | None]


class BoundData:
    """The checked data of a call, chunk by chunk, and the bound on them."""

    def __init__(
        self,
        model: ScoreModel,
        x: Tensor,
        spec: DataSpec | None,
        y: Tensor | None,
        seed: int | None,
        noise: Noise | None,
        batch: int | None,
        draws: int,
        dtype: torch.dtype,
    ) -> None:
        self.spec = None if spec is None or spec.levels is None else spec
        _check_data(x, spec, dtype)
        if (seed is None) == (noise is None):
            raise ValueError("exactly one of seed and noise must be given")
        if noise is not None and batch is not None:
            raise ValueError(
                "batch needs a seed: a noise source serves the one batch it was made for"
            )
        if seed is not None:
            seed = check_seed(seed)
        if batch is not None:
            batch = check_integer("batch", batch, minimum=1)
        self.model, self.x = model.labelled(y, len(x), x.device), x
        self.seed, self.noise, self.draws = seed, noise, check_integer("draws", draws, minimum=1)
        self.dtype = x.dtype if self.spec is None else dtype
        self.n, self.dims = x.shape[0], math.prod(x.shape[1:])
        self.size = batch or max(self.n, 1)

    def chunks(self) -> Iterator[tuple[Denoising, Tensor]]:
        """The estimator and the data of each chunk."""
        for begin in range(0, self.n, self.size):
            rows = slice(begin, min(begin + self.size, self.n))
            x, model = self.x[rows], self.model.take(rows)
            source = self.noise or SampleNoise(self.seed, range(rows.start, rows.stop))
            x0 = x.to(torch.float64) if self.spec is None else cell_centre(x, self.spec)
            yield Denoising(model, x0, source, self.draws, self.dtype), x

    def bound(
        self,
        terms: Terms,
        *,
        first: Node,
        last: Node,
        variance: float,
        constant: float,
        protocol: str,
        settings: dict[str, str | float | int | None],
    ) -> VLB:
        """The bound.

        Args:
            terms: Gives the random terms of the diffusion part.
            first: Where the prior stands.
            last: Where the decoder stands.
            variance: The decoder's.
            constant: What the diffusion part holds beside the terms, nats per sample.
            protocol: Its name.
            settings: What else two numbers must agree in to be comparable.
        """
        parts, nfe = [self.x.new_zeros((4, 0), dtype=torch.float64)], 0
        for denoising, x in self.chunks():
            with evaluating(self.model), count_nfe(self.model) as counted:
                prior = _prior(denoising.x0, first, self.model.sde.prior_std)
                diffusion, error = denoising.total(terms(denoising))
                decoded, last_error = self._decode(denoising, x, last, variance)
            std_error = (error + last_error).sqrt()
            parts.append(torch.stack([prior, diffusion + constant, decoded, std_error]))
            nfe = max(nfe, counted.forward)
        prior, diffusion, decoded, std_error = torch.cat(parts, dim=1)
        bound = -(prior + diffusion + decoded)
        bits = None if self.spec is None else -bound / (self.dims * math.log(2))
        levels = None if self.spec is None else self.spec.levels
        settings = settings | {"levels": levels, "draws": self.draws, "seed": self.seed}
        return VLB(bound, prior, diffusion, decoded, std_error, bits, nfe, protocol, settings)

    def _decode(
        self, denoising: Denoising, x: Tensor, node: Node, variance: float
    ) -> tuple[Tensor, Tensor]:
        """E[−log p(x | x_t)] under N(x̂_0, variance I), and its squared error, each (B,)."""
        scale = node.sigma / node.alpha  # x̂_0 − x_0 = (σ/α)(ε − ε̂)
        if self.spec is None:
            squares, error = denoising.add(lambda: Draw(node, 0.5 * scale**2 / variance))
            return squares + 0.5 * self.dims * math.log(2 * math.pi * variance), error

        def levels(residual: Residual) -> Tensor:
            mean = denoising.x0 + scale * residual.difference
            return -cell_log_prob(x, mean, math.sqrt(variance), self.spec)

        return denoising.mean(node, levels)


def _check_data(x: Tensor, spec: DataSpec | None, dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    if x.ndim == 0 or math.prod(x.shape[1:]) < 1:
        raise ValueError(f"x must have shape (B, *D) with every D ≥ 1, got {tuple(x.shape)}")
    if spec is not None and tuple(x.shape[1:]) != spec.shape:
        wanted = ", ".join(["B", *map(str, spec.shape)])
        raise ValueError(f"x must have shape ({wanted}), got {tuple(x.shape)}")
    if spec is None or spec.levels is None:
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"x must be float32 or float64 (levels need their spec), got {x.dtype}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"x must be finite, got {int((~torch.isfinite(x)).sum())} values not")
    else:
        spec.encode(x)  # refuses what is no level


def _prior(x0: Tensor, node: Node, std: float) -> Tensor:
    """KL(N(α x_0, σ² I) ‖ N(0, std² I)) of each sample."""
    flat = x0.reshape(x0.shape[0], -1)
    log_ratio = 2 * math.log(node.sigma / std)
    spread = flat.shape[1] * (math.expm1(log_ratio) - log_ratio)
    return 0.5 * ((node.alpha / std) ** 2 * flat.square().sum(1) + spread)
