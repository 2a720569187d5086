"""Preconditioning: what a network's input, label and output mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from .._tensor import check_choice, check_number, plain_numbers
from ..fingerprint import ADDED
from ..sde import SDE, Node

__all__ = ["INDEX_LABELS", "Label", "Preconditioning", "Quantity", "Target"]

Target = Literal["eps", "x0", "v", "score", "edm", "denoiser", "velocity"]
Label = Literal["log_sigma", "edm", "time", "index", "rounded_index", "sigma"]
Quantity = Literal["eps", "x0", "v", "velocity"]

INDEX_LABELS = ("index", "rounded_index")

# Targets from which x0 follows where α = 0, and labels that are finite there.
_REGULAR_TARGETS = ("x0", "v", "velocity")
_REGULAR_LABELS = ("time", *INDEX_LABELS)


@dataclass(frozen=True)
class Preconditioning:
    """The input of a network F and the meaning of its output F(c_in x, c_noise).

    Args:
        target: What F approximates: "eps", "x0", "v", "score", or "edm", EDM's skip form
            x0 = c_skip x/α + c_out F (Karras et al. 2022, arXiv:2206.00364, table 1), or
            "denoiser", x0 = F(x/α), where x/α = x_0 + (σ/α) ε, or "velocity", dx/dt = α′ x0 + σ′ ε
            of flow matching, up to `velocity_sign`.
        label: The time label c_noise: "log_sigma" is log(σ/α) (ours), "edm" is log(σ/α)/4, "sigma"
            is σ/α, "time" is t, "index" is N t − 1, the discrete index of a `TabulatedVP`, and
            "rounded_index" is N t − 1 rounded to an integer. With "index" the network is evaluated
            at any time, also between the labels that it was trained on. With "rounded_index" it is
            evaluated at these labels only, and is exact only at the ladder's times i/N; `sample`
            then needs a grid of these times (`grid.snapped`) and a sampler that stays on it. On
            the ladder both agree.
        scale_input: Whether c_in is 1/√(α² + σ²) ("edm": 1/√(α² σ_data² + σ²)) instead of 1. For
            "denoiser" c_in is always 1/α.
        sigma_data: Standard deviation of the data, used only by "edm".
        label_scale: A factor of the label, such as 1000 for networks of 1000 t.
        label_offset: A number that is added to the label before the factor, such as 1 for networks
            whose labels of N levels are 1 … N instead of 0 … N − 1.
        data_at: The network's own time at the data: 0 as here, or 1 in the other convention of flow
            matching. For 1 the label "time" is 1 − t instead of t, t our time.
        velocity_sign: s in F = s dx/dt for the target "velocity", t our time: 1 or −1. None: the
            derivative with respect to the network's own time, 1 for data_at = 0 and −1 for 1.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is unknown or out of range, or two of them contradict.
    """

    target: Target = "eps"
    label: Label = "log_sigma"
    scale_input: bool = True
    sigma_data: float = 0.5
    label_scale: float = 1.0
    label_offset: float = 0.0
    data_at: int = field(default=0, metadata=ADDED)
    velocity_sign: int | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_choice("target", self.target, get_args(Target))
        check_choice("label", self.label, get_args(Label))
        check_number("sigma_data", self.sigma_data, above=0)
        if check_number("label_scale", self.label_scale) == 0:
            raise ValueError("label_scale must not be 0")
        check_number("label_offset", self.label_offset)
        self._check_convention()

    def _check_convention(self) -> None:
        """Raise unless time direction and sign are known, and stated where they mean something."""
        if self.data_at not in (0, 1):
            raise ValueError(f"data_at must be 0 or 1, got {self.data_at!r}")
        if self.velocity_sign not in (None, 1, -1):
            raise ValueError(f"velocity_sign must be 1 or -1, got {self.velocity_sign!r}")
        if self.data_at == 1 and self.label != "time":
            raise ValueError(f"data_at must be 0 for the label {self.label!r}, which is not a time")
        if self.velocity_sign is not None and self.target != "velocity":
            raise ValueError(
                f"velocity_sign must be None for the target {self.target!r}, got "
                f"{self.velocity_sign}"
            )

    @property
    def snapped(self) -> bool:
        """Whether the labels are rounded to those the network was trained on."""
        return self.label == "rounded_index"

    @property
    def integer_labels(self) -> bool:
        """Whether all labels are integers, which the network receives as int64."""
        return self.snapped and self.label_scale == 1 and float(self.label_offset).is_integer()

    def check(self, sde: SDE) -> None:
        """Raise ValueError if the label is an index and the SDE has no discrete ladder."""
        if self.label in INDEX_LABELS and sde.levels is None:
            raise ValueError(f"label {self.label!r} needs a TabulatedVP, got {type(sde).__name__}")

    def t_least(self, sde: SDE) -> float:
        """Least time whose label the network was trained on: 1/N for an index label, else 0.

        Below it an index label stays 0, while σ decreases further.
        """
        return 1 / sde.levels if self.label in INDEX_LABELS else 0.0

    def t_most(self, sde: SDE) -> float:
        """Largest time at which x0 and the velocity follow from the network.

        It is 1, unless α(1) = 0 and the target or the label is singular there: `SDE.t_regular`.
        """
        regular = self.target in _REGULAR_TARGETS and self.label in _REGULAR_LABELS
        return 1.0 if regular else sde.t_regular

    def c_in(self, node: Node) -> float | Tensor:
        """Factor of the input: c_in x has variance 1 for data of variance 1 ("edm": σ_data²)."""
        if self.target == "denoiser":
            return 1 / node.alpha
        if not self.scale_input:
            return 1.0
        data_std = self.sigma_data if self.target == "edm" else 1.0
        return (node.alpha**2 * data_std**2 + node.sigma**2) ** -0.5

    def c_noise(self, sde: SDE, node: Node) -> float | Tensor:
        """The time label plus its offset, times its factor, like `node.t`."""
        label = self._label(sde, node)
        label = label if self.label_offset == 0 else label + self.label_offset
        return label if self.label_scale == 1 else self.label_scale * label

    def labels(self, sde: SDE, node: Node, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The labels of a batch as a network receives them.

        Args:
            sde: The forward process.
            node: The time.
            x: The batch, shape (B, *D).
            dtype: That of the network.

        Returns:
            Shape (B,), new memory: int64 if it is a rounded index, else float32 or wider, because
            in bfloat16 only 507 of 1000 time labels differ.
        """
        value = self.c_noise(sde, node)
        wide = torch.promote_types(dtype, torch.float32)
        kind = torch.int64 if self.integer_labels else wide
        if isinstance(value, Tensor):
            return value.to(x.device, kind).flatten().expand(x.shape[0]).clone()
        # Unlike a tensor that is moved to an accelerator, a filled one does not stop the host.
        return torch.full((x.shape[0],), value, dtype=kind, device=x.device)

    def _label(self, sde: SDE, node: Node) -> float | Tensor:
        if self.label == "time":
            return 1 - node.t if self.data_at == 1 else node.t
        if self.label == "sigma":
            return node.sigma / node.alpha
        if self.label in INDEX_LABELS:
            label = sde.label(node.t).round() if self.snapped else sde.label(node.t)
            return label if isinstance(node.t, Tensor) else float(label)
        return -node.lam if self.label == "log_sigma" else -0.25 * node.lam

    def skip_and_out(self, quantity: Quantity, node: Node) -> tuple[float | Tensor, ...]:
        """(c_skip, c_out) of quantity = c_skip x + c_out F, where F is the network's output.

        Each quantity is computed from F directly. Computed from another quantity, it would lose
        digits at one end of [0, 1].

        Args:
            quantity: "eps", "x0", "v" or "velocity".
            node: The time; up to `t_most`.
        """
        a, s = node.alpha, node.sigma
        if self.target == "eps":
            known = {"x0": (1 / a, -s / a), "eps": (0.0, 1.0)}
        elif self.target in ("x0", "denoiser"):
            known = {"x0": (0.0, 1.0), "eps": (1 / s, -a / s)}
        elif self.target == "v":
            total = a**2 + s**2
            known = {"x0": (a / total, -s / total), "eps": (s / total, a / total), "v": (0.0, 1.0)}
        elif self.target == "score":
            known = {"x0": (1 / a, s**2 / a), "eps": (0.0, -s)}
        elif self.target == "velocity":
            known = _of_velocity(node, self._sign)
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
        if quantity == "velocity":
            a, s = node.sigma_rate, -node.alpha_rate
        return a * eps_skip - s * x0_skip, a * eps_out - s * x0_out

    @property
    def _sign(self) -> int:
        """s in F = s dx/dt."""
        if self.velocity_sign is not None:
            return self.velocity_sign
        return -1 if self.data_at == 1 else 1


def _of_velocity(node: Node, sign: int) -> dict[str, tuple[float | Tensor, ...]]:
    """Skip and out for F = s u: the solution of x = α x0 + σ ε and u = α′ x0 + σ′ ε, s = ±1."""
    d = node.determinant
    return {
        "x0": (node.sigma_rate / d, -sign * node.sigma / d),
        "eps": (-node.alpha_rate / d, sign * node.alpha / d),
        "velocity": (0.0, float(sign)),
    }
