"""Every problem code in the source is explained in docs/problem-codes.md, and nothing else is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLUG = re.compile(r"[a-z]+(-[a-z]+)+")


@cache
def tree(path):
    return ast.parse(path.read_text())


def positions(trees):
    """Of every function and record that takes a `code`: its name, and where the code stands among its arguments."""
    found = {"Problem": 0}
    for one in trees:
        for function in ast.walk(one):
            if isinstance(function, ast.FunctionDef):
                names = [argument.arg for argument in function.args.args if argument.arg != "self"]
                if "code" in names:
                    found[function.name] = names.index("code")
    return found


def codes_in(folders):
    """The codes that are handed to those functions, and those at the front of tuples: (code, sentence, ...)."""
    trees = [tree(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    where, found = positions(trees), set()
    for one in trees:
        for item in ast.walk(one):
            candidates = []
            if isinstance(item, ast.Call):
                name = item.func.attr if isinstance(item.func, ast.Attribute) else getattr(item.func, "id", "")
                if name in where and len(item.args) > where[name]:
                    candidates = [item.args[where[name]]]
            elif isinstance(item, (ast.Return, ast.Yield)) and isinstance(item.value, ast.Tuple):
                candidates = item.value.elts[:1]
            constants = [c.value for candidate in candidates for c in ast.walk(candidate) if isinstance(c, ast.Constant)]
            found |= {value for value in constants if isinstance(value, str) and SLUG.fullmatch(value)}
    return found


def headings():
    return re.findall(r"^## `([a-z-]+)`$", (ROOT / "docs/problem-codes.md").read_text(), re.MULTILINE)


def test_every_code_of_the_core_has_a_heading_in_alphabetical_order():
    """With a sentence below it."""
    text = (ROOT / "docs/problem-codes.md").read_text()
    assert codes_in(["core/modelgraft"]) - set(headings()) == set()
    assert headings() == sorted(set(headings()))
    assert all(re.search(rf"## `{code}`\n[A-Z`].{{20}}", text, re.MULTILINE) for code in headings())


def test_every_heading_is_a_code_that_is_used():
    """By the core, or by a component in its review."""
    everywhere = "".join(path.read_text() for folder in ("core/modelgraft", "plugins") for path in (ROOT / folder).rglob("*.py"))
    assert [code for code in headings() if f'"{code}"' not in everywhere] == []
