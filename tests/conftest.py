"""Fixtures of many tests: the SDEs for which every law must hold, and data of known density.

torch and the package are imported where they are used: the process that hands out the tests to
the others reads this file too, nothing runs before it has, and it needs neither.
"""

import functools
import gc
import os
import random
import signal

import pytest

# The tests run in one process per core, so each process needs one thread only. An idle OpenMP
# thread that spins would make all others several times slower. OpenMP reads both variables when
# torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # as a background shell leaves it, for child processes as well: tests of Ctrl-C would hang
    signal.signal(signal.SIGINT, signal.default_int_handler)

MOST_WORKERS = 4  # each of them holds about 1 GB


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the options
def pytest_cmdline_main(config):
    """Run the whole suite in one process per core, if pytest-xdist is installed.

    Single files and tests run in this process, so that `--pdb` works and nothing is started twice.
    `pytest -n 0` runs the whole suite in this process too.
    """
    option = config.option
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if hasattr(config, "workerinput") or not whole or getattr(option, "usepdb", False):
        return
    if getattr(option, "numprocesses", 0) is None:  # pytest-xdist is there, -n was not given
        option.numprocesses = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
        if option.dist == "no":
            option.dist = "loadfile"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection():
    """Collect without the garbage collector, and never let it look at what was collected again.

    Modules and tests live as long as the process. Walking through all of them again and again
    takes a third of the time of a collection.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before slow tests are left out
def pytest_collection_modifyitems(items):
    """`@pytest.mark.by_default("VE", "heun")`: of a dear test only these cases are not slow.

    A part of an id is what stands between hyphens: "VE" is in "VE-heun" and not in "VE2-heun".
    """
    left = {}
    for item in items:
        for mark in item.iter_markers("by_default"):
            wanted = any(f"-{part}-" in f"-{item.callspec.id}-" for part in mark.args)
            if not wanted:
                item.add_marker(pytest.mark.slow)
            left.setdefault(item.function, []).append(wanted)
    for function, wanted in left.items():
        if len(wanted) > 1 and not any(wanted):
            raise pytest.UsageError(f"{function.__name__} has no case of those of its by_default")


@pytest.fixture(scope="session", autouse=True)
def no_sync():
    """Files need not survive a loss of power, which no test here can cause."""

    def fsync(descriptor):
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


ALL_SDES = ("VP", "SubVP", "VE", "CosineVP", "TabulatedVP", "Linear", "ZeroSNR")
SLOW_SDES = ("ZeroSNR",)  # another `TabulatedVP`


@functools.cache
def sde_named(name):
    """The SDE of a class of `scoresde.sde` with its default parameters; "ZeroSNR" is a table."""
    import scoresde.sde

    if name == "ZeroSNR":
        betas = scoresde.sde.zero_terminal_snr(scoresde.sde.VP().ddpm_betas(1000))
        return scoresde.sde.TabulatedVP(betas)
    arguments = [scoresde.sde.VP().ddpm_betas(1000)] if name == "TabulatedVP" else []
    return getattr(scoresde.sde, name)(*arguments)


def _of_the_default_suite(name):
    return pytest.param(name, marks=pytest.mark.slow) if name in SLOW_SDES else name


@pytest.fixture(params=map(_of_the_default_suite, ALL_SDES))
def sde(request):
    """Each SDE in turn; a new one joins `ALL_SDES` and every law applies to it."""
    return sde_named(request.param)


@pytest.fixture
def all_sdes():
    """All of them, for a test that goes through them itself."""
    return [sde_named(name) for name in ALL_SDES]


@pytest.fixture
def mixture_parameters():
    """(weights, means, covs) of a mixture of three correlated Gaussians in the plane."""
    import torch

    return (
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        torch.tensor([[-1.0, 0.5], [0.8, -0.6], [0.3, 1.2]], dtype=torch.float64),
        torch.tensor(
            [
                [[0.20, 0.05], [0.05, 0.10]],
                [[0.08, -0.03], [-0.03, 0.15]],
                [[0.05, 0.00], [0.00, 0.05]],
            ],
            dtype=torch.float64,
        ),
    )


@pytest.fixture
def mixture(mixture_parameters):
    """mixture(sde): the exact score model of that mixture under an SDE."""
    from scoresde.exact import GaussianMixture

    def make(sde):
        return GaussianMixture(sde, *mixture_parameters)

    return make


@pytest.fixture
def gaussian():
    """gaussian(sde, *shape): the exact score model of N(0.3, 0.5² I); shape (1,) by default."""
    import torch

    from scoresde.exact import GaussianMixture

    def make(sde, *shape):
        mean = torch.full((1, *(shape or (1,))), 0.3, dtype=torch.float64)
        return GaussianMixture(sde, [1.0], mean, [0.25])

    return make


@pytest.fixture
def rng_untouched():
    """Fails the test if it read or seeded a global generator of torch, numpy or Python."""
    import numpy as np
    import torch

    def state():
        return torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()

    before = state()
    yield
    assert state() == before, "a global random generator was used"


@pytest.fixture
def together(monkeypatch):
    """together(2, act): act(ranks) of every rank at the same time; results or exceptions.

    The watches run, and the main thread of this process is not interrupted.
    """
    from concurrent.futures import ThreadPoolExecutor

    from torch.distributed import HashStore

    from scoresde.distributed import Ranks, watch

    monkeypatch.setattr(watch, "PERIOD", 0.02)
    monkeypatch.setattr(watch._thread, "interrupt_main", lambda number: None)

    def call(size, act):
        store = HashStore()

        def one(rank):
            ranks = Ranks(rank, size, rank, store, watch.Watch(store, rank, size))
            ranks.watch.start()
            try:
                with ranks.stopping_together():
                    return act(ranks)
            except Exception as error:
                return error
            finally:
                ranks.watch.leave(0.1)

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(one, range(size)))

    return call
