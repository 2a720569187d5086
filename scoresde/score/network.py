"""NetworkScore: a network with its preconditioning as a score model."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .._condition import Condition, ConditionSpec, leaves, map_condition
from .._deferred import check_finite
from .._tensor import check_type
from ..evaluation import name_time
from ..sde import SDE, Node
from .base import ScoreModel, Time
from .call import Call, innermost, prediction
from .combining import cast, combine
from .preconditioning import Preconditioning, Quantity
from .sets import only_present

__all__ = ["NetworkScore"]


class NetworkScore(ScoreModel):
    """A network with its preconditioning, as a score model.

    A network with the attribute `condition` (a `ConditionSpec`, as in our networks), or `classes`
    (its number of classes), needs a condition unless `unconditional` is set.

    Args:
        net: Called as net(x, label) or net(x, label, y) by its signature, or as `call` says. x has
            shape (B, *D) and the network's dtype; the label has shape (B,) and is float32 or wider,
            int64 for the label "rounded_index"; y is the condition, its floating tensors in the
            network's dtype. It returns a tensor like x; see `prediction` for other forms.
        sde: The forward process it was trained for.
        preconditioning: Input scale, time label and target. It must be given unless the network
            has the attribute `condition`, as our networks have, for which `Preconditioning()` is
            the default. For a network that was trained elsewhere, use `wrap`.
        autocast: Compute the network under `torch.autocast` in this dtype; the state, the times
            and all other formulas keep their dtypes.
        call: How the network is called.

    Attributes:
        unconditional: Whether the network was also trained without a condition (label dropout),
            so that it may be evaluated without one.
        rows: Smaller batches are filled up to so many rows before the network, see `compile`;
            None: they are not.
        eager_derivatives: Evaluations for derivatives use the network as it was before `compile`.

    Raises:
        TypeError: If the network cannot be called as `call` says.
        ValueError: If the preconditioning is missing, or its label is an index and the SDE has no
            discrete ladder.
    """

    rows: int | None = None
    eager_derivatives: bool = False

    def __init__(
        self,
        net: nn.Module,
        sde: SDE,
        preconditioning: Preconditioning | None = None,
        autocast: torch.dtype | None = None,
        call: Call | None = None,
    ) -> None:
        super().__init__(sde)
        check_type("net", net, nn.Module)
        self.call = call or Call()
        self._caller = self.call.fitted(net)
        if preconditioning is None and stated_condition(net) is None:
            raise ValueError(
                f"preconditioning must say what {type(net).__name__} takes and returns, got none; "
                "write scoresde.wrap(net, sde, target, label=…), or give Preconditioning() for a "
                "network of x/√(α² + σ²) and log(σ/α) that predicts ε"
            )
        self.net = net
        self.preconditioning = preconditioning or Preconditioning()
        self.autocast = autocast
        self.unconditional = False
        self.condition = _condition_of(net) if self._caller.takes_condition else ConditionSpec()
        self.preconditioning.check(sde)

    @property
    def snapped(self) -> bool:
        """Whether its labels are rounded, so that only the ladder's times are exact."""
        return self.preconditioning.snapped

    @property
    def learned_variance(self) -> bool:
        """Whether the second half of its 2C output channels is 2w − 1, w as in `with_share`.

        The call says so, or the network has an attribute `learned_variance`, as our networks have.
        """
        stated = getattr(innermost(self.net, "learned_variance"), "learned_variance", False)
        return self.call.learned_variance or stated is True

    @property
    def needs_labels(self) -> bool:
        """Whether the network takes a condition and was not trained without one.

        A network of sets always needs their sizes.
        """
        condition = self.condition
        return bool(condition) and (not self.unconditional or condition.sizes is not None)

    @property
    def t_least(self) -> float:
        """The time of the first discrete label, 0 for labels that are not discrete."""
        return self.preconditioning.t_least(self.sde)

    @property
    def t_most(self) -> float:
        """The largest time at which target and label are regular; 1 if α(1) > 0."""
        return self.preconditioning.t_most(self.sde)

    def compile(self, *arguments: Any, rows: int | None = None, **options: Any) -> None:
        """Compile the network in place.

        Args:
            arguments: As for `torch.compile`.
            rows: Fill up smaller batches to so many rows, so that one compilation serves all of
                them. The added rows repeat the last one, and their results are left out. None:
                another batch size is compiled anew.
            options: As for `torch.compile`.
        """
        from torch._functorch import config  # imports torch's compiler

        # Several derivative passes go through the graph of one evaluation. By default a compiled
        # graph reuses the memory that it has saved for the first one.
        config.donated_buffer = False
        self.net.compile(*arguments, **options)
        self.rows = rows

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """E[ε | x_t] from the network's native target."""
        return self.with_share("eps", x, t)[0]

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t] from the network's native target."""
        return self.with_share("x0", x, t)[0]

    def v(self, x: Tensor, t: Time) -> Tensor:
        """E[α ε − σ x_0 | x_t] from the network's native target."""
        return self.with_share("v", x, t)[0]

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """E[α′ x_0 + σ′ ε | x_t] from the network's native target."""
        return self.with_share("velocity", x, t)[0]

    def with_share(self, quantity: Quantity, x: Tensor, t: Time) -> tuple[Tensor, Tensor | None]:
        """c_skip x + c_out F(x, t), where F is the network's native target, and w.

        At the padding of sets x counts as 0, and so does F.
        """
        node, x = self._with_data(self.sde.at(t, x)), only_present(self, x)
        c_skip, c_out = self.preconditioning.skip_and_out(quantity, node)
        native, share = self._native(x, node)
        native = only_present(self, native)
        return combine(c_skip, x, c_out, native), share

    def _refusal_of_conditions(self) -> str:
        """Why no condition is accepted, for messages."""
        reason = f"{type(self.net).__name__} takes no condition"
        if self._caller.takes_condition:
            return reason
        return f"{reason} that scoresde could tell; wrap(…, condition=…) names the parameter"

    def _native(self, x: Tensor, node: Node) -> tuple[Tensor, Tensor | None]:
        """F(c_in x, c_noise, y) and w of a learned variance, counted and checked, as x's dtype.

        The result may be memory of the network. The network's arguments are new for each call, so
        that it may change them in place.
        """
        of_network = chain(self.net.parameters(), getattr(self.net, "of_network", ()))
        dtype = next((p.dtype for p in of_network if p.is_floating_point()), x.dtype)
        y = self._condition_for(x, dtype)
        self.nfe.add_forward(node.t)
        scaled = (cast(self.preconditioning.c_in(node), x) * x).to(dtype)
        label = self.preconditioning.labels(self.sde, node, x, dtype)
        scaled, label, y = self._filled_up(scaled, label, y)
        eager = self.eager_derivatives and torch.is_grad_enabled()
        net = self.net.forward if eager else self.net
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            try:
                out = self._caller(net, scaled, label, y)
            except Exception as error:
                error.add_note(self._described(scaled, label, y))
                raise
        native, rest = prediction(out, scaled, self.learned_variance)
        native = self._evaluated(native[: x.shape[0]], x, node)
        if rest is None:
            return native, None
        rest = rest[: x.shape[0]]
        check_finite(rest, lambda: f"learned variance at {name_time(node.t)}")
        return native, 0.5 * (rest.to(x.dtype) + 1)

    def _filled_up(
        self, x: Tensor, label: Tensor, y: Condition | None
    ) -> tuple[Tensor, Tensor, Condition | None]:
        """The network's arguments with at least `rows` rows, unless there is none."""
        missing = (self.rows or 0) - x.shape[0]
        if missing <= 0 or x.shape[0] == 0:
            return x, label, y

        def filled(leaf: Tensor) -> Tensor:
            last = leaf[-1:].detach()
            return torch.cat([leaf, last.expand(missing, *last.shape[1:])])

        return filled(x), filled(label), None if y is None else map_condition(filled, y)

    def _described(self, x: Tensor, label: Tensor, y: Condition) -> str:
        """The network's call, for errors that are raised inside it."""
        given = {"x": x, "label": label} | ({} if y is None else dict(leaves(y)))
        tensors = ", ".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in given.items())
        without = ", without y" if y is None and self._caller.takes_condition else ""
        return f"scoresde called {type(self.net).__name__} with {tensors}{without}"


def stated_condition(net: nn.Module) -> ConditionSpec | None:
    """The attribute `condition` of a network if it is a `ConditionSpec`, otherwise None."""
    stated = getattr(innermost(net, "condition"), "condition", None)
    return stated if isinstance(stated, ConditionSpec) else None


def _condition_of(net: nn.Module) -> ConditionSpec | None:
    """The conditions that a network says it takes, also by `classes`; None if it does not say."""
    stated = stated_condition(net)
    if stated is not None:
        return stated
    classes = getattr(innermost(net, "classes"), "classes", False)  # others may not have it
    if classes is None or (type(classes) is int and classes > 0):
        return ConditionSpec(classes)
    return None
