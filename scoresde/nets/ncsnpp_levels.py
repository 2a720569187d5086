"""The levels of `NCSNpp`: blocks, changes of resolution, and the paths beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block_parts import RESAMPLE, AttentionBlock, Form, Residual, few_groups
from .blocks import zeroed
from .fir import fir_blur

__all__ = ["EPS", "Plan", "Resampled", "levels_down", "levels_up"]

EPS = 1e-6  # of the normalizations


class Plan(NamedTuple):
    """What all levels share; see the arguments of `NCSNpp`."""

    form: Form
    scale: float
    block: str
    fir: bool
    input_path: str
    output_path: str
    adds: bool
    convolve: bool
    image: int  # its channels

    def groups(self, channels: int) -> int:
        """Groups of a normalization."""
        return self.form.groups or few_groups(channels)

    def residual(self, channels_in: int, channels_out: int) -> Residual:
        """A block that keeps the resolution."""
        groups = (self.groups(channels_in), self.groups(channels_out))
        return Residual(channels_in, channels_out, self.form, groups, self.scale)

    def attention(self, channels: int) -> AttentionBlock:
        """Attention over all positions."""
        return AttentionBlock(channels, self.form, self.groups(channels), self.scale)

    def norm(self, channels: int) -> nn.GroupNorm:
        """The normalization before the output, or before a part of it."""
        return nn.GroupNorm(self.groups(channels), channels, EPS)

    def resampled(self, channels: int, up: bool) -> nn.Module:
        """A layer that halves or doubles the resolution of features."""
        if self.block == "ddpm":
            return Resampled(channels, channels, up, self.fir, self.convolve)
        kind = ("fir_up" if up else "fir_down") if self.fir else ("nearest" if up else "average")
        groups = (self.groups(channels),) * 2
        return Residual(channels, channels, self.form, groups, self.scale, kind, project=True)

    def summed(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of two branches, scaled."""
        return (a + b) / self.scale


class Resampled(nn.Module):
    """Half or twice the resolution: the average or the nearest value, or the filter of `fir`.

    With a convolution of 3×3 positions, which has stride 2 on the way down and replaces the average
    there.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output; those of the input without a convolution.
        up: Whether the resolution is doubled.
        fir: Whether the filter (1, 3, 3, 1) is applied; not upwards with a convolution.
        convolve: Whether there is a convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, up: bool, fir: bool, convolve: bool
    ) -> None:
        super().__init__()
        self.up, self.fir = up, fir
        self.conv: nn.Conv2d | None = None
        if convolve:
            stride, padding = (1, 1) if up else (2, 0)
            self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x of shape (B, channels_in, H, W); the embedding is not used."""
        if self.up:
            x = RESAMPLE["fir_up" if self.fir else "nearest"](x)
            return x if self.conv is None else self.conv(x)
        if self.conv is None:
            return RESAMPLE["fir_down" if self.fir else "average"](x)
        return self.conv(fir_blur(x) if self.fir else F.pad(x, (0, 1, 0, 1)))


class _Down(nn.Module):
    """A level downwards: blocks, each with attention or not, then half the resolution."""

    def __init__(
        self, coming: int, own: int, image: int, blocks: int, plan: Plan, attends: bool, last: bool
    ) -> None:
        super().__init__()
        self.plan = plan
        self.steps = nn.ModuleList()
        for channels in [coming, *[own] * (blocks - 1)]:
            self.steps.append(plan.residual(channels, own))
            if attends:
                self.steps.append(plan.attention(own))
        self.shrink = None if last else plan.resampled(own, up=False)
        self.join: nn.Module | None = None
        if not last and plan.input_path == "skip":
            self.join = nn.Conv2d(plan.image, own, 1)
        elif not last and plan.input_path == "residual":
            self.join = Resampled(image, own, up=False, fir=plan.fir, convolve=True)

    def forward(self, h: Tensor, embedding: Tensor, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features after each block and after the resampling, and the image there."""
        kept = []
        for step in self.steps:
            if isinstance(step, AttentionBlock):
                kept[-1] = step(kept[-1])
            else:
                kept.append(step(kept[-1] if kept else h, embedding))
        if self.shrink is None:
            return kept, image
        h = self.shrink(kept[-1], embedding)
        if self.plan.input_path == "skip":
            image = RESAMPLE["fir_down" if self.plan.fir else "average"](image)
            part = self.join(image)
            h = part + h if self.plan.adds else torch.cat([part, h], dim=1)
        elif self.plan.input_path == "residual":
            h = image = self.plan.summed(self.join(image), h)
        return [*kept, h], image


class _Up(nn.Module):
    """A level upwards: blocks of the features and the kept ones, then twice the resolution."""

    def __init__(
        self, coming: int, own: int, kept: Sequence[int], below: int, plan: Plan, attends: bool
    ) -> None:
        super().__init__()
        self.plan = plan
        inputs = [a + b for a, b in zip([coming, *[own] * (len(kept) - 1)], kept, strict=True)]
        self.blocks = nn.ModuleList(plan.residual(channels, own) for channels in inputs)
        self.attention = plan.attention(own) if attends else None
        # below: channels of the output path that come from the lower level, 0 if this is the lowest
        self.norm = self.part = self.path = self.grow = None
        if plan.output_path == "skip" or (plan.output_path == "residual" and not below):
            skip = plan.output_path == "skip"
            self.norm = plan.norm(own)
            self.part = nn.Conv2d(own, plan.image if skip else own, 3, padding=1)
            self.part = zeroed(self.part) if skip else self.part
        elif plan.output_path == "residual":
            self.path = Resampled(below, own, up=True, fir=False, convolve=True)

    def forward(
        self, h: Tensor, kept: list[Tensor], embedding: Tensor, image: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The features and the output path; takes its features from `kept`."""
        for block in self.blocks:
            h = block(torch.cat([h, kept.pop()], dim=1), embedding)
        h = h if self.attention is None else self.attention(h)
        if self.path is not None:
            h = image = self.plan.summed(self.path(image), h)
        elif self.part is not None:
            part = self.part(F.silu(self.norm(h)))
            up = RESAMPLE["fir_up" if self.plan.fir else "nearest"]
            image = part if image is None else up(image) + part
        return h if self.grow is None else self.grow(h, embedding), image


def levels_down(
    widths: Sequence[int], blocks: int, plan: Plan, attend: Sequence[bool], kept: list[int]
) -> Iterator[_Down]:
    """The levels downwards; appends the channels of all features that are kept."""
    image = plan.image
    for i, own in enumerate(widths):
        last = i == len(widths) - 1
        yield _Down(kept[-1], own, image, blocks, plan, attend[i], last)
        kept.extend([own] * blocks)
        if not last:
            doubled = plan.input_path == "skip" and not plan.adds
            kept.append(2 * own if doubled else own)
            image = own


def levels_up(
    widths: Sequence[int], blocks: int, plan: Plan, attend: Sequence[bool], kept: list[int]
) -> Iterator[_Up]:
    """The levels upwards, from the lowest resolution; takes the channels of its features."""
    coming, below = kept[-1], 0
    for i in reversed(range(len(widths))):
        own, features = widths[i], [kept.pop() for _ in range(blocks)]
        level = _Up(coming, own, features, below, plan, attend[i])
        if i > 0:
            level.grow = plan.resampled(own, up=True)
        yield level
        coming = below = own
