"""The two READMEs: all their commands and Python blocks run as they are printed.

They run in the order in which they stand, first those of README.md, then those of
benchmarks/README.md, in one folder and one process. Each finds what the ones before it have left.
They are made short by one rule: the size of the work, such as the number of samples, is replaced by
a small one. Nothing else is changed.
"""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import torch
from scoresde_cli.main import COMMANDS, cli, run

from scoresde import data as scoresde_data
from scoresde.comparison import demo, quality, report
from scoresde.comparison import request as bench_request
from scoresde.comparison.plots import Drawn
from scoresde.data import DataSpec
from scoresde.names.config import Config, load_config
from scoresde.names.samplers import SAMPLERS
from scoresde.tasks.likelihood import method as score_method
from scoresde.tasks.train import prepare as training

ROOT = Path(__file__).parent.parent
README, BENCHMARKS = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "benchmarks/README.md")
)
TUTORIALS = sorted((ROOT / "benchmarks" / "tutorials").glob("*.py"))
LESSONS = ("denoising_autoencoder.py",)  # tutorials that train and draw
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
LINES = ("pip install . && scoresde demo", "pip install '.[test]' && pytest")

# Sizes by option: of what a command takes a number of, and how many.
SIZES = {
    **{"--n": 4, "--steps": 3, "--nfe": 6, "--draws": 4, "--measured": 2, "--likelihood": 2},
    **{"--nodes": 4, "--samples": 2, "--pilot": 2, "--repeats": 2, "--batch": 8, "--batches": 2},
    **{"--probes": 1, "--cases": 2},
}
EIGHT = ("doctor", "benchmarks/intervals.py")  # take no smaller --n
ONCE = ("benchmarks/scaling.py", "benchmarks/noise.py")  # take --repeats 1
# Of an option that is a list of sizes, this many; of one that may be repeated, one.
LISTED = "3,6"
# Scripts that try hundreds of settings, so that they take minutes at any size. They have own tests.
LONG = (
    *("benchmarks/likelihood.py", "benchmarks/samplers.py", "benchmarks/overhead.py"),
    *("benchmarks/failures.py", "benchmarks/gpu.py"),
)
FEW = 16  # data of the test split, in Python blocks


def files(folder):
    """The files of a folder that git may track."""
    return [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def written():
    """Each file of the code, of the configs and of the tests with the time of its last change."""
    folders = ("scoresde", "cli", "configs", "benchmarks", "tests")
    found = [path for name in folders for path in files(ROOT / name)]
    return {(path, path.stat().st_mtime_ns) for path in found}


WRITTEN = written()


class Step(NamedTuple):
    """Something to run: a "scoresde" command, a "script", or a "block" of Python."""

    kind: str
    text: str

    @property
    def words(self):
        return shlex.split(self.text)

    @property
    def name(self):
        return self.text if self.kind != "block" else self.text.splitlines()[-1]


def commands(text):
    """The commands of a block or of a line of code, without those of pip and pytest."""
    joined = text.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if not line.startswith("#")]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith(("scoresde ", "python "))]


def steps():
    """All commands and blocks of the two READMEs, each command once.

    Words in capitals are placeholders, and code that begins with an option is not a command.
    """
    found = []
    pattern = r"^```(\w*)\n(.*?)^```|(?<!`)`([^`\n]+)`(?!`)"
    for match in re.finditer(pattern, README + BENCHMARKS, re.M | re.S):
        language, block, code = match.groups()
        if language == "python":
            found.append(Step("block", block))
        elif language == "sh" or code:
            for text in commands(block or code):
                kind = "scoresde" if text.startswith("scoresde") else "script"
                found.append(Step(kind, text))
    return [step for step in dict.fromkeys(found) if not re.search(r"\bNAME\b", step.text)]


STEPS = steps()
COMMAND_STEPS = [step for step in STEPS if step.kind != "block"]


def interface(step):
    """The click command that reads a step's words, and those words; None for another parser."""
    words = step.words
    if step.kind == "scoresde":
        if words[1].startswith("-"):
            return None, words[1:]
        return cli.get_command(None, words[1]), words[2:]
    return None, words[2:]


def shortened(words, command):
    """The words with small sizes, those not given among them where the command's are large."""
    known = {option for p in command.params for option in p.opts} if command else set()
    name = None if command is None else command.name
    sizes = SIZES | ({"--n": 8} if name in EIGHT else {"--repeats": 1} if name in ONCE else {})
    kept, given, words = [], set(), list(words)
    while words:
        word = words.pop(0)
        if word not in sizes:
            kept.append(word)
            continue
        value = words.pop(0)
        if word not in given:
            size = str(min(int(value), sizes[word])) if "," not in value else LISTED
            kept += [word, size]
        given.add(word)
    never = {"--likelihood", "--batch", *(["--steps", "--nfe"] if "--nfe" in known else [])}
    never |= {"--steps"} if "vlb-continuous" in kept else set()
    missing = [option for option in sizes if option in known - given - never]
    return kept + [text for option in missing for text in (option, str(sizes[option]))]


@pytest.mark.parametrize("line", LINES)
def test_the_readmes_two_lines_are_those_of_ci(line):
    assert line in README.splitlines()
    assert line in CI


def test_ci_runs_nothing_else_but_the_slow_tests():
    assert [x for x in CI if re.match(r"(pip|pytest|scoresde)\b", x)] == [*LINES, "pytest -m slow"]


@pytest.mark.parametrize("name", [*SAMPLERS, *COMMANDS])
def test_every_sampler_and_command_is_named(name):
    assert f"`{name}`" in README or f"scoresde {name}" in README


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 300


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.name)
def test_a_tutorial_is_short_and_named(path):
    most = 150 if path.name in LESSONS else 60
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most
    assert any(step.words[1] == f"benchmarks/tutorials/{path.name}" for step in COMMAND_STEPS)


def test_the_config_in_the_readme_makes_a_model():
    (block,) = re.findall(r"^```toml\n(.*?)^```", README, re.M | re.S)
    config = Config.from_dict(tomllib.loads(block))
    shape = (3, 32, 32)
    model = config.build_model(DataSpec(shape, -1, 1, levels=256))
    x = torch.zeros(1, *shape)
    assert model.eps(x, 0.5).shape == x.shape


def test_every_file_and_folder_of_the_layout_is_there():
    rows = README.split("## Reading further")[1].splitlines()
    paths = [p for row in rows for p in re.findall(r"`([\w/.]+)`", row.split(" | ")[0])]
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readmes_are_read():
    """So that a change of their form does not leave nothing to run."""
    assert {step.words[1] for step in COMMAND_STEPS if step.kind == "scoresde"} >= set(COMMANDS)
    assert len([step for step in STEPS if step.kind == "block"]) == (README + BENCHMARKS).count(
        "```python"
    )
    blocks = re.findall(r"^```sh\n(.*?)^```", README + BENCHMARKS, re.M | re.S)
    assert {text for block in blocks for text in commands(block)} <= {s.text for s in STEPS}


@pytest.mark.parametrize("step", COMMAND_STEPS, ids=lambda step: step.text)
def test_every_option_is_one_of_its_command(step, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")  # which holds a config
    command, words = interface(step)
    if "--run" in words:  # a folder that an earlier one makes
        (tmp_path / words[words.index("--run") + 1]).mkdir(parents=True)
    if step.words[1] in ("plot", "ema"):
        (tmp_path / words[0]).mkdir(parents=True)
    for option in {"--checkpoint", "--against"} & set(words):
        if (path := Path(words[words.index(option) + 1])).suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    if command is not None:
        with command.make_context(command.name, words):
            pass
    assert step.kind == "scoresde" or (ROOT / step.words[1]).is_file()


def test_two_commands_do_not_write_to_one_place():
    """A folder holds the results of one command, and no tracked file is written."""
    places = {}
    for step in COMMAND_STEPS:
        words = step.words
        for option in ("--out", "--figure", "--truth", "--json"):
            if option in words[:-1] and not words[words.index(option) + 1].startswith("-"):
                places.setdefault(words[words.index(option) + 1], set()).add(step.text)
    assert {place: texts for place, texts in places.items() if len(texts) > 1} == {}
    assert places
    tracked = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/**/*") if path.is_file()}
    assert not tracked & set(places)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder, with a copy of the benchmarks, and one process with small sizes."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "benchmarks", place / "benchmarks")
    whole = scoresde_data.load_dataset

    def few(name, split="train", **options):
        data = whole(name, split, **options)
        return data if split == "train" else data.taken(torch.arange(min(FEW, len(data))))

    def short(name):
        config = load_config(name)
        return replace(
            config, train=replace(config.train, steps=2, batch=8, warmup=1, ema_snapshot_every=1)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(place / "benchmarks")
        patch.setattr(scoresde_data, "load_dataset", few)  # of Python blocks
        patch.setattr(training, "load_config", short)
        drawn = Drawn(b"<svg ></svg>", b"")
        patch.setattr(report, "curves", lambda *_: drawn)
        for measured in (report.Trajectories, report.NoiseLevels):
            patch.setattr(measured, "figure", drawn)
        patch.setitem(
            bench_request.BenchRequest.__init__.__kwdefaults__, "reference_tolerance", 1e-2
        )
        patch.setattr(score_method, "PILOT", SIZES["--n"])
        patch.setattr(quality, "REFERENCE_CAP", 500)
        few_cells = {"samplers": ("dpmpp-2m", "heun"), "n": SIZES["--n"]}
        patch.setattr(demo, "DIGITS", replace(demo.DIGITS, likelihood=SIZES["--n"], **few_cells))
        yield place


@pytest.fixture(scope="module")
def namespace():
    """What the Python blocks have defined so far."""
    return {}


def skip_unless_possible(step):
    """Skip a step if its data or peers are not on this machine."""
    scored = any(word in step.text for word in ("likelihood", "bench ", "trace_rules"))
    for row in scoresde_data.dataset_status() if scored else []:
        if f"{row.name}-vp" in step.text and row.where is None:
            pytest.skip(f"{row.name} is not on this machine")
    if any(script in step.text for script in LONG):
        pytest.skip("takes minutes at any size; its options are checked, and it has own tests")
    if "densities.py" in step.text and not (find_spec("sklearn") and find_spec("skimage")):
        pytest.skip("scikit-learn and scikit-image, the extra densities, are not installed")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_all_runs_in_order(step, folder, namespace, monkeypatch, capsys):
    if step.kind == "block":
        exec(compile(step.text, "README.md", "exec"), namespace)
        return
    skip_unless_possible(step)
    command, words = interface(step)
    if step.kind == "scoresde":
        first = step.words[1:2] if command is not None else []
        if step.words[1] == "verify":
            words = [*words, "--quick", "--samplers", "ddim"]
        assert run([*first, *shortened(words, command)]) == 0
        return
    script = step.words[1]
    monkeypatch.setattr(sys, "argv", [script, *script_words(script, words)])
    status = None
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        status = stop.code
    assert status in (None, 0)
    if "/tutorials/" not in script:
        first, versions, machine, *_ = capsys.readouterr().out.splitlines()
        assert first.startswith(f"command: python {script}")
        assert re.match(r"scoresde \S+, torch \S+.*, Python \S+$", versions)
        assert re.search(r", \d+ CPUs, threads: \d+, seed \d+$", machine)


def script_words(script, words):
    """The words with small sizes, of which the script's own help tells the names."""
    source = Path(script).read_text(encoding="utf-8")
    options = [name for name in SIZES if f'"{name}"' in source]
    command = click.Command(script, params=[click.Option([name]) for name in options])
    return shortened(words, command)


@pytest.mark.slow
def test_nothing_tracked_was_written(folder):
    """Neither in the copy of the benchmarks, where the commands ran, nor in the checkout."""
    known = {path.relative_to(ROOT) for path in files(ROOT / "benchmarks")}
    assert {path.relative_to(folder) for path in files(folder / "benchmarks")} == known
    for path in known:
        assert (folder / path).read_bytes() == (ROOT / path).read_bytes()
    assert written() <= WRITTEN


@pytest.mark.slow
def test_the_first_example_runs():
    """In a process of its own, as a reader has it."""
    example = next(step.text for step in STEPS if step.kind == "block")
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bits/dim" in done.stdout


@pytest.mark.slow
def test_the_likelihood_of_the_denoiser_is_the_exact_one(capsys, monkeypatch):
    script = ROOT / "benchmarks" / "tutorials" / "own_denoiser.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--n", "4"])
    runpy.run_path(str(script), run_name="__main__")
    (error,) = re.findall(r"largest error: (\S+) nats", capsys.readouterr().out)
    assert 0 < float(error) < 5e-3  # of the prior at σ = 80: 2.5e-3 for 8 points


@pytest.mark.slow
def test_the_autoencoder_s_score_is_near_the_exact_one(capsys, monkeypatch, tmp_path):
    script = ROOT / "benchmarks" / "tutorials" / "denoising_autoencoder.py"
    words = ["--steps", "200", "--n", "8", "--figure", str(tmp_path / "a" / "b.png")]
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")
    out = capsys.readouterr().out
    repeated = out.split("4. the exact score")[1].split()
    assert float(repeated[2]) < 0.01  # samples with the exact score are training images
    errors = [float(e) for e in out.split("test images  ")[1].split()[:13]]
    assert errors[12] < 0.05  # at σ = 10
    assert errors[8] < 0.3  # at σ = 1.26, where it is 0.4 before training and 0.15 after it
    assert (tmp_path / "a" / "b.png").stat().st_size > 10_000
