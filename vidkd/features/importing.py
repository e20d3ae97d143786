"""Features that people already have, one ``.npy`` file per video, into the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidkd.annotations import Annotations
from vidkd.cache import (
    CacheFile,
    CacheWriter,
    Provenance,
    Source,
    cache_path,
    library_versions,
    remove_leftovers,
)
from vidkd.errors import CacheError, UsageError, VidkdError
from vidkd.features.data_report import similar
from vidkd.features.jobs import JobResult
from vidkd.features.tasks import finished_rows
from vidkd.files import sha256
from vidkd.keys import KeyIndex
from vidkd.networks.cards import zoo_card
from vidkd.recipe.inputs import ImportSettings
from vidkd.streams import STREAMS


def _folder(settings: ImportSettings) -> str:
    """Return the folder of the cache that features go to.

    Raises:
        UsageError: there is no such stream, or the encoder is one that vidkd has.
    """
    if zoo_card(settings.encoder) is not None:
        raise UsageError(
            f"{settings.encoder} is a network of vidkd, and nothing proves that it made these"
            " features",
            remedy="give them another --encoder name, such as my-i3d",
        )
    return STREAMS[settings.modality].folder(settings.encoder)


def find_feature_files(
    folder: Path, name_ending: str = "", annotations: Annotations | None = None
) -> tuple[dict[str, Path], list[str]]:
    """Return the ``.npy`` files below a folder by video, and the annotated videos without one.

    Args:
        folder: searched recursively.
        name_ending: what every name carries after the video's, such as ``_rgb``.
        annotations: if given, only its videos are taken, under the names they have there.

    Raises:
        UsageError: the folder does not exist or holds no such file, or several files belong to
            one annotated video.
    """
    if not folder.is_dir():
        raise UsageError("is not a folder", path=folder, remedy="give the folder of the .npy files")
    tail = f"{name_ending}.npy"
    found = {
        path.relative_to(folder).as_posix().removesuffix(tail): path
        for path in sorted(folder.rglob("*.npy"))
        if path.name.endswith(tail) and path.name != tail and not path.name.startswith(".")
    }
    if not found:
        raise UsageError(
            f"holds no file NAME{tail}", path=folder, remedy="check the folder and --name-ending"
        )
    if annotations is None:
        return found, []
    files, chosen, missing = KeyIndex(found, folder), {}, []
    for video in annotations.videos:
        key = files.key(video)
        if key is None:
            missing.append(f"{video}{similar(files, video)}")
        else:
            chosen[key] = found[key]
    return chosen, missing


def import_features(
    files: dict[str, Path],
    cache: Path,
    settings: ImportSettings,
    *,
    overwrite: bool = False,
    advance: Callable[[float], None] | None = None,
) -> list[JobResult]:
    """Write every file into the cache; a file that fails is named, and the others are done.

    Args:
        files: by key of the video.
        cache: the cache folder.
        settings: what is declared of the features.
        overwrite: replace what was imported from another file or with other settings.
        advance: called with 1 after every file.

    Raises:
        UsageError: there is no such stream, or the encoder is one that vidkd has.
    """
    results = []
    folder = _folder(settings)
    for key, path in files.items():
        target = cache_path(cache, "features", key, folder)
        try:
            rows, skipped = import_file(path, target, settings, overwrite=overwrite)
            state: Literal["done", "skipped"] = "skipped" if skipped else "done"
            results.append(JobResult(key, path, target, state, rows=rows))
        except VidkdError as error:
            results.append(JobResult(key, path, target, "failed", str(error)))
        if advance is not None:
            advance(1)
    return results


def import_file(
    path: Path, target: Path, settings: ImportSettings, *, overwrite: bool = False
) -> tuple[int, bool]:
    """Write one ``.npy`` file as a cache file, and return its rows and whether it was there.

    Row t covers the frames [t * stride, t * stride + length) at the declared rate. The number of
    frames is what T rows need: whether the last window was full, the file cannot tell.

    Raises:
        CacheError: the file is not (T, D) or (T, 1, 1, D) numbers, or the cache holds something
            else and ``overwrite`` is off.
        VidkdError: the cache cannot be written.
    """
    data = read_features(path, transposed=settings.transposed)
    provenance = Provenance(
        artefact="features",
        source=Source(path.name, path.stat().st_size, sha256(path), settings.rate),
        settings=settings.recorded(),
        encoder=settings.encoder,
        weights_sha256=settings.weights_sha256,
        versions=library_versions("h5py", "numpy"),
    )
    rows = finished_rows(target, provenance, overwrite=overwrite)
    if rows is not None:
        return rows, True
    with np.errstate(over="ignore"):  # reported below, with a remedy
        stored = np.ascontiguousarray(data, dtype=settings.dtype)
    if not np.isfinite(stored).all():
        raise CacheError(
            f"holds numbers that are not finite in {settings.dtype}",
            path=path,
            remedy="compute the features again, or import them with --dtype float32",
        )
    remove_leftovers(target)
    first = np.arange(len(stored)) * settings.stride
    frames = np.stack([first, first + settings.length], axis=1)
    with CacheWriter(target, provenance, stored.shape[1:], settings.dtype) as writer:
        writer.append(stored, frames / float(settings.rate))
        writer.frame_count = int(frames[-1, 1])
    return len(stored), False


def read_features(path: Path, *, transposed: bool = False) -> np.ndarray:
    """Return a view (T, D) of the numbers in a ``.npy`` file; nothing in it is executed.

    Raises:
        CacheError: the file is damaged, or holds something else.
    """
    try:
        data: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "damaged"
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            reason = "it holds Python objects or is no .npy file"
        raise CacheError(
            f"cannot be read as an array of numbers ({reason})",
            path=path,
            remedy="save it again with numpy.save as an array of floats",
        ) from error
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "fiu":
        raise CacheError("does not hold real numbers", path=path, remedy="save an array of floats")
    shape = data.shape
    if data.ndim == 4 and shape[1:3] == (1, 1):
        data = data.reshape(shape[0], shape[3])
    if data.ndim != 2 or 0 in shape:
        raise CacheError(
            f"has the shape {shape}, not (T, D) or (T, 1, 1, D)",
            path=path,
            remedy="save one row for each snippet",
        )
    return np.asarray(data.T if transposed else data)


def width_problem(results: Sequence[JobResult]) -> str | None:
    """Say what is wrong when the imported files do not all have rows of one width."""
    shapes: dict[int, JobResult] = {}
    for item in results:
        if item.status != "failed":
            with CacheFile(item.path) as file:
                shapes.setdefault(int(file.data.shape[1]), item)
    if len(shapes) < 2:
        return None
    shown = ", ".join(f"{item.video.name} {width}" for width, item in list(shapes.items())[:3])
    return (
        f"rows differ in width ({shown}): if the files hold (D, T), import them again with"
        " --transposed --overwrite"
    )
