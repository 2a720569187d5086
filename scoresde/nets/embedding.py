"""Embeddings of the noise label, a class label and a vector of numbers as one vector."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from .._condition import ConditionSpec
from .._deferred import on_accelerator
from .._tensor import check_choice, equally_spaced

__all__ = ["FourierEmbedding", "LabelEmbedding", "SinusoidalEmbedding"]


class _Waves(nn.Module):
    """cos and sin of label · frequency, for fixed frequencies kept in float32."""

    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies.to(torch.get_default_device()).float())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        # net.to(bfloat16) must not round the frequencies: with an 8-bit mantissa the phases of a
        # float32 and a bfloat16 copy of a network would differ.
        kept = self.frequencies
        super()._apply(fn, recurse)
        if not kept.is_meta:
            self.frequencies = kept.to(self.frequencies.device)
        return self

    def forward(self, label: Tensor) -> Tensor:
        """Waves of the label, with root mean square 1.

        Args:
            label: Noise label, shape (B,), any real dtype.

        Returns:
            Shape (B, 2 · len(frequencies)), float32, or float64 for a float64 label.
        """
        dtype = torch.promote_types(label.dtype, torch.float32)
        phase = label.to(dtype)[:, None] * self.frequencies.to(dtype)
        return math.sqrt(2) * torch.cat([phase.cos(), phase.sin()], dim=1)


class FourierEmbedding(_Waves):
    """Random Fourier features of the noise label: cos(ω u), sin(ω u) with ω ~ N(0, 1).

    Song et al. 2021, arXiv:2011.13456 (their "random Fourier feature embeddings" of log σ);
    Tancik et al. 2020, arXiv:2006.10739. The frequencies come from a separate generator with a
    constant seed, so that they are the same in every network, and no global state changes.

    Args:
        n: Number of frequencies, at least 1.
    """

    # The embeddings of two labels u, u' have the cosine exp(−(u − u')² / 2) in expectation: 0.9988
    # for labels 0.05 apart (the small steps of a solver see a smooth function), 0.61 for labels 1
    # apart, 0.01 for labels 3 apart. Labels log(σ/α) span about [−12, 12], which makes about 24
    # independent levels. Larger frequencies do not fit better and make the probability-flow ODE
    # stiffer in t.
    def __init__(self, n: int) -> None:
        draw = torch.Generator().manual_seed(0)
        super().__init__(torch.randn(n, generator=draw, dtype=torch.float32, device="cpu"))


class SinusoidalEmbedding(_Waves):
    """Sinusoids of the noise label at geometric frequencies.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.5, as used by DDPM (Ho et al. 2020,
    arXiv:2006.11239, appendix B).

    Args:
        n: Number of frequencies, at least 1.
        fastest: The largest angular frequency, in radians per unit of label.
        slowest: The smallest.
    """

    # DDPM's frequencies, 1 … 1e-4, are made for integer labels 0 … 999. Labels log(σ/α) lie closer
    # together in a shorter range. The fastest wave turns by 0.1 rad per 0.05 of label: smooth, yet
    # distinct. The slowest turns by one radian over 1000, so that integer labels work as well.
    def __init__(self, n: int, fastest: float = 2.0, slowest: float = 1e-3) -> None:
        super().__init__(equally_spaced(math.log(fastest), math.log(slowest), n).exp())


_EMBEDDINGS = {
    "fourier": FourierEmbedding,
    "sinusoidal": SinusoidalEmbedding,
    "ddpm": partial(SinusoidalEmbedding, fastest=1.0, slowest=1e-4),
}
_ACTIVATIONS = {"silu": nn.SiLU, "gelu": nn.GELU}


class LabelEmbedding(nn.Module):
    """The vector that conditions every block: the sum of the embeddings of noise label, class, v.

    Each kind of condition has a trained embedding of its own for "no condition": row K of the table
    of classes, and `no_vector`.

    Args:
        features: Number of waves; an odd number is rounded up.
        width: Size of the vector.
        kind: "fourier", "sinusoidal", or "ddpm": sinusoids with DDPM's frequencies, which are
            made for labels 0 … 999.
        condition: Classes and length of v, if any; an array is not embedded here.
        activation: "silu" or "gelu", between the two layers that follow the waves.

    Raises:
        ValueError: For an unknown kind or activation.
    """

    def __init__(
        self,
        features: int,
        width: int,
        kind: str,
        condition: ConditionSpec,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        check_choice("embedding", kind, _EMBEDDINGS)
        check_choice("activation", activation, _ACTIVATIONS)
        n = (features + 1) // 2
        self.waves = _EMBEDDINGS[kind](n)
        self.mlp = nn.Sequential(
            nn.Linear(2 * n, width), _ACTIVATIONS[activation](), nn.Linear(width, width)
        )
        self.condition = condition
        # Conditions have about the size of the noise label's vector at first: neither dominates.
        if condition.classes is not None:
            self.table = nn.Embedding(condition.classes + 1, width)
            nn.init.normal_(self.table.weight, std=0.3)
        if condition.vector is not None:
            self.vector = nn.Sequential(
                nn.Linear(condition.vector, width), nn.SiLU(), nn.Linear(width, width)
            )
            self.no_vector = nn.Parameter(torch.empty(width).normal_(std=0.3))

    def forward(self, label: Tensor, parts: Mapping[str, Tensor] | None) -> Tensor:
        """Embed labels.

        Args:
            label: Noise label, shape (B,).
            parts: "class" (int64, shape (B,), 0 … K, where K means "no class") and "vector" (shape
                (B, V), where NaN means "no vector"), those of the condition; None for "no
                condition" everywhere.

        Returns:
            Shape (B, width), in the dtype of the weights.

        Raises:
            ValueError: If a class is out of range.
        """
        dtype = self.mlp[0].weight.dtype
        if not label.is_floating_point():
            label = label.to(torch.promote_types(dtype, torch.float32))
        vector = self.mlp(self.waves(label).to(dtype))
        if self.condition.classes is not None:
            vector = vector + self._of_class(label, parts)
        if self.condition.vector is not None:
            vector = vector + self._of_vector(parts)
        return vector

    def _of_class(self, label: Tensor, parts: Mapping[str, Tensor] | None) -> Tensor:
        classes = self.condition.classes
        if parts is None:
            return self.table(torch.full_like(label, classes, dtype=torch.int64))
        # Reading values would break a compiled graph, and stop the host until an accelerator is
        # done. There the table makes its own check.
        if not (torch.compiler.is_compiling() or on_accelerator(label)):
            self.condition.check_classes(parts["class"], classes)
        return self.table(parts["class"])

    def _of_vector(self, parts: Mapping[str, Tensor] | None) -> Tensor:
        if parts is None:
            return self.no_vector
        v = parts["vector"].to(self.no_vector.dtype)
        absent = v.isnan().any(1, keepdim=True)
        # NaN is replaced before the layers: its gradient would be NaN although it is not used.
        return torch.where(absent, self.no_vector, self.vector(v.masked_fill(absent, 0)))
