"""What a reading takes the network to predict and to receive, in words."""

from __future__ import annotations

from ...sde import SDE
from .reading import Meaning, Reading

__all__ = ["TARGETS", "label_in_words", "natural_sign", "sign_of", "straight", "target_in_words"]

TARGETS = {"eps": "ε", "x0": "x0", "v": "v", "score": "the score", "edm": "EDM's F"}


def straight(sde: SDE) -> bool:
    """Whether the schedule is that of flow matching, α′ = −1 and σ′ = 1."""
    alpha_rate, sigma_rate = (float(rate) for rate in sde.rates(0.5))
    return sde.ends_in_noise and (alpha_rate, sigma_rate) == (-1.0, 1.0)


def natural_sign(data_at: int) -> int:
    """The sign of dx/dτ beside dx/dt, for a time τ that is `data_at` at the data."""
    return 1 - 2 * data_at


def sign_of(meaning: Meaning) -> int:
    """s in F = s dx/dt, of the target "velocity"."""
    return meaning.velocity_sign or natural_sign(meaning.data_at)


def target_in_words(reading: Reading) -> str:
    """What the network predicts, with its sign."""
    meaning = reading.meaning
    if meaning.target == "velocity":
        return f"the velocity {_velocity(reading)}"
    word = "the velocity ε − x0" if meaning.velocity else TARGETS.get(meaning.target, "x0")
    return word if meaning.gain > 0 else f"minus {word}" if " − " not in word else "x0 − ε"


def _velocity(reading: Reading) -> str:
    """The velocity as a formula."""
    forward = sign_of(reading.meaning) > 0
    if straight(reading.sde):
        return "ε − x0" if forward else "x0 − ε"
    return "α′ x0 + σ′ ε" if forward else "−(α′ x0 + σ′ ε)"


def label_in_words(meaning: Meaning) -> str:
    """The label as a formula."""
    name = {
        **{"log_sigma": "log(σ/α)", "edm": "log(σ/α)/4", "sigma": "σ/α"},
        "time": "(1 − t)" if meaning.data_at == 1 else "t",
        **{"index": "the index N t − 1", "rounded_index": "the rounded index N t − 1"},
    }[meaning.label]
    scale, offset = meaning.label_scale, meaning.label_offset
    if offset:
        name += f" {'+' if offset > 0 else '−'} {abs(offset):.3g}"
        name = name if scale == 1 else f"({name})"
    factor = "" if scale == 1 else "−" if scale == -1 else f"{scale:.4g} · "
    return f"{factor}{name}"
