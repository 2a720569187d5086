"""The house rules that a machine can check: import directions, exports, packaging, safety."""

import ast
import fnmatch
import functools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scoresde"
COMMANDS = ROOT / "cli"

# Who may import whom, lowest first. A module is a file or a folder of scoresde/. It may import
# - tools, from anywhere;
# - leaves, which know no SDE, only if it is one of their users: the mathematics knows no files;
# - lower layers, never its own (a folder's files import one another freely, except samplers/).
TOOLS = {
    *(
        "_philox",
        "_tensor",
        "_deferred",
        "_condition_tree",
        "_condition",
        "_reachable",
        "_files",
        "_lock",
        "_text",
    ),
    *("_envelope", "_workers", "_rows", "_sets", "_file_kinds", "_identity", "_torchrun"),
    *("plain", "shipped", "fingerprint", "evaluation"),
}
LEAVES = {"nets", "metrics", "data", "ema", "checkpoint", "distributed"}
LAYERS = [
    {"noise", "ivp", "training_loss"},
    {"sde"},
    {"score", "error_history", "given_times", "learned_bound"},
    {"exact", "loss", "grid", "batches"},
    {"samplers", "likelihood", "guidance", "scaling", "classification"},
    # measurements; from data to data; students of few steps; latents
    {"inverse", "editing", "distillation", "autoencoder"},
    {"distribution"},  # a model as one of torch.distributions
    {"interop"},  # models and samplers of other libraries
    {"train"},
    {"validation"},
    {"names"},  # text to objects
    {"output"},  # result folders, progress, pictures
    {"tasks"},  # what commands call
    {"comparison", "verification"},  # bench, verify
]
# A likelihood counts bits as the DataSpec says.
LEAF_USERS = {"likelihood"}.union(*LAYERS[4:])


@functools.cache
def sources(folder):
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


@functools.cache
def text_of(path):
    return path.read_text(encoding="utf-8")


@functools.cache
def nodes(path):
    """All nodes of a file's syntax tree, the module itself first; each file is parsed once."""
    return tuple(ast.walk(ast.parse(text_of(path))))


def module_of(path):
    """The top-level module of scoresde/ a file belongs to: `sde`, `samplers`, `__init__`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


KNOWN = {"assets"}.union(TOOLS, LEAVES, *LAYERS)
MODULES = {module_of(path) for path in sources(PACKAGE)} - {"__init__"}
FILES = [*sources(PACKAGE), *sources(COMMANDS)]


@functools.cache
def imports(path):
    """Dotted names a file imports, those of this project as `scoresde.x.y`.

    Imports inside functions and under TYPE_CHECKING count too.
    """
    package = ["scoresde", *path.relative_to(PACKAGE).parts[:-1]] if PACKAGE in path.parents else []
    names = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            if node.level and not package:
                continue  # within cli/
            base = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def imported_modules(path):
    """Top-level modules of scoresde/ that a file of scoresde/ imports, other than its own."""
    for name in imports(path):
        parts = name.split(".")
        # `from . import __version__` asks the package itself, which imports nothing
        if parts[0] == "scoresde" and len(parts) > 1 and parts[1] in MODULES - {module_of(path)}:
            yield parts[1]


def allowed(module):
    if module in TOOLS | LEAVES:
        return TOOLS
    level = next(i for i, layer in enumerate(LAYERS) if module in layer)
    return set().union(TOOLS, *LAYERS[:level], LEAVES if module in LEAF_USERS else ())


def test_every_module_has_a_layer():
    assert not MODULES - KNOWN, "a new module must be given its layer in this file"
    assert not KNOWN - MODULES, "a layer lists a module that is gone"
    assert sum(map(len, (TOOLS, LEAVES, *LAYERS))) == len(KNOWN) - 1, "a module has two layers"


@pytest.mark.parametrize("module", sorted((MODULES & KNOWN) - {"assets"}))
def test_imports_go_downwards(module):
    for path in sources(PACKAGE):
        if module_of(path) == module:
            upwards = set(imported_modules(path)) - allowed(module)
            assert not upwards, f"{path.relative_to(ROOT)} imports {sorted(upwards)}"


def dotted(path):
    """A file's own dotted name."""
    parts = ("scoresde", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_file_imports_itself_through_others():
    """No circle: every file can be read before those that import it."""
    files = {dotted(path): path for path in sources(PACKAGE)}

    def imported(name):
        for target in imports(files[name]):
            parent = target.rpartition(".")[0]
            yield target if target in files else parent

    waiting = {name: {n for n in imported(name) if n in files and n != name} for name in files}
    while free := {name for name, below in waiting.items() if not below & set(waiting)}:
        for name in free:
            del waiting[name]
    assert not waiting, f"a circle among {sorted(waiting)}"


def test_no_sampler_imports_another():
    """Each can be read alone. Predictor–corrector gets its parts as objects."""
    # They know families, none knows them.
    above = {"steps", "students", "recommended", "choice", "arguments", "sampling"}
    for path in sources(PACKAGE / "samplers"):
        if path.stem not in {"__init__", *above}:
            prefix = "scoresde.samplers."
            siblings = {n.split(".")[2] for n in imports(path) if n.startswith(prefix)}
            shared = {"base", "weights", "multistep"}
            assert siblings <= shared, f"{path.name} imports {sorted(siblings - shared)}"


def test_the_package_imports_itself_relatively_and_never_its_command_line():
    for path in sources(PACKAGE):
        for node in nodes(path):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            own = [n for n in names if n.split(".")[0] in ("scoresde", "scoresde_cli", "cli")]
            assert not own, f"{path.relative_to(ROOT)} imports {own}"


def test_every_module_says_what_it_exports():
    for path in FILES:
        tree = nodes(path)[0]
        if not tree.body:
            continue  # an empty __init__
        assert ast.get_docstring(tree), f"{path} has no module docstring"
        names = []
        for node in tree.body:
            assigned = isinstance(node, ast.Assign)
            targets = node.targets if assigned else [getattr(node, "target", None)]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
        only_docstring = len(tree.body) == 1
        assert "__all__" in names or only_docstring, f"{path} has no __all__"


def test_no_assert_guards_an_input():
    """An assert vanishes under `python -O`. No exception handler is bare either."""
    for path in FILES:
        for node in nodes(path):
            assert not isinstance(node, ast.Assert), f"assert in {path}:{node.lineno}"
            bare = isinstance(node, ast.ExceptHandler) and node.type is None
            assert not bare, f"bare except in {path}:{node.lineno}"


# Each runs code, or a shell, from what should be data.
UNSAFE = [
    r"\bpickle\b.*\bload",
    r"\bimport pickle\b",
    r"weights_only\s*=\s*False",
    r"allow_pickle\s*=\s*True",
    r"yaml\.load\(",
    r"(?<![\w.])eval\(",
    r"(?<![\w.])exec\(",
    r"shell\s*=\s*True",
    r"os\.system\(",
    r"(?<!\.)torch\.load\(",
    r"extractall\(",
]


@pytest.mark.parametrize("pattern", UNSAFE)
def test_nothing_runs_code_from_data(pattern):
    folders = (PACKAGE, COMMANDS, ROOT / "benchmarks", ROOT / "configs")
    for path in (file for folder in folders for file in sources(folder)):
        found = re.search(pattern, text_of(path))
        assert not found, f"{path.relative_to(ROOT)}: {found and found[0]}"


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_torch_is_new_enough_to_be_safe(project):
    """torch.load had CVE-2025-32434 before 2.6 and CVE-2026-24747 before 2.10."""
    assert "torch>=2.10" in project["project"]["dependencies"]


def package_folders(project):
    """Each package that is installed, with its folder in the tree."""
    places = project["tool"]["setuptools"]["package-dir"]
    for name in project["tool"]["setuptools"]["packages"]:
        yield name, ROOT / places.get(name, name.replace(".", "/"))


def test_every_package_of_the_tree_is_installed(project):
    listed = {folder for _, folder in package_folders(project)}
    tree = {
        path.parent
        for top in (PACKAGE, COMMANDS, ROOT / "configs")
        for path in sources(top)
        if path.name == "__init__.py"
    }
    assert listed == tree


def test_every_data_file_of_the_tree_is_installed(project):
    patterns = project["tool"]["setuptools"]["package-data"]
    for name, folder in package_folders(project):
        own = [*folder.iterdir(), *folder.glob("templates/*")]
        for path in (path for path in own if path.is_file()):
            if path.suffix not in (".py", ".pyc"):
                known, relative = patterns.get(name, []), path.relative_to(folder).as_posix()
                matches = [pattern for pattern in known if fnmatch.fnmatch(relative, pattern)]
                assert matches, f"{path.relative_to(ROOT)} is in no package-data"
    names = {name for name, _ in package_folders(project)}
    assert set(patterns) <= names
