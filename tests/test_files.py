import os
import stat
import subprocess
import sys
import threading

import pytest

from scoresde import _files
from scoresde._files import atomic_write, clean_folder, is_temporary


def write(path, content=b"new"):
    with atomic_write(path) as file:
        file.write(content)
    return path


def only(folder):
    return [entry.name for entry in folder.iterdir()]


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_of_an_ordinary_one(tmp_path, umask, mask, mode):
    umask(mask)
    path = write(tmp_path / "c")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Otherwise the name could lead to an empty file after a loss of power. The folder is next."""
    calls = []

    def noted(function):
        def call(*arguments):
            kind = function.__name__
            if kind == "fsync":
                kind += " folder" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else " file"
            calls.append(kind)
            return function(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(_files.os, name, noted(getattr(os, name)))
    write(tmp_path / "c")
    assert calls == ["fsync file", "replace", "fsync folder"]


def test_an_existing_file_keeps_its_permissions(tmp_path):
    path = write(tmp_path / "c")
    path.chmod(0o640)
    write(path, b"newer")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes() == b"newer"


@pytest.mark.parametrize(
    "name", ["with space", "naïve 中文.safetensors", "a[1]*?.x", "-rf", ".hidden", "x" * 250]
)
def test_unusual_names(tmp_path, name):
    path = write(tmp_path / name)
    assert path.read_bytes() == b"new"
    assert only(tmp_path) == [name]


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("c")
    assert (tmp_path / "c").read_bytes() == b"new"


def test_a_symlink_stays_and_its_target_is_replaced(tmp_path):
    for folder in ("links", "files"):
        (tmp_path / folder).mkdir()
    target, link = tmp_path / "files" / "step1", tmp_path / "links" / "latest"
    write(target)
    link.symlink_to("../files/step1")
    write(link, b"newer")
    assert link.is_symlink()
    assert target.read_bytes() == b"newer"
    dangling = tmp_path / "links" / "next"
    dangling.symlink_to("../files/step2")
    write(dangling)
    assert dangling.is_symlink()
    assert (tmp_path / "files" / "step2").read_bytes() == b"new"
    assert sorted(only(tmp_path / "files")) == ["step1", "step2"]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for place, kind in {
        tmp_path / "none" / "c": FileNotFoundError,
        tmp_path / "file" / "c": NotADirectoryError,
        tmp_path: IsADirectoryError,
        tmp_path / "pipe": OSError,
        tmp_path / "loop": OSError,
    }.items():
        with pytest.raises(kind) as caught:
            write(place)
        assert str(caught.value).endswith(f": '{place}'")
        assert "nothing was written" in str(caught.value)
    assert sorted(only(tmp_path)) == ["file", "loop", "pipe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
def test_read_only_places(tmp_path):
    path = write(tmp_path / "c")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="Permission denied"):
        write(path, b"newer")
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match="Permission denied"):
        write(tmp_path / "d")
    tmp_path.chmod(0o755)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_while_writing_leaves_the_old_file(tmp_path, raised):
    path = tmp_path / "log.json"
    with atomic_write(path, "w") as file:
        file.write("é\n")

    def write_half():
        with atomic_write(path) as file:
            file.write(b"half")
            file.flush()
            assert path.read_text(encoding="utf-8") == "é\n"
            assert len(only(tmp_path)) == 2
            raise raised

    with pytest.raises(raised):
        write_half()
    assert path.read_bytes() == "é\n".encode()
    assert only(tmp_path) == ["log.json"]


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_write(tmp_path / "c"):
        open(tmp_path / "elsewhere").close()


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_stale_files_of_dead_processes_are_cleaned(tmp_path):
    dead, path = dead_pid(), tmp_path / "c.safetensors"
    stale = [f".c.safetensors.{pid}.0123abcd.tmp" for pid in (dead, os.getpid())]
    kept = [
        f".c.safetensors.{os.getppid()}.0123abcd.tmp",  # alive
        ".c.safetensors.1.0123abcd.tmp",  # alive, possibly another user's
        f".d.safetensors.{dead}.0123abcd.tmp",  # of another file
        f".c.safetensors.{dead}.0123abcd.tmp.bak",
        f".c.safetensors.x{dead}.0123abcd.tmp",
        f"c.safetensors.{dead}.0123abcd.tmp",
    ]
    for name in stale + kept:
        (tmp_path / name).touch()
    assert sorted(clean_folder(tmp_path, path.name)) == sorted(tmp_path / name for name in stale)
    assert sorted(only(tmp_path)) == sorted(kept)
    assert clean_folder(tmp_path / "none", "c") == []
    assert clean_folder(tmp_path) == [tmp_path / f".d.safetensors.{dead}.0123abcd.tmp"]
    assert clean_folder(tmp_path / "none") == []
    assert [is_temporary(name) for name in stale + kept] == [True] * 5 + [False] * 3


def test_a_write_in_progress_is_not_stale(tmp_path):
    with atomic_write(tmp_path / "c") as file:
        file.write(b"x")
        assert clean_folder(tmp_path, "c") == []
    assert (tmp_path / "c").read_bytes() == b"x"
    assert not _files._being_written


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    threads = [
        threading.Thread(target=write, args=(tmp_path / "c", bytes([i]) * 100_000))
        for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / "c").read_bytes()
    assert content == content[:1] * 100_000
    assert only(tmp_path) == ["c"]
