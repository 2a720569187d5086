"""The claimed orders of samplers: the table that `scoresde verify` measures.

A claim names a sampler, the order of its error, and the settings of the measurement. An order that
a paper proves, or that this package documents, is a claim with an order. Without a proof the claim
has no order: the error is measured and reported, and the claim cannot fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ..grid import arctan, log_snr, uniform
from ..samplers.steps import Grid
from ..sde import SDE, VE, VP, CosineVP, Linear, SubVP, TabulatedVP
from .orders import alternating

__all__ = [
    "CHECKED_GRIDS",
    "CHECKED_SDES",
    "CLAIMS",
    "CheckedGrid",
    "Claim",
    "ClaimKind",
    "claims_about_own",
]

ClaimKind = Literal["ode", "weak", "strong", "tolerance", "none"]

CHECKED_SDES: Mapping[str, SDE] = {
    "vp": VP(),
    "subvp": SubVP(),
    "ve": VE(),
    "cosine": CosineVP(),
    "tabulated": TabulatedVP(VP().ddpm_betas(1000)),
    "linear": Linear(),
}


class CheckedGrid(NamedTuple):
    """A grid function of `scoresde.grid`, and the time at which its grids end."""

    make: Grid
    t_min: float

    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """The times of a grid, shape (steps + 1,)."""
        return self.make(sde, steps, self.t_min)


# Near the data λ ~ −½ log t. There a grid of equal steps in t, or of steps h and 3h in λ, has long
# steps in λ unless N is in the thousands, so these two grids end at 0.05.
CHECKED_GRIDS: Mapping[str, CheckedGrid] = {
    "log_snr": CheckedGrid(log_snr, 1e-3),
    "alternating": CheckedGrid(alternating, 0.05),
    "uniform": CheckedGrid(uniform, 0.05),
    "arctan": CheckedGrid(arctan, 1e-3),
}


@dataclass(frozen=True)
class Claim:
    """One claim about a sampler.

    Attributes:
        sampler: Text of the sampler for `scoresde.names.samplers.parse_sampler`.
        kind: The measured error, see `orders`; "none" if nothing is measured.
        order: The slope of log error against −log N; None if no order is proven. For kind
            "tolerance" the largest allowed error/tolerance.
        paper: Source of the claim.
        grid: Name in `CHECKED_GRIDS`.
        band: The largest allowed |observed order − order|.
        steps: Numbers of steps at which the error is measured; tolerances for kind "tolerance".
        sdes: Names in `CHECKED_SDES`.
        quick: Whether the short form of `scoresde verify` measures it.
        note: A remark for the table.
    """

    sampler: str
    kind: ClaimKind
    order: float | None
    paper: str
    grid: str = "log_snr"
    band: float = 0.0
    steps: tuple[float, ...] = ()
    sdes: tuple[str, ...] = tuple(CHECKED_SDES)
    quick: bool = True
    note: str = ""

    def holds(self, observed: float) -> bool | None:
        """Whether an observation agrees with the claim; None if there is no claimed order."""
        if self.order is None:
            return None
        if self.kind == "tolerance":
            return observed <= self.order
        return abs(observed - self.order) <= self.band


# The largest |observed − claimed| order. A band holds what higher terms of the error leave at
# `EVEN_STEPS`, measured on these data; the next order differs by 1. Methods of order 4 start
# with steps of orders 1 to 3, whose share of the error falls slowly.
BANDS = {1: 0.05, 2: 0.1, 3: 0.2, 4: 0.35}
FEW, MANY, MOST = (80, 160, 320), (160, 320, 640), (320, 640, 1280)
EVEN_STEPS = {1: MANY, 2: MANY, 3: MANY, 4: MOST}
UNEVEN_STEPS = {1: FEW, 2: FEW, 3: MANY, 4: MANY}  # the range of "alternating" is shorter
WEAK_STEPS = (100, 200, 400)
SOLVER_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)

SMOOTH_SDES, TABLE_SDES = (
    ("vp", "subvp", "ve", "cosine", "linear"),
    ("tabulated",),
)  # a table has kinks
VP_ONLY = ("vp",)
UNEVEN = "alternating"
BOTH = ("log_snr", UNEVEN)


def _ode(
    order: int, paper: str, *samplers: str, grids: tuple[str, ...] = BOTH, **changes: Any
) -> list[Claim]:
    """The order of some deterministic samplers. The short form uses only the uneven grid.

    Args:
        order: The order.
        paper: Source of the claim.
        *samplers: Texts of samplers.
        grids: Names in `CHECKED_GRIDS`.
        **changes: Fields of `Claim` that differ from the usual values.
    """
    quick, out = changes.pop("quick", True), []
    for grid in grids:
        usual = {
            "band": BANDS[order],
            "steps": (UNEVEN_STEPS if grid == UNEVEN else EVEN_STEPS)[order],
            "quick": quick and (grid == UNEVEN or UNEVEN not in grids),
        }
        out += [Claim(text, "ode", order, paper, grid, **usual | changes) for text in samplers]
    return out


def _order_4(paper: str, *samplers: str, steps: tuple[int, ...] = MOST) -> list[Claim]:
    """Order 4 of multistep methods, in settings that hide the lower order of their first steps.

    Under VE the prior is so much wider than the data that the first steps dominate from N = 600 on.
    On uneven steps, under SDEs other than VP, the leading term of the error may change its sign.
    """
    even = {"sdes": ("vp", "subvp", "cosine"), "grids": ("log_snr",), "quick": False}
    return [
        *_ode(4, paper, *samplers, steps=steps, **even),
        *_ode(4, paper, *samplers, sdes=VP_ONLY, grids=(UNEVEN,)),
    ]


def _runge_kutta(
    order: int, name: str, steps: tuple[int, ...] = FEW, lam_steps: tuple[int, ...] = FEW
) -> list[Claim]:
    """A Runge–Kutta method in t, in λ and in σ/α. In t there is no table, because it has kinks."""
    quick = order == 4
    return [
        *_ode(order, HAIRER, name, steps=steps, sdes=SMOOTH_SDES, grids=("uniform", UNEVEN)),
        *_ode(order, HAIRER, f"{name}:variable=lam", steps=lam_steps, quick=quick),
        *_ode(order, HAIRER, f"{name}:variable=sigma", steps=steps, quick=quick),
    ]


def _weak(order: int | None, paper: str, *samplers: str, **changes: Any) -> list[Claim]:
    """The weak order of some samplers on two grids. The short form uses only "uniform"."""
    usual = {"band": 0.1, "steps": WEAK_STEPS} | changes
    return [
        Claim(text, "weak", order, paper, grid, quick=grid == "uniform", **usual)
        for text in samplers
        for grid in ("log_snr", "uniform")
    ]


def _strong(order: int | None, paper: str, *samplers: str, **changes: Any) -> list[Claim]:
    """The strong order of some samplers.

    The band covers 0.03 from the 1,000 paths, 0.08 from the reference, and higher terms at N = 32.
    """
    usual = {"band": 0.2, "steps": (32, 64, 128), "sdes": ("vp", "ve"), "quick": False}
    return [Claim(text, "strong", order, paper, **usual | changes) for text in samplers]


def _tolerance(name: str, tolerances: tuple[float, ...], quick: bool = False) -> list[Claim]:
    """An adaptive solver whose error is at most 20 tolerances; under a table it is only observed.

    The solver keeps the error of one step below the tolerance. The errors of all steps add up.
    """
    return [
        Claim(name, "tolerance", 20.0, HAIRER, steps=tolerances, sdes=SMOOTH_SDES, quick=quick),
        _observed(name, "f and g of a table have kinks", TABLE_SDES),
    ]


def _observed(name: str, note: str = "", sdes: tuple[str, ...] = VP_ONLY) -> Claim:
    """An adaptive solver whose error/tolerance is observed without a claim."""
    settings = {"steps": SOLVER_TOLERANCES[:4], "sdes": sdes, "quick": False, "note": note}
    return Claim(name, "tolerance", None, HAIRER, **settings)


def _unproven(name: str, paper: str, note: str) -> Claim:
    """A stochastic sampler without a known order, whose weak error is observed."""
    return Claim(name, "weak", None, paper, steps=WEAK_STEPS, sdes=VP_ONLY, note=note)


SONG_DDIM, SONG = "Song et al. 2020 (DDIM)", "Song et al. 2021"
HO, KARRAS = "Ho et al. 2020 (DDPM)", "Karras et al. 2022 (EDM)"
LU, LU_PP = "Lu et al. 2022 (DPM-Solver)", "Lu et al. 2022 (DPM-Solver++)"
ZHAO, ZHANG = "Zhao et al. 2023 (UniPC)", "Zhang & Chen 2022 (DEIS)"
XUE, HAIRER = "Xue et al. 2023 (SA-Solver)", "Hairer et al. 1993"
OURS, OWN = "ours", "your own"

PREDICTOR = "unipc:order={}:corrector=false"
FORMS = (":prediction=eps", ":variant=B1", ":variant=B1:prediction=eps")
SA_ODE = "sa-solver:eta=0:predictor_order={}:corrector_order={}:lower_order_final=false"
SA_NOISY = "sa-solver:eta=0.5:predictor_order=3:corrector_order=0"
IPNDM_ORDERS = tuple(f"ipndm:order={order}" for order in (2, 3, 4))
EQUAL = "numbers of equal steps in σ/α"
ARCTAN = ("arctan",)

CLAIMS: tuple[Claim, ...] = (
    *_ode(1, SONG_DDIM, "ddim"),
    *_ode(2, LU, "dpm-2"),
    *_ode(3, LU, "dpm-3", steps=FEW),
    *_ode(2, LU_PP, "dpmpp-2s", "dpmpp-2m", "dpmpp-2m:prediction=eps"),
    *_ode(3, LU_PP, "dpmpp-3s", steps=FEW),
    *_ode(3, LU_PP, "dpmpp-3m", "dpmpp-3m:prediction=eps"),
    *_ode(2, LU_PP, "dpmpp-3m-copied", note="copied form; its copies claim 3"),
    # the corrector adds 1 to the order
    *_ode(1, ZHAO, PREDICTOR.format(1)),
    *_ode(2, ZHAO, PREDICTOR.format(2)),
    *_ode(3, ZHAO, PREDICTOR.format(3)),
    *_ode(2, ZHAO, "unipc:order=1"),
    *_ode(2, ZHAO, *(f"unipc:order=1{form}" for form in FORMS), quick=False),
    *_ode(3, ZHAO, "unipc:order=2"),
    *_ode(3, ZHAO, *(f"unipc:order=2{form}" for form in FORMS), quick=False),
    *_order_4(ZHAO, "unipc", "unipc:prediction=eps"),
    *_ode(1, ZHANG, "exp-ab:order=1", "deis:order=1", quick=False),
    *_ode(2, ZHANG, "deis:order=2", "deis-rho:order=2"),
    *_ode(2, ZHANG, "exp-ab:order=2", "exp-ab:order=2:prediction=x0"),
    *_ode(3, ZHANG, "deis:order=3", "deis-rho:order=3"),
    *_ode(3, ZHANG, "exp-ab:order=3", "exp-ab:order=3:prediction=x0"),
    *_order_4(ZHANG, "deis", "deis-rho", "exp-ab:prediction=x0"),
    *_order_4(ZHANG, "exp-ab", steps=MANY),  # its error is smallest, so its start shows first
    *_ode(1, ZHANG, *IPNDM_ORDERS, grids=(UNEVEN,), note=EQUAL),
    *_ode(2, ZHANG, *IPNDM_ORDERS, grids=("log_snr",), quick=False, note=EQUAL),
    # Euler's first step, or its trapezoidal correction, bounds the order
    *_ode(1, OURS, "angular:order=1:corrector=false", grids=ARCTAN),
    *_ode(2, OURS, "angular:order=1", grids=ARCTAN),
    *_ode(2, OURS, *(f"angular:order={k}:corrector=false" for k in (2, 3, 4)), grids=ARCTAN),
    *_ode(3, OURS, "angular:order=2", grids=ARCTAN),
    *_ode(3, OURS, "angular:order=4", grids=ARCTAN, sdes=VP_ONLY, steps=MOST, quick=False),
    # the first steps' order 3 would lower the observed order 4 only beyond every N that is run
    Claim("angular", "ode", None, OURS, "arctan", steps=MANY),
    *_ode(2, KARRAS, "heun"),
    # in λ, where the ODE is stiff at first, Euler's method needs the most steps
    *_runge_kutta(1, "euler", steps=MANY, lam_steps=MOST),
    *_runge_kutta(2, "midpoint"),
    *_runge_kutta(2, "heun2"),
    *_runge_kutta(3, "heun3"),
    *_runge_kutta(4, "rk4"),
    *_ode(2, XUE, "sa-solver:eta=0", band=0.2, steps=MOST, quick=False),
    *_ode(1, XUE, SA_ODE.format(1, 0), quick=False),
    *_ode(2, XUE, SA_ODE.format(2, 0), SA_ODE.format(1, 2), quick=False),
    *_ode(3, XUE, SA_ODE.format(3, 0), quick=False),
    *_ode(3, XUE, SA_ODE.format(2, 3)),
    *_order_4(XUE, SA_ODE.format(4, 0), SA_ODE.format(3, 4)),
    *_ode(1, SONG, "euler-maruyama:eta=0", sdes=SMOOTH_SDES, grids=("uniform",)),
    # under VE, where f is 0, the leading term of Euler–Maruyama vanishes for Gaussian data; the
    # large β of CosineVP at t = 1 needs more steps
    *_weak(1, SONG, "euler-maruyama", "euler-maruyama:eta=0.5", sdes=("vp", "subvp", "tabulated")),
    *_weak(1, SONG, "reverse-diffusion"),
    *_weak(1, HO, "ancestral", "ancestral:variance=beta_tilde"),
    *_weak(1, SONG_DDIM, "ddim:eta=0.5", "ddim:eta=1"),
    *_weak(None, XUE, "sa-solver", SA_NOISY),
    *_weak(None, LU_PP, "sde-dpmpp-2m", "sde-dpmpp-3m", note="no order is proven"),
    _unproven("edm", KARRAS, "churn"),
    _unproven("pc", SONG, "fixed snr"),
    _unproven("restart", "Xu et al. 2023", "fixed inner steps"),
    *_strong(1, SONG, "euler-maruyama", quick=True),
    *_strong(1, SONG, "euler-maruyama:eta=0.5", "reverse-diffusion"),
    *_strong(1, HO, "ancestral", "ancestral:variance=beta_tilde"),
    *_strong(1, SONG_DDIM, "ddim:eta=0.5", "ddim:eta=1"),
    *_strong(1, XUE, "sa-solver", SA_NOISY),
    *_strong(None, LU_PP, "sde-dpmpp-2m", "sde-dpmpp-3m", note="no order is proven"),
    Claim("consistency", "none", None, "Song et al. 2023", sdes=VP_ONLY, note="for students"),
    Claim("annealed-langevin", "none", None, "Song & Ermon 2019", sdes=VP_ONLY, note="biased"),
    Claim("gotta-go-fast", "none", None, "Jolicoeur-Martineau et al. 2021", sdes=VP_ONLY),
    *_tolerance("dopri5", SOLVER_TOLERANCES, quick=True),
    *_tolerance("dopri8", SOLVER_TOLERANCES),
    # at 1e-3 the steps are so long that their error estimates are unreliable
    *_tolerance("dop853", SOLVER_TOLERANCES[1:]),
    # methods of orders 3 and 2 would take minutes to 1e-9
    *_tolerance("bosh3", SOLVER_TOLERANCES[:4]),
    _observed("adaptive-heun"),
    _observed("fehlberg2", note="its estimate is 1/512 of a gap"),
)


def claims_about_own(
    label: str, kind: ClaimKind, order: int | None, sdes: tuple[str, ...]
) -> list[Claim]:
    """The claims that are measured for a sampler which is not in the table.

    Args:
        label: Name of the sampler for the results.
        kind: "ode" for a deterministic sampler on a grid, "weak" for one that draws noise, or
            "tolerance" for an adaptive one.
        order: The order that the user claims; None to measure it without a verdict.
        sdes: Names in `CHECKED_SDES`.
    """
    usual = {"paper": OWN, "sdes": sdes}
    if kind == "tolerance":
        return [Claim(label, kind, None, steps=SOLVER_TOLERANCES[:4], **usual)]
    if kind == "weak":
        usual |= {"band": 0.1, "steps": WEAK_STEPS}
        return [Claim(label, kind, order, grid=grid, **usual) for grid in ("log_snr", "uniform")]
    known = 2 if order is None else min(order, 4)
    steps = {"log_snr": EVEN_STEPS[known], UNEVEN: UNEVEN_STEPS[known]}
    usual["band"] = 0.0 if order is None else BANDS[known]
    return [Claim(label, kind, order, grid=grid, steps=n, **usual) for grid, n in steps.items()]
