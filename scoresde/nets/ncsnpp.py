"""The U-Net of NCSN++, DDPM++ and the DDPM that was trained beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import Condition, ConditionSpec
from .._tensor import check_choice, check_integer, check_number, check_type
from .block_parts import Embedder, Form, LogWaves, Waves, few_groups, required_parts
from .blocks import arguments_of, attended, check_inputs, image_shape, zeroed
from .ncsnpp_levels import EPS, Plan, levels_down, levels_up

__all__ = ["NCSNpp"]

_CHOICES = {
    "block": ("ddpm", "biggan"),
    "input_path": ("none", "skip", "residual"),
    "output_path": ("none", "skip", "residual"),
    "joining": ("add", "concatenate"),
    "embedding": ("waves", "fourier", "fourier_label"),
}


class NCSNpp(nn.Module):
    """U-Net F(x, label) of NCSN++ and DDPM++; with few options DDPM's.

    Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix H: the blocks of DDPM or BigGAN,
    resampling with the filter (1, 3, 3, 1) (Zhang 2019, arXiv:1904.11486), and progressive paths
    for the input and the output as in Karras et al. 2020 (arXiv:1912.04958). The order of layers is
    that of the authors' code, so that their weights fit.

    Attributes:
        condition: The conditions that it takes. It was not trained without them.
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers.

    Args:
        shape: Image shape (C, H, W); 2^(levels − 1) divides H and W.
        channels: Channels of the first level, before its multiplier.
        multipliers: Channels of each level in units of `channels`.
        blocks: Residual blocks of a level downwards; there is one more upwards.
        attention: Widths of the features that get attention; the middle has it always.
        block: "biggan": the resolution is changed inside residual blocks; "ddpm": by layers of
            their own.
        fir: Whether the filter is used for each change of resolution.
        input_path: "skip": the image, filtered, joins the features of each lower resolution.
            "residual": a path of convolutions, to which the features are added. Or "none".
        output_path: "skip": each level adds its part to the output. "residual": a path of
            convolutions, to which the features are added; without `fir` only. Or "none".
        joining: "add" or "concatenate", for the input path "skip".
        convolve: Whether layers of block "ddpm" that change the resolution have a convolution.
        skip_scale: Multiply every sum of two branches by √½.
        groups: Groups of the normalizations; 0 for groups of 4 channels, at most 32.
        embedding: "waves" of the label with DDPM's frequencies, or "fourier": waves of log(label)
            with random frequencies, which are part of the weights; "fourier_label": such waves of
            the label itself.
        ladder: (σ_min, σ_max, N) of a network of N discrete noise levels. The label is σ, and the
            index of σ is embedded: 0 for σ_max, N − 1 for σ_min, geometric between them.
        divide: Whether the output is divided by the label, which is σ.
        centred: Whether x is in [0, 1], and 2x − 1 is what the layers see.
        dropout: Dropout probability in every block, in [0, 1).
        classes: Number of classes, or None; a vector for each class is added to the features of
            the label.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range, or arguments do not fit together.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ("blocks",)

    def __init__(
        self,
        shape: Sequence[int],
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (),
        block: str = "biggan",
        fir: bool = False,
        input_path: str = "none",
        output_path: str = "none",
        joining: str = "add",
        convolve: bool = True,
        skip_scale: bool = True,
        groups: int = 0,
        embedding: str = "waves",
        ladder: Sequence[float] | None = None,
        divide: bool = False,
        centred: bool = False,
        dropout: float = 0.0,
        classes: int | None = None,
    ) -> None:
        arguments = arguments_of(locals())
        _check(arguments)
        super().__init__()
        self.arguments, self.shape = arguments, image_shape(shape)
        self.condition = ConditionSpec(classes)
        self.ladder, self.divide, self.centred = ladder, divide, centred
        sides = [self.shape[2] // 2**i for i in range(len(multipliers))]
        attend = attended("attention", sides, attention)
        form = Form(4 * channels, groups, EPS, None, False, "silu", dropout, 0)
        scale = math.sqrt(2) if skip_scale else 1.0
        paths = (input_path, output_path, joining == "add", convolve, self.shape[0])
        plan = Plan(form, scale, block, fir, *paths)

        fourier = embedding != "waves"
        log = embedding == "fourier"
        self.waves = LogWaves(channels, log) if fourier else Waves(channels, 1, False)
        features = 2 * channels if fourier else channels
        self.class_embedding = None if classes is None else nn.Embedding(classes, features)
        self.embedder = Embedder(features, form.width)
        self.stem = nn.Conv2d(self.shape[0], channels, 3, padding=1)
        widths = [channels * factor for factor in multipliers]
        kept = [channels]
        self.down = nn.ModuleList(levels_down(widths, blocks, plan, attend, kept))
        lowest = kept[-1]
        self.middle = nn.ModuleList(
            [plan.residual(lowest, lowest), plan.attention(lowest), plan.residual(lowest, lowest)]
        )
        self.up = nn.ModuleList(levels_up(widths, blocks + 1, plan, attend, kept))
        self.norm = self.head = None
        if output_path != "skip":
            self.norm = plan.norm(widths[0])
            self.head = zeroed(nn.Conv2d(widths[0], self.shape[0], 3, padding=1))

    def forward(self, x: Tensor, label: Tensor, y: Condition | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy images, shape (B, C, H, W), in the dtype of the weights.
            label: Noise label, shape (B,); above 0 for the embedding "fourier" and with `ladder`.
            y: Condition, as `ConditionSpec` says, but without "no condition".

        Returns:
            Shape (B, C, H, W), in the dtype of x.

        Raises:
            ValueError: If a shape is wrong, or y is missing, out of range or not taken.
        """
        check_inputs(x, label, self.shape)
        features = self.waves(self._index(label)).to(self.stem.weight.dtype)
        parts = required_parts(self.condition, y, x.shape[0])
        if parts:
            features = features + self.class_embedding(parts["class"])
        embedding = self.embedder(features)
        image = 2 * x - 1 if self.centred else x
        kept = [self.stem(image)]
        for level in self.down:
            features, image = level(kept[-1], embedding, image)
            kept += features
        first, attention, second = self.middle
        h = second(attention(first(kept[-1], embedding)), embedding)
        out = None
        for level in self.up:
            h, out = level(h, kept, embedding, out)
        if self.head is not None:
            out = self.head(F.silu(self.norm(h)))
        if self.divide:
            out = out / label.to(out.dtype).reshape(-1, 1, 1, 1)
        return out.to(x.dtype)

    def _index(self, label: Tensor) -> Tensor:
        """The label that is embedded: the index of σ if there is a ladder."""
        if self.ladder is None:
            return label
        least, most, count = self.ladder
        return (count - 1) * (math.log(most) - label.log()) / math.log(most / least)


def _check(arguments: Mapping[str, Any]) -> None:
    """Raise unless each argument is in its range, and they fit together."""
    for name, allowed in _CHOICES.items():
        check_choice(name, arguments[name], allowed)
    for name in ("fir", "convolve", "skip_scale", "divide", "centred"):
        check_type(name, arguments[name], bool)
    for name in ("channels", "blocks"):
        check_integer(name, arguments[name], minimum=1)
    groups = check_integer("groups", arguments["groups"], minimum=0)
    check_number("dropout", arguments["dropout"], at_least=0, below=1)
    if len(arguments["multipliers"]) == 0:
        raise ValueError("multipliers must name at least one level, got none")
    for factor in arguments["multipliers"]:
        channels = check_integer("each entry of multipliers", factor, minimum=1)
        channels *= arguments["channels"]
        if channels % (groups or max(1, few_groups(channels))) or channels < 4:
            raise ValueError(f"groups of the normalization must divide {channels} channels")
    multiple = 2 ** (len(arguments["multipliers"]) - 1)
    if any(side % multiple for side in image_shape(arguments["shape"])[1:]):
        raise ValueError(f"shape must have sides that {multiple} divides, got {arguments['shape']}")
    _check_together(arguments)


def _check_together(arguments: Mapping[str, Any]) -> None:
    if arguments["fir"] and arguments["output_path"] == "residual":
        raise ValueError(
            'output_path must not be "residual" with fir, whose convolution is unknown'
        )
    if arguments["fir"] and arguments["block"] == "ddpm" and arguments["convolve"]:
        raise ValueError('convolve must be false for block = "ddpm" with fir')
    ladder = arguments.get("ladder")
    if ladder is not None:
        if len(ladder) != 3 or not 0 < ladder[0] < ladder[1]:
            raise ValueError(f"ladder must be (σ_min, σ_max, N), got {list(ladder)}")
        check_integer("N of ladder", ladder[2], minimum=2)
