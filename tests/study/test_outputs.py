import json
import os

import numpy as np
import pytest

from scoresde.study.outputs import (
    check_output,
    check_writable,
    open_output,
    read_summary,
    save_arrays,
    write_json,
)

SETTINGS = {"checkpoint": "digits-vp", "steps": [5, 10], "seed": 0}


def test_same_settings_open_the_same_folder_again(tmp_path):
    folder = tmp_path / "a" / "b"
    open_output(folder, {**SETTINGS, "steps": (5, 10)})
    (folder / "cell.npz").write_text("result")
    open_output(folder, SETTINGS)
    assert (folder / "cell.npz").read_text() == "result"
    assert json.loads((folder / "settings.json").read_text()) == SETTINGS


def test_other_settings_are_refused_by_key_and_replaced_on_demand(tmp_path):
    folder = tmp_path / "out"
    open_output(folder, SETTINGS)
    (folder / "cell.npz").write_text("result")
    with pytest.raises(ValueError, match=r"--out .*seed = 0, not 1; give another .*--overwrite"):
        open_output(folder, {**SETTINGS, "seed": 1})
    with pytest.raises(ValueError, match="extra = None, not 3"):
        check_output(folder, {**SETTINGS, "extra": 3})
    open_output(folder, {**SETTINGS, "seed": 1}, overwrite=True)
    assert [p.name for p in folder.iterdir()] == ["settings.json"]


def test_foreign_folders_are_never_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds other files; give a new or an empty folder"):
            open_output(tmp_path, SETTINGS, overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", ["{", "", "[]", "3", "\udcff"])
def test_damaged_settings_are_refused_and_can_be_overwritten(tmp_path, content):
    (tmp_path / "settings.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="settings.json is not .*; use --overwrite"):
        check_output(tmp_path, SETTINGS)
    open_output(tmp_path, SETTINGS, overwrite=True)
    check_output(tmp_path, SETTINGS)


def test_checking_changes_nothing(tmp_path):
    check_output(tmp_path / "new" / "deeper", SETTINGS)
    check_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="file is a file, not a folder"):
            open_output(path, SETTINGS)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="is not writable"):
        check_writable(tmp_path / "new")


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    assert read_summary(tmp_path) is None
    write_json(path, {"value": 1.5})
    assert read_summary(tmp_path) == {"value": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert read_summary(tmp_path) == {"value": 1.5}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_arrays_come_back_and_equal_arrays_give_equal_bytes(tmp_path):
    x = np.arange(6.0).reshape(2, 3)
    save_arrays(tmp_path / "a.npz", x=x)
    save_arrays(tmp_path / "b.npz", x=x.copy())
    with np.load(tmp_path / "a.npz") as loaded:
        assert np.array_equal(loaded["x"], x)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
