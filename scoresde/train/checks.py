"""What a training refuses before it begins, and the settings about which it warns."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..data import Dataset, Stream
from ..distributed import Ranks
from ..scaling import condition_warning, scale_warning
from ..score import NetworkScore
from ..score.call import innermost
from ..score.network import stated_condition
from .settings import TrainSettings

__all__ = ["check_label_dropout", "check_ranks", "check_sets", "checkpoint_activations", "doubts"]


def check_ranks(ranks: Ranks, settings: TrainSettings) -> None:
    """Raise ValueError if there are more processes than rows of a batch."""
    if ranks.size > settings.batch:
        raise ValueError(
            f"batch must be at least the number of processes, {ranks.size}, got {settings.batch}"
        )


def check_sets(model: NetworkScore, data: Dataset | Stream) -> None:
    """Raise ValueError if the data are sets and the network says that it does not know their sizes.

    A network that does not say what it takes is left to itself.
    """
    sizes, taken = data.spec.sizes, model.condition
    if sizes is not None and taken is not None and taken.sizes is None:
        raise ValueError(
            f"the data are sets of {sizes[0]} to {sizes[1]} points, and {type(model.net).__name__} "
            f"does not take their sizes (it takes {taken}); take a Transformer with sizes={sizes}"
        )


def check_label_dropout(model: NetworkScore, data: Dataset | Stream, p: float) -> None:
    """Raise ValueError unless examples can be trained without their conditions.

    Args:
        model: The model.
        data: The training data.
        p: `label_dropout`, above 0.
    """
    if data.labels is None:
        raise ValueError(f"label_dropout must be 0 for data without conditions, got {p}")
    if model.condition is not None and set(model.condition.kinds) == {"size"}:
        raise ValueError(
            f"label_dropout must be 0, got {p}: sets have no condition here but their sizes, which "
            "every network needs"
        )
    if not stated_condition(model.net):
        raise ValueError(
            f"label_dropout must be 0 for {type(model.net).__name__}, got {p}: it has no "
            "attribute condition, a ConditionSpec, by which it would promise to accept class K "
            "and entries of NaN as no condition"
        )


def checkpoint_activations(net: nn.Module) -> None:
    """Tell the network to keep fewer activations; ValueError if it cannot do this."""
    inner = innermost(net, "checkpointing")
    if not hasattr(inner, "checkpointing"):
        raise ValueError(
            f"checkpointing must be false for {type(net).__name__}, got true: it "
            "has no attribute checkpointing, by which UNet keeps fewer activations"
        )
    inner.checkpointing = True


def doubts(
    model: NetworkScore, data: Dataset | Stream, settings: TrainSettings, ranks: Ranks
) -> Iterator[str]:
    """Warnings about a training that is allowed but is probably a mistake."""
    # An autoencoder has no noise levels.
    of_scale = None if model.sde is None else scale_warning(model.sde, data)
    for problem in (of_scale, condition_warning(data)):
        if problem is not None:
            yield problem
    mixing = _depends_on_ranks(model.net)
    if ranks.size > 1 and mixing is not None:
        yield (
            f"the network has {type(mixing).__name__}, so that the result depends on the "
            f"number of processes, {ranks.size}"
        )
    if max(settings.warmup, 1) + max(settings.cooldown, 1) > settings.steps + 1:
        yield (
            f"with {settings.warmup} steps of warm-up and {settings.cooldown} of cool-down in "
            f"{settings.steps}, learning_rate {settings.learning_rate} is never reached"
        )


def _depends_on_ranks(net: nn.Module) -> nn.Module | None:
    """A layer whose results depend on which rows a process has; None without one.

    The dropout of this package's networks does not: its masks belong to the examples.
    """
    for module in net.modules():
        if isinstance(module, _BatchNorm) or (isinstance(module, _DropoutNd) and module.p > 0):
            return module
    return None
