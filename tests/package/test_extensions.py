"""Tables of parts, with entry points of a package that is really on the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkd.errors import UsageError, VidkdError
from vidkd.extensions import Table


def _install(folder: Path, points: dict[str, str], group: str = "vidkd.shapes") -> None:
    """Lay out what an installer leaves: a module, and the metadata that names its parts."""
    (folder / "round_things.py").write_text("circle = 'a circle'\n", encoding="utf-8")
    (folder / "broken_things.py").write_text("import no_such_module\n", encoding="utf-8")
    metadata = folder / "round_things-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: round-things\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_own_parts_come_first_then_those_of_packages(site: Path) -> None:
    _install(site, {"circle": "round_things:circle"})
    table = Table("vidkd.shapes", "shape", {"square": "a square"})
    assert list(table) == ["square", "circle"]
    assert (len(table), "circle" in table, "line" in table) == (2, True, False)
    assert (table["square"], table["circle"]) == ("a square", "a circle")


def test_an_unknown_name_lists_the_known_ones(site: Path) -> None:
    _install(site, {"circle": "round_things:circle"})
    with pytest.raises(UsageError, match="no shape 'line'; give one of square, circle"):
        Table("vidkd.shapes", "shape", {"square": "a square"})["line"]


def test_nothing_replaces_an_own_part(site: Path) -> None:
    _install(site, {"square": "round_things:circle"})
    table = Table("vidkd.shapes", "shape", {"square": "a square"})
    with pytest.raises(VidkdError, match="which vidkd has itself"):
        list(table)
    assert table["square"] == "a square"


def test_a_package_that_cannot_be_imported_is_named(site: Path) -> None:
    _install(site, {"line": "broken_things:line"})
    table = Table("vidkd.shapes", "shape", {"square": "a square"})
    with pytest.raises(VidkdError, match=r"'line' cannot be loaded from broken_things:line"):
        table["line"]
