"""Score models: one network, four names for what it says.

For x_t = α x_0 + σ ε a model of the noise ε(x_t, t) = E[ε | x_t] also is

    score  = ∇ log p_t(x_t)  = −ε/σ
    x0     = E[x_0 | x_t]    = (x_t − σ ε)/α
    v      = α ε − σ x0                           (Salimans & Ho 2022, arXiv:2202.00512)

`eps` is the canonical one because it stays O(1) for all t.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from ._tensor import check_number, finite_or_raise, plain_numbers
from .evaluation import NFE, count_nfe, evaluating, name_time
from .sde import SDE, Node

__all__ = [
    "FIRST_TIME",
    "NFE",
    "FunctionScore",
    "NetworkScore",
    "Preconditioning",
    "ScoreModel",
    "count_nfe",
    "evaluating",
    "name_time",
    "reverse_drift",
]

Time = Tensor | float | Node
Target = Literal["eps", "x0", "v", "score", "edm"]
Label = Literal["log_sigma", "edm", "time", "index", "rounded_index"]

INDEX_LABELS = ("index", "rounded_index")


# The time at which data enter a path, unless a model or its caller says another one.
FIRST_TIME = 1e-5

# In t: far above the rounding of i/N, far below the spacing of any ladder.
_SAME_TIME = 1e-9


class ScoreModel(nn.Module, ABC):
    """An SDE and one abstract method, `eps`; `score`, `x0` and `v` follow from it.

    Every method takes x of shape (B, *D) and a time: a number, a tensor of shape () or (B,), or
    a `Node`. It returns a tensor like x, in memory of its own. `nfe` counts the evaluations.

    Attributes:
        classes: K if class labels are 0 … K − 1; None if the model does not know their number.
        takes_labels: Whether class labels mean something to the model.
        needs_labels: Whether it must not be asked without class labels.
    """

    classes: int | None = None
    takes_labels: bool = True
    needs_labels: bool = False

    def __init__(self, sde: SDE) -> None:
        super().__init__()
        self.sde = sde
        self.nfe = NFE()
        self.y: Tensor | None = None

    @property
    def snapped(self) -> bool:
        """Whether the model is exact only at the discrete times of its SDE's ladder."""
        return False

    @property
    def t_least(self) -> float:
        """Least time at which the model may be asked: 0 if the SDE alone decides."""
        return 0.0

    @abstractmethod
    def eps(self, x: Tensor, t: Time) -> Tensor:
        """ε(x, t) = E[ε | x_t = x]."""

    def score(self, x: Tensor, t: Time) -> Tensor:
        """∇ log p_t(x) = −ε/σ."""
        node = self.sde.at(t, x)
        return self.eps(x, node) * _like(-1 / node.sigma, x)

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t = x] = (x − σ ε)/α."""
        node = self.sde.at(t, x)
        return _combine(1 / node.alpha, x, -node.sigma / node.alpha, self.eps(x, node))

    def v(self, x: Tensor, t: Time) -> Tensor:
        """α ε − σ x0 = (ε (α² + σ²) − σ x)/α."""
        node = self.sde.at(t, x)
        scale = (node.alpha**2 + node.sigma**2) / node.alpha
        return _combine(-node.sigma / node.alpha, x, scale, self.eps(x, node))

    def given(self, y: Tensor | None) -> ScoreModel:
        """This model with class labels bound, one per sample of the batches to come.

        Args:
            y: Integer labels, shape (B,), or None for no label.
        """
        bound = copy.copy(self)
        bound.y = y
        return bound

    def labelled(
        self, y: Tensor | Sequence[int] | None, n: int, device: torch.device | str
    ) -> ScoreModel:
        """This model with the class labels of n samples bound, after they have been checked.

        Args:
            y: Integer labels, shape (n,); None for those that are bound already.
            n: Number of samples.
            device: Where the samples are.

        Raises:
            TypeError: If the labels are not integers.
            ValueError: If labels are missing, not wanted, too few or many, or no class.
        """
        y = self.y if y is None else y
        if y is None:
            self._check_label()
            return self
        y = torch.as_tensor(y)
        if y.shape != (n,):
            raise ValueError(f"y must have shape ({n},), got {tuple(y.shape)}")
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise TypeError(f"y must hold integer class labels, got {y.dtype}")
        if not self.takes_labels:
            raise ValueError(f"y must be None: {type(self).__name__} has no classes")
        y = y.to(device, torch.int64)
        if self.classes is not None and n > 0:
            low, high = (int(v) for v in torch.aminmax(y))
            if low < 0 or high >= self.classes:
                wrong = low if low < 0 else high
                raise ValueError(f"y must hold classes 0 to {self.classes - 1}, got {wrong}")
        return self.given(y)

    def _check_label(self) -> None:
        """Raise ValueError if labels are needed and none are bound."""
        if self.needs_labels and self.y is None:
            raise ValueError(
                f"y must be given: the network has {self.classes} classes and was not trained "
                "without class labels"
            )

    def first_time(self, t_min: float | None) -> float:
        """The time at which data enter a path: t_min, checked.

        Args:
            t_min: A time in [0, 1); None for 1e-5, or `t_least` if that is later.

        Raises:
            TypeError: If t_min is not a number.
            ValueError: If t_min is outside [0, 1), σ(t_min) = 0, or t_min is below `t_least`.
        """
        if t_min is None:
            return max(FIRST_TIME, self.t_least)
        t_min = check_number("t_min", t_min, at_least=0, below=1)
        self.check_last(t_min)
        self.sde.nodes([t_min])
        return t_min

    def check_last(self, t: float) -> None:
        """Raise unless the model may be asked at t, the least time of a grid or path.

        Raises:
            ValueError: If t is below `t_least`.
        """
        if t < self.t_least - _SAME_TIME:
            raise ValueError(
                f"t_min must be at least {self.t_least:g} for this model, got {t:g}: its first "
                f"discrete label belongs to t = {self.t_least:g}, the least noise it was trained on"
            )

    def take(self, rows: slice | Tensor) -> ScoreModel:
        """This model for some rows of its batch: bound labels follow their samples."""
        return self if self.y is None else self.given(self.y[rows])

    def _evaluated(self, out: Tensor, x: Tensor, node: Node) -> Tensor:
        """Check one evaluation's result and return it in the dtype of x."""
        if not isinstance(out, Tensor) or out.shape != x.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise RuntimeError(f"network returned {got} for x of shape {tuple(x.shape)}")
        if not out.is_floating_point():
            raise RuntimeError(f"network returned {out.dtype}, a floating dtype is needed")
        if torch.is_grad_enabled() and x.requires_grad and not _depends_on(out, x):
            # its divergence would silently count as 0
            raise RuntimeError(
                f"network output at {name_time(node.t)} is not differentiable in x (computed under "
                "torch.no_grad, detached or in numpy?)"
            )
        out = finite_or_raise(out, lambda: f"network output at {name_time(node.t)}")
        return out if out.dtype == x.dtype else out.to(x.dtype)


class FunctionScore(ScoreModel):
    """Any callable ε(x, t) as a model: the way to use a network of your own.

    It is called with copies and its result is copied, so that it may change its arguments in place
    and return the same buffer each time. Networks that it uses are found for `evaluating`, see
    `reachable_modules`. It takes no class labels.

    Args:
        sde: The forward process the callable belongs to.
        eps: Maps x of shape (B, *D) and t, a float64 tensor of shape () or (B,), to the noise
            like x.
    """

    def __init__(self, sde: SDE, eps: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(sde)
        self.function = eps

    @property
    def takes_labels(self) -> bool:
        """No; but a subclass with an `eps` of its own may use `y`."""
        return type(self).eps is not FunctionScore.eps

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """The callable's value, checked and counted."""
        node = self.sde.at(t, x)
        self.nfe.add_forward(node.t)
        if isinstance(node.t, Tensor):
            time = node.t.to(x.device, torch.float64).flatten().clone()
        else:
            time = torch.full((), node.t, dtype=torch.float64, device=x.device)
        return self._evaluated(self.function(x.clone(), time), x, node).clone()


@dataclass(frozen=True)
class Preconditioning:
    """How a network F sees its input and what its output means.

    Args:
        target: What F approximates: "eps", "x0", "v", "score", or "edm", EDM's skip form
            x0 = c_skip x/α + c_out F (Karras et al. 2022, arXiv:2206.00364, table 1).
        label: What F is told of the time: "log_sigma" log(σ/α) (ours), "edm" log(σ/α)/4,
            "time" t, "index" N t − 1, the discrete index of a `TabulatedVP`, and "rounded_index"
            the nearest integer to it. "index" is the network interpolated between the labels it
            was trained on, at any time; "rounded_index" asks it for nothing but those, and is
            exact at the ladder's times i/N alone: `sample` then wants a grid of them
            (`grid.snapped`) and a sampler that stays on it. On the ladder the two agree.
        scale_input: Feed x/√(α² + σ²) ("edm": x/√(α² σ_data² + σ²)) rather than x.
        sigma_data: Standard deviation of the data, used by "edm" only.
    """

    target: Target = "eps"
    label: Label = "log_sigma"
    scale_input: bool = True
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name, value, allowed in (
            ("target", self.target, get_args(Target)),
            ("label", self.label, get_args(Label)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        check_number("sigma_data", self.sigma_data, above=0)

    @property
    def snapped(self) -> bool:
        """Whether the labels are rounded to those the network was trained on."""
        return self.label == "rounded_index"

    def t_least(self, sde: SDE) -> float:
        """Least time at which the label is one the network was trained on: 1/N on a ladder.

        An index label is clipped at 0 below it, while σ goes on falling.
        """
        if self.label not in INDEX_LABELS:
            return 0.0
        return 1 / (float(sde.label(1.0)) + 1)

    def c_in(self, node: Node) -> float | Tensor:
        """Factor of the network's input; unit variance for unit-variance (σ_data) data."""
        if not self.scale_input:
            return 1.0
        data_std = self.sigma_data if self.target == "edm" else 1.0
        return (node.alpha**2 * data_std**2 + node.sigma**2) ** -0.5

    def noise_label(self, sde: SDE, node: Node) -> float | Tensor:
        """The time label, like `node.t`."""
        if self.label == "time":
            return node.t
        if self.label in INDEX_LABELS:
            label = sde.label(node.t).round() if self.snapped else sde.label(node.t)
            return label if isinstance(node.t, Tensor) else float(label)
        return -node.lam if self.label == "log_sigma" else -0.25 * node.lam

    def coefficients(self, node: Node) -> tuple[float | Tensor, ...]:
        """(p, q, r, u) of x0 = p x + q F and ε = r x + u F.

        Each quantity comes from F in one step: through the other it would cancel at one end.
        """
        a, s = node.alpha, node.sigma
        if self.target == "eps":
            return 1 / a, -s / a, 0.0, 1.0
        if self.target == "x0":
            return 0.0, 1.0, 1 / s, -a / s
        if self.target == "v":
            total = a**2 + s**2
            return a / total, -s / total, s / total, a / total
        if self.target == "score":
            return 1 / a, s**2 / a, 0.0, -s
        # EDM in x/α and σ/α: c_skip = d²/(ŝ² + d²), c_out = ŝ d/√(ŝ² + d²)
        s_hat, d = s / a, self.sigma_data
        total = s_hat**2 + d**2
        return d**2 / total / a, s_hat * d / total**0.5, s_hat / total / a, -d / total**0.5


class NetworkScore(ScoreModel):
    """A network with its preconditioning, as a score model.

    A network that says its number of classes (attribute `classes`, as ours do) must be asked with
    class labels, unless `unconditional` is set.

    Args:
        net: Called as net(x, label, y), x of shape (B, *D) in the network's dtype, label of
            shape (B,) in float32 or wider, y labels or None; returns a tensor like x.
        sde: The forward process it was trained for.
        preconditioning: Input scale, time label and target.
        autocast: Compute the network under `torch.autocast` in this dtype; the state, the times
            and every formula around it keep theirs.

    Attributes:
        unconditional: Whether the network was trained without class labels as well (label
            dropout), so that it may be asked without.

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
        classes = getattr(_unwrapped(net), "classes", False)  # other networks may not say
        self.takes_labels = classes is not None
        self.classes = classes if type(classes) is int else None
        label = self.preconditioning.label
        if label in INDEX_LABELS and not hasattr(sde, "label"):
            raise ValueError(f"label {label!r} needs a TabulatedVP, got {type(sde).__name__}")

    @property
    def snapped(self) -> bool:
        """Whether its labels are rounded, so that only the ladder's times are exact."""
        return self.preconditioning.snapped

    @property
    def needs_labels(self) -> bool:
        """Whether the network has classes and does not know what to do without labels."""
        return self.classes is not None and not self.unconditional

    @property
    def t_least(self) -> float:
        """The time of the first discrete label, 0 for labels that are not discrete."""
        return self.preconditioning.t_least(self.sde)

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """ε from the network's native target."""
        node = self.sde.at(t, x)
        _, _, r, u = self.preconditioning.coefficients(node)
        return _combine(r, x, u, self._native(x, node))

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t] from the network's native target."""
        node = self.sde.at(t, x)
        p, q, _, _ = self.preconditioning.coefficients(node)
        return _combine(p, x, q, self._native(x, node))

    def v(self, x: Tensor, t: Time) -> Tensor:
        """α ε − σ x0 from the network's native target."""
        node = self.sde.at(t, x)
        out = self._native(x, node)
        if self.preconditioning.target == "v":
            return out.clone()
        p, q, r, u = self.preconditioning.coefficients(node)
        a, s = node.alpha, node.sigma
        return _combine(a * r - s * p, x, a * u - s * q, out)

    def _native(self, x: Tensor, node: Node) -> Tensor:
        """F(c_in x, label, y), counted, checked, in the dtype of x; the network's own memory.

        Its arguments are made anew for each call, so that it may change them in place.
        """
        self._check_label()
        self.nfe.add_forward(node.t)
        parameter = next(self.net.parameters(), x)
        label = torch.as_tensor(
            self.preconditioning.noise_label(self.sde, node),
            # bf16 tells only 507 of 1000 time labels apart
            dtype=torch.promote_types(parameter.dtype, torch.float32),
            device=x.device,
        )
        label = label.flatten().expand(x.shape[0]).clone()
        scaled = (_like(self.preconditioning.c_in(node), x) * x).to(parameter.dtype)
        y = None if self.y is None else self.y.clone()
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            out = self.net(scaled, label, y)
        return self._evaluated(out, x, node)


def reverse_drift(model: ScoreModel, x: Tensor, t: Time, eta: float = 1.0) -> Tensor:
    """Drift of the reverse process: f x − (1 + η²)/2 g² score(x, t).

    η = 1 is the reverse SDE, η = 0 the probability-flow ODE (Song et al. 2021,
    arXiv:2011.13456, eq. (6) and (13)); the noise of the process is η g dw̄.

    Args:
        model: The score model.
        x: State, shape (B, *D).
        t: Time.
        eta: Stochasticity, at least 0.

    Returns:
        The drift dx/dt, like x (sampling integrates it with dt < 0).
    """
    node = model.sde.at(t, x)
    # −g² score = (g²/σ) ε
    weight = 0.5 * (1 + eta**2) * node.g**2 / node.sigma
    return _combine(node.f, x, weight, model.eps(x, node))


def _unwrapped(net: nn.Module) -> nn.Module:
    """The network inside PyTorch's wrappers (DataParallel, AveragedModel), which call it as is."""
    while not hasattr(net, "classes") and isinstance(getattr(net, "module", None), nn.Module):
        net = net.module
    return net


def _depends_on(out: Tensor, x: Tensor) -> bool:
    """Whether x is in the graph of `out`; trained weights alone make `out` require gradients."""
    if not out.requires_grad:
        return False
    goal, waiting, seen = get_gradient_edge(x).node, [get_gradient_edge(out).node], set()
    while waiting:
        node = waiting.pop()
        if node is goal:
            return True
        if node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return False


def _like(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A node's entry ready to be multiplied with x: numbers as they are, tensors cast."""
    return value.to(x) if isinstance(value, Tensor) else value


def _combine(a: float | Tensor, x: Tensor, b: float | Tensor, y: Tensor) -> Tensor:
    """a x + b y in new memory, leaving out terms whose factor is the number 0 or 1."""
    ours = not (isinstance(b, float) and b == 1.0)
    second = _like(b, x) * y if ours else y
    if isinstance(a, float) and a == 0.0:
        return second if ours else y.clone()
    if not isinstance(a, float):
        return _like(a, x) * x + second
    return second.add_(x, alpha=a) if ours else torch.add(second, x, alpha=a)
