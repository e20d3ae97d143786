"""The data set on disk: videos, annotations and poses, rendered in parallel and resumable."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vidkd.console import progress
from vidkd.errors import UsageError, VidkdError
from vidkd.files import atomic_path, write_json
from vidkd.recipe import SynthSettings
from vidkd.skeletons import JOINTS
from vidkd.synth.part import CLASSES
from vidkd.synth.render import Film, Shot, frame_times, plan
from vidkd.video import VideoWriter

Array = np.ndarray

RENDERER = 2
"""Raised whenever the same settings give other pictures, so that no folder mixes the two."""

_HIDDEN_BEHIND = 0.30
"""Metres by which something may lie before a joint's centre without hiding it: the joint's own
limb, a sleeve, the trunk beside a hip."""


def render_dataset(output: Path, settings: SynthSettings, workers: int = 1) -> Path:
    """Render the whole data set into a folder, going on where an earlier call stopped.

    The folder receives ``videos/NAME.mp4`` (H.264), ``poses/NAME.h5`` (see ``write_poses``),
    ``annotations.json`` (ActivityNet-style, written last) and ``synth.json`` (the settings). For
    one seed everything is the same whatever the number of workers.

    Args:
        output: the folder.
        settings: what to render.
        workers: videos rendered at once, each in a process of its own.

    Returns:
        the path of ``annotations.json``.

    Raises:
        UsageError: the folder holds a data set of other settings.
        VidkdError: the folder cannot be written, or a worker was killed.
    """
    if unknown := set(settings.actions) - set(CLASSES):
        raise UsageError(
            f"nobody is rendered who does {min(unknown)!r}",
            remedy=f"name some of {', '.join(CLASSES)}",
        )
    if "walk" not in (settings.actions or CLASSES) and {"sit down", "pick up"} & set(
        settings.actions
    ):
        raise UsageError(
            "people have to walk to what they sit on or pick up", remedy="add walk to the actions"
        )
    manifest = output / "synth.json"
    wanted = {"renderer": RENDERER, **settings.model_dump(mode="json")}
    found = _read_manifest(manifest)
    if found is not None:
        # Sets of before there were such settings have their defaults.
        found = {**SynthSettings().model_dump(mode="json"), **found}
    if found is not None and found != wanted:
        names = [name for name in wanted if found.get(name) != wanted[name]]
        raise UsageError(
            f"holds a data set rendered with another {', '.join(names)}",
            path=output,
            remedy="choose another folder, or remove this one",
        )
    write_json(manifest, wanted)
    todo = []
    for number in range(settings.videos):
        video, poses = _paths(output, settings, number)
        if not (video.is_file() and poses.is_file()):
            todo.append(number)
    _render_all(output, settings, todo, workers)
    write_json(output / "annotations.json", ground_truth(settings))
    return output / "annotations.json"


def video_name(settings: SynthSettings, number: int) -> str:
    """Return the name of a video: its number, padded so that names sort as numbers do."""
    return f"synth_{number:0{max(4, len(str(settings.videos - 1)))}d}"


def subsets(settings: SynthSettings) -> list[str]:
    """Return the subset of every video: drawn by video, the same for a seed everywhere.

    Every subset with a share gets at least one video if there are three or more.
    """
    least = 1 if settings.videos >= 3 else 0
    shares = {
        "validation": settings.validation_fraction,
        "testing": settings.testing_fraction,
        "unlabelled": settings.unlabelled_fraction,
    }
    names = []
    for name, share in shares.items():
        names += [name] * max(least if share > 0 else 0, round(share * settings.videos))
    names = names[: max(0, settings.videos - 1)]
    names = ["training"] * (settings.videos - len(names)) + names
    order = np.random.default_rng([settings.seed, 1_000_003]).permutation(settings.videos)
    return [names[place] for place in order]


def ground_truth(settings: SynthSettings) -> dict[str, Any]:
    """Return the ActivityNet-style annotations of the data set, without rendering anything."""
    duration = len(frame_times(settings)) / settings.frame_rate
    classes = [name for name in CLASSES if not settings.actions or name in settings.actions]
    database = {}
    for number, subset in enumerate(subsets(settings)):
        segments = plan(settings, number).segments() if subset != "unlabelled" else []
        database[video_name(settings, number)] = {
            "subset": subset,
            "duration": round(duration, 3),
            "fps": settings.frame_rate,
            "annotations": [
                {
                    "segment": [round(max(0.0, start), 3), round(min(duration, end), 3)],
                    "label": label,
                }
                for start, end, label in segments
            ],
        }
    return {"version": "vidkd synth 1", "classes": classes, "database": database}


def render_video(output: Path, settings: SynthSettings, number: int) -> int:
    """Render one video and its poses; return the number of frames."""
    shot = plan(settings, number)
    film = Film(shot)
    video, poses = _paths(output, settings, number)
    for path in (video, poses):
        # What a killed call left of this very video; no other process renders it.
        for leftover in path.parent.glob(f".{path.stem}.*.partial*"):
            leftover.unlink(missing_ok=True)
    joints = np.stack([item.posture.joints for item in film.performances], axis=1)
    points = shot.camera.to_camera(joints)
    pixels = shot.camera.project(points, shot.shift[:, None, None, :])
    present = np.zeros(points.shape[:3], dtype=bool)
    visible = np.zeros(points.shape[:3], dtype=bool)
    with VideoWriter(video, settings.width, settings.height, settings.frame_rate) as writer:
        for row, (image, depth) in enumerate(film.frames()):
            writer.write(image)
            present[row], visible[row] = _seen(points[row], pixels[row], depth)
    write_poses(poses, settings, shot, points, pixels, present, visible)
    return len(shot.times)


def _seen(points: Array, pixels: Array, depth: Array) -> tuple[Array, Array]:
    """Return which joints (people, 13) lie in the picture, and which of those are not hidden."""
    height, width = depth.shape
    column, row = np.rint(pixels[..., 0]).astype(int), np.rint(pixels[..., 1]).astype(int)
    present = (points[..., 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    surface = depth[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return present, present & (points[..., 2] - surface < _HIDDEN_BEHIND)


def write_poses(
    path: Path,
    settings: SynthSettings,
    shot: Shot,
    points: Array,
    pixels: Array,
    present: Array,
    visible: Array,
) -> None:
    """Write the exact poses of one video as HDF5, atomically.

    Datasets, for N frames and P people: ``joints_3d`` (N, P, 13, 3) metres in camera coordinates
    (x right, y down, z forward), ``joints_2d`` (N, P, 13, 2) pixels, ``present`` (N, P, 13): the
    joint lies in the picture, ``visible`` (N, P, 13): and nothing hides it, ``intrinsics``
    (N, 3, 3), ``world_to_camera`` (4, 4), ``pts`` (N, 2) seconds. Attribute ``joints``: their
    names.
    """
    ends = np.append(shot.times[1:], len(shot.times) / settings.frame_rate)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["joints"] = list(JOINTS)
        file.attrs["settings"] = settings.model_dump_json()
        file["joints_3d"] = points.astype(np.float32)
        file["joints_2d"] = pixels.astype(np.float32)
        file["present"] = present
        file["visible"] = visible
        file["intrinsics"] = shot.camera.intrinsics(shot.shift)
        file["world_to_camera"] = shot.camera.world_to_camera()
        file["pts"] = np.stack([shot.times, ends], axis=1)


def _paths(output: Path, settings: SynthSettings, number: int) -> tuple[Path, Path]:
    name = video_name(settings, number)
    return output / "videos" / f"{name}.mp4", output / "poses" / f"{name}.h5"


def _read_manifest(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VidkdError("cannot be read", path=path, remedy="remove its folder") from error
    return found if isinstance(found, dict) else {}


def _render_all(output: Path, settings: SynthSettings, todo: list[int], workers: int) -> None:
    frames = len(frame_times(settings))
    with progress("synth", len(todo) * frames, "frames") as advance:
        if workers <= 1 or len(todo) <= 1:
            for number in todo:
                advance(render_video(output, settings, number))
            return
        # Spawned, not forked: OpenCV's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(workers, len(todo)), mp_context=context)
        try:
            waiting = [pool.submit(render_video, output, settings, number) for number in todo]
            for done in as_completed(waiting):
                advance(done.result())
        except BrokenProcessPool as error:
            raise VidkdError(
                "a worker was killed, perhaps for want of memory",
                path=output,
                remedy="run the same command again, with fewer --workers",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
