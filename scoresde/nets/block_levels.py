"""The levels of `BlockUNet`, downwards and upwards, and its middle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block_parts import AttentionBlock, Form, Residual, Strided, Upsampled, few_groups
from .fir import fir_down, fir_up

__all__ = ["KINDS", "DownLevel", "Middle", "SkipDown", "SkipUp", "UpLevel", "is_skip"]

KINDS = ("plain", "attention", "residual", "skip", "skip_attention")
_ROOT = math.sqrt(2)  # NCSN++ divides sums of two branches by it
_SKIP_GROUPS = 32  # of the normalization before the attention of "skip_attention"


def is_skip(kind: str) -> bool:
    """Whether a kind of level has a second path, on which the image itself is resampled."""
    return kind.startswith("skip")


class DownLevel(nn.Module):
    """Residual blocks, each followed by attention or not, then half the resolution.

    Args:
        above: Channels of the input.
        own: Channels of the output.
        blocks: Number of residual blocks.
        form: What all blocks share.
        attends: Whether attention follows each block.
        shrink: "conv" or "residual", the layer that halves the resolution; None for none.
    """

    def __init__(
        self, above: int, own: int, blocks: int, form: Form, attends: bool, shrink: str | None
    ) -> None:
        super().__init__()
        groups, inputs = (form.groups, form.groups), [above, *[own] * (blocks - 1)]
        self.resnets = nn.ModuleList(Residual(n, own, form, groups) for n in inputs)
        self.attentions = nn.ModuleList(
            AttentionBlock(own, form, form.groups) for _ in inputs if attends
        )
        self.downsamplers = nn.ModuleList()
        if shrink == "conv":
            self.downsamplers.append(Strided(own, form.padding))
        elif shrink == "residual":
            self.downsamplers.append(Residual(own, own, form, groups, resample="average"))

    def forward(self, h: Tensor, embedding: Tensor, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features after each layer, and the image as it came."""
        kept = []
        for step in _steps(self.resnets, self.attentions):
            h = _through(step, h, embedding)
            kept.append(h)
        for layer in self.downsamplers:
            kept.append(layer(h, embedding))
        return kept, image


class UpLevel(nn.Module):
    """Residual blocks of the features and those kept downwards, then twice the resolution.

    Args:
        coming: Channels of the input.
        own: Channels of the output.
        above: Channels of the first features that were kept on this level downwards.
        blocks: Number of residual blocks.
        form: What all blocks share.
        attends: Whether attention follows each block.
        grow: "conv" or "residual", the layer that doubles the resolution; None for none.
    """

    def __init__(
        self,
        coming: int,
        own: int,
        above: int,
        blocks: int,
        form: Form,
        attends: bool,
        grow: str | None,
    ) -> None:
        super().__init__()
        groups = (form.groups, form.groups)
        inputs = [a + b for a, b in _joined(coming, own, above, blocks)]
        self.resnets = nn.ModuleList(Residual(n, own, form, groups) for n in inputs)
        self.attentions = nn.ModuleList(
            AttentionBlock(own, form, form.groups) for _ in inputs if attends
        )
        self.upsamplers = nn.ModuleList()
        if grow == "conv":
            self.upsamplers.append(Upsampled(own))
        elif grow == "residual":
            self.upsamplers.append(Residual(own, own, form, groups, resample="nearest"))

    def forward(
        self, h: Tensor, kept: list[Tensor], embedding: Tensor, image: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The features at the end, and the image as it came; takes its features from `kept`."""
        for step in _steps(self.resnets, self.attentions):
            h = _through(step, torch.cat([h, kept.pop()], dim=1), embedding)
        for layer in self.upsamplers:
            h = layer(h, embedding)
        return h, image


class SkipDown(nn.Module):
    """A level of NCSN++: the image is filtered and joins the features at each lower resolution.

    Song et al. 2021, arXiv:2011.13456, appendix H: residual blocks whose sums are divided by √2,
    resampling by the filter (1, 3, 3, 1), "input skip".

    Args:
        above: Channels of the input.
        own: Channels of the output.
        blocks: Number of residual blocks.
        form: What all blocks share.
        attends: Whether attention follows each block.
        last: Whether this is the lowest level, which does not halve the resolution.
    """

    def __init__(
        self, above: int, own: int, blocks: int, form: Form, attends: bool, last: bool
    ) -> None:
        super().__init__()
        inputs = [above, *[own] * (blocks - 1)]
        self.resnets = nn.ModuleList(
            Residual(n, own, form, (few_groups(n), few_groups(own)), _ROOT) for n in inputs
        )
        self.attentions = nn.ModuleList(
            AttentionBlock(own, form, _SKIP_GROUPS, _ROOT) for _ in inputs if attends
        )
        self.last = last
        if not last:
            self.resnet_down = _resampling(own, form, "fir_down")
            self.skip_conv = nn.Conv2d(3, own, 1)

    def forward(self, h: Tensor, embedding: Tensor, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features after each layer, and the image at the resolution of the last ones."""
        kept = []
        for step in _steps(self.resnets, self.attentions):
            h = _through(step, h, embedding)
            kept.append(h)
        if not self.last:
            image = fir_down(image)
            kept.append(self.skip_conv(image) + self.resnet_down(h, embedding))
        return kept, image


class SkipUp(nn.Module):
    """A level of NCSN++ upwards: each resolution adds its part to the image ("output skip").

    Attention, if there is one, follows the last block only.

    Args:
        coming: Channels of the input.
        own: Channels of the output.
        above: Channels of the first features that were kept on this level downwards.
        blocks: Number of residual blocks.
        form: What all blocks share.
        attends: Whether attention follows the last block.
        last: Whether this is the highest level, which does not double the resolution.
    """

    def __init__(
        self,
        coming: int,
        own: int,
        above: int,
        blocks: int,
        form: Form,
        attends: bool,
        last: bool,
    ) -> None:
        super().__init__()
        # With attention the published weights have up to 32 groups where the rule of 4 channels
        # gives fewer: a division there is applied to one term of a sum only.
        self.resnets = nn.ModuleList(
            Residual(
                a + b,
                own,
                form,
                (min(a + b // 4, 32) if attends else few_groups(a + b), few_groups(own)),
                _ROOT,
            )
            for a, b in _joined(coming, own, above, blocks)
        )
        self.attentions = nn.ModuleList(
            [AttentionBlock(own, form, _SKIP_GROUPS, _ROOT)] if attends else []
        )
        self.last = last
        if not last:
            self.resnet_up = _resampling(own, form, "fir_up")
            self.skip_conv = nn.Conv2d(own, 3, 3, padding=1)
            self.skip_norm = nn.GroupNorm(few_groups(own), own, form.eps)

    def forward(
        self, h: Tensor, kept: list[Tensor], embedding: Tensor, image: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The features at the end, and the image so far; takes its features from `kept`."""
        for block in self.resnets:
            h = block(torch.cat([h, kept.pop()], dim=1), embedding)
        for attention in self.attentions:
            h = attention(h)
        image = None if image is None else fir_up(image)
        if not self.last:
            part = self.skip_conv(F.silu(self.skip_norm(h)))
            image = part if image is None else image + part
            h = self.resnet_up(h, embedding)
        return h, image


class Middle(nn.Module):
    """A residual block, attention or not, and a residual block, at the lowest resolution.

    Args:
        channels: Channels of input and output.
        form: What all blocks share.
        attends: Whether attention stands between the blocks.
        groups: Groups of the normalization before the attention; None for none.
        scale: What the sums of two branches are divided by.
    """

    def __init__(
        self, channels: int, form: Form, attends: bool, groups: int | None, scale: float
    ) -> None:
        super().__init__()
        own = form.groups or few_groups(channels)
        self.resnets = nn.ModuleList(
            Residual(channels, channels, form, (own, own), scale) for _ in range(2)
        )
        self.attentions = nn.ModuleList(
            [AttentionBlock(channels, form, groups, scale)] if attends else []
        )

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Apply the blocks to h of shape (B, channels, H, W)."""
        h = self.resnets[0](h, embedding)
        for attention in self.attentions:
            h = attention(h)
        return self.resnets[1](h, embedding)


def _steps(
    blocks: nn.ModuleList, attentions: nn.ModuleList
) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    """Each block with the attention that follows it, if there is any."""
    return zip(blocks, attentions or [None] * len(blocks), strict=True)


def _through(step: tuple[nn.Module, nn.Module | None], h: Tensor, embedding: Tensor) -> Tensor:
    block, attention = step
    h = block(h, embedding)
    return h if attention is None else attention(h)


def _joined(coming: int, own: int, above: int, blocks: int) -> Sequence[tuple[int, int]]:
    """For each block upwards, the channels that come from before and from the way down."""
    ahead, kept = [coming, *[own] * (blocks - 1)], [*[own] * (blocks - 1), above]
    return list(zip(ahead, kept, strict=True))


def _resampling(channels: int, form: Form, resample: str) -> Residual:
    groups = few_groups(channels)
    return Residual(channels, channels, form, (groups, groups), _ROOT, resample, project=True)
