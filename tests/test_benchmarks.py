"""The scripts of benchmarks/: each is named beside what it measures, and begins with its header.

`test_readme.py` runs the commands; `test_*_benchmark.py` test what single scripts compute.
"""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
README = (FOLDER / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))}
SCRIPTS = [name for name, text in SOURCES.items() if '__name__ == "__main__"' in text]
COMMANDS = re.findall(r"python benchmarks/(\w+)\.py(.*?)(?:`|$)", README, re.MULTILINE)
FIRST = {name: shlex.split(words) for name, words in reversed(COMMANDS)}


class Stopped(Exception):
    """Raised in place of the header."""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """run(name, words): what a script prints until its header, and whether it came so far."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    import script

    def stop(*packages, seed=0):
        raise Stopped

    monkeypatch.setattr(script, "print_header", stop)

    def run_until_header(name, words):
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *words])
        try:
            runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        except Stopped:
            return True
        except SystemExit as ended:
            failed = ended.code
        else:
            failed = None
        assert not failed
        return False

    yield run_until_header
    for name in set(SOURCES) & (set(sys.modules) - known):
        del sys.modules[name]


def test_every_script_has_a_command_in_the_readme():
    assert {*SCRIPTS} == {name for name, _ in COMMANDS}


def test_every_module_is_imported_by_a_script():
    imported = {
        name: {other for other in SOURCES if re.search(rf"^ *from {other} import", text, re.M)}
        for name, text in SOURCES.items()
    }
    reached = {*SCRIPTS}
    while more := set().union(*(imported[name] for name in reached)) - reached:
        reached |= more
    assert reached == {*SOURCES}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_the_question_and_the_header_comes_before_any_work(name, run, capsys, tmp_path):
    """With the options that the README gives: files that do not exist are not looked for yet."""
    assert not run(name, ["--help"])
    question = SOURCES[name].partition('"""')[2].partition("\n")[0].rstrip(".")
    assert "".join(question.split()) in "".join(capsys.readouterr().out.split())  # wrapped lines
    assert run(name, FIRST[name])
    assert capsys.readouterr().out == ""
    assert [*tmp_path.iterdir()] == []
