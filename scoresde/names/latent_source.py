"""The table [latent] of a config."""

from __future__ import annotations

from dataclasses import dataclass

from .._tensor import check_choice, check_type

__all__ = ["LatentSource"]

POSTERIORS = ("draws", "mean")


@dataclass(frozen=True)
class LatentSource:
    """The latents that a score model is trained on: the table `[latent]` of a config.

    Args:
        autoencoder: Checkpoint of an autoencoder, the folder of its training, or a folder with an
            AutoencoderKL of diffusers. A relative path starts at the working directory.
        posterior: "draws" trains on one draw of q(z | x) for each datum, whose distribution is the
            one that the likelihood bound needs; "mean" trains on the means.

    Raises:
        TypeError: If the path is no text.
        ValueError: If `posterior` is another word.
    """

    autoencoder: str
    posterior: str = "draws"

    def __post_init__(self) -> None:
        check_type("autoencoder", self.autoencoder, str)
        check_choice("posterior", self.posterior, POSTERIORS)
