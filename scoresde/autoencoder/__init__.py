"""Variational autoencoders, whose latents are the data of a score model."""

from .bound import LatentBound, latent_log_likelihood_bound
from .convolutional import convolutional_autoencoder
from .dense import linear_autoencoder, mlp_autoencoder, probabilistic_pca
from .model import Autoencoder
from .objective import Elbo, Trainee
from .protocol import ThroughAutoencoder

__all__ = [
    "Autoencoder",
    "Elbo",
    "LatentBound",
    "ThroughAutoencoder",
    "Trainee",
    "convolutional_autoencoder",
    "latent_log_likelihood_bound",
    "linear_autoencoder",
    "mlp_autoencoder",
    "probabilistic_pca",
]
