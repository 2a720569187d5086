"""Layers of `BlockUNet`: residual blocks, attention, resampling, and the embedding of labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import Condition, ConditionSpec
from .._deferred import on_accelerator
from .blocks import attend
from .dropout import Dropout
from .fir import fir_down, fir_up

__all__ = [
    *("ACTIVATIONS", "RESAMPLE", "AttentionBlock", "Embedder", "Form", "LogWaves", "Residual"),
    *("Strided", "Upsampled", "Waves", "few_groups", "required_parts"),
]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
}
RESAMPLE: dict[str, Callable[[Tensor], Tensor]] = {
    "average": lambda x: F.avg_pool2d(x, 2),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "fir_down": fir_down,
    "fir_up": fir_up,
}


class Form(NamedTuple):
    """What all blocks of a network share.

    Attributes:
        width: Size of the vector that conditions every block.
        groups: Groups of the normalization; 0 for groups of 4 channels, at most 32.
        eps: ε of the normalization.
        head: Channels of a head of attention; None for one head.
        scale_shift: Whether the vector scales and shifts the normalized features.
        activation: Key of `ACTIVATIONS`.
        dropout: Probability in [0, 1).
        padding: Padding of the convolutions of stride 2: 1, or 0 for a row of zeros on the right
            and at the bottom.
        heads: Number of heads of attention, instead of `head`.
    """

    width: int
    groups: int
    eps: float
    head: int | None
    scale_shift: bool
    activation: str
    dropout: float
    padding: int
    heads: int | None = None


def few_groups(channels: int) -> int:
    """Groups of NCSN++: of 4 channels, at most 32."""
    return min(channels // 4, 32)


def required_parts(condition: ConditionSpec, y: Condition | None, n: int) -> dict[str, Tensor]:
    """The parts of a condition that a network was never trained without; {} if it takes none.

    Args:
        condition: What the network takes.
        y: The condition of n samples, or None.
        n: Number of samples.

    Raises:
        ValueError: If y is missing, not taken, or not one of the classes.
    """
    if y is None:
        if condition:
            raise ValueError(f"y must be given: the network was trained with {condition}")
        return {}
    parts = condition.parts(y, n)
    if "class" in parts:
        # As in `LabelEmbedding`, values are read only where nothing waits for it.
        if not (torch.compiler.is_compiling() or on_accelerator(parts["class"])):
            condition.check_classes(parts["class"], condition.classes - 1)
    return parts


class Residual(nn.Module):
    """x ↦ (W r(x) + conv(act(n₂(conv(r(act(n₁(x)))), e)))) / s, with r a change of resolution or 1.

    e is the vector of label and condition after activation and a linear layer. It is added before
    the second normalization n₂; or with `scale_shift` it is (a, b), and n₂(h, e) = (1 + a) n(h) + b
    (Dhariwal & Nichol 2021, arXiv:2105.05233, section 3.1).

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
        form: What all blocks share.
        groups: Groups of both normalizations.
        scale: s; NCSN++ has √2.
        resample: r, a key of `RESAMPLE`, or None.
        project: Whether W is a 1×1 convolution even if the number of channels stays.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        form: Form,
        groups: tuple[int, int],
        scale: float = 1.0,
        resample: str | None = None,
        project: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups[0], channels_in, form.eps)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.scale_shift = form.scale_shift
        self.time_emb_proj = nn.Linear(form.width, channels_out * (2 if form.scale_shift else 1))
        self.norm2 = nn.GroupNorm(groups[1], channels_out, form.eps)
        self.dropout = Dropout(form.dropout)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.act = ACTIVATIONS[form.activation]()
        self.scale, self.resample = scale, resample
        if project or channels_in != channels_out:
            self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1)
        else:
            self.conv_shortcut = nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply the block to x of shape (B, channels_in, H, W); the embedding is (B, width)."""
        h = self.act(self.norm1(x))
        if self.resample is not None:
            change = RESAMPLE[self.resample]
            x, h = change(x), change(h)
        e = self.time_emb_proj(self.act(embedding))[..., None, None]
        h = self.conv1(h)
        if self.scale_shift:
            a, b = e.chunk(2, dim=1)
            h = self.norm2(h) * (1 + a) + b
        else:
            h = self.norm2(h + e)
        h = self.conv2(self.dropout(self.act(h)))
        return (self.conv_shortcut(x) + h) / self.scale


class AttentionBlock(nn.Module):
    """x ↦ (x + W_out softmax(q kᵀ/√d) v) / s over all positions; q, k, v are linear in norm(x).

    Args:
        channels: Channels of input and output.
        form: What all blocks share.
        groups: Groups of the normalization; None for none.
        scale: s.
    """

    def __init__(self, channels: int, form: Form, groups: int | None, scale: float = 1.0) -> None:
        super().__init__()
        size = form.head or channels // (form.heads or 1)
        self.heads, self.scale = channels // size, scale
        inner = self.heads * size
        self.group_norm: nn.Module = nn.Identity()
        if groups is not None:
            self.group_norm = nn.GroupNorm(groups, channels, form.eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, inner) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention to features of shape (B, channels, H, W); same shape out."""
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, H·W, channels)
        q, k, v = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        out = self.to_out[0](attend(q, k, v).transpose(1, 2).flatten(2))
        return (x + out.transpose(1, 2).reshape(x.shape)) / self.scale


class Strided(nn.Module):
    """Half the resolution by a 3×3 convolution of stride 2."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x of shape (B, channels, H, W) ↦ (B, channels, H/2, W/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.padding == 0 else x)


class Upsampled(nn.Module):
    """Twice the resolution by repetition of the nearest value, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x of shape (B, channels, H, W) ↦ (B, channels, 2H, 2W)."""
        return self.conv(RESAMPLE["nearest"](x))


class Embedder(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(features, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, features) ↦ (B, width)."""
        return self.linear_2(F.silu(self.linear_1(features)))


class Waves(nn.Module):
    """sin and cos of label · ω_k,  ω_k = 10000^(−k/(n/2 − shift)),  k = 0 … n/2 − 1.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.5, where shift = 0; DDPM's code has shift 1.

    Args:
        n: Number of features; an odd one ends with a zero.
        shift: See the formula.
        cosine_first: Whether the cosines come before the sines.
    """

    def __init__(self, n: int, shift: float, cosine_first: bool) -> None:
        super().__init__()
        self.n, self.shift, self.cosine_first = n, shift, cosine_first

    def forward(self, label: Tensor) -> Tensor:
        """Labels (B,), any real dtype ↦ (B, n), float32, or float64 for float64 labels."""
        half = self.n // 2
        # The frequencies are computed in float32, as they were in training: at label 999 their
        # rounding moves the phase by 1e-4.
        k = torch.arange(half, dtype=torch.float32, device=label.device)
        omega = torch.exp(-math.log(10000) * k / (half - self.shift))
        dtype = torch.promote_types(label.dtype, torch.float32)
        phase = label.to(dtype)[:, None] * omega.to(dtype)
        pair = (phase.cos(), phase.sin()) if self.cosine_first else (phase.sin(), phase.cos())
        return F.pad(torch.cat(pair, dim=1), (0, self.n % 2))


class LogWaves(nn.Module):
    """sin and cos of 2π w log(label), with random frequencies w that are part of the weights.

    Song et al. 2021, arXiv:2011.13456, appendix H.

    Args:
        n: Number of frequencies.
        log: Whether it is log(label); otherwise the waves are those of the label itself.
    """

    def __init__(self, n: int, log: bool = True) -> None:
        super().__init__()
        self.log = log
        # Normal numbers on the device "meta" would import torch._dynamo, which takes seconds.
        drawn = 16 * torch.randn(n, device="cpu")
        self.weight = nn.Parameter(drawn.to(torch.get_default_device()), requires_grad=False)

    def forward(self, label: Tensor) -> Tensor:
        """Labels (B,), above 0 if the logarithm is taken ↦ (B, 2n)."""
        label = label.to(self.weight.dtype)
        phase = 2 * math.pi * ((label.log() if self.log else label)[:, None] * self.weight)
        return torch.cat([phase.sin(), phase.cos()], dim=1)
