"""List, check and pack the files of a cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.cli.options import Command, Json, argument, option
from vidkd.console import emit, log

if TYPE_CHECKING:
    from vidkd.cache import Packed

app = typer.Typer(no_args_is_help=True, help=__doc__)

Folder = Annotated[Path, argument("Cache folder, or a pack.", "DIR")]


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
        Path | None, option("Also compare each file with its video below ROOT.", "ROOT")
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


@app.command("pack", cls=Command)
def pack(
    folder: Folder,
    output: Annotated[Path, argument("Empty folder for the pack.", "PACK")],
    shard_size: Annotated[
        float, option("A shard ends when it is so large.", "GB", min=0.001)
    ] = 1.0,
    json: Json = False,
) -> None:
    """Put all files of a cache into a few large ones, which --cache takes like a cache.

    For many thousands of videos on a file system or an object store that dislikes small files.
    Every file is checked before; the cache stays.
    """
    from vidkd.cache import pack_cache

    _emit_packed(pack_cache(folder, output, round(shard_size * 1e9)), json)


@app.command("unpack", cls=Command)
def unpack(
    pack: Annotated[Path, argument("Folder of the pack.", "PACK")],
    output: Annotated[Path, argument("Cache folder to write into.", "DIR")],
    json: Json = False,
) -> None:
    """Write the files of a pack as they were in the cache; those already there are kept."""
    from vidkd.cache import unpack_cache

    _emit_packed(unpack_cache(pack, output), json)


def _emit_packed(made: Packed, json: bool) -> None:
    emit(
        {
            "folder": str(made.folder),
            "files": made.files,
            "shards": made.shards,
            "bytes": made.size,
        },
        json,
        ("folder", "files", "shards", "MB"),
        [(made.folder, made.files, made.shards, f"{made.size / 1e6:.2f}")],
    )
