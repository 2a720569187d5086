"""What commands refuse before they build a network."""

from __future__ import annotations

from ..config import Config
from ..likelihood.ode import FLOAT32_TOLERANCE

__all__ = ["check_first_time", "check_flow"]


def check_first_time(config: Config, t_min: float | None) -> None:
    """Raise if a checkpoint's network knows no time as small as --t-min.

    Args:
        config: The checkpoint's config.
        t_min: The least time that the network will be asked at; None if it was not given.

    Raises:
        ValueError: If it is below the time of the network's first discrete label.
    """
    if t_min is not None and t_min < config.t_least:
        raise ValueError(
            f"--t-min: {t_min:g} is below {config.t_least:g}, the time of the first discrete "
            "label that the checkpoint's network was trained on"
        )


def check_flow(checkpoint: str, config: Config, rtol: float, atol: float, dtype: str) -> None:
    """Raise unless the checkpoint's ODE can be solved to such a tolerance in such a dtype.

    Args:
        checkpoint: Its name, for messages.
        config: Its config.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        dtype: "float32" or "float64", of data and network.

    Raises:
        ValueError: If its labels are rounded, or a tolerance is below the rounding of float32;
            names the option.
    """
    if config.preconditioning.snapped:
        raise ValueError(
            f"--checkpoint: {checkpoint} has rounded labels, which are wrong between its "
            "discrete times; the probability-flow ODE asks at all times, with label = 'index'"
        )
    for name, value in (("rtol", rtol), ("atol", atol)):
        if dtype != "float64" and value < FLOAT32_TOLERANCE:
            raise ValueError(
                f"--{name}: {value:g} is too small for float32, which needs at least "
                f"{FLOAT32_TOLERANCE:g}; use --dtype float64"
            )
