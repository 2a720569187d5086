"""Bad configs and training data: status 2, one line with file, key path and reason.

No traceback, nothing written, and no network built unless it is the network that refuses.
"""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from scoresde.nets import UNet

CONFIG = {
    "data": 'name = "digits"',
    "sde": 'kind = "vp"',
    "net": 'kind = "unet"\nchannels = 8\nmultipliers = [1]\nblocks = 1\nattention = []',
    "train": "steps = 2\nbatch = 4\nwarmup = 1",
}


@pytest.fixture
def train_on(refused, tmp_path):
    """train_on(parts, sde="..."): train with a config that is wrong in some tables."""

    def check(parts, text=None, **tables):
        if text is None:
            text = "\n".join(f"[{k}]\n{v}" for k, v in (CONFIG | tables).items())
        path = tmp_path / "config.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(["train", "--config", path], *parts)

    return check


CONFIGS = {
    "unknown sde": ({"sde": 'kind = "vpp"'}, ["sde", "'vpp'", "did you mean vp?"]),
    "beta_min above beta_max": (
        {"sde": 'kind = "vp"\nbeta_min = 20.0\nbeta_max = 0.1'},
        ["sde", "beta_max must be greater than beta_min", "0.1"],
    ),
    "negative beta": ({"sde": 'kind = "vp"\nbeta_min = -1.0'}, ["beta_min", "at least 0", "-1"]),
    "sigma_min of zero": ({"sde": 'kind = "ve"\nsigma_min = 0.0'}, ["sigma_min", "0"]),
    "sigma_min above sigma_max": (
        {"sde": 'kind = "ve"\nsigma_min = 2.0\nsigma_max = 1.0'},
        ["sigma_max must be greater than sigma_min"],
    ),
    "betas beyond 1": ({"sde": 'kind = "tabulated"\nbetas = [0.1, 1.5]'}, ["betas", "1.5"]),
    "unknown key": ({"train": "stepz = 2\nbatch = 4"}, ["train", "'stepz'", "did you mean steps?"]),
    "missing key": ({"train": "steps = 2"}, ["train", "missing batch"]),
    "wrong type": (
        {"train": 'steps = 2\nbatch = 4\nlearning_rate = "fast"'},
        ["train.learning_rate must be a number", "'fast'"],
    ),
    "learning rate of zero": ({"train": "steps = 2\nbatch = 4\nlearning_rate = 0"}, ["greater"]),
    "learning rate nan": ({"train": "steps = 2\nbatch = 4\nlearning_rate = nan"}, ["finite"]),
    "learning rate inf": ({"train": "steps = 2\nbatch = 4\nlearning_rate = inf"}, ["finite"]),
    "ema_decay of 1": ({"train": "steps = 2\nbatch = 4\nema_decay = 1.0"}, ["less than 1", "1.0"]),
    "negative ema_decay": ({"train": "steps = 2\nbatch = 4\nema_decay = -0.1"}, ["at least 0"]),
    "unknown net": ({"net": 'kind = "unett"'}, ["net", "'unett'", "did you mean unet?"]),
    "image size in the net": ({"net": 'kind = "unet"\nshape = [1, 0, 8]'}, ["net", "shape"]),
    "unknown data": ({"data": 'name = "digitz"'}, ["'digitz'", "did you mean digits?"]),
    "missing data": ({"data": 'name = "missing/images"'}, ["missing/images", "does not exist"]),
    **{
        f"validation of {value}": (
            {"train": f"steps = 2\nbatch = 4\nvalidation = {value}"},
            ["train", "validation must", said],
        )
        for value, said in (
            ("1.5", "in [0, 1), got 1.5"),
            ('"tset"', "in [0, 1), got 'tset'"),
            ("1e-4", "hold out at least 2 of the 1500 data, got 0.0001, which is 0"),
        )
    },
    "flip of vectors": (
        {
            "data": 'name = "moons"',
            "net": 'kind = "mlp"',
            "train": "steps = 2\nbatch = 4\nflip = true",
        },
        ["train.flip must be false for moons, whose data are no images"],
    ),
    "wrong levels": ({"data": 'name = "digits"\nlevels = 256'}, ["levels", "17", "256"]),
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("what", CONFIGS)
def test_config(train_on, what):
    tables, parts = CONFIGS[what]
    train_on(parts, **tables)


NETS = {
    "dropout of 1": ("dropout = 1.0", ["dropout", "1.0"]),
    "no multiplier": ("multipliers = []", ["multipliers", "at least one"]),
    "attention never reached": ("attention = [5]", ["attention", "[8, 4, 2]", "5"]),
    "wrong classes": ("classes = 3", ["classes", "10", "3"]),
}


@pytest.mark.parametrize("what", NETS)
def test_config_that_the_network_refuses(train_on, monkeypatch, what):
    monkeypatch.setattr(UNet, "forward", None)
    line, parts = NETS[what]
    attention = "" if "attention" in line else "\nattention = []"
    train_on(parts, net=f'kind = "unet"\n{line}{attention}')


TEXTS = {
    "empty": ("", ["config.toml", "empty"]),
    "binary": (b"\xff\xfe\x00[data]", ["config.toml", "not UTF-8"]),
    "syntax": ('[data]\nname = "digits\n', ["config.toml", "line 2", "column"]),
    "duplicate key": ('[data]\nname = "a"\nname = "b"\n', ["config.toml", "line 3", "column"]),
    "no table": ("data = 3\nsde = 1\nnet = 1\ntrain = 1\n", ["data must be a table", "3"]),
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("what", TEXTS)
def test_config_file(train_on, what):
    text, parts = TEXTS[what]
    train_on(parts, text=text)


@pytest.mark.usefixtures("no_network")
def test_config_that_is_not_there(refused, tmp_path):
    refused(["train", "--config", "digit_vp"], "did you mean digits_vp?", "fashion_mnist_vp")
    refused(["train", "--config", tmp_path / "none.toml"], tmp_path / "none.toml", "no such file")
    refused(["train", "--config", tmp_path], tmp_path)


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def picture(path, size=(8, 8)):
    Image.new("L", size).save(path)


def no_image(folder):
    (folder / "readme.txt").write_text("no image")


def a_corrupt_image(folder):
    picture(folder / "good.png")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))


def two_sizes(folder):
    picture(folder / "a.png")
    picture(folder / "b.png", (9, 8))


def a_bomb(folder):
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)


FOLDERS = {
    no_image: ["holds no image"],
    a_corrupt_image: ["bad.png", "cannot be decoded", "--skip-bad"],
    two_sizes: ["one size", "8×8", "9×8"],
    a_bomb: ["bomb.png", "50000"],
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("fill", FOLDERS, ids=lambda fill: fill.__name__)
def test_training_folder(train_on, tmp_path, fill):
    folder = tmp_path / "images"
    folder.mkdir()
    fill(folder)
    train_on(FOLDERS[fill], data=f'name = "{folder}"')


@pytest.fixture
def no_pictures(monkeypatch):
    """A run draws no samples and no loss: other tests check these."""
    for name in ("draw_losses", "draw_samples"):
        monkeypatch.setattr(f"scoresde.tasks.train.run.{name}", lambda *_: None)


@pytest.mark.usefixtures("no_pictures")
def test_skip_bad_leaves_corrupt_images_out(scoresde, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    a_corrupt_image(folder)
    config = CONFIG | {"data": f'name = "{folder}"', "train": "steps = 1\nbatch = 1\nwarmup = 1"}
    path = tmp_path / "config.toml"
    path.write_text("\n".join(f"[{k}]\n{v}" for k, v in config.items()))
    arguments = ["train", "--config", path, "--out", tmp_path / "out", "--skip-bad"]
    with pytest.warns(UserWarning, match="left out 1 of 2 images"):
        assert scoresde(*arguments).status == 0


@pytest.mark.usefixtures("no_network")
def test_training_file(train_on, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([{}, None], dtype=object))
    train_on(["data.npz", "plain numbers"], data=f'name = "{path}"')
    np.savez(path, x=np.full((4, 2), np.nan))
    train_on(["data.npz", "must be finite", "8"], data=f'name = "{path}"')
    np.savez(path, x=np.full((4, 2), 3.0))
    train_on(["must lie in", "3.0"], data=f'name = "{path}"\nlow = 0.0\nhigh = 1.0')


@pytest.mark.usefixtures("no_network")
def test_fewer_images_than_a_batch(train_on):
    train_on(["batch must be at most", "1500", "1501"], train="steps = 2\nbatch = 1501")


OTHER_CONFIGS = [
    ("sde", 'kind = "subvp"', ["sde.kind", "'vp'", "'subvp'"]),
    ("net", CONFIG["net"].replace("channels = 8", "channels = 16"), ["net.channels", "16"]),
    ("train", CONFIG["train"] + "\nlearning_rate = 0.1", ["train.learning_rate", "0.1"]),
]


@pytest.mark.usefixtures("no_pictures")
def test_resuming_with_another_config(scoresde, request, tmp_path):
    path, out = tmp_path / "config.toml", tmp_path / "out"
    path.write_text("\n".join(f"[{k}]\n{v}" for k, v in CONFIG.items()))
    assert scoresde("train", "--config", path, "--out", out).status == 0
    request.getfixturevalue("no_network")
    before = {p: p.read_bytes() for p in out.iterdir()}
    for part, line, words in OTHER_CONFIGS:
        path.write_text("\n".join(f"[{k}]\n{v}" for k, v in (CONFIG | {part: line}).items()))
        done = scoresde("train", "--config", path, "--out", out)
        assert done.status == 2, part
        assert done.err.count("\n") == 1, part
        assert all(word in done.err for word in [*words, "--overwrite"]), part
        assert {p: p.read_bytes() for p in out.iterdir()} == before, part
