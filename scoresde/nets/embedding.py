"""Embeddings of the noise label (and of a class label) as vectors."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._tensor import check_choice, check_integer, equally_spaced

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
    arXiv:2006.11239, appendix B), with angular frequencies from 2 down to 0.001 radians per unit
    of label.

    Args:
        n: Number of frequencies, at least 1.
    """

    # DDPM's frequencies, 1 … 1e-4, are made for integer labels 0 … 999. Labels log(σ/α) lie closer
    # together in a shorter range. The fastest wave turns by 0.1 rad per 0.05 of label: smooth, yet
    # distinct. The slowest turns by one radian over 1000, so that integer labels work as well.
    def __init__(self, n: int) -> None:
        super().__init__(equally_spaced(math.log(2), math.log(1e-3), n).exp())


_EMBEDDINGS = {"fourier": FourierEmbedding, "sinusoidal": SinusoidalEmbedding}


class LabelEmbedding(nn.Module):
    """The vector that conditions every block, from the noise label and, if any, the class label.

    Args:
        features: Number of waves; an odd number is rounded up.
        width: Size of the vector.
        kind: "fourier" or "sinusoidal".
        classes: Number K of classes, at least 1, or None. With K classes the table has K + 1
            rows; row K stands for "no class", as classifier-free guidance needs.

    Raises:
        ValueError: For an unknown kind or fewer than one class.
    """

    def __init__(self, features: int, width: int, kind: str, classes: int | None) -> None:
        super().__init__()
        check_choice("embedding", kind, _EMBEDDINGS)
        n = (features + 1) // 2
        self.waves = _EMBEDDINGS[kind](n)
        self.mlp = nn.Sequential(nn.Linear(2 * n, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = classes
        if classes is not None:
            self.classes = classes = check_integer("classes", classes, minimum=1)
            self.table = nn.Embedding(classes + 1, width)
            # About the size of the noise label's vector at first, so that neither dominates.
            nn.init.normal_(self.table.weight, std=0.3)

    def forward(self, label: Tensor, y: Tensor | None = None) -> Tensor:
        """Embed labels.

        Args:
            label: Noise label, shape (B,).
            y: Class labels in 0 … K, shape (B,), int64 (K means "no class"), or None for
                K everywhere. Must be None for a network without classes.

        Returns:
            Shape (B, width), in the dtype of the weights.

        Raises:
            ValueError: If y has the wrong shape, is not allowed or out of range.
        """
        dtype = self.mlp[0].weight.dtype
        if not label.is_floating_point():
            label = label.to(torch.promote_types(dtype, torch.float32))
        vector = self.mlp(self.waves(label).to(dtype))
        if self.classes is None:
            if y is not None:
                raise ValueError("y must be None for a network without classes")
            return vector
        if y is None:
            y = torch.full(label.shape, self.classes, dtype=torch.int64, device=label.device)
        else:
            self._check_classes(y, label)
        return vector + self.table(y)

    def _check_classes(self, y: Tensor, label: Tensor) -> None:
        if y.shape != label.shape or y.dtype != torch.int64:
            raise ValueError(
                f"y must be int64 of shape {tuple(label.shape)}, got {y.dtype} {tuple(y.shape)}"
            )
        # Reading values would break a compiled graph. There the table makes its own check.
        if torch.compiler.is_compiling() or y.numel() == 0:
            return
        low, high = (int(v) for v in torch.aminmax(y))
        if low < 0 or high > self.classes:
            wrong = low if low < 0 else high
            raise ValueError(f"y must lie in 0 … {self.classes}, got {wrong}")
