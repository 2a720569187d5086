"""The arguments of `sample` that decide the shape, the device and the dtype of its result."""

from __future__ import annotations

from collections.abc import Sequence, Sized

import torch
from torch import Tensor

from .._condition import Condition, leaves
from .._reachable import float_parameters
from .._tensor import check_integer, check_shape, check_type
from ..data import draw_sizes
from ..score import ScoreModel
from .recommended import data_shape

__all__ = [
    "DEFAULT_SEED",
    "check_x_init",
    "place_of_state",
    "shape_of_result",
    "sizes_of_sets",
]

DEFAULT_N = 16
DEFAULT_SEED = 0


def check_x_init(x_init: Tensor | None) -> None:
    """Raise unless `x_init` is None or a tensor of finite floating numbers."""
    if x_init is None:
        return
    if not isinstance(x_init, Tensor):
        raise TypeError(f"x_init must be a tensor, got {type(x_init).__name__}")
    if not x_init.is_floating_point():
        raise TypeError(f"x_init must hold floating numbers, got {x_init.dtype}")
    if not bool(torch.isfinite(x_init).all()):
        raise ValueError("x_init must be finite, got NaN or infinity")


def shape_of_result(
    model: ScoreModel,
    shape: Sequence[int] | None,
    n: int | None,
    x_init: Tensor | None,
    y: Condition,
) -> tuple[int, ...]:
    """The shape (n, *D) of the result, or raise if nothing tells it or two arguments disagree."""
    n = None if n is None else check_integer("n", n, minimum=0)
    known = data_shape(model)
    if shape is not None:
        name, shape = "shape", check_shape(shape)
        if x_init is not None and x_init.shape != shape:
            raise ValueError(f"x_init must have shape {shape}, got {tuple(x_init.shape)}")
    elif x_init is not None:
        name, shape = "the shape of x_init", check_shape(x_init.shape)
    elif known is None:
        raise ValueError("shape must be given as (n, *D): the model does not know that of its data")
    else:
        rows = _rows(model.y if y is None else y) if n is None else n
        return (DEFAULT_N if rows is None else rows, *known)
    if known is not None and shape[1:] != known:
        expected = ", ".join(map(str, ("n", *known)))
        raise ValueError(f"{name} must be ({expected}) for the model's data, got {shape}")
    if n is not None and n != shape[0]:
        raise ValueError(f"n must be the first entry of {name}, {shape}, got {n}")
    return shape


def sizes_of_sets(model: ScoreModel, n: int, seed: int | None) -> Tensor | None:
    """Sizes of n sets with the shares of the training data; None if they are not known."""
    sizes = model.condition is not None and set(model.condition.kinds) == {"size"}
    if not sizes or getattr(model.data, "size_counts", None) is None:
        return None
    return draw_sizes(model.data, n, DEFAULT_SEED if seed is None else seed)


def _rows(y: Condition) -> int | None:
    """The leading dimension of a condition; None if it is one condition for all samples."""
    sized = (leaf for _, leaf in leaves(y) if isinstance(leaf, Sized) and getattr(leaf, "ndim", 1))
    return max((len(leaf) for leaf in sized if len(leaf) != 1), default=None)


def place_of_state(
    model: ScoreModel,
    x_init: Tensor | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the state: those that are given, otherwise those of the model."""
    own = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    parameter = next(float_parameters(model.decoded_by(None)), None)  # not one of a decoder
    if device is None:
        tensor = x_init if parameter is None else parameter
        device = own or (torch.device("cpu") if tensor is None else tensor.device)
    device = _device(device)
    same = own is None or (device.type == own.type and device.index in (None, own.index))
    if not same:
        raise ValueError(f"device must be {own}, where the model is, got {device}")
    if dtype is None:
        given = x_init if parameter is None else parameter
        double = given is not None and given.dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
    check_type("dtype", dtype, torch.dtype)
    if not dtype.is_floating_point or dtype.itemsize < 4:
        raise ValueError(f"dtype must be float32 or float64 (autocast the network), got {dtype}")
    return own or device, dtype


def _device(device: torch.device | str) -> torch.device:
    """The device, or raise ValueError if there is no such device."""
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device!r}") from error
