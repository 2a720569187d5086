"""The settings of a training that suit a kind of data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...data import Dataset, DataSource, DataSpec
from ...names.latent_source import LatentSource
from ...plain import construct
from .encoding import LatentEncoding

__all__ = ["default_tables"]

_MOST_LEVELS = 4  # of a U-Net
_LEAST_SIDE = 4  # of its lowest level
_MOST_ATTENDED = 256  # positions of a level with attention, whose cost grows with their square
_BATCH = {"vector": 256, "set": 128, "volume": 16}  # of other kinds 64
_WARMUP = 100  # steps of a long run; it must not depend on their number, so that it can go on


def default_tables(
    data: Dataset, source: DataSource, steps: int, latent: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """The tables of a config for data of this kind: sde, net, preconditioning and train.

    Vectors get an MLP and sets a transformer. Series, images and volumes get a U-Net, whose levels
    halve the sides down to 4, with attention where there are at most 256 positions. The network
    takes all conditions of the data. The process is VP and the target EDM's. The learning rate
    falls to 0 in the second half of the steps.

    Args:
        data: The training data.
        source: Where they come from; it says whether they are standardized.
        steps: Optimizer steps in all.
        latent: The table [latent]; then the tables are those for the latents of these data.

    Raises:
        ConfigError: If there is no such autoencoder, or it is one of other data.
    """
    if latent is not None:
        table = construct(LatentSource, latent, "config: latent")
        data = LatentEncoding.read(table, 0, "cpu", "config").of_data(data, "config")
    spec, warmup = data.spec, min(_WARMUP, steps // 2)
    kinds = {"vector": {"kind": "mlp"}, "set": {"kind": "transformer"}}
    net = kinds[spec.kind] if spec.kind in kinds else _unet(spec)
    conditions = {name: getattr(spec, name) for name in ("classes", "vector", "array", "tokens")}
    return {
        "sde": {"kind": "vp"},
        "net": net | {name: value for name, value in conditions.items() if value is not None},
        "preconditioning": {
            "target": "edm",
            "sigma_data": 1.0 if latent is not None or source.transforms_of(spec) else 0.5,
        },
        "objective": {"t_min": 1e-3 if spec.levels is None else 1e-5},
        "train": {
            "steps": steps,
            "batch": min(len(data), _BATCH.get(spec.kind, 64)),
            "learning_rate": 1e-3,
            "warmup": warmup,
            "cooldown": (steps - warmup) // 2,
        },
    }


def _unet(spec: DataSpec) -> dict[str, Any]:
    """The table of a U-Net for data of this shape."""
    sides, least = [max(spec.shape[1:])], min(spec.shape[1:])
    while len(sides) < _MOST_LEVELS and least % 2 == 0 and least // 2 >= _LEAST_SIDE:
        least //= 2
        sides.append(-(-sides[-1] // 2))
    multipliers = [1, 2, 2, 2][: len(sides)]
    axes = len(spec.shape) - 1
    attention = [side for side in sides[1:] if side**axes <= _MOST_ATTENDED]
    return {"kind": "unet", "channels": 32, "multipliers": multipliers, "attention": attention}
