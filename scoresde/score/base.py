"""The base class of score models, `ScoreModel`."""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .._condition import Condition, ConditionSpec, bound_rows, map_condition, take_rows
from .._deferred import check_finite
from .._tensor import check_number, check_type
from ..evaluation import NFE, count_nfe, name_time
from ..sde import SDE, Node
from ..sde.base import SAME_TIME
from .combining import cast, combine, depends_on
from .latent_decoder import LatentDecoder
from .preconditioning import Quantity

__all__ = ["FIRST_TIME", "ScoreModel", "Time", "refuse_where_alpha_is_0"]

Time = Tensor | float | Node

# Default time at which a path starts from data.
FIRST_TIME = 1e-5

_DECODER = "_decoder"  # name of the submodule


class ScoreModel(nn.Module, ABC):
    """An SDE and one abstract method, `eps`; `score`, `x0` and `v` follow from it.

    Every method takes x of shape (B, *D) and a time: a number, a tensor of shape () or (B,), or
    a `Node`. It returns a tensor like x, in memory of its own. `nfe` counts the evaluations. A call
    of `eps` counts as one, unless the subclass counts its evaluations by `nfe.add_forward(t)`.

    A conditional model is evaluated under a *condition* y: a tensor, or a dict or tuple of
    conditions, whose tensors have one leading entry per sample. `given` binds one to a model.

    Attributes:
        data: The `DataSpec` of the data that the model was trained on; None if it is unknown.
        condition: The conditions that the model accepts; without kinds if it accepts none. None if
            this is unknown: then any condition is passed to the network.
        needs_labels: Whether the model cannot be evaluated without a condition.
        shape: Shape *D of a sample, if the model knows it without `data`; otherwise None.
    """

    data: Any = None
    condition: ConditionSpec | None = None
    needs_labels: bool = False
    shape: tuple[int, ...] | None = None

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "eps" in vars(cls):
            cls.eps = _counted(cls.eps)

    def __init__(self, sde: SDE) -> None:
        super().__init__()
        check_type("sde", sde, SDE)
        self.sde = sde
        self.nfe = NFE()
        self.y: Condition | None = None

    @property
    def decoder(self) -> LatentDecoder | None:
        """What makes data of samples, for a model of latents; None for all other models."""
        return self._modules.get(_DECODER)

    def decoded_by(self, decoder: LatentDecoder | None) -> ScoreModel:
        """This model as one of latents, so that `sample` returns decoded data.

        Args:
            decoder: What makes data of latents; None for a model whose samples are not decoded.

        Returns:
            A model with the same network and counters. Without a `data` of its own, it has that of
            the autoencoder's latents.

        Raises:
            TypeError: If it is no decoder.
            ValueError: If it decodes latents of another shape than the model's data.
        """
        if decoder is None and self.decoder is None:
            return self
        view = copy.copy(self)
        view._modules = {k: v for k, v in self._modules.items() if k != _DECODER}
        if decoder is None:
            return view
        check_type("decoder", decoder, LatentDecoder)
        own = self.shape if self.data is None else self.data.shape
        if own is not None and tuple(own) != decoder.latent_shape:
            raise ValueError(
                f"decoder must be of latents of shape {tuple(own)}, as the model draws, got "
                f"{decoder.latent_shape}"
            )
        view._modules[_DECODER] = decoder
        view.data = decoder.autoencoder.latent_spec if self.data is None else self.data
        return view

    def _decode_like(self, model: ScoreModel) -> None:
        """Let samples of this model be decoded like those of the model inside it."""
        if model.decoder is not None:
            self._modules[_DECODER] = model.decoder

    @property
    def classes(self) -> int | None:
        """K if there are class labels 0 … K − 1; None without classes, or if this is unknown."""
        return None if self.condition is None else self.condition.classes

    @property
    def snapped(self) -> bool:
        """Whether the model is exact only at the discrete times of its SDE's ladder."""
        return False

    @property
    def guided(self) -> bool:
        """Whether the score is no gradient of the log-density of the model's ODE."""
        return False

    @property
    def evaluations(self) -> int:
        """Evaluations of networks that one evaluation of this model takes at most."""
        return 1

    @property
    def learned_variance(self) -> bool:
        """Whether the model also says the variance of DDPM's reverse steps; see `with_share`."""
        return False

    @property
    def t_least(self) -> float:
        """Least time at which the network may be evaluated."""
        return 0.0

    @property
    def t_most(self) -> float:
        """Largest time at which every quantity can be computed.

        It is 1, unless α(1) = 0 and x0 = (x − σ ε)/α is computed from ε: then `SDE.t_regular`.
        """
        return self.sde.t_regular

    @abstractmethod
    def eps(self, x: Tensor, t: Time) -> Tensor:
        """ε(x, t) = E[ε | x_t = x]."""

    def score(self, x: Tensor, t: Time) -> Tensor:
        """∇ log p_t(x) = −ε/σ."""
        node = self.sde.at(t, x)
        return self.eps(x, node) * cast(-1 / node.sigma, x)

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t = x] = (x − σ ε)/α."""
        node = self._with_data(self.sde.at(t, x))
        return combine(1 / node.alpha, x, -node.sigma / node.alpha, self.eps(x, node))

    def v(self, x: Tensor, t: Time) -> Tensor:
        """α ε − σ x0 = (ε (α² + σ²) − σ x)/α."""
        node = self._with_data(self.sde.at(t, x))
        scale = (node.alpha**2 + node.sigma**2) / node.alpha
        return combine(-node.sigma / node.alpha, x, scale, self.eps(x, node))

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """α′ x0 + σ′ ε = dx/dt of the probability-flow ODE, also f x + g²/(2σ) ε where α > 0."""
        node = self._with_data(self.sde.at(t, x))
        return combine(node.f, x, 0.5 * node.g**2 / node.sigma, self.eps(x, node))

    def with_share(self, quantity: Quantity, x: Tensor, t: Time) -> tuple[Tensor, Tensor | None]:
        """A quantity, and the share w of a learned variance, from one evaluation.

        Args:
            quantity: "eps", "x0", "v" or "velocity".
            x: State, shape (B, *D).
            t: Time.

        Returns:
            The quantity, and w of each element, like x; see `sde.reverse.learned_std`. None for w
            unless the model has a `learned_variance`.
        """
        return getattr(self, quantity)(x, t), None

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """D(x; σ) = E[x_0 | x], where x = x_0 + σ ε: the denoiser at a noise level.

        Args:
            x: Data with noise of standard deviation σ, shape (B, *D), not scaled by α.
            sigma: Noise level, a number or a tensor of shape () or (B,).

        Raises:
            ValueError: If a noise level is outside the range of the SDE; see `SDE.t_of_sigma`.
        """
        node = self.sde.at(self.sde.t_of_sigma(sigma), x)
        return self.x0(cast(node.alpha, x) * x, node)

    def score_at(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """∇ log p(x; σ) = (D(x; σ) − x)/σ² = −ε/σ, the score of x = x_0 + σ ε at a noise level.

        Args:
            x: Data with noise of standard deviation σ, shape (B, *D), not scaled by α.
            sigma: Noise level, a number or a tensor of shape () or (B,).

        Raises:
            ValueError: If a noise level is outside the range of the SDE; see `SDE.t_of_sigma`.
        """
        node = self.sde.at(self.sde.t_of_sigma(sigma), x)
        return self.eps(cast(node.alpha, x) * x, node) * cast(-node.alpha / node.sigma, x)

    def given(self, y: Condition | None) -> ScoreModel:
        """This model with a condition bound, one entry per sample of a batch.

        Args:
            y: A condition whose tensors have leading dimension B, or 1 for one condition of all
                samples; None for no condition. It is not checked here.
        """
        bound = copy.copy(self)
        bound.y = y
        return bound

    def without(self) -> ScoreModel:
        """This model without a condition: that of all data.

        Raises:
            ValueError: If it cannot be evaluated without one.
        """
        if self.needs_labels:
            raise ValueError(
                f"model must be trained without a condition too (train.label_dropout above 0): it "
                f"takes {self.condition} and needs it"
            )
        return self.given(None)

    def labelled(self, y: Condition | None, n: int, device: torch.device | str) -> ScoreModel:
        """This model with the condition of n samples bound, after it has been checked.

        Args:
            y: A condition; every tensor, array or list in it has leading dimension n, or 1 for one
                condition of all samples. None keeps the condition that is already bound.
            n: Number of samples.
            device: Where the samples are.

        Raises:
            TypeError: If a dtype is not the one that the model takes.
            ValueError: If the condition is missing, not accepted, of another kind or shape than
                the model takes, not finite, or not a class.
        """
        y = self.y if y is None else y
        if y is None:
            self._check_label()
            return self
        if self.condition is not None and not self.condition:
            raise ValueError(f"y must be None: {self._refusal_of_conditions()}")
        y = bound_rows(y, n, device)
        return self.given(y if self.condition is None else self.condition.checked(y, n))

    def _refusal_of_conditions(self) -> str:
        """Why no condition is accepted, for messages."""
        return f"{type(self).__name__} takes no condition"

    def _check_label(self) -> None:
        """Raise ValueError if a condition is needed and none is bound."""
        if self.needs_labels and self.y is None:
            raise ValueError(
                f"y must be given: the network takes {self.condition} and was not trained without "
                "a condition"
            )

    def _condition_for(self, x: Tensor, dtype: torch.dtype) -> Condition | None:
        """The bound condition for the samples x, floating numbers in `dtype`.

        Its tensors are new, so that a network may change them in place.
        """
        self._check_label()
        if self.y is None:
            return None

        def copied(leaf: Tensor) -> Tensor:
            return leaf.to(dtype if leaf.is_floating_point() else leaf.dtype, copy=True)

        return map_condition(copied, bound_rows(self.y, x.shape[0], x.device))

    def first_time(self, t_min: float | None) -> float:
        """The time at which a path starts from data: t_min, checked.

        Args:
            t_min: A time in [0, 1); None = the larger of 1e-5 and `t_least`.

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
        """Raise unless the model may be evaluated at t, the least time of a grid or path.

        Raises:
            ValueError: If t is below `t_least`.
        """
        if t < self.t_least - SAME_TIME:
            raise ValueError(
                f"t_min must be at least {self.t_least:g} for this model, got {t:g}: its first "
                f"discrete label belongs to t = {self.t_least:g}, the least noise it was trained on"
            )

    def _with_data(self, node: Node) -> Node:
        """The node, or raise if α = 0 there and the model needs to divide by it.

        Times per sample are not looked at, which would make the host wait for an accelerator.
        """
        if isinstance(node.alpha, float) and node.t > self.t_most:
            refuse_where_alpha_is_0(self.sde, node.t, self.t_most)
        return node

    def take(self, rows: slice | Tensor) -> ScoreModel:
        """This model for some rows of its batch: a bound condition follows its samples."""
        return self if self.y is None else self.given(take_rows(self.y, rows))

    def _evaluated(self, out: Tensor, x: Tensor, node: Node) -> Tensor:
        """Check one evaluation's result, like x, and return it in the dtype of x."""
        if not out.is_floating_point():
            raise RuntimeError(f"network returned {out.dtype}, a floating dtype is needed")
        if torch.is_grad_enabled() and x.requires_grad and not depends_on(out, x):
            # Otherwise the divergence would silently be 0.
            raise RuntimeError(
                f"network output at {name_time(node.t)} is not differentiable in x (computed under "
                "torch.no_grad, detached or in numpy?)"
            )
        check_finite(out, lambda: f"network output at {name_time(node.t)}")
        return out if out.dtype == x.dtype else out.to(x.dtype)


def refuse_where_alpha_is_0(sde: SDE, t: float, t_most: float) -> None:
    """Raise ValueError if α(t) = 0, for a model that divides by it and is regular up to t_most."""
    if float(sde.alpha(t)) == 0:
        raise ValueError(
            f"t must be at most {t_most:.6g} for this model under {type(sde).__name__}, got {t:g}: "
            "α is 0 there, and x0 does not follow from its output"
        )


def _counted(eps: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method `eps`; one evaluation is counted if it counts none itself."""

    @functools.wraps(eps)
    def counted(self: ScoreModel, x: Tensor, t: Time) -> Tensor:
        with count_nfe(self) as block:
            out = eps(self, x, t)
        if block.forward == 0 and block.repeated == 0:
            self.nfe.add_forward(t.t if isinstance(t, Node) else t)
        return out

    return counted
