"""The layers that CONTRIBUTING.md draws: every import of the package runs downward."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import vidkd

PACKAGE = Path(vidkd.__file__).parent
DRAWING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def drawn() -> dict[str, int]:
    """Return the layer of every module of the package in the drawing; 0 is the uppermost."""
    text = DRAWING.read_text(encoding="utf-8")
    text = text.split("## Where things are")[1].split("\n## ")[0]
    lines = [line.split("(")[0].split() for line in text.splitlines() if line.startswith("    ")]
    return {name: level for level, names in enumerate(lines) for name in names}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of vidkd that a file imports anywhere, in functions and for types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not followed"
            names = [f"{node.module}.{item.name}" for item in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "vidkd":
                yield rest.split(".")[0]


def test_every_import_runs_downward() -> None:
    layers = drawn()
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        own = place.parts[0].removesuffix(".py")
        if own in {"__init__", "__main__"}:
            continue  # above all layers
        assert own in layers, f"CONTRIBUTING.md does not draw {own}"
        for other in imported(ast.parse(path.read_text(encoding="utf-8"))):
            if other == own or other == "__version__":
                continue
            assert other in layers, f"{place} imports {other}, which CONTRIBUTING.md does not draw"
            if layers[other] <= layers[own]:
                wrong.append(f"{place} imports {other}")
    assert not wrong


def test_the_renderer_is_used_by_its_command_and_by_recipes_alone() -> None:
    users = set()
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE)
        if "synth" in imported(ast.parse(path.read_text(encoding="utf-8"))):
            users.add(place.parts[0])
    assert users - {"synth"} <= {"cli", "pipeline"}


def test_the_drawing_has_nothing_that_does_not_exist() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert drawn().keys() <= there
