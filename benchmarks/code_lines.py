"""Count the lines of code: lines with a token that is neither a comment nor a docstring.

    python benchmarks/code_lines.py             # scoresde and cli, by room
    python benchmarks/code_lines.py --functions # and the longest functions and parameter lists

Blank lines, comments and docstrings do not count, and neither do templates and configs.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

import click
from script import print_header

ROOT = Path(__file__).parent.parent
FOLDERS = ("scoresde", "cli")
SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def docstring_lines(tree: ast.AST) -> set[int]:
    """Lines that belong to a docstring."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    found.update(range(first.lineno, first.end_lineno + 1))
    return found


def code_lines(text: str) -> set[int]:
    """Numbers of the lines with code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SKIPPED and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(ast.parse(text))


def room(path: Path) -> str:
    """The folder or the file directly under the package."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "scoresde" else parts[0]


@click.command(help=__doc__.partition("\n")[0])
@click.option("--functions", is_flag=True, help="The longest functions and parameter lists, too.")
def main(functions: bool) -> None:
    """Print the counts."""
    print_header()
    counts: Counter[str] = Counter()
    long: list[tuple[int, int, str]] = []
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = code_lines(text)
        counts[room(path)] += len(lines)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = sum(node.lineno <= line <= node.end_lineno for line in lines)
                a = node.args
                arguments = len(a.posonlyargs + a.args + a.kwonlyargs)
                arguments -= bool(a.args) and a.args[0].arg in ("self", "cls")
                long.append(
                    (body, arguments, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
                )
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"{count:6d}  {name}")
    print(f"{sum(counts.values()):6d}  in all")
    if functions:
        for body, arguments, name in sorted(long, reverse=True):
            if body > 60 or arguments > 8:
                print(f"{body:4d} lines, {arguments:2d} parameters: {name}")


if __name__ == "__main__":
    main()
