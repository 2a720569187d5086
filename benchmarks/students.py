"""How far do students of few steps end from the ODE of their teacher?

All samples start from the same noise. The table gives the RMS distance, per number of a sample, to
the end of the teacher's probability-flow ODE at the last time of the students: for DDIM steps of
the teacher on the times of the students, for its recommended settings, and for each student at the
numbers of evaluations that it has. Samples of a consistency student with more than one evaluation
have fresh noise, and so are not compared.
"""

from __future__ import annotations

import argparse

import torch
from script import print_header
from torch import Tensor

import scoresde
from scoresde.samplers import DDIM, ProbabilityFlowODE
from scoresde.samplers.students import own_times
from scoresde.score.distilled import Distilled

TOLERANCE = 1e-4  # of the ODE: its error is much smaller than the distances of the table
EVALUATIONS = (1, 2, 4)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", default="digits-vp", help="checkpoint of the teacher")
    parser.add_argument("--students", nargs="+", required=True, help="checkpoints of students")
    parser.add_argument("--n", type=int, default=64, help="samples of each row")
    args = parser.parse_args()
    print_header()
    teacher = scoresde.load(args.teacher).model
    models = {path: scoresde.load(path).model for path in args.students}
    about = next(iter(models.values())).distilled
    noise = torch.randn(args.n, *teacher.data.shape, generator=torch.Generator().manual_seed(0))
    start = {"x_init": noise * teacher.sde.start_std(teacher.sde.t_regular), "seed": 0}
    ode = ProbabilityFlowODE("dopri5", rtol=TOLERANCE, atol=TOLERANCE)
    end = scoresde.sample(teacher, ode, _times(teacher, about, 1), **start, denoise=False).x

    def row(name: str, found: scoresde.Samples) -> None:
        distance = float((found.x - end).square().mean().sqrt())
        print(f"{name:40} {found.nfe:4} {distance:9.4f}", flush=True)

    print(f"{'':40} {'NFE':>4} {'distance':>9}")
    for nfe in (*EVALUATIONS, 2 * EVALUATIONS[-1]):
        ts = _times(teacher, about, nfe)
        row("teacher, ddim", scoresde.sample(teacher, DDIM(), ts, **start, denoise=False))
        row("teacher, recommended", scoresde.sample(teacher, nfe=nfe, **start))
    for path, student in models.items():
        steps = student.distilled.steps
        for nfe in EVALUATIONS[:1] if steps is None else [n for n in EVALUATIONS if n <= steps]:
            row(path[-40:], scoresde.sample(student, nfe=nfe, **start))


def _times(teacher: scoresde.ScoreModel, about: Distilled, steps: int) -> Tensor:
    """The times of a student of any number of steps."""
    anywhen = Distilled("consistency", about.t_min, about.data_std)
    return own_times(teacher.sde, anywhen, steps)


if __name__ == "__main__":
    main()
