"""report.html is complete and valid, needs no other file, and is made from the stored files."""

import base64
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

from scoresde.comparison import report
from scoresde.comparison.answers import answer_rows
from scoresde.comparison.checked import estimates_to_json
from scoresde.comparison.curves import curves, pareto, scatter
from scoresde.comparison.findings import Findings
from scoresde.comparison.influences import influence_arrays
from scoresde.comparison.metric_table import METRICS
from scoresde.comparison.plots import Drawn
from scoresde.comparison.records import load_array, save_cell, write_tables
from scoresde.comparison.report import build_report, report_files
from scoresde.comparison.tables import latex, markdown
from scoresde.data import DataSpec
from scoresde.output.files import save_arrays, write_json
from scoresde.output.manifest import Manifest

SHOWN = {"mmd2", "copying", "paired_rmse"}  # metrics of the page: with and without a direction
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


class Page(HTMLParser):
    """The tags and the text of a page; unbalanced tags are an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & {*self.open}:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def settings(spec, samplers, budgets=(4, 8)):
    return {
        "command": "bench",
        "checkpoint": "runs/<mixture>.safetensors",
        "sha256": "0123456789abcdef" * 4,
        "data": spec.to_dict(),
        "sde": "VP(beta_min=0.1, beta_max=20.0)",
        "samplers": list(samplers),
        "grids": ["log_snr"],
        "nfe": list(budgets),
        "tolerances": {"dopri5": [1e-2, 1e-4]},
        "n": 24,
        "seed": 5,
        "t_min": 1e-3,
        "denoise": True,
        "batch": 16,
        "device": "cpu",
        "likelihood": 0,
        "versions": {"scoresde": "0.1.0", "torch": "2.10.0"},
    }


def shown(metrics):
    """Some of the metrics; a page with all of them takes three times as long."""
    return {name: estimate for name, estimate in metrics.items() if name in SHOWN}


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """A folder with a finished sweep and all files that `scoresde bench` writes."""
    swept, source, results = finished
    target = tmp_path_factory.mktemp("report") / "bench"
    shutil.copytree(source, target)
    results = [replace(result, metrics=shown(result.metrics)) for result in results]
    for result in (result for result in results if result.status == "done"):
        path = target / "cells" / f"{result.key}.npz"
        save_cell(path, "", result, load_array(path, "x"))
    names = dict.fromkeys(cell.label for cell in swept.cells)
    Manifest(settings(swept.spec, names), files=dict.fromkeys(report_files())).save(target)
    write_json(target / "machine.json", {"device": "cpu", "threads": 2})
    floor = shown(swept.quality.floor)
    save_arrays(target / "floor.npz", **influence_arrays(floor))
    likelihood = {
        **{"mean": 1.234, "std_error": 0.056, "n": 100, "of": 200, "unit": "nats/dim"},
        **{"data": "mixture", "split": "test", "levels": None, "draws": 1, "t_min": 1e-5},
        **{"protocol": "pf-ode/continuous", "method": "dopri5, rtol 1e-05", "trace": "exact"},
        **{"nfe": 99.0, "nfe_derivative": 198.0, "seconds": 3.0, "seed": 0},
    }
    reference = {
        **{"method": "dopri8", "tolerance": 1e-6, "nfe": 300, "error_tolerance": 1e-5},
        **estimates_to_json({"error": swept.quality.floor["mmd2"]}),
    }
    write_tables(
        target,
        results,
        {
            "reference": reference,
            "quality": {**swept.quality.about, "floor_values": estimates_to_json(floor)},
            "likelihood": likelihood,
            "strips": [],
        },
    )
    return target


@pytest.fixture(scope="module")
def page(folder):
    return Page(build_report(folder).read_text(encoding="utf-8"))


def test_it_needs_no_other_file_and_no_network(page, folder):
    """The only script is ours, and the page itself forbids every other and every connection."""
    assert page.all("link") == page.all("iframe") == []
    assert page.all("script") == [{}]
    sources = [value for _, a in page.tags for key, value in a.items() if key in ("src", "href")]
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    text = (folder / "report.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_is_sound_and_described(page):
    pictures = page.all("img")
    assert pictures  # scatter plots
    for picture in pictures:
        assert len(picture["alt"]) > 10
        data = base64.b64decode(urlparse(picture["src"]).path.split(",")[1])
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
    drawings = [a for a in page.all("div") if a.get("role") == "img"]
    assert len(drawings) == 2 * sum(METRICS[name].better != "" for name in SHOWN)
    assert all("95 % intervals" in drawing["aria-label"] for drawing in drawings)


def test_the_answer_comes_first_and_its_settings_can_be_copied(page, folder):
    rows = answer_rows(Findings.read(folder))
    assert [row.budget for row in rows] == [4, 8]
    for row in rows:
        assert {"class": "copy"} in page.all("code")
        assert row.settings in page.text
        assert row.value in page.text
        assert row.gain in page.text
        assert page.text.index(row.settings) < page.text.index("Samples from the same noise")
    assert f"--nfe 4 --sampler {rows[0].name} --grid log_snr" in rows[0].settings


def test_tables_and_figures_stand_beside_it_and_are_known_as_ours(folder, page):
    findings = Findings.read(folder)
    files = report_files(findings.measured)
    assert {*files} <= Manifest.read(folder).names
    more = {f"figures/{name}.{kind}" for name in report.MORE for kind in ("svg", "pdf")}
    assert all((folder / name).stat().st_size for name in {*files} - more)
    assert not any((folder / name).exists() for name in more)  # this sweep has no such numbers
    table = (folder / "results.md").read_text(encoding="utf-8").splitlines()
    tex = (folder / "results.tex").read_text(encoding="utf-8")
    for cell in findings.done:
        value = f"{cell.metrics['mmd2']}"
        assert any(cell.sampler in line and value.replace("-", "−") in line for line in table)
        assert value.replace("-", "$-$").replace("±", r"$\pm$") in tex
    assert tex.count(r" \\") == len(findings.done) + 1
    (folder / "figures" / "mmd2-nfe.svg").read_text(encoding="utf-8").index("</svg>")


def test_a_file_that_is_not_ours_is_not_replaced(small):
    manifest = Manifest.read(small)
    replace(manifest, files={}).save(small)
    (small / "results.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds results\.md, which scoresde did not write"):
        build_report(small)
    assert (small / "results.md").read_text() == "mine"


def test_names_are_text_in_markdown_and_latex(small, monkeypatch):
    odd = r"a|b_c&<b>$x$\d%"
    for name in ("results.json", "settings"):
        values, write = stored(small, name, monkeypatch)
        write(json.loads(json.dumps(values).replace('"ddim"', json.dumps(odd))))
    found = Findings.read(small)
    assert r"| a\|b\_c\&\<b\>\$x\$\\d% |" in markdown(found)
    assert r"a\textbar{}b\_c\&\textless{}b\textgreater{}\$x\$\textbackslash{}d\%" in latex(found)


def test_the_front_has_the_cells_that_no_cheaper_one_beats(finished):
    cells = [result for result in finished[2] if "mmd2" in result.metrics]
    front = pareto(cells, "mmd2", "nfe")
    for cell in cells:
        value = cell.metrics["mmd2"].value
        rivals = [c for c in cells if c.nfe <= cell.nfe and c.metrics["mmd2"].value < value]
        assert (cell in front) is not bool(rivals)


def test_every_cell_is_in_it(page, finished):
    keys = [attributes["data-cell"] for attributes in page.all("tr") if "data-cell" in attributes]
    assert sorted(keys) == sorted(result.key for result in finished[2])
    assert "one step takes 201 evaluations" in page.text


def test_numbers_stand_with_their_errors(page, finished):
    for result in finished[2]:
        for name in SHOWN & {*result.metrics}:
            assert str(result.metrics[name]).replace("-", "−") in page.text


def test_it_says_what_was_compared_on_what(page):
    assert "Which sampler for runs/<mixture>.safetensors?" in page.text  # escaped: no tag
    assert "5 samplers drew 24 samples each of mixture (2) from the same noise" in page.text
    for words in ("SHA-256 0123456789ab", "n = 24", "seed 5", "VP(beta_min=0.1", "layout_pairs@"):
        assert words in page.text


def test_features_are_named(page, finished):
    assert finished[0].quality.about["features"] in page.text


def test_it_says_how_to_repeat_it(page):
    command = (
        "scoresde bench --checkpoint 'runs/<mixture>.safetensors' "
        "--samplers ddim,dpmpp-2m,ancestral,annealed-langevin,dopri5 --grids log_snr --nfe 4,8 "
        "--n 24 --t-min 0.001 --batch 16 --device cpu --likelihood 0 --seeds 5 --out bench"
    )
    assert command in page.text
    assert "torch 2.10.0" in page.text


def test_likelihood_has_error_and_protocol(page):
    protocol = ("rtol 1e-05", "pf-ode/continuous", "198 per datum")
    for words in ("1.23 ± 0.06 nats/dim", "100 of 200", *protocol):
        assert words in page.text


@pytest.fixture
def small(folder, tmp_path, monkeypatch):
    """A folder that a test may change; no curves are drawn, which take most of the time."""
    target = tmp_path / "bench"
    shutil.copytree(folder, target)
    (target / "report.html").unlink(missing_ok=True)
    drawn = Drawn(b"<svg ></svg>", b"")
    monkeypatch.setattr(report, "curves", lambda *_: drawn)
    for measured in (report.Trajectories, report.NoiseLevels):
        monkeypatch.setattr(measured, "figure", drawn)
    monkeypatch.setattr(report, "scatter", lambda *_: b"")
    return target


def test_it_is_the_same_again(small, page, folder):
    """The page around the pictures, and one picture of each kind, as they stand in the page."""
    assert build_report(small).read_bytes() == build_report(small).read_bytes()
    found = Findings.read(small)
    cell = found.within(4)[0]
    pictures = [urlparse(picture["src"]).path.split(",")[1] for picture in page.all("img")]
    assert base64.b64encode(scatter(found.samples(cell), found.spec)).decode("ascii") in pictures
    drawn = curves(found, "mmd2", "nfe")
    assert (folder / "figures/mmd2-nfe.svg").read_bytes() == drawn.svg
    assert (folder / "figures/mmd2-nfe.pdf").read_bytes() == drawn.pdf
    assert drawn.inline in (folder / "report.html").read_text(encoding="utf-8")


def test_images_are_shown_in_strips_beside_the_exact_solution(small):
    """The folder with its data replaced by images of digits."""
    spec = DataSpec((1, 8, 8), -1, 1, 17, name="digits")
    names = ("ddim", "dpmpp-2m", "ancestral", "annealed-langevin", "dopri5")
    Manifest(settings(spec, names), files=dict.fromkeys(report_files())).save(small)
    levels = np.random.default_rng(0).integers(0, 17, (24, 1, 8, 8), dtype=np.uint8)
    for path in (small / "cells").glob("*.npz"):
        np.savez(path, x=levels)
    np.savez(small / "reference.npz", x=np.zeros((24, 1, 8, 8), np.float32))
    page = Page(build_report(small).read_text(encoding="utf-8"))
    strips = [a["alt"] for a in page.all("img") if a["alt"].startswith("First 16 samples: ")]
    assert strips[0] == "First 16 samples: exact ODE solution"
    # the exact one thrice, two budgets of three samplers, two tolerances
    assert len(strips) == 3 + 6 + 2


def leaves(values, path=()):
    """Paths to all values of nested plain data, tables and lists included."""
    if path:
        yield path
    if isinstance(values, (dict, list)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from leaves(value, (*path, key))


def changed(values, path, value):
    """A copy with the value at a path replaced."""
    copy = json.loads(json.dumps(values))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


MARK = "<img src=x onerror=alert(1)>\"'\x1b[31m"
ODD = [MARK, 10**400, [MARK], None, -1, 1e308, True, [], {}, {"a": MARK}, [None], "\ud800"]
FILES = ("results.json", "settings", "machine.json")


def stored(folder, name, monkeypatch):
    """The values of a file, with few cells, and a function that replaces them.

    The settings are in the manifest. It is replaced in memory, because a changed file would be
    refused by the manifest's own checks.
    """
    if name != "settings":
        path = folder / name
        values = few_cells(json.loads(path.read_text()))
        return values, lambda values: path.write_text(json.dumps(values))

    files = dict.fromkeys(report_files())

    def write(values):
        monkeypatch.setattr(Manifest, "read", classmethod(lambda cls, _: cls(values, files=files)))

    return Manifest.read(folder).settings, write


def page_or_refusal(folder):
    """The page; None if an error refuses the folder and names it."""
    try:
        text = build_report(folder).read_text(encoding="utf-8")
    except ValueError as error:
        return None if str(folder) in str(error) else pytest.fail(str(error))
    return Page(text)


def few_cells(values):
    """The values with one cell that is done and one that is not."""
    if "cells" not in values:
        return values
    cells = values["cells"]
    return values | {"cells": [cells[0], next(c for c in cells if c["status"] == "skipped")]}


@pytest.mark.parametrize(
    "odd", [ODD[:1], pytest.param(ODD[1:], marks=pytest.mark.slow)], ids=["mark", "all"]
)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.by_default("results.json")
def test_odd_values_are_refused_by_name_or_shown_as_text(small, monkeypatch, name, odd):
    """Each value of a file is replaced in turn: no foreign tag appears, and no other error."""
    values, write = stored(small, name, monkeypatch)
    pages = []
    for path in leaves(values):
        for value in odd:
            write(changed(values, path, value))
            page = page_or_refusal(small)
            pages.append(page)
            if page is not None:
                drawings = [a for a in page.all("div") if a.get("role") == "img"]
                found = len(page.all("img")) + len(drawings)
                assert found == len(page.all("figure")), (path, value)
                assert all("onerror" not in attributes for _, attributes in page.tags)
                assert "\x1b" not in page.text
    assert any(pages)
    assert name == "machine.json" or not all(pages)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.by_default("results.json")
def test_missing_keys_are_refused_by_name(small, monkeypatch, name):
    values, write = stored(small, name, monkeypatch)
    for path in leaves(values):
        copy = json.loads(json.dumps(values))
        inner = copy
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        write(copy)
        page_or_refusal(small)


@pytest.mark.parametrize("names", [5, None, [5], ["."], ["strips/.."], ["../bench"], ["/tmp"]])
def test_strips_are_folders_below(small, monkeypatch, names):
    """Reading `.` would never end, and a folder elsewhere is not part of these results."""
    values, write = stored(small, "results.json", monkeypatch)
    write(values | {"strips": names})
    with pytest.raises(ValueError, match=r"results\.json.*strips"):
        Findings.read(small)


def test_curves_take_labels_for_text(small, monkeypatch):
    """matplotlib reads text between dollar signs as a formula, and this text is not valid."""
    for name in ("results.json", "settings"):
        values, write = stored(small, name, monkeypatch)
        write(json.loads(json.dumps(values).replace('"ddim"', r'"$\\frac$"')))
    found = Findings.read(small)
    assert r"$\frac$" in found.samplers
    assert rb"$\frac$" in curves(found, "mmd2", "nfe").svg


def test_vectors_are_not_called_images(page):
    for word in ("pixel", "image", "levels of the data"):
        assert word not in page.text
    assert "distance of the coordinates, along fixed directions" in page.text


def test_an_overhead_below_one_is_said_to_be_noise(small):
    assert "timing noise" not in cell_page(small, 1.5)
    assert "An overhead below 1 is timing noise" in cell_page(small, 0.5)


def cell_page(folder, seconds):
    """The text of the page if every cell takes this time, and the network alone one second."""
    values = json.loads((folder / "results.json").read_text())
    for cell in values["cells"]:
        if cell["status"] == "done":
            cell |= {"seconds": seconds, "seconds_bare": 1.0}
    (folder / "results.json").write_text(json.dumps(values))
    return Page(build_report(folder).read_text(encoding="utf-8")).text


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no results.json of `scoresde bench`"):
        build_report(tmp_path)
