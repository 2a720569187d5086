"""The config of diffusers' UNet2DModel as the arguments of a `BlockUNet`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .._tensor import check_integer
from .other_models import other_class

__all__ = ["FLAGS", "Flag", "arguments_of_config", "in_keys"]

_DOWN = {
    "DownBlock2D": "plain",
    "AttnDownBlock2D": "attention",
    "ResnetDownsampleBlock2D": "residual",
    "SkipDownBlock2D": "skip",
    "AttnSkipDownBlock2D": "skip_attention",
}
_UP = {
    "UpBlock2D": "plain",
    "AttnUpBlock2D": "attention",
    "ResnetUpsampleBlock2D": "residual",
    "SkipUpBlock2D": "skip",
    "AttnSkipUpBlock2D": "skip_attention",
}
_EMBEDDINGS = {"positional": "waves", "fourier": "fourier", "learned": "table"}
_LAYERS = {"conv": "conv", "resnet": "residual"}
_SHIFTS = {"default": False, "scale_shift": True}
_ACTIVATIONS = {name: name for name in ("silu", "mish", "gelu", "relu")} | {"swish": "silu"}


@dataclass(frozen=True)
class Flag:
    """A key of the config that is one argument of `BlockUNet`.

    Attributes:
        argument: The argument.
        check: Raises for a value of a wrong type; called with the key and the value.
        default: The value if the key is not there.
        names: Value -> the argument's value, for a choice of names or a list of them.
        any_case: Whether a name may have capital letters.
    """

    argument: str
    check: Callable[[str, Any], Any]
    default: Any
    names: Mapping[str, Any] | None = None
    any_case: bool = False

    def read(self, key: str, value: Any) -> Any:
        """The argument's value; errors name the key."""
        if self.names is None:
            return self.check(key, value)
        if not isinstance(self.default, list):
            lower = self.any_case and isinstance(value, str)
            return _chosen(key, value.lower() if lower else value, self.names)
        names = [n.removeprefix("UNetRes") if isinstance(n, str) else n for n in _list(key, value)]
        return [_chosen(f"each entry of {key}", name, self.names) for name in names]

    def written(self, value: Any) -> Any:
        """The value of the key for a value of the argument: the inverse of `read`."""
        if self.names is None or value is None:
            return value
        back = {v: k for k, v in reversed(self.names.items())}
        return [back[v] for v in value] if isinstance(value, list) else back[value]


def _chosen(key: str, value: Any, allowed: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
    return allowed[value]


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{key} must be a list, got {value!r}")
    return value


def _integer(key: str, value: Any) -> int:
    return check_integer(key, value, minimum=0, maximum=10**6)


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{key} must be text, got {value!r}")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{key} must be true or false, got {value!r}")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} must be a number, got {value!r}")
    return float(value)


def _widths(key: str, value: Any) -> list[int]:
    value = _list(key, value)
    return [check_integer(f"each entry of {key}", n, minimum=1, maximum=10**6) for n in value]


# A value of null stands for the argument's own default.
FLAGS: dict[str, Flag] = {
    "block_out_channels": Flag("widths", _widths, [224, 448, 672, 896]),
    "down_block_types": Flag("down", _list, ["DownBlock2D", *["AttnDownBlock2D"] * 3], _DOWN),
    "up_block_types": Flag("up", _list, [*["AttnUpBlock2D"] * 3, "UpBlock2D"], _UP),
    "layers_per_block": Flag("blocks", _integer, 2),
    "attn_norm_num_groups": Flag("middle_groups", _integer, None),
    "norm_eps": Flag("eps", _number, 1e-5),
    "attention_head_dim": Flag("head", _integer, 8),
    "resnet_time_scale_shift": Flag("scale_shift", _name, "default", _SHIFTS),
    "downsample_type": Flag("shrink", _name, "conv", _LAYERS),
    "upsample_type": Flag("grow", _name, "conv", _LAYERS),
    "downsample_padding": Flag("padding", _integer, 1),
    "mid_block_scale_factor": Flag("middle_scale", _number, 1),
    "act_fn": Flag("activation", _name, "silu", _ACTIVATIONS, any_case=True),
    "dropout": Flag("dropout", _number, 0.0),
    "time_embedding_type": Flag("embedding", _name, "positional", _EMBEDDINGS),
    "time_embedding_dim": Flag("width", _integer, None),
    "freq_shift": Flag("shift", _number, 0),
    "flip_sin_to_cos": Flag("cosine_first", _flag, True),
    "center_input_sample": Flag("centred", _flag, False),
}
# Keys that several arguments depend on.
_JOINT = {
    **{"sample_size": None, "in_channels": 3, "out_channels": 3, "norm_num_groups": 32},
    **{"mid_block_type": "UNetMidBlock2D", "add_attention": True, "num_train_timesteps": None},
    **{"class_embed_type": None, "num_class_embeds": None},
}


def arguments_of_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments of a `BlockUNet`, and for each key what became of it.

    Args:
        config: The content of a UNet2DModel's config.json.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If the class is another one, or a key or a value is unknown.
    """
    if config.get("_class_name") != "UNet2DModel":
        name = config.get("_class_name")
        raise ValueError(
            f"_class_name is {name!r}; only UNet2DModel can be read{other_class(name)}"
        )
    for key, value in config.items():
        if not (key.startswith("_") or key in FLAGS or key in _JOINT or value is None):
            raise ValueError(f"unknown key {key!r} = {value!r}: its meaning is not known")
    arguments, used = {}, {}
    for key, flag in FLAGS.items():
        value = config.get(key, flag.default)
        used[key] = f"net.{flag.argument}"
        if value is not None or isinstance(flag.default, list):
            arguments[flag.argument] = flag.read(key, value)
    joint = _JOINT | {key: config[key] for key in _JOINT if key in config}
    return arguments | _joint_arguments(joint, arguments), used | _joint_report(joint)


def in_keys(message: str) -> str:
    """A message of `BlockUNet` about an argument, as one about the key that the argument is from.

    Args:
        message: It begins with the argument's name. Other messages stay as they are.
    """
    keys = {flag.argument: key for key, flag in FLAGS.items()}
    keys |= {"groups": "norm_num_groups", "labels": "num_train_timesteps"}
    keys |= {"classes": "num_class_embeds"}
    argument, space, rest = message.partition(" ")
    rest = rest.replace("each width", "each entry of block_out_channels")
    rest = rest.replace("embedding = 'table'", "time_embedding_type = 'learned'")
    return f"{keys.get(argument, argument)}{space}{rest}"


def _joint_arguments(joint: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that depend on several keys."""
    channels, groups = _integer("in_channels", joint["in_channels"]), joint["norm_num_groups"]
    outputs = _integer("out_channels", joint["out_channels"])
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"out_channels must be in_channels = {channels} or twice as many, got {outputs}"
        )
    arguments = {
        "shape": [channels, *_sides(joint["sample_size"])],
        "groups": 0 if groups is None else check_integer("norm_num_groups", groups, minimum=1),
        "middle": _middle(joint),
        "learned_variance": outputs == 2 * channels,
        "labels": joint["num_train_timesteps"],
        **_class_arguments(joint, known),
    }
    return {key: value for key, value in arguments.items() if value is not None}


def _sides(size: Any) -> list[int]:
    """Height and width."""
    if size is None:
        raise ValueError("sample_size is null: write the side of the images into it")
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2:
        raise ValueError(f"sample_size must be a side or [height, width], got {size!r}")
    return [check_integer("sample_size", side, minimum=1, maximum=1 << 16) for side in sides]


def _middle(joint: Mapping[str, Any]) -> str:
    if joint["mid_block_type"] is None:
        return "none"
    _chosen("mid_block_type", joint["mid_block_type"], {"UNetMidBlock2D": None})
    return "attention" if _flag("add_attention", joint["add_attention"]) else "plain"


def _class_arguments(joint: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The condition of the network."""
    kind, classes = joint["class_embed_type"], joint["num_class_embeds"]
    if kind is None:
        return {"classes": classes}
    if kind == "identity":
        return {"vector": known.get("width", 4 * known["widths"][0])}
    if kind != "timestep":
        raise ValueError(f"class_embed_type must be null, timestep or identity, got {kind!r}")
    if classes is None:
        raise ValueError("num_class_embeds is null: write the number of classes into it")
    return {"classes": classes, "class_input": "waves"}


def _joint_report(joint: Mapping[str, Any]) -> dict[str, str]:
    return {
        **{"sample_size": "net.shape", "in_channels": "net.shape", "norm_num_groups": "net.groups"},
        **{"out_channels": "net.learned_variance, if it is twice in_channels"},
        **{"mid_block_type": "net.middle", "add_attention": "net.middle"},
        **{"num_train_timesteps": "net.labels", "class_embed_type": "the condition"},
        **{"num_class_embeds": "net.classes"},
    } | ({} if joint["class_embed_type"] != "identity" else {"num_class_embeds": "not used"})
