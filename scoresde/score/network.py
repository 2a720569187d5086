"""NetworkScore: a network with its preconditioning as a score model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .._condition import ConditionSpec
from .._tensor import check_choice, check_number, plain_numbers
from ..sde import SDE, Node
from .base import ScoreModel, Time, cast, combine

__all__ = ["Label", "NetworkScore", "Preconditioning", "Target"]

Target = Literal["eps", "x0", "v", "score", "edm"]
Label = Literal["log_sigma", "edm", "time", "index", "rounded_index"]
Quantity = Literal["eps", "x0", "v"]

INDEX_LABELS = ("index", "rounded_index")


@dataclass(frozen=True)
class Preconditioning:
    """The input of a network F and the meaning of its output F(c_in x, c_noise).

    Args:
        target: What F approximates: "eps", "x0", "v", "score", or "edm", EDM's skip form
            x0 = c_skip x/α + c_out F (Karras et al. 2022, arXiv:2206.00364, table 1).
        label: The time label c_noise: "log_sigma" is log(σ/α) (ours), "edm" is log(σ/α)/4, "time"
            is t, "index" is N t − 1, the discrete index of a `TabulatedVP`, and "rounded_index" is
            N t − 1 rounded to an integer. With "index" the network is evaluated at any time, also
            between the labels that it was trained on. With "rounded_index" it is evaluated at these
            labels only, and is exact only at the ladder's times i/N; `sample` then needs a grid of
            these times (`grid.snapped`) and a sampler that stays on it. On the ladder both agree.
        scale_input: Whether c_in is 1/√(α² + σ²) ("edm": 1/√(α² σ_data² + σ²)) instead of 1.
        sigma_data: Standard deviation of the data, used only by "edm".
    """

    target: Target = "eps"
    label: Label = "log_sigma"
    scale_input: bool = True
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_choice("target", self.target, get_args(Target))
        check_choice("label", self.label, get_args(Label))
        check_number("sigma_data", self.sigma_data, above=0)

    @property
    def snapped(self) -> bool:
        """Whether the labels are rounded to those the network was trained on."""
        return self.label == "rounded_index"

    def t_least(self, sde: SDE) -> float:
        """Least time whose label the network was trained on: 1/N for an index label, else 0.

        Below it an index label stays 0, while σ decreases further.
        """
        return 1 / sde.levels if self.label in INDEX_LABELS else 0.0

    def c_in(self, node: Node) -> float | Tensor:
        """Factor of the input: c_in x has variance 1 for data of variance 1 ("edm": σ_data²)."""
        if not self.scale_input:
            return 1.0
        data_std = self.sigma_data if self.target == "edm" else 1.0
        return (node.alpha**2 * data_std**2 + node.sigma**2) ** -0.5

    def c_noise(self, sde: SDE, node: Node) -> float | Tensor:
        """The time label, like `node.t`."""
        if self.label == "time":
            return node.t
        if self.label in INDEX_LABELS:
            label = sde.label(node.t).round() if self.snapped else sde.label(node.t)
            return label if isinstance(node.t, Tensor) else float(label)
        return -node.lam if self.label == "log_sigma" else -0.25 * node.lam

    def skip_and_out(self, quantity: Quantity, node: Node) -> tuple[float | Tensor, ...]:
        """(c_skip, c_out) of quantity = c_skip x + c_out F, where F is the network's output.

        Each quantity is computed from F directly. Computed from another quantity, it would lose
        digits at one end of [0, 1].

        Args:
            quantity: "eps", "x0" or "v".
            node: The time.
        """
        a, s = node.alpha, node.sigma
        if self.target == "eps":
            known = {"x0": (1 / a, -s / a), "eps": (0.0, 1.0)}
        elif self.target == "x0":
            known = {"x0": (0.0, 1.0), "eps": (1 / s, -a / s)}
        elif self.target == "v":
            total = a**2 + s**2
            known = {"x0": (a / total, -s / total), "eps": (s / total, a / total), "v": (0.0, 1.0)}
        elif self.target == "score":
            known = {"x0": (1 / a, s**2 / a), "eps": (0.0, -s)}
        else:
            # EDM in x/α and σ/α: c_skip = d²/(ŝ² + d²), c_out = ŝ d/√(ŝ² + d²)
            s_hat, d = s / a, self.sigma_data
            total = s_hat**2 + d**2
            known = {
                "x0": (d**2 / total / a, s_hat * d / total**0.5),
                "eps": (s_hat / total / a, -d / total**0.5),
            }
        if quantity in known:
            return known[quantity]
        (x0_skip, x0_out), (eps_skip, eps_out) = known["x0"], known["eps"]
        return a * eps_skip - s * x0_skip, a * eps_out - s * x0_out


class NetworkScore(ScoreModel):
    """A network with its preconditioning, as a score model.

    A network with the attribute `condition` (a `ConditionSpec`, as in our networks), or `classes`
    (its number of classes), needs a condition unless `unconditional` is set.

    Args:
        net: Called as net(x, label, y), x of shape (B, *D) in the network's dtype, label of
            shape (B,) in float32 or wider, y a condition or None; returns a tensor like x.
        sde: The forward process it was trained for.
        preconditioning: Input scale, time label and target.
        autocast: Compute the network under `torch.autocast` in this dtype; the state, the times
            and all other formulas keep their dtypes.

    Attributes:
        unconditional: Whether the network was also trained without a condition (label dropout),
            so that it may be evaluated without one.

    Raises:
        ValueError: If the label is an index and the SDE has no discrete ladder.
    """

    def __init__(
        self,
        net: nn.Module,
        sde: SDE,
        preconditioning: Preconditioning | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(sde)
        self.net = net
        self.preconditioning = preconditioning or Preconditioning()
        self.autocast = autocast
        self.unconditional = False
        self.condition = _condition_of(net)
        label = self.preconditioning.label
        if label in INDEX_LABELS and sde.levels is None:
            raise ValueError(f"label {label!r} needs a TabulatedVP, got {type(sde).__name__}")

    @property
    def snapped(self) -> bool:
        """Whether its labels are rounded, so that only the ladder's times are exact."""
        return self.preconditioning.snapped

    @property
    def needs_labels(self) -> bool:
        """Whether the network takes a condition and was not trained without one."""
        return bool(self.condition) and not self.unconditional

    @property
    def t_least(self) -> float:
        """The time of the first discrete label, 0 for labels that are not discrete."""
        return self.preconditioning.t_least(self.sde)

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """E[ε | x_t] from the network's native target."""
        return self._quantity("eps", x, t)

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t] from the network's native target."""
        return self._quantity("x0", x, t)

    def v(self, x: Tensor, t: Time) -> Tensor:
        """E[α ε − σ x_0 | x_t] from the network's native target."""
        return self._quantity("v", x, t)

    def _quantity(self, quantity: Quantity, x: Tensor, t: Time) -> Tensor:
        """c_skip x + c_out F(x, t)."""
        node = self.sde.at(t, x)
        c_skip, c_out = self.preconditioning.skip_and_out(quantity, node)
        return combine(c_skip, x, c_out, self._native(x, node))

    def _native(self, x: Tensor, node: Node) -> Tensor:
        """F(c_in x, c_noise, y), counted and checked, in the dtype of x.

        The result may be memory of the network. The network's arguments are new for each call, so
        that it may change them in place.
        """
        parameter = next(self.net.parameters(), x)
        y = self._condition_for(x, parameter.dtype)
        self.nfe.add_forward(node.t)
        label = torch.as_tensor(
            self.preconditioning.c_noise(self.sde, node),
            # In bfloat16 only 507 of 1000 time labels differ.
            dtype=torch.promote_types(parameter.dtype, torch.float32),
            device=x.device,
        )
        label = label.flatten().expand(x.shape[0]).clone()
        scaled = (cast(self.preconditioning.c_in(node), x) * x).to(parameter.dtype)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            out = self.net(scaled, label, y)
        return self._evaluated(out, x, node)


def stated_condition(net: nn.Module) -> ConditionSpec | None:
    """The attribute `condition` of a network if it is a `ConditionSpec`; None otherwise.

    The network may be inside PyTorch's wrappers, such as DataParallel and AveragedModel.
    """
    stated = _stated(net, lambda net: isinstance(getattr(net, "condition", None), ConditionSpec))
    return None if stated is None else stated.condition


def _condition_of(net: nn.Module) -> ConditionSpec | None:
    """The conditions that a network says it takes, also by `classes`; None if it does not say."""
    stated = stated_condition(net)
    other = _stated(net, lambda net: hasattr(net, "classes"))
    if stated is not None or other is None:
        return stated
    known = other.classes is None or (type(other.classes) is int and other.classes > 0)
    return ConditionSpec(other.classes) if known else None


def _stated(net: nn.Module, says: Callable[[nn.Module], bool]) -> nn.Module | None:
    """The network itself, or the one inside a wrapper, that fulfils `says`."""
    while not says(net):
        if not isinstance(net := getattr(net, "module", None), nn.Module):
            return None
    return net
