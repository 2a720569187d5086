"""The two scales of a model whose data have a transform: the user's units, and the model's scale.

Networks, SDEs, samplers and likelihood methods know the model's scale z alone. The public functions
take and give data x in units, through the `DataSpec` in `model.data`:

    z = g(x),   x = g⁻¹(z),   log p(x) = log p(z) + log |det ∂z/∂x|

The samples z of a model of latents are decoded in the same place, x = E[x | z] by the `decoder` of
the model. This map has no inverse, so that there is no log p(x).

Code that works at the model's scale throughout, such as a comparison of samplers, takes
`in_model_scale(model)`, for which both scales are the same.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from .._condition import Condition, bound_rows, present
from .base import ScoreModel

__all__ = [
    "has_units",
    "in_model_scale",
    "log_det_at",
    "refuse_latents",
    "to_model_scale",
    "to_units",
]


def has_units(model: ScoreModel) -> bool:
    """Whether the user's data are not the model's: they have a transform, or are decoded."""
    if model.decoder is not None:
        return True
    return model.data is not None and model.data.transform is not None


def in_model_scale(model: ScoreModel) -> ScoreModel:
    """The model as a model of data at its own scale, with the same network and counters.

    A model of latents becomes one whose samples are not decoded.
    """
    if not has_units(model):
        return model
    view = copy.copy(model) if model.decoder is None else model.decoded_by(None)
    view.data = model.data.in_model_scale
    return view


def to_model_scale(
    model: ScoreModel, x: Tensor, y: Condition | None = None
) -> tuple[Tensor, Tensor | None]:
    """Data at the model's scale, and log |det ∂z/∂x|.

    Args:
        model: The model.
        x: Data in units, shape (B, *D).
        y: Condition of the data; None for the one that is bound. It tells the sizes of sets.

    Returns:
        z like x, and nats of shape (B,), float64; x itself and None if both scales are the same.

    Raises:
        ValueError: If the data have another shape than the model's, leave the domain of the
            transform, the condition does not suit the model, or the model is one of latents.
    """
    if not has_units(model):
        return x, None
    refuse_latents(model)
    _check_shape(model, x)
    exists = _present(model.labelled(y, len(x), x.device), x)
    return model.data.to_model(x, exists), model.data.log_det(x, exists)


def to_units(
    model: ScoreModel, z: Tensor, y: Condition | None = None, batch: int | None = None
) -> Tensor:
    """States of the model in the user's units, shape and dtype of z; latents are decoded.

    Args:
        model: The model.
        z: States at the model's scale, shape (B, *D).
        y: As for `to_model_scale`.
        batch: Latents that are decoded at a time, as for `LatentDecoder`.
    """
    if not has_units(model):
        return z
    if model.decoder is not None:
        return model.decoder(z, batch)
    _check_shape(model, z)
    return model.data.to_units(z, _present(model.labelled(y, len(z), z.device), z))


def log_det_at(model: ScoreModel, z: Tensor, y: Condition | None = None) -> Tensor | None:
    """log |det ∂z/∂x| at states of the model, shape (B,), float64; None if the scales are equal.

    The states are mapped in float64: in float32 log-transformed data may leave their domain.
    """
    if not has_units(model):
        return None
    refuse_latents(model)
    exists = _present(model.labelled(y, len(z), z.device), z)
    return model.data.log_det(model.data.to_units(z.to(torch.float64), exists), exists)


def _present(model: ScoreModel, x: Tensor) -> Tensor | None:
    """The points of sets that exist, bool (B, N); None if the data are not sets."""
    if model.condition is None or model.y is None:
        return None
    size = model.condition.size(bound_rows(model.y, len(x), x.device))
    return None if size is None else present(size, x.shape[1])


def refuse_latents(model: ScoreModel) -> None:
    """Raise ValueError for a model of latents, whose density of the data is not known."""
    if model.decoder is not None:
        raise ValueError(
            "model must be one of the data themselves, got one of latents: log p(x) is bounded by "
            "scoresde.latent_log_likelihood_bound; model.decoded_by(None) has log p of the latents"
        )


def _check_shape(model: ScoreModel, x: Tensor) -> None:
    if tuple(x.shape[1:]) != model.data.shape:
        wanted = ", ".join(["B", *map(str, model.data.shape)])
        raise ValueError(f"x must have shape ({wanted}), got {tuple(x.shape)}")
