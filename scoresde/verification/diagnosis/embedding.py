"""The other order of sine and cosine in a network's embedding of the label.

An embedding of a label u holds cos(ω_k u) and sin(ω_k u) for some frequencies. Some libraries put
the sines first, others the cosines. The layer that reads it is found by what it receives: in one
half the squares are a constant minus those of the other half, and the values change with u. The
other order is the same network with the halves of this layer's weight exchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .points import Points
from .reading import Subject

__all__ = ["exchanged"]

ROWS = 4  # data, of different noise levels
TOLERANCE = 1e-3


def exchanged(subject: Subject, points: Points) -> dict[str, Tensor] | None:
    """The weights of the network for the other order; None if no such layer is found.

    Args:
        subject: The model, in evaluation mode.
        points: Some data, on which the network is called.
    """
    net, received = subject.model.net, {}
    layers = {name: layer for name, layer in net.named_modules() if type(layer) is nn.Linear}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            received.setdefault(name, []).append(arguments[0].detach())

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        _evaluate(subject, points)
    except Exception:  # code of the user; the claim is evaluated later, and the error told
        return None
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, inputs in received.items() if _is_embedding(inputs)]
    if not names:
        return None
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    for name in names:
        weight = weights[f"{name}.weight"]
        weights[f"{name}.weight"] = weight.roll(weight.shape[1] // 2, dims=1)
    return weights


def _evaluate(subject: Subject, points: Points) -> None:
    """Call the network at some noise levels, one after the other."""
    rows = slice(0, 1)
    kappas = points.kappas[:: max(1, len(points.kappas) // ROWS)]
    for kappa in kappas:
        node = subject.node(subject.claim, kappa)
        subject.native(subject.claim, node, points.x[rows], points.condition(rows))


def _is_embedding(inputs: list[Tensor]) -> bool:
    """Whether a layer received cosines and sines of different labels, in two halves."""
    if any(x.ndim != 2 or x.shape[1] % 2 or x.shape[1] < 4 for x in inputs):
        return False
    x = torch.cat(inputs).double()
    first, second = x.chunk(2, dim=1)
    squares = first.square() + second.square()
    constant = squares.mean()
    changes = len(x) > 1 and bool((x[1:] - x[0]).abs().max() > 0.1 * constant.sqrt())
    return changes and bool((squares - constant).abs().max() <= TOLERANCE * constant)
