"""The shape of the code: who imports whom, how long things are, and that they say what they are."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import actors
import server

ROOT = Path(__file__).parent.parent
ACTORS = sorted((ROOT / "actors").glob("*.py"))
ALL = [*ACTORS, *sorted((ROOT / "server").rglob("*.py"))]
MODULE_LINES = 300
FUNCTION_LINES = 40
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """Name a file for people."""
    return str(path.relative_to(ROOT))


def reading_order() -> list[str]:
    """Return the modules of actors/ in the order that its docstring gives."""
    listed = re.search(r"dependency order: ([a-z,\s]+)\.", inspect.getdoc(actors) or "")
    assert listed is not None
    return [name.strip() for name in listed[1].split(",")]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of every module that a file imports, wherever it does so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield every function and method."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Yield what is public and says nothing: the module, its classes, functions and fields."""
    if not ast.get_docstring(tree):
        yield "module"

    for node in tree.body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield from silent_parts(node)


def silent_parts(node: ast.ClassDef | Function) -> Iterator[str]:
    """Yield the parts of a public class or function that have no docstring."""
    if not ast.get_docstring(node):
        yield node.name

    for part in node.body if isinstance(node, ast.ClassDef) else ():
        if not isinstance(part, Function) or part.name.startswith("_"):
            continue

        if not ast.get_docstring(part):
            yield f"{node.name}.{part.name}"


def silent_numbers(node: ast.ClassDef) -> Iterator[str]:
    """Yield the numeric fields of a Struct that have no sentence of their own."""
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if not isinstance(field, ast.AnnAssign) or explained:
            continue

        if ast.unparse(field.annotation) in ("Count", "Seconds", "float", "int"):
            yield f"{node.name}.{ast.unparse(field.target)}"


@pytest.mark.parametrize("path", ACTORS, ids=name_of)
def test_actors_import_only_what_comes_before_them(path: Path) -> None:
    order = reading_order()
    before = order[: order.index(path.stem)] if path.stem != "__init__" else []
    allowed = {*sys.stdlib_module_names, "anyio", "msgspec"} - {"asyncio", "socket", "threading"}
    for imported in imports(ast.parse(path.read_text())):
        package, _, module = imported.partition(".")
        assert package in allowed or (package == "actors" and module in before), imported


def test_the_reading_order_names_every_module() -> None:
    order = reading_order()
    assert sorted(order) == sorted(path.stem for path in ACTORS if path.stem != "__init__")


def test_every_module_of_actors_has_its_test_file() -> None:
    tests = {path.name for path in (ROOT / "tests" / "actors").glob("test_*.py")}
    assert tests == {f"test_{name}.py" for name in reading_order()}


def test_the_packages_are_those_of_this_repository() -> None:
    for package in (actors, server):
        assert package.__file__ is not None
        assert Path(package.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < MODULE_LINES


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_function_is_short(path: Path) -> None:
    long = [
        each.name
        for each in functions(ast.parse(path.read_text()))
        if (each.end_lineno or 0) - each.lineno >= FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("path", [path for path in ALL if path.stat().st_size], ids=name_of)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    assert list(undocumented(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize("module", ["limits", "statistics"])
def test_a_number_says_what_it_counts(module: str) -> None:
    tree = ast.parse((ROOT / "actors" / f"{module}.py").read_text())
    classes = [each for each in tree.body if isinstance(each, ast.ClassDef)]
    assert classes
    assert [name for each in classes for name in silent_numbers(each)] == []
