"""The choice of held-out data, and the numbers of their classes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.data import Dataset, DataSource, DataSpec, load_dataset
from scoresde.names.config import Config
from scoresde.names.config_source import ConfigSource
from scoresde.tasks.held_out import choose_rows, load_held_out
from scoresde.tasks.request import HeldOutRequest, StoredModel
from scoresde.tasks.train.prepare import prepare_run
from scoresde.tasks.train.run import Run

NAMES = ("cat", "dog", "fox")


@pytest.fixture
def folder(tmp_path):
    """Train and test split of three classes; each class has its own grey level."""
    for split in ("train", "test"):
        for value, name in enumerate(NAMES):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            Image.new("L", (8, 8), value).save(tmp_path / "d" / split / name / "0.png")
    return tmp_path / "d"


def held_out(folder, names=NAMES, classes=3, size=8, **options):
    """Held-out data of a checkpoint of these classes, trained on this folder: grey -> label."""
    net = {"kind": "unet"} | ({} if classes is None else {"classes": classes})
    tables = {"sde": {"kind": "vp"}, "net": net, "train": {"steps": 1, "batch": 1}}
    config = Config.from_dict({"data": {"name": str(folder), "size": size}, **tables})
    spec = DataSpec((1, size, size), -1, 1, 256, classes, class_names=names)
    stored = StoredModel("mine", None, config, spec)
    data = load_held_out(stored, HeldOutRequest("mine", n=1, **options))
    if data.labels is None:
        return None
    return dict(zip(data.x[:, 0, 0, 0].tolist(), data.labels.tolist(), strict=True))


def test_own_test_split_has_the_numbers_of_the_checkpoint(folder):
    (folder / "test" / "cat" / "0.png").unlink()
    (folder / "test" / "cat").rmdir()
    assert held_out(folder) == {1: 1, 2: 2}
    assert held_out(folder, names=("fox", "dog", "cat")) == {1: 1, 2: 0}
    # A checkpoint from before names were stored: the train split tells.
    assert held_out(folder, names=None) == {1: 1, 2: 2}


def test_all_images_are_resized_as_those_of_the_training(folder):
    assert held_out(folder, size=16) == held_out(folder, size=16, data=str(folder))
    assert held_out(folder, size=16) == {0: 0, 1: 1, 2: 2}


def test_a_relative_folder_has_the_classes_of_its_train_split(folder):
    """It is looked for in the root first; its test split alone lacks the first class."""
    (folder / "test" / "cat" / "0.png").unlink()
    (folder / "test" / "cat").rmdir()
    place = {"data": folder.name, "data_root": str(folder.parent)}
    assert held_out(folder, **place) == {1: 1, 2: 2}
    found = load_dataset(DataSource(folder.name, folder.parent), "test")
    assert found.spec.class_names == NAMES
    assert found.labels.tolist() == [1, 2]


def test_a_class_that_was_added_after_training_changes_no_number(folder):
    (folder / "train" / "ant").mkdir()
    Image.new("L", (8, 8), 9).save(folder / "train" / "ant" / "0.png")
    assert held_out(folder) == {0: 0, 1: 1, 2: 2}
    with pytest.raises(ValueError, match="--data: .* the network takes 3 classes, the data have 4"):
        held_out(folder, names=None)


def test_another_folder_is_numbered_by_the_names_of_the_checkpoint(folder, tmp_path):
    for value, name in enumerate(("fox", "dog")):
        (tmp_path / "other" / name).mkdir(parents=True)
        Image.new("L", (8, 8), value).save(tmp_path / "other" / name / "0.png")
    other = {"data": str(tmp_path / "other"), "split": "train"}
    assert held_out(folder, **other) == {0: 2, 1: 1}
    with pytest.raises(ValueError, match=r"class dog, fox is none of the classes; .* 0 … 2"):
        held_out(folder, names=None, **other)
    with pytest.raises(ValueError, match=r"class dog is none of the classes; they are cat, fox"):
        held_out(folder, names=("cat", "fox"), classes=2, **other)
    assert held_out(folder, names=None, classes=None, **other) is None


def test_a_file_is_numbered_by_names_or_numbers(folder, tmp_path):
    x = np.arange(2, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    path = tmp_path / "a.npz"
    np.savez(path, x=x, y=np.array(["fox", "cat"]))
    assert held_out(folder, data=str(path)) == {0: 2, 1: 0}
    np.savez(path, x=x, y=np.array([2, 2]))  # a part of the classes
    assert held_out(folder, data=str(path)) == {0: 2, 1: 2}
    assert held_out(folder, names=None, data=str(path)) == {0: 2, 1: 2}
    np.savez(path, x=x, y=np.array([2, 3]))
    with pytest.raises(ValueError, match=r"a.npz: labels must lie in 0 … 2, got 3"):
        held_out(folder, data=str(path))
    # An unconditional checkpoint does not look at them.
    assert held_out(folder, names=None, classes=None, data=str(path)) is None


def data(n):
    return Dataset("mine", torch.zeros(n, 2), None, DataSpec((2,), -1.0, 1.0))


def test_rows_are_a_random_subset_whose_first_do_not_depend_on_its_size():
    few, many = choose_rows(data(500), 20, 0), choose_rows(data(500), 500, 0)
    assert np.array_equal(few, many[:20])
    assert sorted(many) == list(range(500))
    assert not np.array_equal(choose_rows(data(500), 20, 1), few)


@pytest.mark.parametrize("n", [50, 100])
def test_rows_are_of_the_whole_file(n):
    """A file is often sorted by class, so that its first rows have one class."""
    means = [choose_rows(data(1000), n, seed).mean() for seed in range(100)]
    # places have mean 499.5 and deviation 288.5; of 100 n of them, 4 standard errors
    assert np.mean(means) == pytest.approx(499.5, abs=4 * 288.5 / (100 * n) ** 0.5)
    assert np.std(means) == pytest.approx(288.5 / n**0.5, rel=0.3)


def trained(tmp_path, data, classes=None) -> Run:
    """A run at its beginning, with its checkpoint, that holds out a quarter of some 8×8 images."""
    net = {"kind": "unet", "channels": 4, "multipliers": [1], "blocks": 1, "attention": []}
    net |= {} if classes is None else {"classes": classes}
    train = {"steps": 9, "batch": 2, "warmup": 1, "validation": 0.25, "seed": 3}
    tables = {"data": {"name": str(data)}, "sde": {"kind": "vp"}, "net": net, "train": train}
    config = "\n".join(
        f"[{table}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
        for table, keys in tables.items()
    )
    (tmp_path / "config.toml").write_text(config)
    run = prepare_run(ConfigSource(str(tmp_path / "config.toml")), tmp_path / "run")
    run.folder.mkdir()
    run.save()
    return run


@pytest.mark.parametrize("classes", [None, 3])
def test_the_rows_that_were_held_out_are_those_of_the_training(tmp_path, classes):
    path, x = tmp_path / "a.npz", np.arange(40, dtype=np.uint8)
    images = x[:, None, None] * np.ones((1, 8, 8), np.uint8)
    labels = np.array(["cat", "dog", "fox"])[x % 3]
    np.savez(path, x=images, y=labels)
    run = trained(tmp_path, path, classes)
    stored = StoredModel.read(run.checkpoint)
    wanted = set(run.training.examples.held_out.x[:, 0, 0, 0].tolist())
    request = HeldOutRequest("mine", n=10, split="held-out")
    found = load_held_out(stored, request)
    grey = found.x[:, 0, 0, 0].tolist()
    assert (set(grey), grey, found.split) == (wanted, sorted(grey), "held-out")
    assert len(wanted) == 10
    assert (
        found.labels is None if classes is None else found.labels.tolist() == [g % 3 for g in grey]
    )
    with pytest.raises(ValueError, match=r"--n: 11 is more than the 10 of .* \(held-out\)"):
        load_held_out(stored, replace(request, n=11))
    with pytest.raises(ValueError, match="--split: must be held-out, or --data be given"):
        load_held_out(stored, replace(request, split=None))
    # The same data at another place have these rows; other data have none.
    path.rename(tmp_path / "b.npz")
    assert torch.equal(load_held_out(stored, replace(request, data=tmp_path / "b.npz")).x, found.x)
    np.savez(path, x=images[::-1], y=labels[::-1])
    with pytest.raises(ValueError, match="held-out rows are known only in the data that"):
        load_held_out(stored, request)
