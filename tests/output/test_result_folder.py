"""Folders of results: files of others stay, and stopped, killed or damaged work is resumed."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from scoresde._files import check_writable
from scoresde._lock import LOCK
from scoresde.output.files import read_json, save_arrays, write_json
from scoresde.output.manifest import MANIFEST, Manifest, Origin, Source
from scoresde.output.result_folder import ResultFolder, remove_results

ORIGIN = Origin(
    "sample",
    {"steps": (5, 10), "seed": 0, "path": "a"},
    {"data": Source("eval.npy", "0" * 64), "checkpoint": Source("digits-vp", "1" * 64)},
    {"ddim NFE ≤ 5": "2"},
    shown=("path",),
)


def changed(**changes):
    values = {**vars(ORIGIN), **changes}
    names = ("command", "settings", "sources", "cells", "shown")
    return Origin(**{name: values[name] for name in names})


OTHER = changed(settings={**ORIGIN.settings, "seed": 1})


def finished(folder, origin, overwrite=False):
    """Whether the folder holds complete results of this origin, after all checks."""
    return ResultFolder.open(folder, origin, overwrite).finished


def write(folder, origin, files, parts=(), overwrite=False):
    """The block in which results are made, without `ResultFolder.open` before it."""
    return ResultFolder(folder, origin, overwrite).write(files, parts)


def make(folder, origin=ORIGIN, names=("a.npz", "cells/b.json"), text="old", **settings):
    """Results as a command writes them."""
    with write(folder, origin, names, **settings) as output:
        for name in names:
            path = output.work / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        output.publish()


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestOneOrigin:
    def test_the_same_is_found_and_another_is_refused(self, tmp_path):
        folder = tmp_path / "a" / "b"
        assert not finished(folder, ORIGIN)
        assert not folder.exists()
        make(folder)
        assert sorted(content(folder)) == ["a.npz", "cells/b.json", MANIFEST]
        before = content(folder)
        assert finished(folder, ORIGIN)
        assert finished(folder, changed(settings={**ORIGIN.settings, "path": "b"}))
        with pytest.raises(ValueError, match=r"--out .*: holds results with seed = 0, not 1; give"):
            finished(folder, OTHER)
        with pytest.raises(ValueError, match="seed = 0, not 1"), write(folder, OTHER, []):
            pass
        assert content(folder) == before
        assert not finished(folder, OTHER, overwrite=True)
        make(folder, OTHER, ["c"], overwrite=True)
        assert sorted(content(folder)) == ["c", MANIFEST]
        assert finished(folder, OTHER)

    @pytest.mark.parametrize(
        ("origin", "message"),
        [
            (changed(command="latent"), "with command = 'sample', not 'latent'"),
            (changed(settings={**ORIGIN.settings, "n": 3}), "with n = None, not 3"),
            (
                changed(sources={**ORIGIN.sources, "data": Source("eval.npy", "9" * 64)}),
                r"made from other data \(eval.npy has changed since\)",
            ),
            (
                changed(sources={**ORIGIN.sources, "checkpoint": Source("mine", "9" * 64)}),
                r"made from another checkpoint \(digits-vp, not mine\)",
            ),
            (
                changed(sources={"data": ORIGIN.sources["data"]}),
                r"made with checkpoint \(digits-vp\)",
            ),
            (
                changed(sources={**ORIGIN.sources, "test data": Source("t", "3")}),
                r"made without test data \(t\)",
            ),
            (changed(cells={}), "of ddim NFE ≤ 5, which is not asked for now"),
            (
                changed(cells={"ddim NFE ≤ 5": "3"}),
                "of ddim NFE ≤ 5 on another grid or of another sampler",
            ),
        ],
    )
    def test_every_difference_is_named(self, tmp_path, origin, message):
        make(tmp_path / "out")
        with pytest.raises(ValueError, match=f"holds results {message}; give another folder, or"):
            finished(tmp_path / "out", origin)

    def test_names_do_not_matter(self, tmp_path):
        make(tmp_path / "out")
        moved = {what: Source(f"other/{s.name}", s.sha256) for what, s in ORIGIN.sources.items()}
        assert finished(tmp_path / "out", changed(sources=moved))
        assert changed(sources=moved).fingerprint == ORIGIN.fingerprint

    def test_cells_may_be_added(self, tmp_path):
        make(tmp_path / "out")
        more = changed(cells={**ORIGIN.cells, "heun NFE ≤ 5": "3"})
        assert not finished(tmp_path / "out", more)
        with write(tmp_path / "out", more, ["a.npz", "c"]) as output:
            (output.work / "c").write_text("new")
            output.publish(kept=["a.npz"])
        assert finished(tmp_path / "out", more)
        assert sorted(content(tmp_path / "out")) == ["a.npz", "c", MANIFEST]


class TestWhatIsNotOurs:
    @pytest.mark.parametrize(
        "settings", [None, b'{"seed": 1}', b"{", b"", b"[]", b"\xff", b'{"command": ["sample"]}']
    )
    def test_folders_without_a_manifest_are_never_touched(self, tmp_path, settings):
        (tmp_path / "notes.txt").write_text("mine")
        if settings is not None:
            (tmp_path / "settings.json").write_bytes(settings)
        before = content(tmp_path)
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="holds other files; give a new or an empty"):
                finished(tmp_path, ORIGIN, overwrite)
            with (
                pytest.raises(ValueError, match="holds other files"),
                write(tmp_path, ORIGIN, ["a"], overwrite=overwrite),
            ):
                pass
        assert content(tmp_path) == before

    @pytest.mark.parametrize("text", ["", "{}", '{"format": "mine"}', "[1]", "mine"])
    def test_a_strangers_file_of_the_manifests_name_is_no_manifest(self, tmp_path, text):
        (tmp_path / MANIFEST).write_text(text)
        (tmp_path / "a.npz").write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="was not written by scoresde, or is damaged"):
                make(tmp_path, overwrite=overwrite)
        assert content(tmp_path) == {MANIFEST: text.encode(), "a.npz": b"mine"}

    def test_results_of_an_earlier_version_are_named(self, tmp_path):
        (tmp_path / "settings.json").write_text('{"command": "bench", "n": 4}')
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="earlier version .*, or remove this one yourself"):
                finished(tmp_path, ORIGIN, overwrite)

    def test_results_of_a_later_version_are_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr("scoresde.output.manifest.VERSION", 2)
        make(tmp_path / "out")
        monkeypatch.undo()
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="is of another version of scoresde"):
                finished(tmp_path / "out", ORIGIN, overwrite)

    def test_files_laid_into_a_folder_of_ours_stay(self, tmp_path):
        make(tmp_path)
        for name in ("notes.txt", "cells/mine.json", "parts/mine.npz"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("mine")
        make(tmp_path, OTHER, ["a.npz"], "new", overwrite=True)
        assert {k: v for k, v in content(tmp_path).items() if k != MANIFEST} == {
            "a.npz": b"new",
            **dict.fromkeys(("notes.txt", "cells/mine.json", "parts/mine.npz"), b"mine"),
        }

    @pytest.mark.parametrize("name", ["grid.png", "parts/grid.png"])
    def test_a_file_of_a_name_that_we_need_is_not_replaced(self, tmp_path, name):
        make(tmp_path)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
        with pytest.raises(ValueError, match=f"holds {name}, which scoresde did not write"):
            make(tmp_path, OTHER, ["grid.png"], overwrite=True)
        assert (tmp_path / name).read_text() == "mine"
        assert finished(tmp_path, ORIGIN)

    @pytest.mark.parametrize("name", ["../mine", "/mine", "cells/../../mine", ""])
    def test_a_manifest_cannot_name_files_elsewhere(self, tmp_path, name):
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "out").mkdir()
        name = str(tmp_path / "mine") if name == "/mine" else name
        Manifest(ORIGIN.plain, files={name: None}).save(tmp_path / "out")
        make(tmp_path / "out", overwrite=True)
        assert (tmp_path / "mine").read_text() == "mine"

    def test_links_are_not_followed(self, tmp_path):
        make(tmp_path / "out")
        (tmp_path / "mine").mkdir()
        os.rename(tmp_path / "out" / "cells" / "b.json", tmp_path / "mine" / "b.json")
        (tmp_path / "out" / "cells").rmdir()
        (tmp_path / "out" / "cells").symlink_to(tmp_path / "mine")
        make(tmp_path / "out", OTHER, ["a.npz"], overwrite=True)
        assert content(tmp_path / "mine") == {"b.json": b"old"}

    def test_a_file_in_the_way_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(ValueError, match="file is there already, and is a file"):
                finished(path, ORIGIN)


class TestStopped:
    def stop(self, folder, origin=ORIGIN, parts=("1.npz",), **settings):
        """A computation that is stopped after it has written its parts and a first result."""
        with (
            contextlib.suppress(KeyboardInterrupt),
            write(folder, origin, ["a.npz"], parts=["1.npz", "2.npz"], **settings) as out,
        ):
            (out.work / "a.npz").write_text("new")
            for name in parts:
                (out.work / name).write_text("part")
            raise KeyboardInterrupt

    def test_parts_stay_and_belong_to_their_origin(self, tmp_path):
        self.stop(tmp_path / "out")
        assert sorted(content(tmp_path / "out")) == ["parts/1.npz", MANIFEST]
        assert not finished(tmp_path / "out", ORIGIN)
        with pytest.raises(ValueError, match="seed = 0, not 1"):
            finished(tmp_path / "out", OTHER)

    def test_nothing_done_leaves_nothing(self, tmp_path):
        self.stop(tmp_path / "a" / "out", parts=())
        assert list(tmp_path.iterdir()) == []

    def test_nothing_done_leaves_what_is_not_ours(self, tmp_path):
        with (
            contextlib.suppress(KeyboardInterrupt),
            write(tmp_path / "out", ORIGIN, ["a.npz"]) as output,
        ):
            (output.work / "mine").write_text("mine")
            (tmp_path / "out" / "notes.txt").write_text("mine")
            raise KeyboardInterrupt
        assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
        make(tmp_path / "out", OTHER)  # it is ours all the same, and there is nothing to lose
        assert (tmp_path / "out" / "parts" / "mine").read_text() == "mine"

    @pytest.mark.parametrize("parts", [(), ("1.npz", "2.npz")])
    def test_earlier_results_stay_until_the_new_ones_are_complete(self, tmp_path, parts):
        make(tmp_path)
        self.stop(tmp_path, OTHER, parts, overwrite=True)
        assert finished(tmp_path, ORIGIN)
        with write(tmp_path, OTHER, ["a.npz"], ["1.npz"], overwrite=True) as output:
            assert (output.work / "1.npz").exists() == bool(parts)
            (output.work / "a.npz").write_text("new")
            output.publish()
        assert {k: v for k, v in content(tmp_path).items() if k != MANIFEST} == {"a.npz": b"new"}
        assert not (tmp_path / "parts").exists()

    @pytest.mark.parametrize("changes", range(9))
    def test_a_kill_while_results_take_their_places(self, tmp_path, monkeypatch, changes):
        """After each number of changes of the disk: results marked complete are complete."""
        make(tmp_path)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            left = [changes]
            for place, name in ((os, "replace"), (Path, "unlink")):
                patch.setattr(place, name, dying(getattr(place, name), left))
            make(tmp_path, OTHER, ["a.npz", "c"], "new", overwrite=True)
        manifest = Manifest.read(tmp_path)
        if manifest.finished:
            old = manifest.settings["seed"] == 0
            assert finished(tmp_path, ORIGIN if old else OTHER)
            assert (tmp_path / "a.npz").read_text() == ("old" if old else "new")
        make(tmp_path, OTHER, ["a.npz", "c"], "newer", overwrite=True)
        found = {k: v for k, v in content(tmp_path).items() if k != MANIFEST}
        assert found == {"a.npz": b"newer", "c": b"newer"}

    @pytest.mark.parametrize("name", ["settings.json", MANIFEST, "a.npz", "x" * 40, "parts/1.npz"])
    def test_temporary_files_of_killed_processes_are_ours(self, tmp_path, name):
        folder = tmp_path / "out"
        path = folder / name
        path.parent.mkdir(parents=True)
        if path.parent != folder:  # there is a manifest before anything is written below
            Manifest.of(OTHER).save(folder)
        path.with_name(f".{path.name}.4194999.0123abcd.tmp").touch()  # above the largest pid
        (folder / LOCK).touch()
        assert not finished(folder, ORIGIN)
        with write(folder, ORIGIN, ["a.npz"], ["1.npz"]) as output:
            (output.work / "a.npz").write_text("new")
            output.publish()
        assert sorted(content(folder)) == ["a.npz", MANIFEST]

    def test_a_second_command_is_refused_and_harms_nothing(self, tmp_path):
        with write(tmp_path / "out", ORIGIN, ["a.npz"]) as output:
            (output.work / "a.npz").write_text("first")
            with pytest.raises(RuntimeError, match="another scoresde process"):
                make(tmp_path / "out", ORIGIN, overwrite=True)
            output.publish()
        assert finished(tmp_path / "out", ORIGIN)


class Killed(BaseException):
    """Stands for a kill: no handler catches it, and nothing on the disk changes after it."""


def dying(real, left):
    def call(path, *arguments):
        if Path(path).name != LOCK:  # which the kernel gives up
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return real(path, *arguments)

    return call


class TestDamage:
    @pytest.mark.parametrize("name", ["a.npz", "cells/b.json"])
    @pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
    def test_complete_results_that_are_damaged_are_made_again(self, tmp_path, name, damage):
        make(tmp_path)
        path = tmp_path / name
        if damage == "missing":
            path.unlink()
        else:
            path.write_text("olf" if damage == "flipped" else "ol")
        with pytest.warns(UserWarning, match=f"{name} is missing or damaged; the results are made"):
            assert not finished(tmp_path, ORIGIN)
        make(tmp_path)
        assert finished(tmp_path, ORIGIN)

    def test_a_damaged_manifest_needs_overwrite(self, tmp_path):
        """One bit flipped at many places, and cut at many places."""
        make(tmp_path / "out")
        path = tmp_path / "out" / MANIFEST
        whole, before = path.read_bytes(), Manifest.read(tmp_path / "out")
        damages = [whole[:i] for i in range(0, len(whole) - 1, 67)]
        for i in range(0, len(whole), 11):
            damages.append(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :])
        refused = 0
        for damaged in damages:
            path.write_bytes(damaged)
            try:
                # a space may become another
                assert Manifest.read(tmp_path / "out") == before
            except ValueError:
                with pytest.raises(ValueError, match=r"damaged: .* --overwrite|damaged; give"):
                    finished(tmp_path / "out", ORIGIN)
                refused += 1
        assert refused > 0.9 * len(damages)
        path.write_bytes(whole[:-20])
        make(tmp_path / "out", OTHER, text="new", overwrite=True)
        assert finished(tmp_path / "out", OTHER)


def test_complete_results_are_found_without_writing(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.setattr(os, "open", None)
    before = tmp_path.stat().st_mtime_ns
    assert finished(tmp_path, ORIGIN)
    assert tmp_path.stat().st_mtime_ns == before
    with pytest.raises(PermissionError, match="is not writable"):
        finished(tmp_path / "new", ORIGIN)
    with pytest.raises(PermissionError, match="is not writable"):
        check_writable(tmp_path)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"value": 1.5})
    assert read_json(path) == {"value": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert read_json(path) == {"value": 1.5}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
    path.write_text("{")
    with pytest.raises(ValueError, match="summary.json is not JSON"):
        read_json(path)


def test_arrays_come_back_and_equal_arrays_give_equal_bytes(tmp_path):
    x = np.arange(6.0).reshape(2, 3)
    save_arrays(tmp_path / "a.npz", x=x)
    save_arrays(tmp_path / "b.npz", x=x.copy())
    with np.load(tmp_path / "a.npz") as loaded:
        assert np.array_equal(loaded["x"], x)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


class TestRemoving:
    def test_what_the_command_made_goes_and_all_else_stays(self, tmp_path):
        make(tmp_path / "a")
        remove_results(tmp_path / "a", "sample")
        assert not (tmp_path / "a").exists()
        make(tmp_path / "a")
        (tmp_path / "a" / "cells" / "notes.txt").write_text("mine")
        remove_results(tmp_path / "a", "sample")
        assert content(tmp_path / "a") == {"cells/notes.txt": b"mine"}

    def test_nothing_of_another_command_or_a_stranger_goes(self, tmp_path):
        make(tmp_path / "a")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "a.npz").write_text("mine")
        before = content(tmp_path)
        remove_results(tmp_path / "a", "likelihood")
        remove_results(tmp_path / "b", "sample")
        remove_results(tmp_path / "c", "sample")
        assert content(tmp_path) == before
