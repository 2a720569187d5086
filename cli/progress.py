"""Progress bars, on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from scoresde.output.bars import progress_bar, stage_bars, update

from .output import say

if TYPE_CHECKING:
    from scoresde.distributed import Ranks
    from scoresde.output.progress import Tell
    from scoresde.tasks.train.run import Progress, Run

__all__ = ["follow", "follow_cells", "follow_shared", "follow_stages", "follow_training"]


@contextmanager
def follow(what: str, resumes: bool = False) -> Iterator[Callable[[int, int | None, str], None]]:
    """Show one bar; the function it yields is called with (number done, total, note).

    Args:
        what: Name of the work.
        resumes: Whether the same command continues where it was stopped.
    """
    with _hint_when_stopped(resumes), progress_bar() as bar:
        task = bar.add_task(what, total=None, note="")
        yield partial(update, bar, task)


@contextmanager
def follow_shared(
    what: str, device: str
) -> Iterator[tuple[Ranks, Callable[[int, int | None, str], None]]]:
    """Join the processes that torchrun started, and show one bar, on rank 0 only.

    Args:
        what: Name of the work, which the same command continues where it was stopped.
        device: Where the command runs, as `processes` takes it.

    Yields:
        The processes, and a function that is called with (number done, total, note).
    """
    from scoresde.distributed import processes

    with (
        _hint_when_stopped(True),
        processes(device) as ranks,
        progress_bar(ranks.writes) as bar,
    ):
        task = bar.add_task(what, total=None, note="")
        yield ranks, partial(update, bar, task)


@contextmanager
def follow_cells(device: str) -> Iterator[tuple[Ranks, Tell]]:
    """Join the processes that torchrun started; rank 0 shows bars of stages and warnings.

    Args:
        device: Where the command runs, as `processes` takes it.

    Yields:
        The processes, and a function as that of `follow_stages`.
    """
    from scoresde.distributed import processes

    announce = partial(say, err=True)
    with _hint_when_stopped(True), processes(device) as ranks, warnings.catch_warnings():
        if not ranks.writes:
            warnings.simplefilter("ignore")
        with stage_bars(announce if ranks.writes else None, ranks.writes) as tell:
            yield ranks, tell


@contextmanager
def follow_stages(
    resumes: bool = False,
) -> Iterator[Callable[[str, int, int | None, str], None]]:
    """Show a bar for each stage; the function it yields takes (stage, number done, total, note).

    Without a terminal the name of each stage is printed once.

    Args:
        resumes: Whether the same command continues where it was stopped.
    """
    announce = partial(say, err=True)
    with _hint_when_stopped(resumes), stage_bars(announce) as tell:
        yield tell


@contextmanager
def _hint_when_stopped(resumes: bool) -> Iterator[None]:
    """Say after Ctrl-C or SIGTERM how to continue, if the work resumes."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if resumes:
            say("stopped; the same command continues with the rest", err=True)
        raise


def follow_training(run: Run, steps: Callable[[Run], Iterator[Progress]]) -> None:
    """Train to the end and show losses and data per second; a stop signal saves first.

    Args:
        run: The run.
        steps: Function that runs the loop, such as `Run.steps`.
    """
    if not run.training.ranks.writes:
        for _ in steps(run):  # it yields nothing
            pass
        return
    from scoresde.output.tiles import NOUNS

    total, noun = run.settings.steps, NOUNS[run.data.spec.kind]
    if run.done == total:
        say(f"all {total} steps are done; to train longer, raise train.steps", err=True)
        return
    for line in _intentions(run):
        say(line, err=True)
    first = run.done + 1
    try:
        with progress_bar() as bar, closing(steps(run)) as states:
            task = bar.add_task("train", total=total, completed=run.done, note="")
            for state in states:
                rate = state.images_per_second
                note = f"{_losses(state)}, {rate:.{0 if rate >= 10 else 1}f} {noun}/s"
                bar.update(task, completed=state.step.step, note=note)
                if bar.disable and (state.validated or state.step.step == first):
                    say(f"step {state.step.step}: {note}", err=True)
    except (KeyboardInterrupt, SystemExit):
        say(f"stopped after step {run.done}, saved; the same command resumes", err=True)
        raise


def _intentions(run: Run) -> Iterator[str]:
    """Lines that say what will be done: data, and how often the run saves, validates and draws."""
    from scoresde.data import has_test_split
    from scoresde.tasks.noise_levels import ladder_in_words
    from scoresde.tasks.train.files import BEST, SAVE_MINUTES

    every = run.intervals
    if run.done:
        yield f"resuming after step {run.done} of {run.settings.steps}"
    if run.data.labels is not None and run.data.spec.class_map is not None:
        yield f"classes: {run.data.spec.class_map}"
    if run.autoencoder:
        shape = run.model.net.latent_shape
        yield f"data of shape {run.data.spec.shape} become latents of shape {shape}"
    elif (levels := ladder_in_words(run.metadata["config"], run.data.spec.dims)) is not None:
        yield levels
    if not (run.classifier or run.autoencoder) and not has_test_split(run.data.name):
        needed = "--split held-out or --data" if run.settings.share else "--data"
        yield f"{run.data.name} has no test split; `scoresde likelihood` will need {needed}"
    yield (
        f"{run.checkpoint} is saved every {every.save_every} steps, and when it is "
        f"{SAVE_MINUTES} minutes old"
    )
    if run.training.examples.device.type != "cpu":
        yield run.training.examples.place
    if run.validates:
        yield (
            f"validation on {len(run.training.examples.held_out)} held-out data every "
            f"{every.validate_every} steps; {BEST} keeps the best weights"
        )
    if run.draws:
        what = "reconstructions" if run.autoencoder else "samples"
        yield f"{what} are drawn every {every.sample_every} steps"


def _losses(state: Progress) -> str:
    """The training loss and the latest validation, for the note of the bar."""
    text = f"loss {state.loss:.4f}"
    found = state.validation
    if found is not None and found["loss"] is not None:
        text += f", held out {found['loss']:.4f} ± {found['std_error']:.4f}"
    if found is not None and found.get("accuracy") is not None:
        text += f", {found['accuracy']:.1%} right at all noise levels"
    if found is not None and found.get("nll") is not None:
        text += f", {found['nll']:.3f} ± {found['nll_std_error']:.3f} {found['unit']}"
    return text
