"""``vidkd cache pack`` and ``unpack``: from one file for each video to a few, and back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from vidkd.cache.check import list_cache, verify
from vidkd.cache.packs import INDEX, PackWriter, is_pack, packed
from vidkd.cache.reader import CacheFile
from vidkd.console import progress
from vidkd.errors import CacheError, UsageError
from vidkd.files import atomic_path


@dataclass(frozen=True)
class Packed:
    """What was written: the folder, and how many files, shards and bytes."""

    folder: Path
    files: int
    shards: int
    size: int


def pack_cache(cache: Path, output: Path, shard_bytes: int = 1 << 30) -> Packed:
    """Pack every file of a cache, after each was read and compared with its hash.

    Args:
        cache: the cache; it stays as it is.
        output: folder of the pack, which must not hold one yet.
        shard_bytes: a shard ends when it has so many.

    Raises:
        UsageError: ``output`` is not empty, or is the cache.
        CacheError: there is nothing to pack, or a file is damaged; no pack is left then.
        VidkdError: the pack cannot be written.
    """
    _refuse_filled(output)
    entries = list_cache(cache)
    if not entries:
        raise CacheError("holds no files", path=cache, remedy="check the path of the cache")
    with (
        progress("packing", len(entries), "files") as advance,
        PackWriter(output, shard_bytes) as writer,
    ):
        for entry in entries:
            if problems := verify(entry.path):
                raise CacheError(
                    f"cannot be packed: {', '.join(problems)}",
                    path=entry.path,
                    remedy="compute it again with --overwrite, or delete it, and pack again",
                )
            with CacheFile(entry.path) as file:
                digest = file.sha256
            writer.add(entry.path.relative_to(cache).as_posix(), entry.path, digest)
            advance(1)
    size = sum((output / name).stat().st_size for name in writer.shards)
    return Packed(output, len(entries), len(writer.shards), size)


def unpack_cache(pack: Path, output: Path) -> Packed:
    """Write every file of a pack as it was before; files that are there already are kept.

    Raises:
        UsageError: ``pack`` is no pack.
        CacheError: a file is damaged; those before it are written.
        VidkdError: the cache cannot be written.
    """
    if not is_pack(pack):
        raise UsageError(
            f"is not a pack (it has no {INDEX})",
            path=pack,
            remedy="make one with `vidkd cache pack`",
        )
    members = packed(pack)
    size = 0
    with progress("unpacking", len(members), "files") as advance:
        for name, member in members.items():
            target = output / name
            if ".." in target.parts or not target.resolve().is_relative_to(output.resolve()):
                raise CacheError(f"names {name}", path=pack / INDEX, remedy="do not trust it")
            if problems := verify(pack / name):
                raise CacheError(
                    ", ".join(problems), path=pack / name, remedy="pack the cache again"
                )
            if not target.is_file():
                with (
                    atomic_path(target) as temporary,
                    member.open() as stream,
                    temporary.open("wb") as copy,
                ):
                    shutil.copyfileobj(stream, copy)
            size += member.size
            advance(1)
    return Packed(output, len(members), len({item.shard for item in members.values()}), size)


def _refuse_filled(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(
            "is not an empty folder", path=output, remedy="choose another folder for the pack"
        )
