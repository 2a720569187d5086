"""How a network is called, and which part of what it returns is the prediction."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

from torch import Tensor, nn

from .._condition import Condition
from .._tensor import check_integer, check_type

__all__ = ["Call", "Caller", "innermost", "prediction"]


@dataclass(frozen=True)
class Call:
    """How a network of the noisy x, a noise label and perhaps a condition y is called.

    By default it is called as `net(x, label)` or `net(x, label, y)`, as its signature says: x, the
    label and the condition are its first three positional parameters. The third one counts as a
    condition if it is required, or if it is None by default and has one of the usual names: y, c,
    cond, condition, label, labels, class_label, class_labels, classes, context,
    encoder_hidden_states. Any other parameter must be named. Of `forward(*args, **kwargs)` nothing
    is known, and a condition is passed as third argument.

    Args:
        condition: Name of the parameter that receives the condition, if it is not the third one.
            With several names the condition is a dict with these keys, and each entry is passed
            to the parameter of its name.
        arguments: Further keyword arguments of each call, such as {"return_dict": False}.
        label_ndim: Number of dimensions of the label: 1 for shape (B,), 2 for (B, 1), and so on.
        learned_variance: Whether the network returns 2C channels of which the second half is
            2w − 1, −1 for β̃ and 1 for β, with w as in `sde.reverse.learned_std`. Networks of the
            authors of this variance (Nichol & Dhariwal 2021, arXiv:2102.09672) do so.

    Raises:
        TypeError: If an argument has the wrong type, or `arguments` holds a tensor.
        ValueError: If `label_ndim` is less than 1.
    """

    condition: str | tuple[str, ...] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    label_ndim: int = 1
    learned_variance: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.condition, list):
            object.__setattr__(self, "condition", tuple(self.condition))
        if not all(isinstance(name, str) for name in self.names):
            raise TypeError(f"condition must be a name or a tuple of names, got {self.condition!r}")
        check_type("arguments", self.arguments, Mapping)
        for name, value in self.arguments.items():
            if isinstance(value, Tensor):
                raise TypeError(
                    f"arguments must hold no tensor, got one for {name!r}; a tensor for each "
                    "sample is a condition: give condition= its name, and the tensor as y"
                )
        object.__setattr__(self, "arguments", dict(self.arguments))
        ndim = check_integer("label_ndim", self.label_ndim, minimum=1)
        object.__setattr__(self, "label_ndim", ndim)
        check_type("learned_variance", self.learned_variance, bool)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in `condition`."""
        if self.condition is None:
            return ()
        return self.condition if isinstance(self.condition, tuple) else (self.condition,)

    def fitted(self, network: Callable[..., Any]) -> Caller:
        """The call of one network, compared with its signature.

        Args:
            network: A module or a function.

        Raises:
            TypeError: If the network cannot be called in this way; the message names the parameter.
        """
        called = network.forward if isinstance(network, nn.Module) else network
        if isinstance(called, type):
            name = called.__name__
            raise TypeError(f"the network must be an object, not the class {name}: write {name}(…)")
        signature = _signature(network)
        if signature is None:
            return Caller(self, (), self.names)
        parameters = signature.parameters
        self._check_names(parameters, network)
        taken = {*self.names, *self.arguments}
        positional = [p for p in parameters.values() if p.kind in _POSITIONAL]
        free = [p for p in positional if p.name not in taken]
        variable = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters.values())
        if len(free) < 2 and not variable:
            raise TypeError(
                f"{_name(network)} must take x and a noise label, but takes "
                f"{', '.join(p.name for p in free) or 'nothing'} by position"
            )
        first = () if free[:2] == positional[:2] else tuple(p.name for p in free[:2])
        third, required = self._third(free, positional, network)
        if variable and len(free) < 2 and self.condition is None:
            third = ("",)  # a wrapper, which hands on what it is given
        covered = {p.name for p in free[: 3 if third else 2]} | taken
        missing = [p.name for p in parameters.values() if _is_required(p) and p.name not in covered]
        if missing:
            name = missing[0]
            raise TypeError(
                f"{_name(network)} needs {name!r}: give arguments={{{name!r}: …}}, or "
                f"condition={name!r} if it is a condition"
            )
        if self.condition is not None:
            required = any(_is_required(p) for p in positional if p.name in self.names)
        return Caller(self, first, self.names or third, required)

    def _check_names(self, parameters: Mapping[str, Parameter], network: object) -> None:
        """Raise TypeError unless the network has all parameters that are passed by name."""
        if any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
            return
        for name in (*self.names, *self.arguments):
            if name not in parameters or parameters[name].kind is Parameter.POSITIONAL_ONLY:
                raise TypeError(
                    f"{_name(network)} has no parameter {name!r}; it has {', '.join(parameters)}"
                )

    def _third(
        self, free: list[Parameter], positional: list[Parameter], network: object
    ) -> tuple[tuple[str, ...], bool]:
        """Name of the third positional parameter if it is a condition, and if it is required."""
        if self.condition is not None or len(free) < 3:
            return (), False
        third, required = free[2], _is_required(free[2])
        if required and third.name in _LABEL_NAMES:
            second = free[1].name
            raise TypeError(
                f"the third parameter of {_name(network)} is {third.name!r}, but the second one "
                f"({second!r}) would receive the noise label: give condition={second!r}, or "
                f"arguments={{{second!r}: …}}"
            )
        if not (required or (third.default is None and third.name in _CONDITION_NAMES)):
            return (), False
        # By position, where it can be: exported networks take no names.
        return ("" if free[:3] == positional[:3] else third.name,), required


@dataclass(frozen=True)
class Caller:
    """A `Call` fitted to the signature of one network.

    Attributes:
        call: The call.
        first: Names of the parameters for x and the label, or () if they are the first two.
        names: Names of the parameters for the condition; "" stands for the third position, and ()
            means that the network takes no condition.
        required: Whether None must be passed if there is no condition.
    """

    call: Call
    first: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    required: bool = False

    @property
    def takes_condition(self) -> bool:
        """Whether the network can be given a condition."""
        return bool(self.names)

    def check(self, y: Condition) -> None:
        """Raise unless a condition can be passed to the parameters.

        Raises:
            ValueError: If the call has several names and the condition is not a dict with these
                keys.
        """
        if isinstance(self.call.condition, tuple) and y is not None:
            keys = tuple(y) if isinstance(y, Mapping) else None
            if keys is None or set(keys) != set(self.names):
                got = type(y).__name__ if keys is None else f"the keys {', '.join(keys)}"
                raise ValueError(
                    f"y must be a dict with the keys {', '.join(self.names)}, got {got}"
                )

    def __call__(
        self, network: Callable[..., Any], x: Tensor, label: Tensor, y: Condition = None
    ) -> Any:
        """What the network returns for x, a label of shape () or (B,), and a condition or None."""
        label = label[(..., *[None] * (self.call.label_ndim - 1))]
        by_name = dict(self.call.arguments)
        positional = (x, label)
        if self.first:
            by_name |= dict(zip(self.first, positional, strict=True))
            positional = ()
        if isinstance(self.call.condition, tuple):
            self.check(y)
            by_name |= y if y is not None else dict.fromkeys(self.names) if self.required else {}
        elif self.names and (y is not None or self.required):
            (name,) = self.names
            if name:
                by_name[name] = y
            else:
                positional = (*positional, y)
        return network(*positional, **by_name)


def prediction(out: Any, x: Tensor, learned_variance: bool = False) -> tuple[Tensor, Tensor | None]:
    """The tensor like x in what a network returned.

    It is the returned tensor itself, the first entry of a tuple or list, or the entry `sample` of
    an object or mapping. If x has channels and it has twice as many, the first half is the
    prediction; the second half belongs to the variance of a DDPM step (Nichol & Dhariwal 2021,
    arXiv:2102.09672), and is left out unless it was trained.

    Args:
        out: What the network returned.
        x: The network's input, shape (B, C, *D) with channels, (B, D) or (B,).
        learned_variance: Whether the network must return both halves.

    Returns:
        A tensor of the shape of x, which may be memory of the network, and the second half of a
        learned variance or None.

    Raises:
        RuntimeError: If there is no such tensor; the message says what the network returned.
    """
    value, place = out, ""
    if isinstance(out, (tuple, list)):
        value, place = (out[0] if out else None), f"a {type(out).__name__} whose first entry "
    elif isinstance(out, Mapping):
        value, place = out.get("sample"), f"a {type(out).__name__} whose entry 'sample' "
    elif not isinstance(out, Tensor) and hasattr(out, "sample"):
        value, place = out.sample, f"a {type(out).__name__} whose .sample "
    if isinstance(value, Tensor):
        if value.shape == x.shape and not learned_variance:
            return value, None
        channels = x.shape[1] if x.ndim > 1 else 0
        doubled = channels and value.shape == (x.shape[0], 2 * channels, *x.shape[2:])
        if doubled and (learned_variance or x.ndim > 2):
            return value[:, :channels], value[:, channels:] if learned_variance else None
        what = f"has shape {tuple(value.shape)}" if place else f"{tuple(value.shape)}"
    else:
        what = f"is {type(value).__name__}" if place else type(value).__name__
    wanted = "twice its channels for learned_variance" if learned_variance else "that shape"
    raise RuntimeError(
        f"network returned {place}{what} for x of shape {tuple(x.shape)}; expected a tensor of "
        f"{wanted}, alone, first in a tuple, or as .sample"
    )


_CONDITION_NAMES = {
    *("y", "c", "cond", "condition", "label", "labels", "class_label", "class_labels", "classes"),
    *("context", "encoder_hidden_states"),
}
_LABEL_NAMES = {
    *("t", "time", "times", "timestep", "timesteps", "sigma", "sigmas", "noise_level"),
    *("noise_label", "noise_labels"),
}
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _signature(network: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of a function or of a module's `forward`; None if it has none."""
    try:
        if not isinstance(network, nn.Module):
            return inspect.signature(network)
        found = inspect.signature(network.forward)
        inner = _inside(network)
        # A wrapper takes anything and hands it on.
        if inner is not None and all(p.kind in _VARIABLE for p in found.parameters.values()):
            return _signature(inner)
    except (TypeError, ValueError):
        return None
    return found


def innermost(net: nn.Module, attribute: str) -> nn.Module:
    """The first module with an attribute: the network itself, or one inside PyTorch's wrappers."""
    while not hasattr(net, attribute) and (inner := _inside(net)) is not None:
        net = inner
    return net


def _inside(net: nn.Module) -> nn.Module | None:
    """The module inside a wrapper such as DataParallel, AveragedModel, or a compiled module."""
    for name in ("_orig_mod", "module"):
        inner = getattr(net, name, None)
        if isinstance(inner, nn.Module):
            return inner
    return None


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind not in _VARIABLE


def _name(network: object) -> str:
    if isinstance(network, nn.Module):
        if "forward" not in vars(network):
            return f"{type(network).__name__}.forward"
        network = network.forward
    return getattr(network, "__name__", type(network).__name__)
