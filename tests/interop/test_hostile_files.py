"""Hostile files of each format: no code runs, no hang, no gigabyte, and one line that says why."""

import contextlib
import resource
import shutil
import signal
from pathlib import Path

import pytest
from hostile_formats import BIN, FORMATS, MODELS, WEIGHTS
from hostile_pickles import harmful, text

import scoresde
from scoresde.checkpoint import CheckpointError

CODE = ("Traceback", "NoneType", "attribute", "<class", "Errno", "allocate")


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
    return any(part in label for part in SOUND)


SOUND = ("damaged", "runs", "bomb", " = ", "on a GPU", "older format", "whole", "dtype BF16")
SOUND += (
    "tensor NaN",
    "tensor infinite",
    "tensor half",
    "tensors half",
    "BOM",
    "model_index.json",
    "long name",
    "control",
    "VEPrecond",  # fits the same network
)


NAMES = {  # by which a format is recognized
    "checkpoint.pth": "all_modules.0.weight sigmas",
    "model.pt": "time_embed.0.weight input_blocks.0.0.weight",
    "network.pkl": "torch_utils.persistence _reconstruct_persistent_obj",
    "other.pkl": "nothing",
    f"tiny-ddpm/{BIN}": "conv_in.weight",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_names_os_system_runs_nothing(name, tmp_path):
    marker, source = tmp_path / "ran", tmp_path / name
    if name.startswith("tiny-ddpm"):
        shutil.copytree(MODELS / "tiny-ddpm", tmp_path / "tiny-ddpm")
        (tmp_path / "tiny-ddpm" / WEIGHTS).unlink()
    body = text(NAMES[name]) + b"0" + next(harmful(f"touch {marker}"))
    source.write_bytes(b"\x80\x02" + body + b".")
    with pytest.raises(CheckpointError, match=r"names \w+.system, .*; nothing was run here"):
        scoresde.load(tmp_path / name.partition("/")[0])
    assert not marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_hostile_files_are_refused_in_one_line(name, tmp_path):
    marker, count, read = tmp_path / "ran", 0, []
    (tmp_path / "in").mkdir()
    with limited():
        files = FORMATS[name](tmp_path / "in", f"touch {marker}")
        for label, source in files:
            count += 1
            if refusal(scoresde.load, source) is None:
                read.append(label)
            assert not marker.exists(), label
    assert all(may_be_read(label) for label in read), [x for x in read if not may_be_read(x)]
    assert count >= 200
