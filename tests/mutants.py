"""Mutants: wrong versions of the code, each of which one test file must find.

    python tests/mutants.py [--only NAME] [--jobs 2]

A mutant replaces one text in one file. This script applies each of them to a copy of the tree in
a temporary folder and runs its test file there; the tree itself is never changed. It prints one
line for each mutant:

    caught     the tests fail
    survived   the tests pass: a test is missing
    stale      the old text does not occur exactly once in its file: change the entry
    broken     the tests cannot be collected, or take more than `LIMIT` seconds of a processor, or
               ten times as long on a busy machine: change the entry

and exits with status 1 unless all are caught. Before that the same tests run without any mutant,
because a test that fails anyway finds nothing.

Most entries are mistakes that were really made, here or in other software of this kind. Run it
after changing tests, and add an entry for each mistake that no test has found.
"""

from __future__ import annotations

import argparse
import ast
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("scoresde", "cli", "configs", "tests", "benchmarks", "pyproject.toml", "README.md")
LIMIT = 120  # seconds of a processor that the tests of one mutant may take
PATIENCE = 10 * LIMIT  # seconds on a busy machine
CAUGHT, PASSED = 1, 0  # exit statuses of pytest


class Mutant(NamedTuple):
    """One wrong version.

    Attributes:
        name: What is wrong.
        path: The file, from the root of the tree.
        old: A text that occurs once in it.
        new: What to write instead.
        test: The test file that must fail, within tests/.
        select: Which of its tests, as for `pytest -k`; all if empty.
    """

    name: str
    path: str
    old: str
    new: str
    test: str
    select: str = ""

    def mutated(self, text: str) -> str | None:
        """The file with the mistake, or None if the old text does not occur exactly once."""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 else None


def _sde() -> Iterator[Mutant]:
    folder, test = "scoresde/sde", "test_sde.py"
    yield Mutant(
        "VE.from_data looks at its first 512 rows only",
        f"{folder}/ve.py",
        "for start in range(0, len(rows), 512):",
        "for start in (0,):",
        test,
        "spans_the_data",
    )
    yield Mutant(
        "VE.from_data compares rows of one piece only",
        f"{folder}/ve.py",
        "torch.cdist(rows[start : start + 512], rows[start:])",
        "torch.cdist(rows[start : start + 512], rows[start : start + 512])",
        test,
        "spans_the_data",
    )
    yield Mutant(
        "log α without the factor of β_min",
        f"{folder}/vp.py",
        "(self.beta_max - self.beta_min) - 0.5 * t * self.beta_min",
        "(self.beta_max - self.beta_min) - t * self.beta_min",
        test,
        "values or f_and_g",
    )
    yield Mutant(
        "g of SubVP as if σ were that of VP",
        f"{folder}/vp.py",
        "-torch.expm1(4 * self.log_alpha(t))",
        "-torch.expm1(2 * self.log_alpha(t))",
        test,
        "values or f_and_g",
    )
    yield Mutant(
        "σ of VP by 1 − α², which cancels",
        f"{folder}/base.py",
        "return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))",
        "return torch.sqrt(1 - torch.exp(2 * self.log_alpha(t)))",
        test,
        "cancel",
    )
    yield Mutant(
        "g of VE without the factor 2",
        f"{folder}/ve.py",
        "math.sqrt(2 * self._log_ratio)",
        "math.sqrt(self._log_ratio)",
        test,
        "values or f_and_g",
    )
    yield Mutant(
        "a table's first β is left out",
        f"{folder}/tabulated_vp.py",
        "np.concatenate([[0.0], np.cumsum(np.log1p(-np.array(betas)))])",
        "np.concatenate([np.cumsum(np.log1p(-np.array(betas))), [-99.0]])",
        test,
        "discrete_model",
    )
    yield Mutant(
        "the label of a table is one too high",
        f"{folder}/base.py",
        "self._check_levels(None) - 1).clamp(min=0)",
        "self._check_levels(None)).clamp(min=0)",
        "test_score.py",
        "index or rounded",
    )
    yield Mutant(
        "the cosine schedule is not clipped",
        f"{folder}/tabulated_vp.py",
        ".clamp(max=max_beta)",
        ".clamp(max=1 - 1e-12)",
        test,
        "cosine",
    )
    yield Mutant(
        "the transition's variance without the square",
        f"{folder}/base.py",
        "math.sqrt(-math.expm1(2 * (t.lam - s.lam)))",
        "math.sqrt(-math.expm1(t.lam - s.lam))",
        test,
        "transition",
    )


def _grids_and_models() -> Iterator[Mutant]:
    path = "scoresde/grid.py"
    yield Mutant(
        "a grid with one step too many",
        path,
        "equally_spaced(t_max, t_min, steps + 1)",
        "equally_spaced(t_max, t_min, steps + 2)",
        "test_grid.py",
        "ends_are_exact",
    )
    yield Mutant(
        "ρ of Karras's grid is ignored at its end",
        path,
        "sde.t_of_lam(-rho * root.log())",
        "sde.t_of_lam(-7.0 * root.log())",
        "test_grid.py",
        "karras",
    )
    yield Mutant(
        "equal neighbours are allowed in a grid",
        "scoresde/given_times.py",
        "torch.nonzero(ts[1:] >= ts[:-1])",
        "torch.nonzero(ts[1:] > ts[:-1])",
        "test_grid.py",
        "bad_lists",
    )
    path = "scoresde/names/loading.py"
    yield Mutant(
        "an SDE of the user with other formulas is taken for the stored one",
        path,
        "if not math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9):",
        "if False:",
        "names/test_own_code.py",
        "other_formulas",
    )
    yield Mutant(
        "a fingerprint leaves out attributes that are no fields",
        "scoresde/fingerprint.py",
        "return found | {k: own[k] for k in own.keys() - set(cached)}",
        "return found",
        "names/test_own_code.py",
        "fingerprints",
    )
    yield Mutant(
        "a denoiser receives x_t instead of x_t/α",
        "scoresde/score/preconditioning.py",
        "return 1 / node.alpha",
        "return 1.0",
        "score/test_wrap.py",
        "denoiser_of_x",
    )
    yield Mutant(
        "of 2C channels the variance is taken for the prediction",
        "scoresde/score/call.py",
        "return value[:, :channels], value[:, channels:] if",
        "return value[:, channels:], value[:, :channels] if",
        "score/test_wrap.py",
        "what_a_network_returns",
    )
    yield Mutant(
        "any optional third parameter receives the condition",
        "scoresde/score/call.py",
        "third.default is None and third.name in _CONDITION_NAMES",
        "third.default is None",
        "score/test_wrap.py",
        "where_conditions_go",
    )
    yield Mutant(
        "a network of unknown convention is given log σ",
        "scoresde/score/network.py",
        "if preconditioning is None and stated_condition(net) is None:",
        "if preconditioning is None and net is None:",
        "score/test_wrap.py",
        "not_guessed",
    )
    yield Mutant(
        "the growth of the variance is not part of g",
        "scoresde/verification/laws/process.py",
        "growth - 2 * f * sigma.square()",
        "-2 * f * sigma.square()",
        "verification/test_check.py",
        "belong_together",
    )
    yield Mutant(
        "verify compares the ends of two samplers, and not the way there",
        "scoresde/verification/level_same.py",
        "split = _parting(ours, theirs)",
        "split = None",
        "verification/test_conduct.py",
        "where_two_samplers_part",
    )
    yield Mutant(
        "verify takes an evaluation without effect for a useful one",
        "scoresde/verification/conduct.py",
        "x0[len(disturbed.calls) - 1] += WRONG",
        "x0 += WRONG",
        "verification/test_conduct.py",
        "conduct",
    )
    yield Mutant(
        "the doctor takes the worse reading for the better one",
        "scoresde/verification/diagnosis/measure.py",
        "gains = ((base - other)",
        "gains = ((other - base)",
        "verification/test_doctor.py",
        "paired",
    )
    yield Mutant(
        "the doctor takes the smallest improvement",
        "scoresde/verification/diagnosis/search.py",
        "sorted(better, key=_preference, reverse=True)",
        "sorted(better, key=_preference)",
        "verification/test_doctor.py",
        "names_the_mistake",
    )
    yield Mutant(
        "the doctor names a factor that improves a weak network but does not explain its error",
        "scoresde/verification/diagnosis/search.py",
        "return fall > EXPLAINED * (fall + rest)",
        "return fall > 0",
        "verification/test_doctor.py",
        "some_factor_improves",
    )
    yield Mutant(
        "the doctor adds the input to the network's output without its scale α",
        "scoresde/verification/diagnosis/reading.py",
        "skip * node.alpha * reading",
        "skip * reading",
        "verification/test_doctor.py",
        "names_the_mistake",
    )
    yield Mutant(
        "the offset of a label with the wrong sign",
        "scoresde/score/preconditioning.py",
        "label + self.label_offset",
        "label - self.label_offset",
        "score/test_wrap.py",
        "labels_from_1",
    )
    yield Mutant(
        "the score at a noise level without the factor α",
        "scoresde/score/base.py",
        "cast(-node.alpha / node.sigma, x)",
        "cast(-1 / node.sigma, x)",
        "score/test_wrap.py",
        "denoiser_of_x",
    )
    path = "scoresde/score/preconditioning.py"
    yield Mutant(
        "v with the sign of the other convention",
        path,
        '"x0": (a / total, -s / total)',
        '"x0": (a / total, s / total)',
        "test_score.py",
        "native_target",
    )
    yield Mutant(
        "EDM's label without its factor ¼",
        path,
        "else -0.25 * node.lam",
        "else -node.lam",
        "test_score.py",
        "told",
    )
    yield Mutant(
        "the input is scaled by α² + σ² instead of its root",
        path,
        "(node.alpha**2 * data_std**2 + node.sigma**2) ** -0.5",
        "(node.alpha**2 * data_std**2 + node.sigma**2) ** -1.0",
        "test_score.py",
        "unit_variance",
    )
    yield Mutant(
        "the reverse SDE with the score once instead of twice",
        "scoresde/score/drift.py",
        "weight = 0.5 * (1 + eta**2) * node.g**2 / node.sigma",
        "weight = 0.5 * node.g**2 / node.sigma",
        "test_score.py",
        "reverse_process",
    )
    path = "scoresde/evaluation.py"
    yield Mutant(
        "the limit of evaluations allows one more",
        path,
        "count.forward >= count.limit",
        "count.forward > count.limit",
        "test_score.py",
        "limit",
    )
    yield Mutant(
        "modes are not restored after sampling",
        path,
        "                    if held.training:\n                        module.training = True\n",
        "",
        "test_score.py",
        "dropout",
    )
    yield Mutant(
        "a block counts the evaluations of other models",
        path,
        "for total, block in _BLOCKS.get() if total is self)",
        "for total, block in _BLOCKS.get())",
        "test_evaluation.py",
        "apart",
    )
    yield Mutant(
        "midpoints of a Brownian path with the variance of the whole interval",
        "scoresde/noise/brownian.py",
        "[0.5 * 2 ** (-0.5 * level) for",
        "[2 ** (-0.5 * level) for",
        "test_noise.py",
        "brownian or path",
    )
    yield Mutant(
        "the carry between halves of a product is lost",
        "scoresde/_philox/operations.py",
        "carry = (total >> 32) + beyond[k]",
        "carry = beyond[k]",
        "test_philox.py",
        "forms or philox",
    )
    yield Mutant(
        "the kernel's rows begin without their draw number",
        "scoresde/_philox/kernel.py",
        "c1 = tl.load(names + 2 * count + row",
        "c1 = tl.load(names + 3 * count + row",
        "test_philox.py",
        "kernel_gives",
    )
    path = "scoresde/exact/gaussian_mixture.py"
    yield Mutant(
        "covariances of a mixture are not scaled by α²",
        path,
        "variances = alpha**2 * self.variances.unsqueeze(1) + sigma**2",
        "variances = alpha * self.variances.unsqueeze(1) + sigma**2",
        "test_exact.py",
        "scores or log_densities",
    )
    path = "scoresde/loss.py"
    yield Mutant(
        "importance sampling without its correction",
        path,
        "return t, span / _slope(sde, t) / (t_max - self.t_min) / density",
        "return t, density * torch.ones_like(t)",
        "test_loss.py",
        "log_snr",
    )
    yield Mutant(
        "learned times without the correction for their density",
        path,
        "return t, span / _slope(sde, t) / (t_max - self.t_min) / density",
        "return t, span / _slope(sde, t) / (t_max - self.t_min)",
        "test_loss.py",
        "learned",
    )
    yield Mutant(
        "learned times follow the error instead of the loss",
        "scoresde/error_history.py",
        "size = scale * self.squares.sqrt()",
        "size = self.squares.sqrt()",
        "test_loss.py",
        "learned",
    )
    yield Mutant(
        "the likelihood weighting is g²/σ instead of g²/σ²",
        path,
        "return (node.g / node.sigma) ** 2",
        "return node.g**2 / node.sigma",
        "test_loss.py",
        "weighting or weight",
    )
    yield Mutant(
        "the lowest level of the ladder is never drawn",
        path,
        "index = (u * self.levels).long().clamp(max=self.levels - 1)",
        "index = (u * (self.levels - 1)).long().clamp(max=self.levels - 1)",
        "test_loss.py",
        "ladder",
    )


def _samplers() -> Iterator[Mutant]:
    short = "test_the_claims_of_the_short_form_hold"
    yield Mutant(
        "an exception that ends a block hides an earlier failure",
        "scoresde/_deferred.py",
        "        block.read()\n        raise",
        "        raise",
        "samplers/test_waiting.py",
        "replaces_the_exception",
    )
    yield Mutant(
        "the last of several failures is named",
        "scoresde/_deferred.py",
        "counts, errors = self.counts, self.errors",
        "counts, errors = self.counts[::-1], self.errors[::-1]",
        "samplers/test_waiting.py",
        "first_failure",
    )
    yield Mutant(
        "third order multistep as it is copied everywhere",
        "scoresde/samplers/dpm_solver.py",
        "(1 if self.copied else 2) * phi(3, to.z)",
        "1 * phi(3, to.z)",
        "verification/test_verify.py",
        f"{short} and dpmpp",
    )
    yield Mutant(
        "second order multistep takes its steps for equal",
        "scoresde/samplers/dpm_solver.py",
        "half = 0.5 * scale * phi_1 / r_1",
        "half = 0.5 * scale * phi_1",
        "verification/test_verify.py",
        f"{short} and dpmpp",
    )
    yield Mutant(
        "single-step methods of order 3 with 1 for 3/2",
        "scoresde/samplers/dpm_solver.py",
        "slope = k / (k - 1) * phi(2, to.z)",
        "slope = phi(2, to.z)",
        "verification/test_verify.py",
        f"{short} and dpm",
    )
    yield Mutant(
        "UniPC does not correct its last step but one",
        "scoresde/samplers/unipc.py",
        "self.corrector and i < steps - 1)",
        "self.corrector and i < steps - 2)",
        "samplers/test_equivalences.py",
        "corrects_all",
    )
    yield Mutant(
        "UniPC's B₂ is B₁",
        "scoresde/samplers/unipc.py",
        'b = 1.0 if self.variant == "B1" else phi(1, z)',
        "b = 1.0",
        "samplers/test_equivalences.py",
        "two_names",
    )
    yield Mutant(
        "Adams–Bashforth's number of order 4",
        "scoresde/samplers/exponential_adams.py",
        "4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),",
        "4: (55 / 24, -59 / 24, 35 / 24, -7 / 24),",
        "samplers/test_equivalences.py",
        "ipndm",
    )
    yield Mutant(
        "the history of a multistep method in the wrong order",
        "scoresde/samplers/weights.py",
        "u[last - order : last][::-1]",
        "u[last - order : last]",
        "verification/test_verify.py",
        f"{short} and (deis or exp)",
    )
    yield Mutant(
        "orders do not fall at the end",
        "scoresde/samplers/weights.py",
        "left = [steps - i if lower_order_final else order for i in range(steps)]",
        "left = [steps if lower_order_final else order for i in range(steps)]",
        "samplers/test_equivalences.py",
        "orders_fall",
    )
    yield Mutant(
        "φ of high order by the recursion that cancels",
        "scoresde/samplers/weights.py",
        "    if abs(z) > 2:",
        "    if abs(z) > 1e-6:",
        "samplers/test_equivalences.py",
        "phi",
    )
    yield Mutant(
        "v of x/d without the part of x",
        "scoresde/samplers/angular_adams.py",
        "of_x = t.alpha * t.sigma * (d - 1 / d) / total",
        "of_x = 0.0 * t.alpha * t.sigma * (d - 1 / d) / total",
        "samplers/test_equivalences.py",
        "unit_of_length",
    )
    yield Mutant(
        "the unit of the data in the grid but not in the sampler",
        "scoresde/samplers/recommended.py",
        "own = _rounded(unit * rule.data_std)",
        "own = _rounded(rule.data_std)",
        "samplers/test_recommended.py",
        "half_the_range",
    )
    yield Mutant(
        "angular weights without the norms",
        "scoresde/samplers/angular_adams.py",
        "ratios = n[1:, None] / past_knots(n, orders, newest)",
        "ratios = 0 * n[1:, None] / past_knots(n, orders, newest) + 1",
        "samplers/test_equivalences.py",
        "angular",
    )
    yield Mutant(
        "β and β̃ of ancestral sampling are exchanged",
        "scoresde/samplers/ancestral.py",
        'alpha=b if self.variance == "beta" else b * ratio',
        'alpha=b * ratio if self.variance == "beta" else b',
        "samplers/test_exact_moments.py",
        "table or ladder",
    )
    yield Mutant(
        "DDIM's noise as if it were deterministic",
        "scoresde/samplers/ddim.py",
        "k = math.sqrt(1 - u)",
        "k = 1.0",
        "samplers/test_exact_moments.py",
        "table",
    )
    yield Mutant(
        "Euler–Maruyama's noise by t − s instead of its root",
        "scoresde/samplers/reverse_sde.py",
        "std = self.eta * t.g * math.sqrt(t.t - s.t)",
        "std = self.eta * t.g * (t.t - s.t)",
        "samplers/test_exact_moments.py",
        "table",
    )
    yield Mutant(
        "reverse diffusion reads the noise level at the wrong end",
        "scoresde/samplers/reverse_sde.py",
        "alpha=-(b**2) / t.sigma)",
        "alpha=-(b**2) / s.sigma)",
        "samplers/test_exact_moments.py",
        "table",
    )
    yield Mutant(
        "churn is not limited",
        "scoresde/samplers/edm.py",
        "gamma = min(self.churn / len(nodes), math.sqrt(2) - 1)",
        "gamma = self.churn / len(nodes)",
        "samplers/test_exact_moments.py",
        "edm",
    )
    yield Mutant(
        "churn adds noise without its scale",
        "scoresde/samplers/edm.py",
        "x = (a * x).add_(noise.fresh(x), alpha=self.s_noise * b)",
        "x = (a * x).add_(noise.fresh(x), alpha=b)",
        "samplers/test_exact_moments.py",
        "edm_moments",
    )
    yield Mutant(
        "Heun's second slope at the first time",
        "scoresde/samplers/edm.py",
        "d_next = model.eps(torch.add(x_hat, d, alpha=step), s)",
        "d_next = model.eps(torch.add(x_hat, d, alpha=step), t)",
        "samplers/test_convergence.py",
        "edm",
    )
    yield Mutant(
        "the Langevin step without the interval's α",
        "scoresde/samplers/langevin.py",
        "a = (t.alpha / s.alpha) ** 2",
        "a = 1.0",
        "samplers/test_langevin.py",
        "alpha",
    )
    yield Mutant(
        "annealed Langevin does not rescale between levels",
        "scoresde/samplers/langevin.py",
        "return (s.alpha / t.alpha) * self._level(model, x, t, noise), None",
        "return self._level(model, x, t, noise), None",
        "samplers/test_langevin.py",
        "annealed",
    )
    yield Mutant(
        "NCSNv2's step size is not doubled",
        "scoresde/samplers/langevin.py",
        "return cls(steps, low + high)",
        "return cls(steps, (low + high) / 2)",
        "samplers/test_langevin.py",
        "published",
    )
    yield Mutant(
        "the overlap of noise levels in the wrong direction",
        "scoresde/sde/ve.py",
        "a = math.sqrt(2 * dims) * (gamma - 1)",
        "a = math.sqrt(2 * dims) * (1 - 1 / gamma)",
        "test_sde.py",
        "overlap",
    )
    yield Mutant(
        "log p stays at the model's scale",
        "scoresde/likelihood/methods.py",
        "found = found if log_det is None else found.shifted(log_det)",
        "pass",
        "test_units.py",
        "log_normal",
    )
    yield Mutant(
        "a standardization is fitted to held-out rows, too",
        "scoresde/tasks/train/units.py",
        "return data.fitted(texts, _trained_rows(settings, data))",
        "return data.fitted(texts)",
        "cli/test_units_command.py",
        "standardizes_a_file",
    )
    yield Mutant(
        "sigma_max = pairwise measures levels, not the model's scale",
        "scoresde/names/pairwise.py",
        "x = data.scaled.x if data.spec.levels is None else data.spec.encode(data.x)",
        "x = data.x.float()",
        "names/test_config.py",
        "pairwise",
    )
    yield Mutant(
        "the corrector runs at the time before",
        "scoresde/samplers/predictor_corrector.py",
        "return self.corrector.correct(model, x, t, s, noise), state",
        "return self.corrector.correct(model, x, t, t, noise), state",
        "samplers/test_langevin.py",
        "predictor",
    )
    yield Mutant(
        "a restart keeps the history of the path it has left",
        "scoresde/samplers/restart.py",
        "if descents and self.inner.multistep and len(left) > 1:",
        "if False:",
        "samplers/test_restart.py",
        "parts",
    )
    yield Mutant(
        "a refused step's noise is drawn anew",
        "scoresde/samplers/adaptive_sde.py",
        "        divides = known & (part < 1)",
        "        divides, w = known & (part < 1), _column(h.sqrt(), z) * z",
        "samplers/test_adaptive_sde.py",
        "brownian or gaussian",
    )
    yield Mutant(
        "Heun's third-order method with a wrong weight",
        "scoresde/samplers/runge_kutta.py",
        "(1 / 4, 0, 3 / 4)),",
        "(1 / 3, 0, 2 / 3)),",
        "verification/test_verify.py",
        f"{short} and heun3",
    )
    yield Mutant(
        "an evaluation is computed again with dropout",
        "scoresde/score/recomputing.py",
        "(own_context(), torch.enable_grad(), held_in_evaluation(modules))",
        "(own_context(), torch.enable_grad())",
        "samplers/test_gradients.py",
        "dropout",
    )
    yield Mutant(
        "a weight of two modules counts twice in gradients",
        "scoresde/score/gradients.py",
        "list(dict.fromkeys(w for w in float_parameters(model) if w.requires_grad))",
        "[w for w in float_parameters(model) if w.requires_grad]",
        "samplers/test_gradients.py",
        "two_layers",
    )
    yield Mutant(
        "the first step of an adaptive solver has a gradient",
        "scoresde/ivp/whole_batch.py",
        "error_norm(error.detach(), dims, share)",
        "error_norm(error, dims, share)",
        "likelihood/test_gradients.py",
        "ode-exact",
    )
    yield Mutant(
        "the gradient of a trace leaves out its second derivatives",
        "scoresde/likelihood/trace/jacobian.py",
        "create_graph=second",
        "create_graph=False",
        "likelihood/test_gradients.py",
        "path-exact",
    )
    yield Mutant(
        "the last denoising is left out of the count",
        "scoresde/samplers/sampling.py",
        """                x = end.state
                if denoise and not sampler.reaches_data:
                    x = run.model.x0""",
        """                x = end.state
            if denoise and not sampler.reaches_data:
                with evaluating(model):
                    x = run.model.x0""",
        "samplers/test_sample.py",
        "denoise",
    )
    yield Mutant(
        "each chunk of a batch has the noise of the first",
        "scoresde/batches.py",
        "SampleNoise(seed, range(rows.start, rows.stop))",
        "SampleNoise(seed, range(rows.stop - rows.start))",
        "samplers/test_every_sampler.py",
        "alone_and_in_any_batch and ddim",
    )
    yield Mutant(
        "the prior without its scale",
        "scoresde/samplers/sampling.py",
        "part.noise.prior((part.n, *shape[1:]), device) * std",
        "part.noise.prior((part.n, *shape[1:]), device)",
        "samplers/test_sample.py",
        "prior",
    )


def _training() -> Iterator[Mutant]:
    yield Mutant(
        "EMA's warm-up begins one update late",
        "scoresde/ema/average.py",
        "(1 + n) / (10 + n)\n        return",
        "n / (10 + n)\n        return",
        "test_ema.py",
        "first_update or constant",
    )
    yield Mutant(
        "after a swap the averages stay in the network",
        "scoresde/ema/average.py",
        "            _copy(saved, _state(net))",
        "            pass",
        "test_ema.py",
        "applied or optimizer",
    )
    yield Mutant(
        "EMA updates are not counted",
        "scoresde/ema/average.py",
        "        self._updates += 1",
        "        pass",
        "test_ema.py",
    )
    yield Mutant(
        "a power-function average counts its updates from 0",
        "scoresde/ema/power.py",
        "(1 - 1 / (n + 1))",
        "(1 - 1 / (n + 2))",
        "test_posthoc_ema.py",
        "piecewise",
    )
    yield Mutant(
        "profiles of different times overlap as if both had the earlier exponent",
        "scoresde/ema/posthoc.py",
        "torch.where(t <= s, h, g)",
        "torch.where(t <= s, g, h)",
        "test_posthoc_ema.py",
        "quadrature",
    )
    yield Mutant(
        "snapshots of steps after the checkpoint stay when a run resumes",
        "scoresde/tasks/train/files.py",
        "        if step > done:\n",
        "        if False:\n",
        "tasks/test_run_averages.py",
        "resumed",
    )
    yield Mutant(
        "one offset for all strata of t",
        "scoresde/train/examples.py",
        '"training times", 1, **on)[:, 0]',
        '"training times", 1, **on)[:1, 0]',
        "test_train.py",
        "stratified",
    )
    yield Mutant(
        "the mirror depends on the row of the batch",
        "scoresde/train/examples.py",
        'uniforms(seed, examples, "flip", 1, **on)',
        'uniforms(seed, examples - n * batch, "flip", 1, **on)',
        "test_train.py",
        "mirrored",
    )
    yield Mutant(
        "an epoch begins at its first row again after a resume",
        "scoresde/train/examples.py",
        "begin, end = max(first - epoch * size, 0), min(last - epoch * size, size)",
        "begin, end = 0, min(last - epoch * size, size, batch)",
        "test_train.py",
        "epoch",
    )
    yield Mutant(
        "the learning rate's warm-up begins at 0",
        "scoresde/train/settings.py",
        "rise = (step + 1) / settings.warmup",
        "rise = step / settings.warmup",
        "test_train.py",
        "schedule",
    )
    yield Mutant(
        "a step that is not finite is applied",
        "scoresde/train/update.py",
        "        if not bool(skipped):\n            optimizer.step()",
        "        optimizer.step()",
        "test_train.py",
        "skipped or infinite or divergence",
    )
    yield Mutant(
        "on an accelerator the averages move in a skipped step",
        "scoresde/ema/average.py",
        " * ~left_out",
        "",
        "test_train_waiting.py",
        "those_of_the_cpu",
    )
    yield Mutant(
        "on an accelerator running statistics keep a skipped step",
        "scoresde/train/update.py",
        "now.copy_(torch.where(skipped, value, now))",
        "pass",
        "test_train_waiting.py",
        "those_of_the_cpu",
    )
    yield Mutant(
        "a resumed run begins with the first scale of float16",
        "scoresde/tasks/train/content.py",
        '        _load_scaler(training.scaler, raw.metadata["scaler"])',
        "        pass",
        "tasks/test_run.py",
        "float16",
    )
    yield Mutant(
        "a process that does not write gives no advice when memory runs out",
        "scoresde/tasks/train/run.py",
        "with signals_held(), self._advising():",
        "with signals_held():",
        "tasks/test_run.py",
        "lack_of_memory",
    )
    yield Mutant(
        "held-out data are trained on",
        "scoresde/train/order.py",
        "return self._ascending[places]",
        "return places",
        "test_validation.py",
        "never_trained",
    )
    yield Mutant(
        "the likelihood of held-out data is of those that were trained on",
        "scoresde/tasks/request.py",
        "Split.of(len(data), self.config.train).held_rows()",
        "Split.of(len(data), self.config.train).some_rows(9)",
        "tasks/test_held_out.py",
        "held_out_are",
    )
    yield Mutant(
        "samples of few rounded labels take more times than there are",
        "scoresde/samplers/choice.py",
        "for fewer in range(nfe, 1, -1):",
        "for fewer in (nfe,):",
        "tasks/test_run.py",
        "rounded_labels",
    )
    yield Mutant(
        "micro-batches count alike whatever their size",
        "scoresde/train/loop.py",
        "losses.mean() * (len(part) / settings.batch)",
        "losses.mean() / settings.accumulate",
        "test_train.py",
        "micro",
    )
    yield Mutant(
        "times are stratified over the rows of a process, not over the batch",
        "scoresde/train/examples.py",
        "torch.arange(own.start, own.stop, **on) + offsets) / batch",
        "torch.arange(len(x), **on) + offsets) / len(x)",
        "test_train_together.py",
        "rows",
    )
    yield Mutant(
        "a bad step of another process is not skipped",
        "scoresde/train/loop.py",
        "numbers[-1] = loss",
        "numbers[-1] = loss.nan_to_num()",
        "test_train_together.py",
        "bad",
    )
    yield Mutant(
        "a dropout mask belongs to the row of the batch",
        "scoresde/nets/dropout.py",
        "torch.arange(examples.start, examples.stop, device=device)",
        "torch.arange(len(examples), device=device)",
        "test_train_together.py",
        "same_training",
    )
    yield Mutant(
        "all layers have the same dropout mask",
        "scoresde/nets/dropout.py",
        "torch.arange(len(layers), device=device)[:, None]",
        "0",
        "nets/test_dropout.py",
        "function_of",
    )
    yield Mutant(
        "a resumed run forgets its best loss",
        "scoresde/tasks/train/run.py",
        'self._best = Best.resumed(raw.metadata.get("best"), self.folder / BEST)',
        "self._best = None",
        "tasks/test_run.py",
        "smaller_validation",
    )
    yield Mutant(
        "a resumed run has a fresh optimizer",
        "scoresde/tasks/train/content.py",
        '    _load_optimizer(optimizer, net, raw.below("train.adam."))\n',
        "",
        "tasks/test_run.py",
        "unbroken",
    )
    yield Mutant(
        "a resumed run has averages in the network",
        "scoresde/tasks/train/content.py",
        'load_into(net, raw, "train.net.")',
        'load_into(net, raw, "model.")',
        "tasks/test_run.py",
        "unbroken",
    )
    yield Mutant(
        "the average of the log counts skipped steps",
        "scoresde/tasks/train/history.py",
        "            self.skipped += 1\n            return",
        "            self.skipped += 1\n            self.count += 1\n            return",
        "tasks/test_run.py",
        "skipped",
    )


def _likelihood() -> Iterator[Mutant]:
    yield Mutant(
        "a single probe claims to be exact",
        "scoresde/likelihood/trace/rules.py",
        "return torch.full_like(mean, math.nan).squeeze(dim)",
        "return torch.zeros_like(mean).squeeze(dim)",
        "likelihood/test_log_likelihood.py",
        "guess",
    )
    yield Mutant(
        "the error of a mean with n instead of n − 1",
        "scoresde/likelihood/trace/rules.py",
        "(estimates - mean).square().sum(dim) / (n - 1) / n",
        "(estimates - mean).square().sum(dim) / n / n",
        "likelihood/trace/test_trace.py",
        "standard_error or unbiased",
    )
    yield Mutant(
        "probes do not follow their samples when others have arrived",
        "scoresde/likelihood/flow.py",
        "probes = self.probes if rows is None else self.probes[:, rows]",
        "probes = self.probes if rows is None else self.probes[:, : len(rows)]",
        "likelihood/test_per_sample_likelihood.py",
        "probes_stay and Hutchinson",
    )
    yield Mutant(
        "the prior's deviation is 1 under every SDE",
        "scoresde/likelihood/ode.py",
        "        std = end_std(batch.model)\n",
        "        std = 1.0\n",
        "likelihood/test_log_likelihood.py",
        "default_tolerance",
    )
    yield Mutant(
        "the path's correction is left out",
        "scoresde/likelihood/path/path.py",
        "        terms = divergences + corrections",
        "        terms = divergences",
        "likelihood/path/test_path.py",
        "TestIdentity and VP",
    )
    yield Mutant(
        "one offset of the nodes for all data",
        "scoresde/likelihood/path/path.py",
        "offset = noise.times(integrand.x).cpu()[:, None]",
        "offset = noise.times(integrand.x).cpu()[:, None].mean().expand(len(integrand.x), 1)",
        "likelihood/path/test_path.py",
        "TestBatches",
    )
    yield Mutant(
        "a control is subtracted and not added back",
        "scoresde/likelihood/trace/jacobian.py",
        "return 0.0 if self.known is None else self.known.trace[:, None]",
        "return 0.0",
        "likelihood/trace/test_trace.py",
        "known_part",
    )
    yield Mutant(
        "offset of bits/dim as of 8-bit data in any range",
        "scoresde/data/levels.py",
        'math.log2(self._require_levels("bits_offset") / self.span)',
        'math.log2(self._require_levels("bits_offset") / 2)',
        "data/test_data_spec.py",
    )
    yield Mutant(
        "dequantization fills levels − 1 cells",
        "scoresde/data/levels.py",
        "fraction = (k.double() + u.double()) / levels",
        "fraction = (k.double() + u.double()) / (levels - 1)",
        "data/test_data_spec.py",
    )
    yield Mutant(
        "uniform dequantization's log q with the other sign",
        "scoresde/likelihood/dequantize.py",
        "log_q = torch.full(k.shape[:1], -log_volume",
        "log_q = torch.full(k.shape[:1], log_volume",
        "likelihood/test_dequantize.py",
        "uniform",
    )
    yield Mutant(
        "truncated normals without the mass of their cell",
        "scoresde/likelihood/dequantize.py",
        "return Points(x, log_q - math.prod(k.shape[1:]) * math.log(mass))",
        "return Points(x, log_q)",
        "likelihood/test_dequantize.py",
    )
    yield Mutant(
        "the outer cells of the decoder are bounded",
        "scoresde/likelihood/vlb/decoder.py",
        "first, last = k == 0, k == spec.levels - 1",
        "first, last = k < 0, k < 0",
        "likelihood/vlb/test_decoder.py",
        "sum_to_one or integral",
    )
    yield Mutant(
        "the VLB's control variate changes its mean",
        "scoresde/likelihood/vlb/denoising.py",
        "squared_norm(eps) - self.dims",
        "squared_norm(eps)",
        "likelihood/vlb/test_bound.py",
        "TestGaussianInClosedForm or drawn_steps",
    )
    yield Mutant(
        "the terms of a VLB lose their weights",
        "scoresde/likelihood/vlb/denoising.py",
        "return mean_and_variance(values)",
        "return mean_and_variance(squares)",
        "likelihood/vlb/test_bound.py",
        "TestGaussianInClosedForm",
    )
    yield Mutant(
        "β̃ of the reverse chain is β",
        "scoresde/likelihood/vlb/chain.py",
        "posterior.append((b * s.sigma / t.sigma) ** 2)",
        "posterior.append(b**2)",
        "likelihood/vlb/test_bound.py",
        "table or term_by_term",
    )
    yield Mutant(
        "strata of drawn steps are not weighted",
        "scoresde/likelihood/vlb/chain.py",
        "table[:, i], 1 / share[i])",
        "table[:, i], len(share) / self.strata)",
        "likelihood/vlb/test_bound.py",
        "drawn_steps",
    )
    yield Mutant(
        "L_0 is missing among the terms of a bound",
        "scoresde/likelihood/vlb/bound.py",
        "torch.cat([self.prior[:, None], self.steps, self.reconstruction[:, None]], 1)",
        "torch.cat([self.prior[:, None], self.steps], 1)",
        "likelihood/vlb/test_bound.py",
        "term_by_term",
    )
    yield Mutant(
        "strata lie at equal distances in t, not in log-SNR",
        "scoresde/likelihood/vlb/chain.py",
        "lams = [node.lam for node in self.nodes]",
        "lams = [-node.t for node in self.nodes]",
        "likelihood/vlb/test_bound.py",
        "each_stratum",
    )
    yield Mutant(
        "the irreducible error of finite data lacks its factor SNR",
        "scoresde/exact/finite_data.py",
        "((flat(node.alpha) / flat(node.sigma)) ** 2 * variance)",
        "(flat(node.alpha) ** 2 * variance)",
        "test_exact.py",
        "least_error",
    )
    yield Mutant(
        "draws of a bound are not averaged in its error",
        "scoresde/likelihood/dequantized.py",
        "(errors**2).mean(0) / len(errors)",
        "(errors**2).mean(0)",
        "likelihood/test_dequantized.py",
        "parts",
    )
    yield Mutant(
        "the cut-off is reported with the other sign",
        "scoresde/likelihood/cutoff.py",
        "value = model.log_prob(point) - model.log_prob(point, nodes[0])",
        "value = model.log_prob(point, nodes[0]) - model.log_prob(point)",
        "likelihood/test_cutoff.py",
        "exact",
    )
    yield Mutant(
        "the wider of two intervals is chosen by its standard error",
        "scoresde/likelihood/budget.py",
        "use = student_t(probe_dof, 0.95) * floor > student_t(spread_dof, 0.95) * spread",
        "use = floor > spread",
        "likelihood/test_budget.py",
        "wider",
    )
    yield Mutant(
        "half widths of intervals with the normal's quantile",
        "scoresde/likelihood/method.py",
        "torch.from_numpy(stdtrit(dof.cpu().numpy(), 0.5 + 0.5 * level)).to(dof)",
        "torch.from_numpy(stdtrit(1e9 + 0 * dof.cpu().numpy(), 0.5 + 0.5 * level)).to(dof)",
        "likelihood/path/test_path.py",
        "student",
    )
    yield Mutant(
        "codes are interpolated along straight lines",
        "scoresde/likelihood/interpolation.py",
        "flat |= theta.sin() < 1e-6",
        "flat |= theta.sin() < 2",
        "likelihood/test_latent.py",
        "rotation or norm or typical",
    )
    yield Mutant(
        "the first step of an Adams path forgets its end",
        "scoresde/ivp/adams.py",
        "points.append(_step(points[i], slopes, [i + 1, *known], ts, i))",
        "points.append(predicted)",
        "ivp/test_adams.py",
    )
    learned = "likelihood/vlb/test_learned_variance.py"
    yield Mutant(
        "a learned variance that is β̃ where β is meant",
        "scoresde/sde/reverse.py",
        "ratio ** (1 - share)",
        "ratio ** share",
        learned,
        "formulas",
    )
    yield Mutant(
        "the bound in the loss trains the mean as well",
        "scoresde/loss.py",
        "squares.detach(), share",
        "squares, share",
        learned,
        "variance_alone",
    )
    yield Mutant(
        "a learned decoder between β_1 and β̃_1, as if σ_s were that of the next step",
        "scoresde/likelihood/vlb/chain.py",
        "least = [*posterior, posterior[-1]]",
        "least = [*posterior, posterior[0]]",
        learned,
        "TestEnds or terms_of_the_bound",
    )


def _metrics() -> Iterator[Mutant]:
    yield Mutant(
        "MMD² with the diagonal, which biases it",
        "scoresde/metrics/mmd.py",
        "            block.diagonal(start).zero_()",
        "            pass",
        "metrics/test_mmd.py",
    )
    yield Mutant(
        "covariances with n instead of n − 1",
        "scoresde/metrics/frechet.py",
        "centred.T @ centred / max(len(rows) - 1, 1)",
        "centred.T @ centred / len(rows)",
        "metrics/test_frechet.py",
    )
    yield Mutant(
        "statistics of batches are merged without the gap of their means",
        "scoresde/metrics/frechet.py",
        "scatter = scatter + torch.outer(shift, shift) * (self.n * other.n / n)",
        "scatter = scatter + 0.0",
        "metrics/test_frechet.py",
    )
    yield Mutant(
        "statistics in a file are taken for those of any features",
        "scoresde/metrics/statistics_files.py",
        "if None not in (known[name], given) and known[name] != given:",
        "if None not in (known[name], given) and not known[name]:",
        "metrics/test_statistics_files.py",
    )
    yield Mutant(
        "a file of statistics holds the covariance with divisor n",
        "scoresde/metrics/statistics_files.py",
        '"sigma": stats.cov.cpu().numpy()',
        '"sigma": stats.cov.cpu().numpy() * (1 - 1 / stats.n)',
        "metrics/test_statistics_files.py",
    )
    yield Mutant(
        "a narrow spread of clean data makes any change enormous",
        "scoresde/metrics/descriptors.py",
        "return torch.maximum(described.std(0), least)",
        "return described.std(0).clamp(min=1e-3)",
        "metrics/test_descriptors.py",
    )
    yield Mutant(
        "the class token of the transformer is a wrong one",
        "scoresde/metrics/dinov2.py",
        "token = self.token.expand(len(x), -1, -1)",
        "token = self.token.roll(1, -1).expand(len(x), -1, -1)",
        "metrics/test_network_features.py",
    )
    yield Mutant(
        "the positions of the transformer are scaled without the published offset",
        "scoresde/metrics/dinov2.py",
        "_OFFSET = 0.1",
        "_OFFSET = 1e-6",
        "metrics/test_network_features.py",
    )
    yield Mutant(
        "pixels of 8 bits are resized without rounding and clipping between the two passes",
        "scoresde/metrics/resize.py",
        "planes = images.flatten(0, 1).numpy()",
        "planes = images.flatten(0, 1).float().numpy()",
        "metrics/test_network_parity.py",
    )
    yield Mutant(
        "published statistics are read, and the data are compared",
        "scoresde/comparison/measures.py",
        "return self.rows if self.statistics is None else self.statistics",
        "return self.rows",
        "metrics/test_network_features.py",
    )
    yield Mutant(
        "the Fréchet distance with the cross term once",
        "scoresde/metrics/frechet.py",
        "traces - 2 * cross.sum()",
        "traces - cross.sum()",
        "metrics/test_frechet.py",
    )
    yield Mutant(
        "the error of sliced W₂ without its directions",
        "scoresde/metrics/sliced_wasserstein.py",
        "excess + float(between)",
        "excess",
        "metrics/test_sliced_wasserstein.py",
        "directions",
    )
    yield Mutant(
        "a difference takes paired samples for independent ones",
        "scoresde/metrics/compare.py",
        "moves = [left * x - right * y for x, y in zip(a.influence, b.influence, strict=True)]",
        "moves = [*a.influence, *(right * y for y in b.influence)]",
        "metrics/test_influence.py",
        "paired",
    )
    yield Mutant(
        "the difference of roots has the influences of the roots",
        "scoresde/metrics/compare.py",
        "rooted = _squared(a, b) and a.law.root and b.law.root",
        "rooted = False",
        "metrics/test_intervals.py",
        "roots",
    )
    yield Mutant(
        "pooled samples have independent references",
        "scoresde/metrics/pooled.py",
        "*(torch.stack(rows).mean(0) for rows in shared)",
        "*(torch.stack(rows).mean(0) / len(rows) ** 0.5 for rows in shared)",
        "metrics/test_intervals.py",
        "pooled",
    )
    yield Mutant(
        "means over seeds are compared as if they shared no noise",
        "scoresde/comparison/seeds.py",
        'x_init_sha256="+".join(starts) if all(starts) else ""',
        'x_init_sha256=""',
        "comparison/test_seeds.py",
        "differences",
    )
    yield Mutant(
        "means over seeds mix models",
        "scoresde/comparison/seeds.py",
        'key = (case["model"], case["labels"], case.get("guidance"))',
        'key = ("net", case["labels"], case.get("guidance"))',
        "comparison/test_seeds.py",
        "mixed",
    )
    yield Mutant(
        "the two tests of a classifier are independent",
        "scoresde/metrics/two_sample_test.py",
        "_CORRELATED = 1 + 2 / math.pi",
        "_CORRELATED = 1",
        "metrics/test_intervals.py",
        "accuracy",
    )
    yield Mutant(
        "an interval has the variance at the estimate instead of that at its ends",
        "scoresde/metrics/estimate.py",
        "centre = excess + z**2 * self.slope / 2",
        "centre = excess",
        "metrics/test_influence.py",
        "ends",
    )
    yield Mutant(
        "clipped balls are as large as the largest",
        "scoresde/metrics/neighbours.py",
        "clamp(max=float(self.radii.median()))",
        "clamp(max=float(self.radii.max()))",
        "metrics/test_neighbours.py",
    )
    yield Mutant(
        "the ranking of K cells has the level of one comparison",
        "scoresde/comparison/ranking.py",
        "alpha = (1 - level) / max(len(found) - 1, 2)",
        "alpha = (1 - level) / 2",
        "comparison/test_ranking.py",
    )
    yield Mutant(
        "a cell wins by a better value than that of real data",
        "scoresde/comparison/ranking.py",
        "if c in at_floor or leads(i, c)",
        "if leads(i, c)",
        "comparison/test_ranking.py",
    )
    yield Mutant(
        "paired errors are averaged before the root",
        "scoresde/metrics/paired.py",
        ".square().mean(1).sqrt()",
        ".abs().mean(1)",
        "metrics/test_estimate.py",
        "paired",
    )


def _files_and_data() -> Iterator[Mutant]:
    yield Mutant(
        "a checkpoint's checksum is not compared",
        "scoresde/checkpoint.py",
        'if _digest(tensors, envelope["metadata"]) != envelope["sha256"]:',
        "if False:",
        "test_checkpoint.py",
        "flipped_bit",
    )
    yield Mutant(
        "a file is renamed before it is on the disk",
        "scoresde/_files.py",
        "                os.fsync(file.fileno())\n",
        "",
        "test_files.py",
    )
    yield Mutant(
        "temporary files of killed processes are kept",
        "scoresde/_files.py",
        "    except ProcessLookupError:\n        return True",
        "    except ProcessLookupError:\n        return False",
        "test_files.py",
    )
    yield Mutant(
        "grey values of any depth are cut off instead of rounded",
        "scoresde/data/decoding.py",
        "np.rint(values * 255 / white)",
        "np.floor(values * 255 / white)",
        "data/test_decoding.py",
    )
    yield Mutant(
        "the rows of the test set are read as those of the training set",
        "scoresde/data/images.py",
        "rows = arrays[split]",
        'rows = arrays["train"]',
        "data/test_image_sets.py",
    )
    yield Mutant(
        "labels of an array file may be of another number",
        "scoresde/data/conditions.py",
        "if value.ndim == 0 or len(value) != len(x):",
        "if value.ndim == 0:",
        "data/test_arrays.py",
        "refused",
    )
    yield Mutant(
        "the classes of a folder below the root are looked for in the working directory",
        "scoresde/data/catalog.py",
        "path = source.path\n    train = find_split",
        "path = Path(source.name)\n    train = find_split",
        "tasks/test_held_out.py",
        "relative",
    )
    yield Mutant(
        "a file that has changed while it was used is read on",
        "scoresde/data/mapped.py",
        "if _state_of(place.path) != self._state:",
        "if False:",
        "data/test_rows.py",
        "changes_while",
    )
    yield Mutant(
        "the computed order of many data is hardly shuffled",
        "scoresde/train/order.py",
        "_ROUNDS = 8",
        "_ROUNDS = 2",
        "test_examples.py",
        "as_random",
    )
    yield Mutant(
        "a resumed stream repeats the rows of the batch that was used in part",
        "scoresde/data/stream.py",
        'self._position = first - saved["used"]',
        "self._position = first",
        "data/test_stream.py",
        "resumes_where",
    )
    yield Mutant(
        "floats that are no whole levels are rounded",
        "scoresde/data/reading.py",
        'if x.dtype.kind == "f" and not np.array_equal(x, np.rint(x)):',
        "if False:",
        "data/test_arrays.py",
    )
    yield Mutant(
        "the frequencies of the waves ignore their shift",
        "scoresde/nets/block_parts.py",
        "k / (half - self.shift)",
        "k / half",
        "interop/test_diffusers.py",
        "network_gives",
    )
    yield Mutant(
        "the levels of other libraries lie at the ends of the cells",
        "scoresde/interop/diffusers.py",
        "meaning.low - half,",
        "meaning.low,",
        "interop/test_diffusers.py",
        "255ths",
    )
    yield Mutant(
        "data in files keep their own scale in a comparison",
        "scoresde/tasks/own_data.py",
        "return _at_scale(train, spec), ",
        "return train, ",
        "interop/test_diffusers.py",
        "bench",
    )
    yield Mutant(
        "the prefix of a wrapper stays in the names of tensors",
        "scoresde/interop/diffusers.py",
        "return _unwrapped({",
        "return dict({",
        "interop/test_diffusers.py",
        "variant",
    )
    yield Mutant(
        "an index may name files in other folders",
        "scoresde/interop/weights.py",
        "Path(name).name != name or ",
        "",
        "interop/test_bad_folders.py",
    )
    yield Mutant(
        "tensors that are not finite are taken",
        "scoresde/interop/weights.py",
        "if tensor.is_floating_point():",
        "if False:",
        "interop/test_bad_folders.py",
    )
    yield Mutant(
        "a tensor may end one element behind its storage",
        "scoresde/interop/rebuild.py",
        "if last >= len(base):",
        "if last > len(base):",
        "interop/test_pickles.py",
        "storage",
    )
    yield Mutant(
        "one function too many is made of what a pickle names",
        "scoresde/interop/rebuild.py",
        '    ("collections", "OrderedDict"): _ordered,',
        '    ("operator", "methodcaller"): lambda _, a: __import__("operator").methodcaller(*a),\n'
        '    ("collections", "OrderedDict"): _ordered,',
        "interop/test_pickles.py",
        "no_code_runs",
    )
    yield Mutant(
        "a view of a storage may have any number of elements",
        "scoresde/interop/rebuild.py",
        "        self.budget.take_memory(math.prod(size) * base.element_size())\n",
        "",
        "interop/test_pickles.py",
        "storage",
    )
    yield Mutant(
        "an object of a pickle may contain itself",
        "scoresde/interop/records.py",
        "elif id(child) in on_path:",
        "elif False:",
        "interop/test_pickles.py",
        "bombs",
    )
    yield Mutant(
        "a continuous network of score_sde_pytorch gets labels up to 1000",
        "scoresde/interop/score_sde.py",
        "label_scale=999.0",
        "label_scale=1000.0",
        "interop/test_score_sde.py",
        "eps_is",
    )
    yield Mutant(
        "moving averages are given to fixed frequencies",
        "scoresde/interop/score_sde.py",
        'if names[name] != "waves.weight"]',
        "]",
        "interop/test_score_sde.py",
        "eps_is",
    )
    yield Mutant(
        "the noise levels of NCSN++ are counted from the least",
        "scoresde/nets/ncsnpp.py",
        "(math.log(most) - label.log())",
        "(label.log() - math.log(least))",
        "interop/test_score_sde.py",
        "eps_is",
    )
    yield Mutant(
        "the image is joined behind the features",
        "scoresde/nets/ncsnpp_levels.py",
        "torch.cat([part, h], dim=1)",
        "torch.cat([h, part], dim=1)",
        "interop/test_score_sde.py",
        "eps_is",
    )
    yield Mutant(
        "both orders of q, k and v of guided-diffusion are exchanged",
        "scoresde/interop/guided_diffusion.py",
        'if settings["use_new_attention_order"]',
        'if not settings["use_new_attention_order"]',
        "interop/test_guided_diffusion.py",
        "prediction",
    )
    yield Mutant(
        "the network of EDM's VE keeps its sign",
        "scoresde/interop/edm.py",
        "        _negate(net)\n",
        "",
        "interop/test_edm.py",
        "x0_is",
    )
    yield Mutant(
        "the label of EDM's VE is log(σ)",
        "scoresde/interop/edm.py",
        "offset = -math.log(2)",
        "offset = 0.0",
        "interop/test_edm.py",
        "x0_is",
    )
    yield Mutant(
        "padding is cropped at one side",
        "scoresde/nets/axes.py",
        "slice(a, n - b)",
        "slice(0, n - a - b)",
        "nets/test_unet.py",
        "padding",
    )
    yield Mutant(
        "patches of volumes are folded with their axes mixed up",
        "scoresde/nets/axes.py",
        "x.reshape(batch, channels, *[n for size in sizes for n in (size // patch, patch)])",
        "x.reshape(batch, channels, *[n for size in sizes for n in (patch, size // patch)])",
        "nets/test_unet_axes.py",
        "patches",
    )
    yield Mutant(
        "attention of padded sets looks at the padding",
        "scoresde/nets/transformer_blocks.py",
        "mask = None if there is None else there[:, None, None, :]",
        "mask = None",
        "nets/test_transformer.py",
        "padded_set",
    )
    yield Mutant(
        "the output of a network of sets is not zero at the padding",
        "scoresde/nets/transformer.py",
        "return out if there is None else out.masked_fill(~there[..., None], 0)",
        "return out",
        "nets/test_transformer.py",
        "padded_set",
    )
    yield Mutant(
        "residual sums keep their growing variance",
        "scoresde/nets/blocks.py",
        "return (self.skip(x) + h) * self.scale",
        "return self.skip(x) + h",
        "nets/test_unet.py",
        "skip_scale",
    )
    yield Mutant(
        "Fourier features of the input have half the frequency",
        "scoresde/nets/unet.py",
        "angle = 2**n * math.pi * wide",
        "angle = 2 ** (n - 1) * math.pi * wide",
        "nets/test_unet.py",
        "fourier_features",
    )
    yield Mutant(
        "Fourier features of the input are computed in the low precision of the weights",
        "scoresde/nets/unet.py",
        "wide = x.to(torch.promote_types(x.dtype, torch.float32))",
        "wide = x.bfloat16().to(x.dtype)",
        "nets/test_unet.py",
        "fourier_features",
    )
    yield Mutant(
        "a comparison of averages of an earlier state of the run is shown",
        "scoresde/tasks/sweeps.py",
        'if found.sources["checkpoint"].sha256 != checkpoint:',
        "if False:",
        "tasks/test_plot.py",
        "sweeps",
    )
    yield Mutant(
        "attention forgets its residual branch",
        "scoresde/nets/blocks.py",
        "return (x + out.transpose(1, 2).reshape(x.shape)) * self.scale",
        "return (x + out.reshape(x.shape)) * self.scale",
        "nets/test_unet.py",
        "attention",
    )
    yield Mutant(
        "the way up of a dense network forgets the way down",
        "scoresde/nets/dense_unet.py",
        "h = layer(h) + kept.pop()",
        "h = layer(h)",
        "nets/test_laws.py",
        "adds_the_way_down",
    )
    yield Mutant(
        "images are made smaller without smoothing",
        "scoresde/data/resizing.py",
        "antialias=True",
        "antialias=False",
        "data/test_resizing.py",
    )
    yield Mutant(
        "linear attention normalizes k over the channels, as it does q",
        "scoresde/nets/blocks.py",
        "k.softmax(dim=-2)",
        "k.softmax(dim=-1)",
        "nets/test_ddpm.py",
        "linear_attention",
    )
    yield Mutant(
        "the middle of DDPM's U-Net without attention",
        "scoresde/nets/ddpm.py",
        'for kind in ("full", None)',
        "for kind in (None, None)",
        "nets/test_ddpm.py",
        "published",
    )


def _commands() -> Iterator[Mutant]:
    yield Mutant(
        "degrees of freedom of a VLB's draws",
        "scoresde/likelihood/vlb/bound.py",
        "dof=torch.full_like(bound, max(self.draws - 1, 1)),",
        "dof=torch.full_like(bound, 1e9),",
        "tasks/test_likelihood_method.py",
    )
    yield Mutant(
        "the second model is scored with other random numbers",
        "scoresde/tasks/likelihood/scoring.py",
        "noise = SampleNoise(task.request.seed, places)",
        'noise = SampleNoise(task.request.seed + (self.prefix == "b-"), places)',
        "tasks/test_likelihood_against.py",
        "alone",
    )
    yield Mutant(
        "a systematic error does not count in the difference of two results",
        "scoresde/comparison/number_diff.py",
        "beyond = low - self.systematic > 0 or high + self.systematic < 0",
        "beyond = low > 0 or high < 0",
        "comparison/test_folder_diff.py",
        "level",
    )
    yield Mutant(
        "the float64 pass scores float32 points",
        "scoresde/tasks/likelihood/scoring.py",
        "replace(method, dtype=torch.float64)",
        "method",
        "cli/test_likelihood_command.py",
        "rounding_is_measured",
    )
    yield Mutant(
        "a share begins one batch too late",
        "scoresde/output/shared_work.py",
        "found = tuple(names[i - 1 :: n])",
        "found = tuple(names[i % n :: n])",
        "cli/test_shards_command.py",
        "without_batches",
    )
    yield Mutant(
        "every batch of samples has the noise of the first one",
        "scoresde/tasks/sampling.py",
        "noise=SampleNoise(request.seed, places),",
        "noise=SampleNoise(request.seed, range(len(places))),",
        "cli/test_sample_command.py",
        "is_the_library",
    )
    yield Mutant(
        "shares of other settings are merged",
        "scoresde/output/shards.py",
        "        if different is not None:",
        "        if False:",
        "cli/test_shards_command.py",
        "do_not_make_a_whole",
    )
    yield Mutant(
        "processes that were started differently go on",
        "scoresde/distributed/ranks.py",
        "                if one != two:",
        "                if False:",
        "distributed/test_ranks.py",
        "different_settings",
    )
    yield Mutant(
        "test rows are taken in the order of the file",
        "scoresde/tasks/held_out.py",
        "np.random.default_rng(seed).permutation(len(data))[:n]",
        "np.arange(len(data))[:n]",
        "tasks/test_held_out.py",
    )
    yield Mutant(
        "bench accepts data of changed levels or scale",
        "scoresde/comparison/data.py",
        'for name in ("shape", "levels", "low", "high"):',
        'for name in ("shape",):',
        "cli/test_bench.py",
        "another_kind",
    )
    yield Mutant(
        "the cost of the reference solution is that of N(0, 1), not of the network",
        "scoresde/comparison/pilot.py",
        "return solver.with_check(evaluations + rest)",
        "return solver.with_check(every)",
        "comparison/test_pilot.py",
        "few_samples_tells",
    )
    yield Mutant(
        "more budgets are told as a cause of other numbers",
        "scoresde/comparison/folder_diff.py",
        "if key in (*NAMES, *EXTRA, *extra):",
        "if key in (*NAMES, *EXTRA):",
        "comparison/test_folder_diff.py",
        "cause_of",
    )
    yield Mutant(
        "rank 0 tries cells again that failed elsewhere",
        "scoresde/comparison/together.py",
        'failed += [result] if result.status == "failed" else []',
        "failed += []",
        "comparison/test_together.py",
        "failed_cells",
    )
    yield Mutant(
        "operations of the rows that fill up a compiled batch are counted for one sample",
        "scoresde/comparison/measure.py",
        "return int(counter.get_total_flops()) // (len(x) * counted) or None",
        "return int(counter.get_total_flops()) // counted or None",
        "comparison/test_together.py",
        "compiled",
    )
    yield Mutant(
        "a sweep does not pass its labels on",
        "scoresde/comparison/draw.py",
        "y=None if settings.y is None else take_rows(settings.y, slice(n)),",
        "y=None,",
        "comparison/test_sweep.py",
        "labels",
    )
    yield Mutant(
        "the reference solution has no labels",
        "scoresde/comparison/draw.py",
        "y=None if settings.y is None else take_rows(settings.y, slice(n)),",
        "y=None if dtype == torch.float64 else settings.y,",
        "comparison/test_reference.py",
    )
    yield Mutant(
        "the reference's error is measured at its own tolerance",
        "scoresde/comparison/reference.py",
        "loose = self.solution(model, 10 * self.tolerance, few)",
        "loose = self.solution(model, self.tolerance, few)",
        "comparison/test_reference.py",
    )
    yield Mutant(
        "the reference solution is not denoised",
        "scoresde/comparison/draw.py",
        "denoise=denoise,",
        "denoise=denoise and dtype == torch.float32,",
        "comparison/test_reference.py",
    )
    yield Mutant(
        "the reference solution ends where the grids of the comparison end",
        "scoresde/comparison/sweep.py",
        "return min([self.settings.t_min, *ends])",
        "return self.settings.t_min",
        "comparison/test_sweep.py",
        "least_last_time",
    )
    yield Mutant(
        "the identity of a model does not know its tensors",
        "scoresde/_identity.py",
        "state |= module._parameters | module._buffers | module._modules",
        "state |= module._modules",
        "test_identity.py",
    )
    yield Mutant(
        "a closure is not part of a function's identity",
        "scoresde/_identity.py",
        "            [self._of_cell(cell, where) for cell in function.__closure__ or ()],\n",
        "",
        "test_identity.py",
    )
    yield Mutant(
        "the code of an own sampler is not part of its cells",
        "scoresde/_identity.py",
        'own = _package(type(value).__module__) == "scoresde"',
        "own = True",
        "comparison/test_call.py",
        "own_sampler_that_changed",
    )
    yield Mutant(
        "own samplers that draw noise are measured as solvers of the ODE",
        "scoresde/verification/prepare.py",
        'kind = "tolerance" if sampler.adaptive else "weak" if noisy else "ode"',
        'kind = "tolerance" if sampler.adaptive else "ode"',
        "verification/test_verify.py",
        "draws_noise",
    )
    yield Mutant(
        "systematic errors of a datum enter its interval once instead of twice",
        "scoresde/likelihood/budget.py",
        "return 2 * (1 + 8 / len(changes)) * ",
        "return 1 * (1 + 8 / len(changes)) * ",
        "tasks/test_likelihood_files.py",
    )
    yield Mutant(
        "the warm-up counts in the time of a bare pass",
        "scoresde/comparison/measure.py",
        "return statistics.median(times[1:]) / counts[0]",
        "return statistics.mean(times)",
        "comparison/test_sweep.py",
        "bare",
    )
    yield Mutant(
        "a merged comparison lacks cells",
        "scoresde/comparison/merging.py",
        "missing = [name for name in first.plan if name not in known]",
        "missing = []",
        "comparison/test_parts.py",
        "merged_shares",
    )
    yield Mutant(
        "the first of the shares gets all cells",
        "scoresde/comparison/shards.py",
        "loads[k] += item.cost + extra[k]",
        "loads[k] += 0 * item.cost",
        "comparison/test_parts.py",
        "balanced",
    )
    yield Mutant(
        "the report does not escape what it shows",
        "scoresde/comparison/report.py",
        "autoescape=True,",
        "autoescape=False,",
        "comparison/test_report.py",
        "odd_values",
    )
    yield Mutant(
        "the report shows control characters",
        "scoresde/comparison/report.py",
        "finalize=_printable,",
        "",
        "comparison/test_report.py",
        "odd_values",
    )
    yield Mutant(
        "dearer cells of the same value are on the Pareto front",
        "scoresde/comparison/curves.py",
        "if not front or sign * cell",
        "if True or sign * cell",
        "comparison/test_report.py",
        "front",
    )
    yield Mutant(
        "files of others are replaced by tables beside the report",
        "scoresde/output/result_folder.py",
        "        _check_free(folder, manifest, new)\n",
        "",
        "comparison/test_report.py",
        "not_ours",
    )
    yield Mutant(
        "states are compared with the exact solution of another time",
        "scoresde/comparison/trajectory.py",
        "exact[_key(t)]",
        "exact[min(exact)]",
        "comparison/test_insights.py",
        "stop_there",
    )
    yield Mutant(
        "the command of the page lacks the data",
        "scoresde/comparison/origin.py",
        'options = {"data": data.place, "data-root": root}',
        'options = {"data": None, "data-root": root}',
        "cli/test_bench.py",
        "repeats_all",
    )
    yield Mutant(
        "the dearest cell is called the cheapest",
        "scoresde/comparison/summary.py",
        "cheapest = min(reached, key=lambda cell: cell.nfe)",
        "cheapest = max(reached, key=lambda cell: cell.nfe)",
        "comparison/test_summary.py",
    )
    yield Mutant(
        "a cell may take one evaluation more than its budget",
        "scoresde/samplers/steps.py",
        "    return steps\n",
        "    return steps + 1\n",
        "samplers/test_steps.py",
        "budget",
    )
    yield Mutant(
        "without the last denoising one evaluation is left over",
        "scoresde/samplers/choice.py",
        "found = _fitting(model, calls, not denoise, shape)",
        "found = _fitting(model, calls, False, shape)",
        "samplers/test_sample.py",
        "TestWhatIsLeftOpen and includes_the_denoising",
    )
    yield Mutant(
        "the state has the dtype of x_init instead of the network's",
        "scoresde/samplers/arguments.py",
        "given = x_init if parameter is None else parameter",
        "given = parameter if x_init is None else x_init",
        "samplers/test_sample.py",
        "TestWhatIsLeftOpen and dtype",
    )
    yield Mutant(
        "a grid's own last time gives way to the caller's",
        "scoresde/names/grids.py",
        "last = t_min if self.t_min is None else self.t_min",
        "last = self.t_min if t_min is None else t_min",
        "names/test_named_samplers.py",
        "own_last_time",
    )
    yield Mutant(
        "sampling within a budget forgets the last denoising",
        "scoresde/samplers/choice.py",
        "steps = largest_steps(sde, sampler, grid, nfe // each + unused, t_min)",
        "steps = largest_steps(sde, sampler, grid, nfe // each + denoise, t_min)",
        "samplers/test_sample.py",
        "most_steps or one_step_less",
    )
    yield Mutant(
        "dpmpp-2s is made with the prediction of dpm-2",
        "scoresde/names/samplers.py",
        '"dpmpp-2s": partial(samplers.DPMSolverSinglestep, 2, "x0"),',
        '"dpmpp-2s": partial(samplers.DPMSolverSinglestep, 2, "eps"),',
        "names/test_named_samplers.py",
    )
    yield Mutant(
        "the whole of the demonstration counts a stage again at each step",
        "scoresde/comparison/demo.py",
        "        spent[stage] = seconds",
        "        spent[stage] = spent.get(stage, 0.0) + seconds",
        "cli/test_demo.py",
        "whole",
    )
    yield Mutant(
        "a row that is out of time lets the next one begin",
        "benchmarks/gpu_rows.py",
        "if time.monotonic() >= self._end:",
        "if False:",
        "test_gpu_benchmark.py",
    )
    yield Mutant(
        "the ratio of a sampler is that of a single evaluation",
        "benchmarks/gpu_speed.py",
        "for _ in range(evaluations):",
        "for _ in range(sizes.steps):",
        "test_gpu_benchmark.py",
    )
    yield Mutant(
        "the host waits for the times of each node of the likelihood",
        "scoresde/likelihood/path/path.py",
        "self.curve.at(u.to(self.x.device, non_blocking=True))",
        "self.curve.at(u.to(self.x.device))",
        "test_gpu_benchmark.py",
        "of_nodes",
    )
    yield Mutant(
        "a sampler copies a number from the host at each step",
        "scoresde/samplers/ancestral.py",
        "mean = ((a * ratio**2) * x)",
        "mean = (x.new_tensor(a * ratio**2) * x)",
        "test_gpu_benchmark.py",
        "ancestral",
    )
    yield Mutant(
        "a benchmark looks for its checkpoint before it prints its header",
        "benchmarks/labels.py",
        "    print_header()\n    loaded = scoresde.load(checkpoint)\n",
        "    loaded = scoresde.load(checkpoint)\n    print_header()\n",
        "test_benchmarks.py",
        "header and labels",
    )


def _results() -> Iterator[Mutant]:
    yield Mutant(
        "results are compared by the names of their sources",
        "scoresde/output/manifest.py",
        "if old.sha256 != new.sha256:",
        "if old.name != new.name:",
        "output/test_result_folder.py",
    )
    yield Mutant(
        "a broken promise is no miss",
        "scoresde/verification/trials.py",
        "return self.verdict == VERDICTS[False]",
        "return self.verdict == VERDICTS[None]",
        "verification/test_verify.py",
        "missed or promise or order",
    )


def _laws() -> Iterator[Mutant]:
    folder, test = "scoresde/verification/laws", "verification/test_check.py"
    yield Mutant(
        "check compares a batch with itself instead of with other mates",
        f"{folder}/calls.py",
        "others = torch.cat([x[:1], 3 * x[1:]])",
        "others = torch.cat([x[:1], x[1:]])",
        test,
        "caught",
    )
    yield Mutant(
        "check takes a NaN for a small difference",
        "scoresde/verification/findings.py",
        "keeps = value <= limit",
        "keeps = not value > limit",
        test,
        "nan",
    )
    yield Mutant(
        "check measures the slope in time over far times twice",
        f"{folder}/times.py",
        "steps = torch.tensor([NEAR[dtype], FAR]",
        "steps = torch.tensor([FAR, FAR]",
        test,
        "caught",
    )
    yield Mutant(
        "check differentiates the finite difference's vector twice",
        f"{folder}/derivatives.py",
        "gap = abs(float((product * v).sum() - (difference * w).sum()))",
        "gap = abs(float((product * v).sum() - (product * v).sum()))",
        test,
        "caught",
    )


def _other_samplers() -> Iterator[Mutant]:
    test = "verification/test_certify.py"
    yield Mutant(
        "uneven steps are equal, so that a wrong ratio of steps is not seen",
        "scoresde/interop/samplers/base.py",
        "3.0 if self.uneven else 1.0",
        "1.0",
        test,
    )
    yield Mutant(
        "an order below the claimed one is consistent with it",
        "scoresde/verification/level_laws.py",
        "if abs(value - claimed) <= band:",
        "if value - claimed <= band:",
        test,
        "wrong_copy",
    )
    yield Mutant(
        "the batch mates of a sample are not changed",
        "scoresde/verification/conduct.py",
        "torch.cat([y[:KEPT], -0.5 * y[KEPT:]])",
        "torch.cat([y[:KEPT], y[KEPT:]])",
        test,
        "mixes",
    )


def _distribution() -> Iterator[Mutant]:
    yield Mutant(
        "every call of a distribution gives the same draws",
        "scoresde/distribution/view.py",
        "indices, size = self._indices.take(n), self.batch or max(n, 1)",
        "indices, size = range(n), self.batch or max(n, 1)",
        "test_distribution.py",
    )


def _guidance() -> Iterator[Mutant]:
    test = "guidance/test_guided_models.py"
    yield Mutant(
        "guidance starts from the strong model",
        "scoresde/guidance/classifier_free.py",
        "second + cast(w, first) * (first - second)",
        "first + cast(w, first) * (first - second)",
        test,
        "product_of_densities",
    )
    yield Mutant(
        "the gradient of a classifier changes ε with the wrong sign",
        "scoresde/guidance/classifier.py",
        "factor = -s * parts[quantity] / a",
        "factor = s * parts[quantity] / a",
        test,
        "exact_classifier",
    )
    yield Mutant(
        "guidance is given below its interval too",
        "scoresde/guidance/base.py",
        "(level > self.low) & (level <= self.high)",
        "level <= 2 * self.high",
        test,
        "interval",
    )
    yield Mutant(
        "the parallel part of projected guidance stays",
        "scoresde/guidance/projected.py",
        "gap - along + self.parallel * along",
        "gap + self.parallel * along",
        test,
        "projected",
    )


def _latent_models() -> Iterator[Mutant]:
    yield Mutant(
        "the bound of a latent model forgets the decoder",
        "scoresde/autoencoder/protocol.py",
        "return Points(z, log_normal(z, mean, log_std) - log_p)",
        "return Points(z, log_normal(z, mean, log_std))",
        "autoencoder/test_protocol.py",
        "exact",
    )
    yield Mutant(
        "the decoder's dtype becomes that of the latents",
        "scoresde/samplers/arguments.py",
        "next(float_parameters(model.decoded_by(None)), None)",
        "next(float_parameters(model), None)",
        "score/test_latent_decoder.py",
        "float64",
    )
    yield Mutant(
        "latents are drawn with another seed than train.seed",
        "scoresde/tasks/train/encoding.py",
        "SampleNoise(encoding.seed, rows.tolist())",
        "SampleNoise(0, rows.tolist())",
        "tasks/test_latent_run.py",
        "draws_of",
    )
    yield Mutant(
        "a latent model's autoencoder is left out of best.safetensors",
        "scoresde/tasks/train/run.py",
        "tensors = averaged_tensors(self.ema) | self._beside()",
        "tensors = averaged_tensors(self.ema)",
        "tasks/test_latent_run.py",
        "decodes",
    )


def _autoencoder() -> Iterator[Mutant]:
    test = "autoencoder/test_autoencoder.py"
    yield Mutant(
        "the scale of latents forgets the width of q(z | x)",
        "scoresde/autoencoder/model.py",
        "mean.square() + (2 * log_std).exp()",
        "mean.square()",
        test,
        "std_1",
    )
    yield Mutant(
        "log q(z | x) keeps the width of raw latents",
        "scoresde/autoencoder/model.py",
        "log_std - scale.log()",
        "log_std",
        test,
        "std_1",
    )
    yield Mutant(
        "the loss of an autoencoder forgets the weight of the divergence",
        "scoresde/autoencoder/objective.py",
        "losses = self.beta * divergence - likelihood / dims",
        "losses = divergence - likelihood / dims",
        test,
        "weighted",
    )
    yield Mutant(
        "the bound through an autoencoder forgets the prior of its latents",
        "scoresde/autoencoder/bound.py",
        "autoencoder.log_conditional(x, z) + prior.log_prob - log_q",
        "autoencoder.log_conditional(x, z) - log_q",
        "autoencoder/test_bound.py",
        "exact",
    )
    yield Mutant(
        "latents of diffusers are multiplied by the standard deviation",
        "scoresde/interop/autoencoder_kl.py",
        "torch.tensor(std) / scale}",
        "torch.tensor(std) * scale}",
        "interop/test_autoencoder_kl.py",
        "read_again",
    )


def _inverse() -> Iterator[Mutant]:
    test = "inverse/test_posterior.py"
    yield Mutant(
        "the posterior forgets the noise in the weights' covariance",
        "scoresde/inverse/posterior.py",
        "torch.linalg.cholesky_ex(matrix @ covs @ matrix.T + noise**2 * eye)",
        "torch.linalg.cholesky_ex(matrix @ covs @ matrix.T + noise * eye)",
        test,
        "product",
    )
    yield Mutant(
        "the variance of x_0 given x_t is σ̂², as for data of infinite variance",
        "scoresde/inverse/measured.py",
        "data_var * node.sigma**2 / (node.alpha**2 * data_var + node.sigma**2)",
        "node.sigma**2 / node.alpha**2",
        test,
        "exact_score",
    )
    yield Mutant(
        "gradients of samples with respect to the measurement are partly lost",
        "scoresde/inverse/measured.py",
        "(x, self.y, *float_parameters(self.model))",
        "(x,)",
        test,
        "differentiable",
    )
    yield Mutant(
        "a kernel is not centred",
        "scoresde/inverse/spectral.py",
        "middle = [-(n // 2) for n in kernel.shape]",
        "middle = [0 for n in kernel.shape]",
        "inverse/test_operators.py",
        "middle",
    )
    yield Mutant(
        "the singular values of a foreign operator are not read",
        "scoresde/inverse/foreign.py",
        "factor = torch.where(null, 0.0, g(torch.where(null, 1.0, s))).to(own)",
        "factor = torch.where(null, 0.0, s**2).to(own)",
        "inverse/test_foreign.py",
        "every_method",
    )
    yield Mutant(
        "an edit starts from data without their factor α",
        "scoresde/editing.py",
        "alpha * z.to(torch.float64) + sigma * eps",
        "z.to(torch.float64) + sigma * eps",
        "test_editing.py",
        "noised",
    )
    yield Mutant(
        "the density along a path is that of the first condition",
        "scoresde/likelihood/interpolation.py",
        "take_rows(y, rows.repeat_interleave(steps))",
        "take_rows(y, 0 * rows.repeat_interleave(steps))",
        "likelihood/test_interpolation.py",
        "each_path",
    )
    test = "inverse/test_inverse_samplers.py"
    yield Mutant(
        "the weights of particles forget the proposal",
        "scoresde/inverse/twisted.py",
        "log_w + change + twist.log - before",
        "log_w + twist.log - before",
        test,
        "gaussian_data",
    )
    yield Mutant(
        "particles that were resampled keep the twists of others",
        "scoresde/inverse/twisted.py",
        "twist.log.gather(1, index)",
        "twist.log",
        test,
        "gaussian_data",
    )
    yield Mutant(
        "the replaced entries have no noise",
        "scoresde/inverse/replacement.py",
        "operator.A(s.sigma * z - x)",
        "operator.A(0 * z - x)",
        test,
        "noise_of_the_state",
    )
    yield Mutant(
        "DDRM moves measured entries by the whole gap",
        "scoresde/inverse/ddrm.py",
        "kept * singular / std if std > 0",
        "s.alpha * singular if std > 0",
        test,
        "ddim_steps",
    )


def _restoring() -> Iterator[Mutant]:
    test, path = "tasks/test_restored.py", "scoresde/tasks/restore_input.py"
    yield Mutant(
        "intervals of S ranks instead of S + 1",
        "scoresde/metrics/intervals.py",
        "ranks = samples.shape[1] + 1",
        "ranks = samples.shape[1]",
        "metrics/test_intervals.py",
    )
    yield Mutant(
        "a pixel value of 0 is the end of the first cell, not its middle",
        path,
        "self.spec.low + self.spec.span / (2 * levels)",
        "self.spec.low",
        test,
    )
    yield Mutant(
        "the value of a measurement as if A 1 were 1",
        path,
        "(y - self.offset * _of_ones(operator).to(y)) / self.factor",
        "(y - self.offset) / self.factor",
        test,
    )
    yield Mutant(
        "the truth is in the middle of its cell",
        path,
        "[_stream(seed, i, 0).random(data.spec.shape) for i in range(len(x))]",
        "[0 * _stream(seed, i, 0).random(data.spec.shape) + 0.5 for i in range(len(x))]",
        test,
        "fills_its_cell",
    )
    test = "cli/test_restore_command.py"
    yield Mutant(
        "samples of a datum are given the measurements of others",
        "scoresde/tasks/restoring.py",
        "torch.tensor(places) // request.samples",
        "torch.tensor(places) % request.n",
        test,
        "samples_are_those",
    )
    yield Mutant(
        "noise of pixel values is not brought to the model's scale",
        "scoresde/tasks/restoring.py",
        "std = request.noise * Values(spec).factor",
        "std = request.noise",
        test,
        "samples_are_those",
    )


def _distillation() -> Iterator[Mutant]:
    folder, tests = "scoresde/distillation", "distillation"
    yield Mutant(
        "the second step of the teacher starts from x_t",
        f"{folder}/steps.py",
        "second = model.x0(ddim_step(x, first, t, m), m)",
        "second = model.x0(x, m)",
        f"{tests}/test_steps.py",
        "two_steps",
    )
    yield Mutant(
        "the weight of the target's first prediction is that of the second",
        f"{folder}/steps.py",
        "w = torch.exp(m.lam - s.lam) * _weight(t, m) / _weight(t, s)",
        "w = 1 - torch.exp(m.lam - s.lam) * _weight(t, m) / _weight(t, s)",
        f"{tests}/test_steps.py",
        "two_steps",
    )
    yield Mutant(
        "consistency distillation steps between data with the same noise, as training does",
        f"{folder}/consistency.py",
        "if self.teacher is None else self._solved(model, x, t, s)",
        "if self.teacher is not None else self._solved(model, x, t, s)",
        f"{tests}/test_consistency.py",
        "no_loss",
    )
    yield Mutant(
        "the levels never double",
        f"{folder}/consistency.py",
        "stage=n * len(self.stages) // steps",
        "stage=0",
        f"{tests}/test_consistency.py",
        "doubles",
    )
    yield Mutant(
        "a student of four steps takes one too many within its evaluations",
        "scoresde/samplers/students.py",
        "1 << (nfe.bit_length() - 1)",
        "1 << nfe.bit_length()",
        f"{tests}/test_students.py",
        "evaluations_allow",
    )


MUTANTS: tuple[Mutant, ...] = (
    *_distribution(),
    *_sde(),
    *_guidance(),
    *_distillation(),
    *_inverse(),
    *_autoencoder(),
    *_restoring(),
    *_latent_models(),
    *_grids_and_models(),
    *_samplers(),
    *_training(),
    *_likelihood(),
    *_metrics(),
    *_files_and_data(),
    *_commands(),
    *_results(),
    *_laws(),
    *_other_samplers(),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants; 0 if all are caught."""
    parser = argparse.ArgumentParser(description="Try wrong versions of the code on its tests.")
    parser.add_argument("--only", metavar="TEXT", default="", help="mutants whose name holds this")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="processes; default 2")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    if not chosen:
        parser.error(f"--only: no mutant is called {options.only!r}")
    _import_what_tests_need()
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean"
        _copy_tree(clean)
        failing = _fails_without_mutant(chosen, clean, Path(folder), options.jobs)
        for line in failing:
            print(line)
        if failing:
            return 1
        verdicts = [verdict for verdict, _ in _tried(chosen, clean, Path(folder), options.jobs)]
    print(f"{verdicts.count('caught')} of {len(verdicts)} mutants are caught")
    return 0 if set(verdicts) == {"caught"} else 1


def _import_what_tests_need() -> None:
    """Import it once, before forking: a start of its own takes seconds for each mutant."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    import matplotlib.pyplot  # noqa: F401
    import pytest  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.integrate  # noqa: F401
    import scipy.interpolate  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    import torchdiffeq  # noqa: F401
    import torchvision  # noqa: F401


def _copy_tree(target: Path) -> None:
    """The files that tests use, as they are in the tree now, where `import scoresde` finds them."""
    target.mkdir()
    ignored = shutil.ignore_patterns("*.pyc", "figures")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy2(source, target)
    # what setuptools does at the installation
    (target / "scoresde_cli").symlink_to("cli")
    (target / "cli" / "configs").symlink_to(Path("..") / "configs")


def _fails_without_mutant(
    mutants: Sequence[Mutant], clean: Path, folder: Path, jobs: int
) -> list[str]:
    """A line for each test file that fails on the tree as it is."""
    by_file: dict[str, list[str]] = {}
    for mutant in mutants:
        by_file.setdefault(mutant.test, []).append(mutant.select)
    selections = {
        test: "" if "" in selected else " or ".join(f"({s})" for s in dict.fromkeys(selected))
        for test, selected in by_file.items()
    }
    tasks = {test: _Task(clean, test, select) for test, select in selections.items()}
    lines = []
    for test, status, _ in _in_parallel(tasks, folder, jobs):
        if status != PASSED:
            lines.append(f"tests/{test} fails without any mutant (status {status})")
    return lines


def _tried(
    mutants: Sequence[Mutant], clean: Path, folder: Path, jobs: int
) -> Iterator[tuple[str, Mutant]]:
    """Verdicts, printed as they come."""
    tasks = {}
    for number, mutant in enumerate(mutants):
        text = mutant.mutated((ROOT / mutant.path).read_text(encoding="utf-8"))
        if text is None:
            print(f"stale             {mutant.name} ({mutant.path})")
            yield "stale", mutant
            continue
        tree = folder / str(number)
        tasks[mutant] = _Task(tree, mutant.test, mutant.select, clean, mutant.path, text)
    words = {CAUGHT: "caught", PASSED: "survived"}
    for mutant, status, seconds in _in_parallel(tasks, folder, jobs):
        verdict = words.get(status, "broken")
        print(f"{verdict:9} {seconds:5.1f} s  {mutant.name} ({mutant.path})", flush=True)
        yield verdict, mutant


class _Task(NamedTuple):
    """Tests to run in a tree, which is first copied from another and changed if one is given."""

    tree: Path
    test: str
    select: str
    source: Path | None = None
    path: str = ""
    text: str = ""


def _in_parallel(tasks: dict, folder: Path, jobs: int) -> Iterator[tuple]:
    """(key, exit status, seconds) of each task as it ends; status −1 if it takes too long."""
    waiting, running = list(tasks.items()), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                key, task = waiting.pop(0)
                running[_started(task, folder)] = key, time.monotonic()
            time.sleep(0.02)
            for process, (key, began) in list(running.items()):
                seconds, ended = time.monotonic() - began, os.waitpid(process, os.WNOHANG)
                if ended[0] == 0 and seconds < PATIENCE:
                    continue
                del running[process]
                status = os.waitstatus_to_exitcode(ended[1]) if ended[0] else -1
                if not ended[0]:
                    _stop(process)
                if tasks[key].source is not None:
                    shutil.rmtree(tasks[key].tree, ignore_errors=True)
                yield key, status, seconds
    finally:
        for process in running:
            _stop(process)


def _stop(process: int) -> None:
    """End a task and whatever it has started."""
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)


def _started(task: _Task, folder: Path) -> int:
    """The process id of a fork that runs the task; it leads a process group of its own."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        os.setpgid(process, process)
        return process
    status = 3
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))  # a signal ends it
        with open(folder / f"{os.getpid()}.txt", "wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
            status = _run(task)
    finally:
        os._exit(status)


def _run(task: _Task) -> int:
    """Run the tests in this process, which imports the package from the task's tree."""
    import pytest

    if task.source is not None:
        shutil.copytree(task.source, task.tree, symlinks=True)
        (task.tree / task.path).write_text(task.text, encoding="utf-8")
    os.chdir(task.tree)
    sys.path.insert(0, str(task.tree))
    os.environ["PYTHONPATH"] = str(task.tree)
    import scoresde

    if not Path(scoresde.__file__).is_relative_to(task.tree):
        return 3
    command = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(task.tree)]
    # Outside the tree, which other processes run or copy: tests leave named pipes and broken links.
    temporary = task.tree.with_name(f"tmp{os.getpid()}")
    command += ["--basetemp", str(temporary), "-c", str(task.tree / "pyproject.toml")]
    return int(pytest.main([*command, "-k", task.select, str(task.tree / "tests" / task.test)]))


def check() -> list[str]:
    """What is wrong with the list, one line each: entries that could not be tried."""
    faults = []
    for mutant in MUTANTS:
        text = mutant.mutated((ROOT / mutant.path).read_text(encoding="utf-8"))
        if text is None:
            faults.append(f"{mutant.name}: its old text must occur once in {mutant.path}")
            continue
        try:
            ast.parse(text)
        except SyntaxError:
            faults.append(f"{mutant.name}: {mutant.path} would not be Python")
        if not (ROOT / "tests" / mutant.test).is_file():
            faults.append(f"{mutant.name}: there is no tests/{mutant.test}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
