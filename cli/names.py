"""The names known to the library, for help and early errors.

They are copied here because importing the library takes seconds. A test compares each table with
the library's table, which is named in the comment above.
"""

from __future__ import annotations

__all__ = [
    "DATA_SETS",
    "DEFAULT_METRICS",
    "GRIDS",
    "GUIDANCES",
    "INVERSE_METHODS",
    "LABELS",
    "METHODS",
    "OPERATORS",
    "PROTOCOLS",
    "QUALITY_METRICS",
    "SAMPLERS",
    "SDES",
    "STUDENTS",
    "TRACES",
]

# scoresde.names.samplers
SAMPLERS = (
    *("ddim", "dpm-2", "dpm-3", "dpmpp-2s", "dpmpp-3s", "dpmpp-2m", "dpmpp-3m", "dpmpp-3m-copied"),
    *("unipc", "deis", "deis-rho", "exp-ab", "ipndm", "angular"),
    *("heun", "euler", "midpoint", "heun2", "heun3", "rk4"),
    *("dopri5", "dopri8", "dop853", "bosh3", "fehlberg2", "adaptive-heun"),
    *("ancestral", "euler-maruyama", "reverse-diffusion", "edm", "sde-dpmpp-2m", "sde-dpmpp-3m"),
    *("sa-solver", "restart", "gotta-go-fast", "pc", "annealed-langevin", "consistency"),
)
GRIDS = ("uniform", "quadratic", "cosine", "log_snr", "karras", "arctan", "logit")
GUIDANCES = ("cfg", "apg", "auto", "classifier")

# scoresde.distillation.student
STUDENTS = ("progressive", "consistency", "consistency-training")
TRACES = ("exact", "hutchinson", "probing", "hutch++", "xtrace")

# scoresde.names.operators and scoresde.names.inverse
OPERATORS = ("mask", "downsample", "grey", "blur", "projection")
INVERSE_METHODS = ("pigdm", "dps", "ddnm", "ddrm", "replacement", "repaint", "smc")

# scoresde.tasks.likelihood.request and scoresde.likelihood, and "auto"
PROTOCOLS = (
    *("pf-ode/continuous", "pf-ode/uniform", "pf-ode/truncated-normal"),
    *("pf-ode/decoder", "pf-ode/uniform+decoder", "pf-ode/autoencoder"),
    *("vlb-continuous", "vlb-ddpm"),
)
METHODS = ("auto", "path", "dopri8", "dopri5", "bosh3", "adaptive_heun", "dop853")

# scoresde.comparison.checked
LABELS = ("shares", "uniform")

# scoresde.comparison.measures
DEFAULT_METRICS = ("mmd2", "frechet", "sliced_w2", "copying", "classifier")
QUALITY_METRICS = (
    *("mmd2", "frechet", "frechet_inf", "sliced_w2", "precision", "recall"),
    *("clipped_density", "clipped_coverage", "copying", "classifier"),
)

# scoresde.verification.claims.CHECKED_SDES
SDES = ("vp", "subvp", "ve", "cosine", "tabulated", "linear")

# scoresde.data
DATA_SETS = (
    *("digits", "fashion-mnist", "mnist", "cifar10"),
    *("power", "gas", "hepmass", "miniboone", "bsds300"),
    *("gaussians8", "mixture3", "checkerboard", "rings", "moons", "spirals", "swissroll"),
)
