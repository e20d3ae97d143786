"""Looking after a cache folder: what is in it, whether it is sound, what killed runs left."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidkd.cache.layout import canonical
from vidkd.cache.packs import packed
from vidkd.cache.provenance import ARTEFACTS, Provenance
from vidkd.cache.reader import CacheFile
from vidkd.errors import CacheError
from vidkd.files import sha256
from vidkd.storage import RemotePath, spooled


@dataclass(frozen=True)
class CacheEntry:
    """One file of a cache, as ``list_cache`` finds it.

    Attributes:
        path: the file.
        artefact: ``flow``, ``features`` or ``pose``.
        encoder: the encoder's name, for features.
        key: the video's key.
        size: bytes on disk.
        rows: T; 0 when the file cannot be opened.
        row_shape: shape of one row.
        provenance: what the rows come from; None when the file cannot be opened.
        problem: why it cannot be opened, or None.
    """

    path: Path
    artefact: str
    encoder: str | None
    key: str
    size: int
    rows: int
    row_shape: tuple[int, ...]
    provenance: Provenance | None
    problem: str | None


def list_cache(cache: Path) -> list[CacheEntry]:
    """Return every cache file under ``cache``, sorted by path; temporary files are not listed.

    Raises:
        CacheError: the folder or one inside it does not exist or cannot be read.
    """
    return [_entry(cache, path) for path in _walk(cache) if not path.name.startswith(".")]


def _entry(cache: Path, path: Path) -> CacheEntry:
    artefact, *parts = path.relative_to(cache).with_name(path.name.removesuffix(".h5")).parts
    encoder = parts.pop(0) if artefact == "features" and len(parts) > 1 else None
    key = "/".join(parts)
    try:
        with CacheFile(path) as file:
            shape = tuple(file.data.shape)
            return CacheEntry(
                path, artefact, encoder, key, file.size, shape[0], shape[1:], file.provenance, None
            )
    except (CacheError, OSError) as error:
        problem = error.problem if isinstance(error, CacheError) else str(error.strerror or error)
        return CacheEntry(path, artefact, encoder, key, 0, 0, (), None, problem)


def verify(path: Path, *, deep: bool = True) -> list[str]:
    """Return what is wrong with one cache file, one phrase each; empty when it is sound.

    Args:
        path: the cache file.
        deep: read every row and compare the content's hash, not only the header.
    """
    problems = []
    try:
        with CacheFile(path) as file:
            found = file.provenance
            if found.artefact != "features" and len(file) != found.source.frame_count:
                problems.append(f"{len(file)} rows for {found.source.frame_count} frames")
            if (file.pts[1:] < file.pts[:-1]).any() or (file.pts[:, 1] < file.pts[:, 0]).any():
                problems.append("times run backwards")
            if deep:
                digest = hashlib.sha256()
                for block in file.blocks():
                    digest.update(block.tobytes())
                digest.update(file.pts.tobytes())
                for name in file.more_names:
                    digest.update(name.encode() + file.more(name).tobytes())
                digest.update(canonical(found))
                if digest.hexdigest() != file.sha256:
                    problems.append("the content does not match its hash")
    except CacheError as error:
        problems.append(error.problem)
    return problems


def verify_cache(cache: Path, source: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Verify every file of a cache, yielding each with its problems.

    Temporary files that no living process holds are yielded too: a killed run left them.

    Args:
        cache: the cache folder.
        source: root of the videos; when given, each cache file is compared with its video.

    Raises:
        CacheError: the folder or one inside it does not exist or cannot be read.
    """
    for path in _walk(cache):
        if path.name.startswith("."):
            if _is_abandoned(path):
                yield path, ["left over from a killed run"]
            continue
        problems = verify(path)
        if source is not None:
            problems += _compare_with_video(cache, path, source)
        yield path, problems


def _compare_with_video(cache: Path, path: Path, source: Path) -> list[str]:
    entry = _entry(cache, path)
    if entry.provenance is None:
        return []
    recorded = entry.provenance.source
    video = (source / entry.key).parent / recorded.name
    try:
        if video.stat().st_size != recorded.size or sha256(video) != recorded.sha256:
            return [f"the video {video} has changed since"]
    except OSError as error:
        return [f"the video {video} cannot be read ({error.strerror or error})"]
    return []


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed runs left while they wrote the cache file ``path``.

    Temporary files of processes that are still at work stay.
    """
    path = spooled(path) if isinstance(path, RemotePath) else path
    try:
        neighbours = list(path.parent.iterdir())
    except OSError:
        return  # tidying is not worth failing for: writing the file will say what is wrong
    for candidate in neighbours:
        name = candidate.name
        if name.startswith(f".{path.stem}.") and _is_temporary(name) and _is_abandoned(candidate):
            candidate.unlink(missing_ok=True)


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".partial.h5")


def _is_abandoned(path: Path) -> bool:
    """Say whether no process holds the lock that CacheWriter keeps on its temporary file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False  # already renamed or removed by its writer
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        # Renamed between the open and the lock: then it is not temporary any more.
        return path.exists()


def _walk(cache: Path) -> Iterator[Path]:
    if not cache.is_dir():
        raise CacheError("is not a folder", path=cache, remedy="check the path of the cache")
    folders = [cache / artefact for artefact in ARTEFACTS if (cache / artefact).is_dir()]
    found = {cache / name for name in packed(cache)}
    if not folders and not found:
        raise CacheError(
            f"is not a cache (it has no folder {', '.join(ARTEFACTS)})",
            path=cache,
            remedy="give the folder that was given as --cache",
        )
    for top in folders:
        if isinstance(top, RemotePath):
            # Nothing temporary is ever in a store.
            found |= {path for path in top.rglob("*.h5") if not path.name.startswith(".")}
            continue
        for folder, _, names in os.walk(top, onerror=_unreadable):
            found |= {
                Path(folder, name)
                for name in names
                if _is_temporary(name) or (name.endswith(".h5") and not name.startswith("."))
            }
    yield from sorted(found)


def _unreadable(error: OSError) -> None:
    raise CacheError(
        f"cannot be read ({error.strerror or error})",
        path=error.filename,
        remedy="check the permissions of the folder",
    ) from error
