"""What `certify.py` measures: the samplers of diffusers, azula and k-diffusion with options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Entry", "entries", "mended_entries"]

KARRAS = {"use_karras_sigmas": True}
ODE = {"eta": 0.0}
ABOVE = {"final_sigmas_type": "sigma_min"}  # the last step does not go to σ = 0
FULL = ABOVE | {"lower_order_final": False}  # and the last steps keep their order


class Entry(NamedTuple):
    """A sampler with its options and its documented order.

    `change` is a text of its source and the text that replaces it in a copy.
    """

    library: str
    place: str
    options: dict[str, Any]
    order: int | None
    change: tuple[str, str] | None = None


def no_noise(t: float) -> float:
    """τ = 0 for SA-Solver."""
    return 0.0


def _diffusers() -> Iterator[Entry]:
    def entry(name: str, order: int | None, /, **options: Any) -> Entry:
        return Entry("diffusers", f"diffusers:{name}Scheduler", options, order)

    for spacing in ("leading", "linspace", "trailing"):
        yield entry("DDIM", 1, timestep_spacing=spacing)
    yield entry("DDIM", 1, set_alpha_to_one=False)
    yield entry("DDIM", 1, eta=1.0)
    for variance in ("fixed_small", "fixed_large"):
        yield entry("DDPM", 1, variance_type=variance)
    for skip in (False, True):
        yield entry("PNDM", 2, skip_prk_steps=skip)
    yield entry("IPNDM", 4)
    for options in ({}, KARRAS, {"timestep_spacing": "leading"}):
        yield entry("EulerDiscrete", 1, **options)
    yield entry("EulerAncestralDiscrete", 1)
    for family in ("HeunDiscrete", "KDPM2Discrete"):
        yield entry(family, 2)
        yield entry(family, 2, **KARRAS)
    yield entry("KDPM2AncestralDiscrete", None)
    yield entry("LMSDiscrete", 4)
    yield entry("LMSDiscrete", 4, **KARRAS)
    yield from _dpm_solvers(entry)
    for order in (1, 2, 3):
        yield entry("DEISMultistep", order, solver_order=order)
    for order in (1, 2, 3):
        yield entry("UniPCMultistep", order + 1, solver_order=order, solver_type="bh2")
        for kind in ("bh1", "bh2"):
            options = {"solver_order": order, "solver_type": kind} | FULL
            yield entry("UniPCMultistep", order + 1, **options)
    yield entry("UniPCMultistep", 3, solver_order=2, solver_type="bh2", **ABOVE)
    yield entry("UniPCMultistep", 3, solver_order=2, solver_type="bh1")
    yield entry("UniPCMultistep", 3, solver_order=2, predict_x0=False, **FULL)
    yield entry("UniPCMultistep", 3, solver_order=2, **KARRAS)
    for p, c in ((1, 1), (2, 2), (3, 3), (2, 3)):
        orders = {"predictor_order": p, "corrector_order": c}
        yield entry("SASolver", max(p, c), **orders, tau_func=no_noise)
    yield entry("SASolver", None)
    for kind in ("karras", "exponential"):
        yield entry("EDMEuler", 1, sigma_schedule=kind)
        yield entry("EDMDPMSolverMultistep", 2, sigma_schedule=kind)
    yield entry("EDMDPMSolverMultistep", 3, solver_order=3)


def _dpm_solvers(entry: Any) -> Iterator[Entry]:
    families = ("DPMSolverMultistep", "DPMSolverSinglestep")
    for algorithm, last in (("dpmsolver++", {}), ("dpmsolver", FULL)):
        options = {"algorithm_type": algorithm} | last
        for family in families:
            for order in (1, 2, 3):
                yield entry(family, order, solver_order=order, **options)
            yield entry(family, 2, solver_type="heun", **options)
    for options in (ABOVE, {"euler_at_final": True}, KARRAS, {"use_lu_lambdas": True}):
        yield entry("DPMSolverMultistep", 2, **options)
    yield entry("DPMSolverSinglestep", 3, solver_order=3, **FULL)
    yield entry("DPMSolverSinglestep", 3, solver_order=3, solver_type="heun", **FULL)
    for family in families:
        for order in (1, 2, 3):
            options = {"solver_order": order, "algorithm_type": "sde-dpmsolver++"}
            yield entry(family, 1 if order == 1 else None, **options)
    for order in (1, 2):
        options = {"solver_order": order, "algorithm_type": "sde-dpmsolver"} | FULL
        yield entry("DPMSolverMultistep", 1 if order == 1 else None, **options)
    yield entry("DPMSolverSDE", None)


def _azula() -> Iterator[Entry]:
    def entry(name: str, order: int | None, /, **options: Any) -> Entry:
        return Entry("azula", f"azula.sample:{name}Sampler", options, order)

    yield from (entry("DDIM", 1), entry("Euler", 1), entry("Heun", 2), entry("Ito", 1, eta=0.0))
    for family in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
        yield from (entry(family, order, order=order) for order in (1, 2, 3))
    yield from (entry("DDPM", 1), entry("DDIM", 1, eta=0.5), entry("Ito", 1), entry("PC", None))


def _k_diffusion() -> Iterator[Entry]:
    def entry(name: str, order: int | None, /, **options: Any) -> Entry:
        return Entry("k-diffusion", f"k_diffusion.sampling:sample_{name}", options, order)

    for name, order in (("euler", 1), ("heun", 2), ("dpm_2", 2), ("lms", 4), ("dpmpp_2m", 2)):
        yield entry(name, order)
    yield entry("euler_ancestral", 1)
    for name in ("dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"):
        yield entry(name, 2, **ODE)
        yield entry(name, None)
    for kind in ("midpoint", "heun"):
        yield entry("dpmpp_2m_sde", 2, **ODE, solver_type=kind)
    yield entry("dpmpp_3m_sde", 3, **ODE)
    yield from (entry("dpmpp_2m_sde", None), entry("dpmpp_3m_sde", None))


def entries() -> Iterator[Entry]:
    """All rows of the table."""
    yield from _diffusers()
    yield from _azula()
    yield from _k_diffusion()


def mended_entries() -> Iterator[Entry]:
    """Copies with one change each: what it changes is the reason of a missed order."""
    doubled = ("(1.0 / (r0 + r1)) * (D1_0 - D1_1)", "(2.0 / (r0 + r1)) * (D1_0 - D1_1)")
    exact = (".astype(np.float32)", ".astype(np.float64)")
    right = ("torch.sqrt(alpha_s**2 + sigma_t**2)", "torch.sqrt(alpha_s**2 + sigma_s**2)")
    multistep, deis, adams = (
        f"diffusers:{name}Scheduler" for name in ("DPMSolverMultistep", "DEISMultistep", "SASolver")
    )
    yield Entry("diffusers", multistep, {"solver_order": 3}, 3, doubled)
    yield Entry("diffusers", deis, {"solver_order": 3}, 3, exact)
    options = {"predictor_order": 3, "corrector_order": 3, "tau_func": no_noise}
    yield Entry("diffusers", adams, options, 3, exact)
    for order in (2, 3):
        yield Entry("azula", "azula.sample:REABSampler", {"order": order}, order, right)
