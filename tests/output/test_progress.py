"""Memory and disk are checked before work begins."""

import shutil
from collections import namedtuple

import pytest

from scoresde.output import progress as running
from scoresde.output.progress import check_space

Usage = namedtuple("Usage", "free")


@pytest.fixture
def machine(monkeypatch):
    """machine(memory, disk): the number of free bytes."""

    def make(memory, disk):
        monkeypatch.setattr(running, "free_bytes", lambda: memory)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(disk))

    return make


def test_the_bytes_are_counted(machine, tmp_path):
    """1000 data of 10 numbers of 4 bytes, in three arrays and in one file."""
    machine(120_000, 40_000)
    check_space("--n", 1000, 10, tmp_path / "new" / "deeper")
    machine(119_999, 40_000)
    with pytest.raises(ValueError, match=r"^--n: 1000 of 10 numbers each need 0.00012 GB of mem"):
        check_space("--n", 1000, 10, tmp_path)
    machine(120_000, 39_999)
    with pytest.raises(ValueError, match=r"need 4e-05 GB of disk, and 4e-05 GB are free"):
        check_space("--n", 1000, 10, tmp_path)


def test_a_system_that_says_nothing_is_trusted(machine, tmp_path):
    machine(None, 10**18)
    check_space("--n", 10**9, 10, tmp_path)


def test_this_machine_has_memory():
    free = running.free_bytes()
    assert free is None or free > 1e6
