"""Hostile files of each format: no code runs, no hang, no gigabyte, and one line that says why."""

import contextlib
import resource
import signal
from pathlib import Path

import pytest
from hostile_formats import FORMATS

import scoresde
from scoresde.checkpoint import CheckpointError

# Of each format every n-th file is read, so that there are more than 200 of each.
EVERY = {"diffusers": 5, "score_sde_pytorch": 2, "guided-diffusion": 2, "edm": 1}
EVERY |= {"safetensors": 2, "ours": 4}
CODE = (
    "Traceback",
    "NoneType",
    "attribute",
    "positional",
    "<class",
    "Errno",
    "allocate",
    " object ",
)


class TooSlowError(BaseException):
    """No `except Exception` of a reader catches it."""


@contextlib.contextmanager
def limited():
    """At most one more gigabyte of memory, and a minute for each file on a busy machine."""

    def stop(*_):
        raise TooSlowError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30), hard))
    before = signal.signal(signal.SIGALRM, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refusal(read, source):
    """The one line with which a file is refused; None if it is read."""
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        read(source)
    except CheckpointError as error:
        line = str(error)
        assert line.startswith(str(source.parent)), line
        assert "\n" not in line
        assert len(line) < 1200
        assert not [word for word in CODE if word in line], line
        return line
    return None


def may_be_read(label):
    """Whether a change may leave a model: numbers that changed, or additions that are not used."""
    return "damaged" in label or "runs" in label or "bomb" in label or label in SOUND


SOUND = ()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_hostile_files_are_refused_in_one_line(name, tmp_path):
    marker, count, read = tmp_path / "ran", 0, []
    (tmp_path / "in").mkdir()
    with limited():
        files = FORMATS[name](tmp_path / "in", f"touch {marker}")
        for number, (label, source) in enumerate(files):
            if number % EVERY[name] == 0:
                count += 1
                if refusal(scoresde.load, source) is None:
                    read.append(label)
                assert not marker.exists(), label
    print(name, count, len(read), [l for l in read if not may_be_read(l)])
    assert count >= 200
