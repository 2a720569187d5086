import importlib.util
import os
import signal
import subprocess
import sys
import threading

import pytest

from scoresde import _lock
from scoresde._lock import LOCK, lock_folder

HOLD = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.lock_folder(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path / "out"."""
    path = importlib.util.find_spec("scoresde._lock").origin
    command = [sys.executable, "-c", HOLD, path, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_until_the_first_is_killed(holder, tmp_path):
    out = tmp_path / "out"
    with (
        pytest.raises(RuntimeError, match=rf"another scoresde process \(pid {holder.pid}\) is w"),
        lock_folder(out),
    ):
        pass
    assert [path.name for path in out.iterdir()] == [LOCK]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_folder(out):
        assert (out / LOCK).read_text() == str(os.getpid())
    assert list(out.iterdir()) == []


def test_a_second_thread_is_refused(tmp_path):
    refused = []

    def second():
        with pytest.raises(RuntimeError, match="another scoresde process"), lock_folder(tmp_path):
            pass
        refused.append(True)

    with lock_folder(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused == [True]


def test_a_lock_that_was_removed_while_it_was_opened_is_not_enough(tmp_path, monkeypatch):
    """A opens the file, B ends and removes it, C makes a new one: A and C must not both hold it."""
    real, removed = _lock._lock, []

    def slow(descriptor, folder):
        real(descriptor, folder)
        if not removed:
            removed.append(True)
            (folder / LOCK).unlink()

    monkeypatch.setattr(_lock, "_lock", slow)
    with lock_folder(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_folders_made_for_nothing_go_and_others_stay(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="failed"), lock_folder(tmp_path / "mine" / "a" / "b"):
        raise ValueError("failed")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with lock_folder(tmp_path / "mine" / "a" / "b"):
        (tmp_path / "mine" / "a" / "result").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine", "result"]


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(_lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_lock.fcntl, "flock", none)
    with lock_folder(tmp_path):
        pass
    monkeypatch.setattr(_lock, "fcntl", None)
    with lock_folder(tmp_path):
        pass
