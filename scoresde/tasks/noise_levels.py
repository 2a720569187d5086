"""The noise levels of NCSN in words, for `scoresde train` and `scoresde inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..samplers import AnnealedLangevin
from ..sde import VE

__all__ = ["ladder_in_words"]

ADVISED = 0.5  # overlap of neighbouring levels, of Song & Ermon 2020
STEPS = 5  # Langevin steps per level, of their models of 32×32 and 64×64 images


def ladder_in_words(config: Mapping[str, Any], dims: int) -> str | None:
    """The ladder of a VE model, the overlap of its neighbours, and the sampler for it.

    Song & Ermon 2020, arXiv:2006.09011, techniques 2 and 4; see `VE.overlap` and
    `AnnealedLangevin.for_ratio`.

    Args:
        config: Tables of a config as plain data.
        dims: Numbers per datum.

    Returns:
        One line; None if the model is not trained at the levels of a ladder, not a VE, or an
        autoencoder.
    """
    if "sde" not in config:
        return None
    sde, objective = config["sde"], config.get("objective", {})
    if sde["kind"] != "ve" or objective.get("times") != "ladder":
        return None
    ve, levels = VE(sde["sigma_min"], sde["sigma_max"]), objective["levels"]
    share, ratio = ve.overlap(levels, dims), ve.ratio(levels)
    words = f"{levels} noise levels, σ from {ve.sigma_max:g} to {ve.sigma_min:g}, "
    words += f"neighbours overlap by {share:.2g}"
    if share < ADVISED:
        return f"{words}, less than {ADVISED:g}; objective.levels = {ve.levels_for(dims)} is enough"
    step = AnnealedLangevin.for_ratio(ratio, STEPS).step_size
    return f"{words}; for annealed-langevin:steps={STEPS} they give step_size={step:.3g}"
