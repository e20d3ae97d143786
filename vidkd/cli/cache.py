"""``vidkd cache ls`` and ``vidkd cache verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidkd.cli.options import Command, Json
from vidkd.console import emit, log

app = typer.Typer(no_args_is_help=True, help="List the files of a cache, and check them.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Cache folder.")]


@app.command("ls", cls=Command)
def list_files(folder: Folder, json: Json = False) -> None:
    """List the files of a cache: video, artefact, rows, size and whether each can be opened."""
    from vidkd.cache import list_cache

    entries = list_cache(folder)
    data = [
        {
            "path": str(entry.path),
            "artefact": entry.artefact,
            "encoder": entry.encoder,
            "key": entry.key,
            "rows": entry.rows,
            "row_shape": entry.row_shape,
            "bytes": entry.size,
            "problem": entry.problem,
            "provenance": entry.provenance and entry.provenance.to_json(),
        }
        for entry in entries
    ]
    rows = [
        (
            entry.key,
            entry.artefact,
            entry.encoder or (entry.provenance and entry.provenance.encoder) or "",
            entry.rows,
            " x ".join(str(size) for size in entry.row_shape),
            f"{entry.size / 1e6:.2f}",
            entry.problem or "opens",
        )
        for entry in entries
    ]
    title = f"{folder}: {len(entries)} files, {sum(item.size for item in entries) / 1e6:.1f} MB"
    emit(data, json, ("video", "artefact", "encoder", "rows", "row", "MB", "state"), rows, title)


@app.command("verify", cls=Command)
def verify_files(
    folder: Folder,
    json: Json = False,
    source: Annotated[
        Path | None,
        typer.Option(metavar="ROOT", help="Also compare each file with its video below ROOT."),
    ] = None,
) -> None:
    """Read every file of a cache and name each that is damaged; exit code 1 if there is one."""
    from vidkd.cache import verify_cache

    checked, damaged = 0, []
    for path, problems in verify_cache(folder, source):
        checked += 1
        if problems:
            damaged.append({"path": str(path), "problems": problems})
            artefact = path.relative_to(folder).parts[0]
            remedy = f"recompute it with `vidkd extract-{artefact} --overwrite`, or delete it"
            if path.name.startswith("."):
                remedy = "delete it, or run the same command again, which does"
            log(f"damaged: {path}: {', '.join(problems)}; {remedy}")
    emit(
        {"checked": checked, "damaged": damaged},
        json,
        ("cache", "files", "damaged"),
        [(folder, checked, len(damaged))],
    )
    if damaged:
        raise typer.Exit(1)
