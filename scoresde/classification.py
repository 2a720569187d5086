"""Classifiers of noisy data, and the loss that trains them.

    L = E_{t, (x_0, y), ε} [ −log p(y | x_t, t) ],   x_t = α(t) x_0 + σ(t) ε

The minimum is reached by the exact p_t(y | x). Its gradient in x is what classifier guidance adds
to a score: Dhariwal and Nichol 2021, arXiv:2105.05233, section 4. `scoresde train` trains a
classifier if the kind of the network in the config is one of a classifier.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._condition import Condition, ConditionSpec, bound_rows
from ._deferred import check_finite
from ._tensor import check_integer, check_type
from .evaluation import name_time
from .loss import Objective
from .score import Call, Preconditioning, Time
from .score.combining import cast
from .sde import SDE
from .training_loss import TrainingLoss

__all__ = ["CrossEntropy", "NoisyClassifier"]


class NoisyClassifier(nn.Module):
    """A classifier of noisy data:  log p_t(y | x) = log softmax(F(c_in x, c_noise))_y.

    `ClassifierGuided(model, classifier, scale)` guides a score model by it.

    Args:
        net: F, called as net(x, label) with x of shape (B, *D) and the label of shape (B,); returns
            logits of shape (B, K). Its attribute `classes` is K.
        sde: The forward process of the noise.
        preconditioning: c_in and c_noise, as for a `NetworkScore`; `Preconditioning()` by default.
            Its target matters only as far as it changes c_in.

    Attributes:
        condition: What y is: one of K classes.
        data: The `DataSpec` of the data; None if it is unknown.
        y: The classes that `given` has bound, for `CrossEntropy`.
        autocast: Dtype in which the network is computed by `torch.autocast`; None for its own.

    Raises:
        TypeError: If an argument has a wrong type, or the network no integer `classes`.
        ValueError: If the number of classes is below 2, or the label is an index and the SDE has no
            discrete ladder.
    """

    learned_variance: ClassVar[bool] = False
    distilled: ClassVar[None] = None
    decoder: ClassVar[None] = None
    call: ClassVar[Call] = Call()  # as for a `NetworkScore`, whose network may take other names
    data: Any = None
    autocast: torch.dtype | None = None

    def __init__(
        self, net: nn.Module, sde: SDE, preconditioning: Preconditioning | None = None
    ) -> None:
        super().__init__()
        check_type("net", net, nn.Module)
        check_type("sde", sde, SDE)
        classes = check_integer("net.classes", getattr(net, "classes", None), minimum=2)
        self.net, self.sde = net, sde
        self.preconditioning = preconditioning or Preconditioning()
        self.preconditioning.check(sde)
        self.condition = ConditionSpec(classes)
        self.y: Condition | None = None

    @property
    def classes(self) -> int:
        """The number of classes K."""
        return self.condition.classes

    @property
    def snapped(self) -> bool:
        """Whether its labels are rounded, so that only the ladder's times are exact."""
        return self.preconditioning.snapped

    @property
    def t_least(self) -> float:
        """The time of the first discrete label, 0 for labels that are not discrete."""
        return self.preconditioning.t_least(self.sde)

    @property
    def t_most(self) -> float:
        """The largest time at which the label is finite; 1 if α(1) > 0."""
        return self.preconditioning.t_most(self.sde)

    def logits(self, x: Tensor, t: Time) -> Tensor:
        """The logits F of noisy data.

        Args:
            x: Noisy data, shape (B, *D).
            t: Time: a number, a tensor of shape () or (B,), or a `Node`.

        Returns:
            Shape (B, K), in the dtype of x.

        Raises:
            RuntimeError: If they are not finite, or of another shape.
        """
        node = self.sde.at(t, x)
        dtype = next((p.dtype for p in self.net.parameters()), x.dtype)
        scaled = (cast(self.preconditioning.c_in(node), x) * x).to(dtype)
        label = self.preconditioning.labels(self.sde, node, x, dtype)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            out = self.net(scaled, label)
        if out.shape != (x.shape[0], self.classes):
            raise RuntimeError(
                f"{type(self.net).__name__} must return logits of shape "
                f"{(x.shape[0], self.classes)}, got {tuple(out.shape)}"
            )
        check_finite(out, lambda: f"classifier output at {name_time(node.t)}")
        return out.to(x.dtype)

    def forward(self, x: Tensor, t: Time, y: Tensor) -> Tensor:
        """log p_t(y | x), shape (B,), in the dtype of x.

        Args:
            x: Noisy data, shape (B, *D).
            t: Time, as for `logits`.
            y: Classes, int64, shape (B,) or (1,).
        """
        y = bound_rows(y, x.shape[0], x.device)
        return -F.cross_entropy(self.logits(x, t), y, reduction="none")

    def probabilities(self, x: Tensor, t: Time) -> Tensor:
        """p_t(y | x) of all classes y, shape (B, K), in the dtype of x; arguments as `logits`."""
        return self.logits(x, t).softmax(1)

    def given(self, y: Condition | None) -> NoisyClassifier:
        """This classifier with classes bound, one per sample of a batch; not checked here."""
        bound = copy.copy(self)
        bound.y = y
        return bound

    def labelled(self, y: Condition | None, n: int, device: torch.device | str) -> NoisyClassifier:
        """This classifier with the classes of n samples bound, after they have been checked.

        Raises:
            TypeError: If they are not integers.
            ValueError: If they are missing, of another shape, or not 0 … K − 1.
        """
        if y is None:
            raise ValueError("y must be given: a classifier is trained on data with classes")
        return self.given(self.condition.checked(bound_rows(y, n, device), n))


@dataclass(frozen=True)
class CrossEntropy(TrainingLoss):
    """The cross-entropy of a classifier at noisy times, as the objective of a training.

    Args:
        times: Gives the distribution of t; its weighting must be "simple", because the loss has no
            weighting of noise levels but this distribution.

    Raises:
        TypeError: If it is no `Objective`.
        ValueError: If it has another weighting, or learns its times from errors of a score.
    """

    times: Objective

    counts_wrong: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_type("times", self.times, Objective)
        if self.times.weighting != "simple":
            raise ValueError(
                f"weighting must be 'simple' for a classifier, got {self.times.weighting!r}"
            )
        if self.times.times == "second_moment":
            raise ValueError(
                "times must not be 'second_moment' for a classifier: they are learned from the "
                "errors of a score"
            )

    def check(self, sde: SDE, learned_variance: bool = False) -> None:
        """Raise ValueError unless every time that can be drawn has noise; see `Objective.check`."""
        self.times.check(sde, learned_variance)

    def __call__(
        self, model: NoisyClassifier, x0: Tensor, u: Tensor, eps: Tensor, history: None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss −log p(y | x_t, t) of each sample.

        Args:
            model: The classifier, with the classes of the samples bound.
            x0: Data, shape (B, *D).
            u: Uniform draws in [0, 1] that choose the times, shape (B,), float64.
            eps: Standard normal noise like x0.
            history: None.

        Returns:
            Losses (B,) in nats; times (B,); 1 for a sample of which another class has the largest
            logit and 0 for the others (B,), so that 1 minus a mean of them is the accuracy.
        """
        times = replace(self.times, t_min=max(self.times.t_min, model.t_least))
        t, factor = times.draw_times(model.sde, u, t_most=model.t_most)
        logits = model.logits(model.sde.perturb(x0, t, eps), t)
        losses = F.cross_entropy(logits, model.y, reduction="none")
        wrong = (logits.argmax(1) != model.y).to(losses)
        return factor.to(losses) * losses, t, wrong.detach()
