"""What samplers promise: the table that `scoresde verify` measures.

A claim names a sampler, an order and where the order is promised. Everything that a paper proves
or that the code here is documented to do is a claim with an order; what nobody has proven is one
without, which is measured and reported and cannot fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..grid import arctan, log_snr, uniform
from ..sde import SDE, VE, VP, CosineVP, SubVP, TabulatedVP
from .orders import Grid, alternating

__all__ = ["CLAIMS", "GRIDS", "SDES", "Claim", "Kind", "Range"]

Kind = Literal["ode", "weak", "strong", "tolerance", "none"]

SDES: Mapping[str, SDE] = {
    "vp": VP(),
    "subvp": SubVP(),
    "ve": VE(),
    "cosine": CosineVP(),
    "tabulated": TabulatedVP(VP().ddpm_betas(1000)),
}


class Range(NamedTuple):
    """A grid and the time it ends at."""

    grid: Grid
    t_min: float


# λ ~ −½ log t near the data: there, equal steps in t are not short ones in λ, and steps of h and
# 3h are long ones, before N is in the thousands. Both end at 0.05 for that.
GRIDS: Mapping[str, Range] = {
    "log_snr": Range(log_snr, 1e-3),
    "alternating": Range(alternating, 0.05),
    "uniform": Range(uniform, 0.05),
    "arctan": Range(arctan, 1e-3),
}

# What is left of higher terms of the error at `STEPS`, as measured on these data; a neighbouring
# order is 1 away. Order 4 starts with steps of orders 1 to 3, whose share falls slowly.
BANDS = {1: 0.05, 2: 0.1, 3: 0.2, 4: 0.35}
FEW, MANY, MOST = (80, 160, 320), (160, 320, 640), (320, 640, 1280)
STEPS = {1: MANY, 2: MANY, 3: MANY, 4: MOST}
UNEVEN_STEPS = {1: FEW, 2: FEW, 3: MANY, 4: MANY}  # of "alternating", whose range is shorter
WEAK_STEPS, STRONG_STEPS = (100, 200, 400), (32, 64, 128)
WEAK_BAND = 0.1
# 1,000 paths leave 0.03, the reference 0.08; the rest is what N = 32 has of higher terms.
STRONG_BAND = 0.2
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
TOLERANCE_FACTOR = 20.0

EVERY = tuple(SDES)
KINKS = "f and g of a table have kinks"
HIGH_SDES = ("vp", "subvp", "cosine")
UNEVEN = "alternating"
LAMBDA = ("log_snr", UNEVEN)


@dataclass(frozen=True)
class Claim:
    """One promise.

    Attributes:
        sampler: As `scoresde.registry.parse_sampler` reads it.
        kind: What is measured; see `orders`. "none" is not measured.
        order: The slope of log error against −log N; None = nobody has proven one. Of kind
            "tolerance" the factor that error/tolerance must not exceed.
        paper: Who says so.
        band: How far the observed order may be off.
        steps: The steps it is observed at; tolerances for kind "tolerance".
        sdes: Names in `SDES`.
        grids: Names in `GRIDS`.
        quick: Whether the short form of `scoresde verify` measures it.
        note: What else to know.
    """

    sampler: str
    kind: Kind
    order: float | None
    paper: str
    band: float = 0.0
    steps: tuple[float, ...] = ()
    sdes: tuple[str, ...] = EVERY
    grids: tuple[str, ...] = LAMBDA
    quick: bool = True
    note: str = ""

    def holds(self, observed: float) -> bool | None:
        """Whether an observation is within the band; None where nothing is promised."""
        if self.order is None:
            return None
        if self.kind == "tolerance":
            return observed <= self.order
        return abs(observed - self.order) <= self.band


def _ode(order: int, paper: str, *samplers: str, **changes: Any) -> list[Claim]:
    """Claims of one order; of two grids the short form takes the uneven one."""
    settings = {"band": BANDS[order], "grids": LAMBDA, "quick": True} | changes
    quick, out = settings.pop("quick"), []
    for grid in settings.pop("grids"):
        steps = (UNEVEN_STEPS if grid == UNEVEN else STEPS)[order]
        first = quick and (grid == UNEVEN or UNEVEN not in changes.get("grids", LAMBDA))
        known = {"steps": steps, "quick": first, "grids": (grid,)} | settings
        out += [Claim(sampler, "ode", order, paper, **known) for sampler in samplers]
    return out


def _high(paper: str, *samplers: str, steps: tuple[int, ...] = MOST) -> list[Claim]:
    """Order 4 of methods that start at order 1: where the start cannot be seen.

    Under VE the prior is so much wider than the data that the first steps can be seen from N = 600
    on, and where steps are uneven the leading term may change sign under other SDEs than VP.
    """
    smooth = _ode(4, paper, *samplers, sdes=HIGH_SDES, grids=("log_snr",), quick=False, steps=steps)
    return [*smooth, *_ode(4, paper, *samplers, sdes=("vp",), grids=(UNEVEN,))]


def _runge_kutta() -> list[Claim]:
    out = []
    orders = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
    for name, order in orders.items():
        # in t not under a table: f and g have kinks
        paper = "Hairer et al. 1993"
        for variable in ("", ":variable=lam", ":variable=sigma"):
            # Euler's method in λ, where the ODE is stiff at first, needs the most steps
            settings = {"steps": FEW if order > 1 else MOST if "lam" in variable else MANY}
            settings["quick"] = not variable or order == 4
            sdes = EVERY if variable else EVERY[:-1]
            grids = LAMBDA if variable else ("uniform", UNEVEN)
            out += _ode(order, paper, name + variable, sdes=sdes, grids=grids, **settings)
    return out


def _adams() -> list[Claim]:
    deis = "Zhang & Chen 2022 (DEIS)"
    out = _ode(1, deis, "exp-ab:order=1", "deis:order=1", quick=False)
    for k in (2, 3):
        out += _ode(k, deis, f"deis:order={k}", f"deis-rho:order={k}", f"exp-ab:order={k}")
        out += _ode(k, deis, f"exp-ab:order={k}:prediction=x0")
    out += _high(deis, "deis", "deis-rho", "exp-ab:prediction=x0")
    # of the smallest error, and so the first in which the start can be seen
    out += _high(deis, "exp-ab", steps=MANY)
    for k in (2, 3, 4):
        name, why = f"ipndm:order={k}", "numbers of equal steps in σ/α"
        out += _ode(1, deis, name, grids=(UNEVEN,), note=why)
        out += _ode(2, deis, name, grids=("log_snr",), quick=False, note=why)
    return out


def _unipc() -> list[Claim]:
    paper = "Zhao et al. 2023 (UniPC)"
    out = _ode(1, paper, "unipc:order=1:corrector=false")
    for k in (2, 3):
        out += _ode(k, paper, f"unipc:order={k}:corrector=false")
    for variant in ("", ":variant=B1"):
        for k in (1, 2):
            name = f"unipc:order={k}{variant}"
            out += _ode(k + 1, paper, name, quick=not variant)
            out += _ode(k + 1, paper, f"{name}:prediction=eps", quick=False)
    out += _high(paper, "unipc", "unipc:prediction=eps")
    return out


def _sa_solver() -> list[Claim]:
    paper = "Xue et al. 2023 (SA-Solver)"
    text = "sa-solver:eta=0:predictor_order={}:corrector_order={}:lower_order_final=false"
    out = _ode(2, paper, "sa-solver:eta=0", band=0.2, steps=MOST, quick=False)
    for predictor, corrector in ((1, 0), (2, 0), (3, 0), (1, 2), (2, 3)):
        order = max(predictor, corrector)
        out += _ode(order, paper, text.format(predictor, corrector), quick=corrector == 3)
    pairs = (text.format(4, 0), text.format(3, 4))
    return out + _high(paper, *pairs)


def _angular() -> list[Claim]:
    # Euler's first step, or its trapezoidal correction, bounds the order; where order 3 begins to
    # be less than the 4 of the other steps is beyond any N that is run
    ours = "ours"
    out = _ode(1, ours, "angular:order=1:corrector=false", grids=("arctan",))
    out += _ode(2, ours, "angular:order=1", grids=("arctan",))
    for k in (2, 3, 4):
        out += _ode(2, ours, f"angular:order={k}:corrector=false", grids=("arctan",))
    out += _ode(3, ours, "angular:order=2", grids=("arctan",))
    late = {"sdes": ("vp",), "grids": ("arctan",), "steps": MOST, "quick": False}
    out += _ode(3, ours, "angular:order=4", **late)
    return [*out, Claim("angular", "ode", None, ours, grids=("arctan",), steps=MANY)]


def _weak(
    name: str, order: int | None, paper: str, sdes: tuple[str, ...] = EVERY, note: str = ""
) -> list[Claim]:
    settings = {"band": WEAK_BAND, "steps": WEAK_STEPS, "sdes": sdes, "note": note}
    return [
        Claim(name, "weak", order, paper, grids=(grid,), quick=grid == "uniform", **settings)
        for grid in ("log_snr", "uniform")
    ]


def _stochastic() -> list[Claim]:
    song, ddim = "Song et al. 2021", "Song et al. 2020 (DDIM)"
    proven = {
        "euler-maruyama": song,
        "euler-maruyama:eta=0.5": song,
        "reverse-diffusion": song,
        "ancestral": "Ho et al. 2020 (DDPM)",
        "ancestral:variance=beta_tilde": "Ho et al. 2020 (DDPM)",
        "ddim:eta=0.5": ddim,
        "ddim:eta=1": ddim,
    }
    strong = {"band": STRONG_BAND, "steps": STRONG_STEPS, "sdes": ("vp", "ve")}
    out = []
    for name, paper in proven.items():
        # Euler–Maruyama: under VE, whose f is 0, the leading term vanishes for Gaussian data; the
        # large β of CosineVP at t = 1 needs more steps
        sdes = EVERY if "euler" not in name else ("vp", "subvp", "tabulated")
        out += _weak(name, 1, paper, sdes)
        quick = name == "euler-maruyama"
        out.append(Claim(name, "strong", 1, paper, grids=("log_snr",), quick=quick, **strong))
    xue = "Xue et al. 2023 (SA-Solver)"
    for name in ("sa-solver", "sa-solver:eta=0.5:predictor_order=3:corrector_order=0"):
        out.append(Claim(name, "strong", 1, xue, grids=("log_snr",), quick=False, **strong))
        out += _weak(name, None, xue)
    lu, note = "Lu et al. 2022 (DPM-Solver++)", "no order is proven"
    for name in ("sde-dpmpp-2m", "sde-dpmpp-3m"):
        out += _weak(name, None, lu, note=note)
        out.append(
            Claim(name, "strong", None, lu, grids=("log_snr",), quick=False, note=note, **strong)
        )
    return out


def _without_order() -> list[Claim]:
    unmeasured = {"sdes": ("vp",), "grids": ("log_snr",)}
    settings = {"steps": WEAK_STEPS} | unmeasured
    return [
        Claim("edm", "weak", None, "Karras et al. 2022 (EDM)", note="churn", **settings),
        Claim("pc", "weak", None, "Song et al. 2021", note="fixed snr", **settings),
        Claim("restart", "weak", None, "Xu et al. 2023", note="fixed inner steps", **settings),
        Claim("annealed-langevin", "none", None, "Song & Ermon 2019", note="biased", **unmeasured),
        Claim("gotta-go-fast", "none", None, "Jolicoeur-Martineau et al. 2021", **unmeasured),
    ]


def _adaptive() -> list[Claim]:
    """Solvers that hold the error of a step to a tolerance; those of all steps add up."""
    paper, grids = "Hairer et al. 1993", ("log_snr",)
    # dop853's steps at 1e-3 are so long that its estimate of their error is still a guess; methods
    # of order 3 and 2 would take minutes to 1e-9
    ladders = {"dopri5": TOLERANCES, "dopri8": TOLERANCES, "dop853": TOLERANCES[1:]}
    ladders["bosh3"] = TOLERANCES[:4]
    kinks = {"sdes": EVERY[-1:], "grids": grids, "quick": False, "note": KINKS}
    out = []
    for name, steps in ladders.items():
        promise = {"sdes": EVERY[:-1], "grids": grids, "quick": name == "dopri5", "steps": steps}
        out.append(Claim(name, "tolerance", TOLERANCE_FACTOR, paper, **promise))
        out.append(Claim(name, "tolerance", None, paper, steps=TOLERANCES[:4], **kinks))
    for name, note in {"adaptive-heun": "", "fehlberg2": "its estimate is 1/512 of a gap"}.items():
        settings = {"steps": TOLERANCES[:4], "sdes": ("vp",), "grids": grids, "note": note}
        out.append(Claim(name, "tolerance", None, paper, quick=False, **settings))
    return out


DPM, DPM_PP = "Lu et al. 2022 (DPM-Solver)", "Lu et al. 2022 (DPM-Solver++)"

CLAIMS: tuple[Claim, ...] = (
    *_ode(1, "Song et al. 2020 (DDIM)", "ddim"),
    *_ode(2, DPM, "dpm-2"),
    *_ode(3, DPM, "dpm-3", steps=FEW),
    *_ode(2, DPM_PP, "dpmpp-2s", "dpmpp-2m", "dpmpp-2m:prediction=eps"),
    *_ode(3, DPM_PP, "dpmpp-3s", steps=FEW),
    *_ode(3, DPM_PP, "dpmpp-3m", "dpmpp-3m:prediction=eps"),
    *_ode(2, DPM_PP, "dpmpp-3m-copied", note="copied form; its copies claim 3"),
    *_unipc(),
    *_adams(),
    *_angular(),
    *_ode(2, "Karras et al. 2022 (EDM)", "heun"),
    *_runge_kutta(),
    *_sa_solver(),
    *_ode(1, "Song et al. 2021", "euler-maruyama:eta=0", sdes=EVERY[:-1], grids=("uniform",)),
    *_stochastic(),
    *_without_order(),
    *_adaptive(),
)
