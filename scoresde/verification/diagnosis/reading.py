"""`Reading`: one opinion of what a network's input, label, output, data and weights mean.

Every reading makes a denoiser of the same data. For z = x_0 + κ ε on the scale of the data,

    D(z; κ) ≈ E[x_0 | z],   ε̂ = (z − D)/κ,   error |ε̂ − ε|²/D

So all readings solve one problem with one optimum, and their errors can be compared, also if they
differ in the schedule or in the range of the data.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..._condition import Condition
from ..._tensor import float64
from ...score import FIRST_TIME, NetworkScore, Preconditioning, ScoreModel, wrap
from ...score.preconditioning import INDEX_LABELS, Quantity
from ...sde import SDE, Node
from .data_map import DataMap

__all__ = ["Meaning", "Reading", "Subject", "reading_of"]

_TOLERANCE = 1e-9  # of log κ at the ends of an SDE's range


@dataclass(frozen=True)
class Meaning(Preconditioning):
    """A `Preconditioning` with conventions that a checkpoint cannot state.

    Args:
        gain: The network returns its target times this factor, −1 for the negative.
        velocity: Whether the network returns ε − x_0 instead of its target.
        reversed: Whether the label runs from noise to data: 1 − t, N − 1 − i, or the negative.
    """

    gain: float = 1.0
    velocity: bool = False
    reversed: bool = False

    def _label(self, sde: SDE, node: Node) -> float | Tensor:
        """The label without its offset and factor, reversed or not."""
        label = super()._label(sde, node)
        if not self.reversed:
            return label
        last = sde.levels - 1 if self.label in INDEX_LABELS else 1 if self.label == "time" else 0
        return last - label

    def skip_and_out(self, quantity: Quantity, node: Node) -> tuple[float | Tensor, ...]:
        """As of `Preconditioning`, and of ε − x_0 = F: x_0 = (x − σ F)/(α + σ)."""
        if self.velocity:
            total = node.alpha + node.sigma
            skip, out = {
                "x0": (1 / total, -node.sigma / total),
                "eps": (1 / total, node.alpha / total),
            }[quantity]
        else:
            skip, out = super().skip_and_out(quantity, node)
        return skip, out / self.gain


class _Native(Meaning):
    """A meaning of which every quantity is the output of the network itself."""

    def skip_and_out(self, quantity: Quantity, node: Node) -> tuple[float | Tensor, ...]:
        """0 and 1."""
        return 0.0, 1.0


@dataclass(frozen=True)
class Reading:
    """What a network is taken to mean.

    Attributes:
        sde: The forward process of its training.
        meaning: Target, label and input scale.
        noise: The network is taken at the noise level `noise` · κ.
        data: The change of the data.
        weights: Name of the set of weights; empty for those of the model.
        classes: Number that is added to the class labels, modulo the number of classes; None if
            they are left out.
    """

    sde: SDE
    meaning: Meaning
    noise: float = 1.0
    data: DataMap = DataMap()
    weights: str = ""
    classes: int | None = 0


@dataclass(frozen=True)
class Subject:
    """A model whose network is evaluated under several readings.

    Attributes:
        model: A `NetworkScore`; other models are wrapped as a network of (x, t) that predicts ε.
        claim: The reading that the model itself states.
        weights: Further sets of weights of the network by name, as its `state_dict`.
        is_network: Whether the network itself is known. Otherwise only times in [0, 1] are labels.
    """

    model: NetworkScore
    claim: Reading
    is_network: bool
    weights: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    _made: dict[str, NetworkScore] = field(default_factory=dict)
    _nodes: dict[int, tuple[SDE, dict[float, Node]]] = field(default_factory=dict)

    def kappas(self, reading: Reading) -> tuple[float, float]:
        """The least and the largest noise level κ at which a reading can be evaluated."""
        first = max(FIRST_TIME, reading.meaning.t_least(reading.sde))
        ends = (self._end(reading.sde, t) for t in (first, reading.sde.t_regular))
        low, high = (node.sigma / node.alpha for node in ends)
        factor = abs(reading.data.scale) * reading.noise
        return low / factor, high / factor

    def node(self, reading: Reading, kappa: float) -> Node:
        """The time of a reading at a noise level.

        Raises:
            ValueError: If the reading has no such noise level.
        """
        low, high = self.kappas(reading)
        if not low * (1 - _TOLERANCE) <= kappa <= high * (1 + _TOLERANCE):
            raise ValueError(f"noise level {kappa:g} is not in {low:g} to {high:g}")
        return self._node(reading.sde, kappa * abs(reading.data.scale) * reading.noise)

    def call(self, reading: Reading, node: Node) -> tuple[Any, ...]:
        """What tells the network's calls for the same z apart: weights, data, label and factor.

        Readings that differ only in what the output means have the same call.
        """
        label = reading.meaning.c_noise(reading.sde, node)
        gain = node.alpha * reading.meaning.c_in(node)
        return reading.weights, reading.data, reading.classes, f"{label:.8g}", f"{gain:.8g}"

    @torch.no_grad()
    def native(self, reading: Reading, node: Node, z: Tensor, y: Condition | None) -> Tensor:
        """The output of the network at z; the model must be in evaluation mode.

        Args:
            reading: The reading.
            node: Its time.
            z: x_0 + κ ε at the scale of the data, shape (B, *D).
            y: The condition of these samples.

        Raises:
            Exception: What the network raises.
        """
        model = self._view(reading)
        if y is not None and reading.classes is not None:
            model = model.given(_moved_classes(y, reading.classes, model.condition.classes))
        return model.x0(node.alpha * reading.data.there(z), node)

    def denoised(self, reading: Reading, node: Node, z: Tensor, native: Tensor) -> Tensor:
        """D(z; κ) under a reading, of the output of the network."""
        skip, out = reading.meaning.skip_and_out("x0", node)
        return reading.data.back(skip * node.alpha * reading.data.there(z) + out * native)

    def _end(self, sde: SDE, t: float) -> Node:
        known = self._nodes.setdefault(id(sde), (sde, {}))[1]
        if -t not in known:  # noise levels are positive
            known[-t] = sde.nodes([t])[0]
        return known[-t]

    def _node(self, sde: SDE, level: float) -> Node:
        """The SDE at a noise level σ/α; for a table of β this costs more than a small network."""
        known = self._nodes.setdefault(id(sde), (sde, {}))[1]
        if level not in known:
            t = sde.t_of_lam(float64(-math.log(level))).clamp(0, 1)
            known[level] = sde.nodes(t.reshape(1))[0]
        return known[level]

    def _view(self, reading: Reading) -> NetworkScore:
        """A model whose x0 is the network's output, with the weights that the reading names."""
        if reading.weights not in self._made:
            made = self.model
            if reading.weights:
                made = copy.copy(made)
                # a module's submodules are in a dict that `copy.copy` shares
                made._modules = dict(made._modules)
                made.net = copy.deepcopy(self.model.net)
                made.net.load_state_dict(self.weights[reading.weights])
                made.net.eval()
            self._made[reading.weights] = made
        view = copy.copy(self._made[reading.weights])
        view.sde, view.preconditioning = reading.sde, _Native(**vars(reading.meaning))
        return view


def _moved_classes(y: Condition, by: int, classes: int | None) -> Condition:
    """A condition whose class labels below K are moved by a number, modulo K."""
    if by == 0 or classes is None:
        return y
    if isinstance(y, Mapping):
        return {**y, "class": _moved_classes(y["class"], by, classes)}
    return torch.where(y < classes, (y + by) % classes, y)


def reading_of(model: ScoreModel, weights: Mapping[str, Any] | None = None) -> Subject:
    """A model as a network with the reading that it claims.

    Args:
        model: Any score model.
        weights: Further sets of weights of a `NetworkScore`, by name.
    """
    network = isinstance(model, NetworkScore) and type(model).eps is NetworkScore.eps
    if network:
        stated = {name: getattr(model.preconditioning, name) for name in _FIELDS}
        return Subject(model, Reading(model.sde, Meaning(**stated)), True, weights or {})

    def net(x: Tensor, label: Tensor, y: Condition | None = None) -> Tensor:
        bound = model if y is None else model.given(y)
        return bound.eps(x, label[0].double().clamp(0, 1))

    wrapped = wrap(net, model.sde, "eps", label="time")
    wrapped.condition = model.condition
    claim = Reading(model.sde, Meaning("eps", "time", scale_input=False))
    return Subject(wrapped, claim, False)


_FIELDS = tuple(field.name for field in fields(Preconditioning))
