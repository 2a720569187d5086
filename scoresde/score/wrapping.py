"""`wrap`: a network of any origin as a score model, in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, get_args

from torch import nn

from .._condition import ConditionSpec
from .._reachable import float_parameters
from .._tensor import check_choice
from ..sde import SDE
from .call import Call
from .network import NetworkScore
from .preconditioning import Label, Preconditioning, Target

__all__ = ["wrap"]

_TARGETS = tuple(target for target in get_args(Target) if target != "edm")
_LABELS = get_args(Label)


def wrap(
    net: Callable[..., Any],
    sde: SDE,
    target: Target,
    *,
    label: Label | None = None,
    label_scale: float = 1.0,
    label_offset: float = 0.0,
    label_ndim: int = 1,
    data_at: int = 0,
    velocity_sign: int | None = None,
    condition: str | tuple[str, ...] | None = None,
    arguments: Mapping[str, Any] | None = None,
    learned_variance: bool = False,
    classes: int | None = None,
    data: Any = None,
) -> NetworkScore:
    """A network of the noisy x and a noise label, trained elsewhere, as a score model.

        wrap(D, VE(0.002, 80.0), "denoiser")                            D(x, σ) of x = x_0 + σ ε
        wrap(net, TabulatedVP(betas), "eps", label="index")             DDPM: labels 0 … N − 1
        wrap(net, VP(), "v", label="time", label_scale=1000)            labels 1000 t
        wrap(net, Linear(), "velocity", label="time")                   flow matching, ε − x0
        wrap(net, Linear(), "velocity", label="time", data_at=1)        x0 − ε of τ = 1 − t

    The network receives x_t = α x_0 + σ ε as it is; a denoiser receives x_t/α. It may return the
    prediction alone, first in a tuple, as `.sample`, or as the first half of 2C channels.

    Args:
        net: A module or a function, called as `net(x, label)` or `net(x, label, y)` by its
            signature. x has shape (B, *D) and the network's dtype, the label has shape (B,).
        sde: The forward process it was trained for; its α and σ must be those of the training.
        target: What the network returns: "eps", "x0", "v" = α ε − σ x0, "score" = −ε/σ, or
            "denoiser", E[x_0] of x_0 + σ ε, whose label is σ, or "velocity", α′ x0 + σ′ ε, which
            is ε − x0 under `Linear`.
        label: What the network receives as label: "time" t in [0, 1], "index" N t − 1 of a
            `TabulatedVP` (a number between the integers at times between its own),
            "rounded_index" the same rounded, as int64, "sigma" σ/α, "log_sigma" log(σ/α), "edm"
            log(σ/α)/4. It must be given unless the target is "denoiser".
        label_scale: A factor of the label.
        label_offset: A number added to the label before the factor: 1 for labels 1 … N of an index.
        label_ndim: Number of dimensions of the label: 2 for shape (B, 1), 4 for (B, 1, 1, 1).
        data_at: 1 for a network whose time is 1 at the data: its label "time" is then 1 − t, t our
            time, which is 0 at the data.
        velocity_sign: s in F = s dx/dt of the target "velocity", 1 or −1; None for the derivative
            with respect to the network's own time.
        condition: Name of the parameter that receives the condition y, if it is not the third one
            or has an unusual name; several names for a dict. See `Call`.
        arguments: Further keyword arguments of each call.
        learned_variance: Whether the second half of its 2C channels, from −1 to 1, says where the
            log variance of a DDPM step lies from β̃ to β, for `Ancestral("learned")`. See `Call`.
        classes: Number K of classes, if the condition is a class label in 0 … K − 1.
        data: The `DataSpec` of the data that the network was trained on, from which `sample` takes
            the shape.

    Returns:
        The model. It is a module that holds the network as `net`; a function is put into a module.

    Raises:
        TypeError: If the network cannot be called in this way, or an argument has the wrong type.
        ValueError: If target or label is unknown, or the label is missing or needs another SDE.
    """
    check_choice("target", target, _TARGETS)
    if label is None and target != "denoiser":
        raise ValueError(
            f"label must say what the network receives as its noise label, one of "
            f"{', '.join(_LABELS)}; got none"
        )
    network = net if isinstance(net, nn.Module) else _Function(net)
    preconditioning = Preconditioning(
        *(target, label or "sigma"),
        scale_input=False,
        label_scale=label_scale,
        label_offset=label_offset,
        data_at=data_at,
        velocity_sign=velocity_sign,
    )
    call = Call(condition, arguments or {}, label_ndim, learned_variance)
    model = NetworkScore(network, sde, preconditioning, call=call)
    if classes is not None:
        if not model._caller.takes_condition:
            raise ValueError(
                f"classes must be None for a network without a condition, got {classes}"
            )
        model.condition = ConditionSpec(classes)
    model.data = data
    return model


class _Function(nn.Module):
    """A function as a module without parameters of its own.

    Attributes:
        of_network: A parameter of a network that the function uses, for its dtype; or nothing.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"net must be a module or a function, got {type(function).__name__}")
        self.forward = function
        self.of_network = tuple(islice(float_parameters(self), 1))
