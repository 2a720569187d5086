"""A U-Net that is put together from levels of named kinds, as published networks are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import Condition, ConditionSpec
from .._tensor import check_choice, check_integer, check_number, check_type
from .block_levels import KINDS, DownLevel, Middle, SkipDown, SkipUp, UpLevel, is_skip
from .block_parts import ACTIVATIONS, Embedder, Form, LogWaves, Waves, few_groups, required_parts
from .blocks import arguments_of, check_inputs, image_shape

__all__ = ["BlockUNet"]

_CHOICES = {
    "middle": ("attention", "plain", "none"),
    "shrink": ("conv", "residual"),
    "grow": ("conv", "residual"),
    "activation": ACTIVATIONS,
    "embedding": ("waves", "fourier", "table"),
    "class_input": ("table", "waves"),
}
# None by default
_OPTIONAL = ("middle_groups", "head", "heads", "features", "width", "labels", "classes", "vector")


class BlockUNet(nn.Module):
    """U-Net F(x, label, y) whose levels are of named kinds.

    DDPM's network (Ho et al. 2020, arXiv:2006.11239, appendix B), the class-conditional ones of
    Dhariwal & Nichol 2021 (arXiv:2105.05233) and NCSN++ (Song et al. 2021, arXiv:2011.13456,
    appendix H) are built from these levels:

        plain             residual blocks
        attention         the same, with attention after each block
        residual          residual blocks, resampled by a residual block without convolution of
                          its own
        skip              NCSN++: the image itself, filtered, joins the features of each resolution,
                          and each resolution adds its part to the output
        skip_attention    the same with attention

    The tensors have the names that the library diffusers gives them, so that weights which were
    trained with it fit.

    Attributes:
        condition: The conditions that it takes. It was not trained without them.
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers.

    Args:
        shape: Image shape (C, H, W); 2^(levels − 1) divides H and W.
        widths: Channels of each level.
        down: Kind of each level downwards.
        up: Kind of each level upwards, from the lowest resolution.
        blocks: Residual blocks of a level downwards; there is one more upwards.
        middle: "attention", "plain" (two residual blocks) or "none".
        groups: Groups of all normalizations but those of skip levels; 0 for the rule of these,
            groups of 4 channels, at most 32, if all levels are skip levels.
        middle_groups: Groups of the normalization before the attention in the middle. None means
            `groups`, or no normalization if `scale_shift`.
        eps: ε of the normalizations.
        head: Channels of a head of attention; None for one head.
        heads: Number of heads of attention, instead of `head`.
        scale_shift: Whether the label scales and shifts the features, instead of being added.
        shrink: "conv" or "residual": the layer that halves the resolution after "attention".
        grow: "conv" or "residual": the layer that doubles it after "attention".
        padding: Padding of convolutions of stride 2, 1 or 0; with 0, zeros are added at the right
            and at the bottom.
        middle_scale: What the sums of two branches in the middle are divided by.
        activation: "silu", "mish", "gelu" or "relu".
        dropout: Dropout probability in every block, in [0, 1).
        embedding: "waves" (see `Waves`), "table" (a vector for each label), or "fourier": waves of
            log(label) with random frequencies, which are part of the weights; the output is then
            divided by the label.
        features: Number of features that embed the label; None for the first channels.
        width: Size of the vector that conditions every block; None for 4 times `features`.
        shift: `shift` of the waves.
        cosine_first: Whether the cosines of the waves come first.
        labels: Number of labels of the table.
        centred: Whether x is in [0, 1], and 2x − 1 is what the layers see.
        learned_variance: Whether it returns 2C channels, as the `learned_variance` of `Call` says.
        classes: Number of classes, or None.
        class_input: "table" (a vector for each class) or "waves" (those of the label, of the number
            of the class).
        vector: `width`, for a condition that is added to the embedding of the label, or None.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range, or the levels do not fit together.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ("blocks",)

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int],
        down: Sequence[str],
        up: Sequence[str],
        blocks: int = 2,
        middle: str = "attention",
        groups: int = 32,
        middle_groups: int | None = None,
        eps: float = 1e-5,
        head: int | None = None,
        heads: int | None = None,
        scale_shift: bool = False,
        shrink: str = "conv",
        grow: str = "conv",
        padding: int = 1,
        middle_scale: float = 1.0,
        activation: str = "silu",
        dropout: float = 0.0,
        embedding: str = "waves",
        features: int | None = None,
        width: int | None = None,
        shift: float = 0.0,
        cosine_first: bool = True,
        labels: int | None = None,
        centred: bool = False,
        learned_variance: bool = False,
        classes: int | None = None,
        class_input: str = "table",
        vector: int | None = None,
    ) -> None:
        arguments = arguments_of(locals())
        _check(arguments)
        super().__init__()
        self.arguments, self.shape = arguments, image_shape(shape)
        self.learned_variance, self.centred = learned_variance, centred
        self.embedding, self.class_input = embedding, class_input
        features = features or widths[0]
        width = width or 4 * features
        form = Form(width, groups, eps, head, scale_shift, activation, dropout, padding, heads)
        self.condition = ConditionSpec(classes, vector)
        if vector not in (None, width):
            raise ValueError(f"vector must be the width {width}, got {vector}")

        self.time_proj = _label_layer(embedding, features, shift, cosine_first, labels)
        features *= 2 if embedding == "fourier" else 1
        self.time_embedding = Embedder(features, width)
        if classes is not None:
            self.class_embedding = _class_layer(class_input, features, classes, width)
        self.conv_in = nn.Conv2d(self.shape[0], widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(_down(widths, down, blocks, form, shrink))
        if middle_groups is None and not scale_shift:
            middle_groups = groups or few_groups(widths[-1])
        self.mid_block: nn.Module | None = None
        if middle != "none":
            how = middle == "attention", middle_groups, middle_scale
            self.mid_block = Middle(widths[-1], form, *how)
        self.up_blocks = nn.ModuleList(_up(widths, up, blocks + 1, form, grow))
        self.conv_norm_out = nn.GroupNorm(groups or few_groups(widths[0]), widths[0], eps)
        self.conv_out = nn.Conv2d(widths[0], self.shape[0] * (1 + learned_variance), 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, y: Condition | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy images, shape (B, C, H, W), in the dtype of the weights.
            label: Noise label, shape (B,).
            y: Condition, as `ConditionSpec` says, but without "no condition".

        Returns:
            Shape (B, C, H, W), or (B, 2C, H, W) with a learned variance, in the dtype of x.

        Raises:
            ValueError: If a shape is wrong, or y is missing, out of range or not taken.
        """
        check_inputs(x, label, self.shape)
        image = 2 * x - 1 if self.centred else x
        embedding = self._embedded(label, y, x)
        h = self.conv_in(image)
        kept = [h]
        for level in self.down_blocks:
            features, image = level(kept[-1], embedding, image)
            kept += features
        h = kept[-1]
        if self.mid_block is not None:
            h = self.mid_block(h, embedding)
        added = None
        for level in self.up_blocks:
            h, added = level(h, kept, embedding, added)
        out = self.conv_out(F.silu(self.conv_norm_out(h)))
        out = out if added is None else out + added
        if self.embedding == "fourier":
            out = out / label.to(out.dtype)[:, None, None, None]
        return out.to(x.dtype)

    def _embedded(self, label: Tensor, y: Condition | None, x: Tensor) -> Tensor:
        """The vector of label and condition, shape (B, width)."""
        dtype = self.conv_in.weight.dtype
        vector = self.time_embedding(self.time_proj(label).to(dtype))
        parts = required_parts(self.condition, y, x.shape[0])
        if not parts:
            return vector
        if "vector" in parts:
            return vector + parts["vector"].to(dtype)
        classes = parts["class"]
        if self.class_input == "waves":
            return vector + self.class_embedding(self.time_proj(classes).to(dtype))
        return vector + self.class_embedding(classes)


def _label_layer(
    kind: str, n: int, shift: float, cosine_first: bool, labels: int | None
) -> nn.Module:
    if kind == "fourier":
        return LogWaves(n)
    return nn.Embedding(labels, n) if kind == "table" else Waves(n, shift, cosine_first)


def _class_layer(kind: str, features: int, classes: int, width: int) -> nn.Module:
    return Embedder(features, width) if kind == "waves" else nn.Embedding(classes, width)


def _down(
    widths: Sequence[int], kinds: Sequence[str], blocks: int, form: Form, shrink: str
) -> Iterator[nn.Module]:
    """The levels downwards."""
    above = widths[0]
    for i, (own, kind) in enumerate(zip(widths, kinds, strict=True)):
        last, attends = i == len(widths) - 1, kind.endswith("attention")
        if is_skip(kind):
            yield SkipDown(above, own, blocks, form, attends, last)
        else:
            how = {"plain": "conv", "attention": shrink, "residual": "residual"}[kind]
            yield DownLevel(above, own, blocks, form, attends, None if last else how)
        above = own


def _up(
    widths: Sequence[int], kinds: Sequence[str], blocks: int, form: Form, grow: str
) -> Iterator[nn.Module]:
    """The levels upwards, from the lowest resolution."""
    coming = widths[-1]
    for i, kind in zip(reversed(range(len(widths))), kinds, strict=True):
        own, above, attends = widths[i], widths[max(i - 1, 0)], kind.endswith("attention")
        if is_skip(kind):
            yield SkipUp(coming, own, above, blocks, form, attends, last=i == 0)
        else:
            how = {"plain": "conv", "attention": grow, "residual": "residual"}[kind]
            yield UpLevel(coming, own, above, blocks, form, attends, None if i == 0 else how)
        coming = own


def _check(arguments: Mapping[str, Any]) -> None:
    """Raise unless each argument is in its range, and the levels fit together."""
    given = SimpleNamespace(**dict.fromkeys(_OPTIONAL) | arguments)
    for name, allowed in _CHOICES.items():
        check_choice(name, arguments[name], allowed)
    for name in ("scale_shift", "cosine_first", "centred", "learned_variance"):
        check_type(name, arguments[name], bool)
    for name in ("blocks", "features", "width", "head", "heads", "middle_groups", "labels"):
        if getattr(given, name) is not None:
            check_integer(name, getattr(given, name), minimum=1)
    check_integer("padding", given.padding, minimum=0, maximum=1)
    check_number("eps", given.eps, above=0)
    check_number("middle_scale", given.middle_scale, above=0)
    check_number("dropout", given.dropout, at_least=0, below=1)
    check_number("shift", given.shift)
    if given.head is not None and given.heads is not None:
        raise ValueError("heads must be None with head")
    if given.embedding == "table" and given.labels is None:
        raise ValueError("labels must be given for embedding = 'table', got none")
    if given.vector is not None and given.classes is not None:
        raise ValueError("vector must be None for a network with classes")
    _check_levels(given)


def _check_levels(given: SimpleNamespace) -> None:
    levels = len(given.widths)
    if levels == 0 or not len(given.down) == len(given.up) == levels:
        raise ValueError(
            "widths, down and up must name as many levels, at least one, got "
            f"{levels}, {len(given.down)} and {len(given.up)}"
        )
    for name in ("down", "up"):
        for kind in getattr(given, name):
            check_choice(f"each entry of {name}", kind, KINDS)
    shape, kinds, multiple = image_shape(given.shape), [*given.down, *given.up], 2 ** (levels - 1)
    if shape[1] % multiple or shape[2] % multiple:
        raise ValueError(f"shape must have sides that {multiple} divides, got {shape}")
    if any(map(is_skip, kinds)) and shape[0] != 3:
        raise ValueError(f"skip levels need images of 3 channels, got {shape}")
    for name, highest_first in (("down", given.down), ("up", list(reversed(given.up)))):
        skips = [is_skip(kind) for kind in highest_first]
        if skips != sorted(skips, reverse=True):
            raise ValueError(
                f"skip levels must be the highest ones, got {name} = {list(getattr(given, name))}"
            )
    groups = check_integer("groups", given.groups, minimum=0)
    if groups == 0 and not all(map(is_skip, kinds)):
        raise ValueError("groups must be at least 1 unless all levels are skip levels, got 0")
    attends = given.middle == "attention" or any(kind.endswith("attention") for kind in kinds)
    for channels in given.widths:
        check_integer("each entry of widths", channels, minimum=1)
        if groups and channels % groups:
            raise ValueError(f"groups must divide each width, got {groups} for {channels}")
        if attends and given.head is not None and given.head > channels:
            raise ValueError(f"head must be at most each width, got {given.head} for {channels}")
        if attends and given.heads is not None and channels % given.heads:
            raise ValueError(f"heads must divide each width, got {given.heads} for {channels}")
