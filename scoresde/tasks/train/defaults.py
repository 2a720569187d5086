"""The settings of a training that suit a kind of data."""

from __future__ import annotations

from typing import Any

from ...data import Dataset, DataSpec

__all__ = ["default_tables"]

_MOST_LEVELS = 4  # of a U-Net
_LEAST_SIDE = 4  # of its lowest level, in pixels
_MOST_ATTENDED = 16  # largest side of a level with attention, whose cost grows with side^4

_WARMUP = 100  # steps of a long run; it must not depend on their number, so that it can go on


def default_tables(data: Dataset, steps: int) -> dict[str, dict[str, Any]]:
    """The tables of a config for data of this kind: sde, net, preconditioning and train.

    Vectors get an MLP, images a U-Net whose levels halve the side down to 4 pixels, with attention
    where the side is at most 16. The network takes all conditions of the data. The process is VP
    and the target EDM's. The learning rate falls to 0 in the second half of the steps.

    Args:
        data: The training data.
        steps: Optimizer steps in all.
    """
    spec, warmup = data.spec, min(_WARMUP, steps // 2)
    net = {"kind": "mlp"} if len(spec.shape) == 1 else _unet(spec)
    conditions = {name: getattr(spec, name) for name in ("classes", "vector", "array")}
    return {
        "sde": {"kind": "vp"},
        "net": net | {name: value for name, value in conditions.items() if value is not None},
        "preconditioning": {"target": "edm", "sigma_data": 0.5},
        "objective": {"t_min": 1e-3 if spec.levels is None else 1e-5},
        "train": {
            "steps": steps,
            "batch": min(len(data), 256 if len(spec.shape) == 1 else 64),
            "learning_rate": 1e-3,
            "warmup": warmup,
            "cooldown": (steps - warmup) // 2,
        },
    }


def _unet(spec: DataSpec) -> dict[str, Any]:
    """The table of a U-Net for data of this shape."""
    sides = [min(spec.shape[1:])]
    while len(sides) < _MOST_LEVELS and sides[-1] % 2 == 0 and sides[-1] // 2 >= _LEAST_SIDE:
        sides.append(sides[-1] // 2)
    multipliers = [1, 2, 2, 2][: len(sides)]
    attention = [side for side in sides[1:] if side <= _MOST_ATTENDED]
    return {"kind": "unet", "channels": 32, "multipliers": multipliers, "attention": attention}
