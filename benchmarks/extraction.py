"""Extract RGB features of whole videos: `vidkd extract-features` against the obvious script.

    python benchmarks/extraction.py [VIDEO...] [--rounds 3] [--crop 224] [--threads N] [--json]
    python benchmarks/extraction.py VIDEO... --video-features CLONE [--python ITS_PYTHON]

The obvious script reads with OpenCV's capture, resizes with `cv2.resize`, stacks 16 frames to a
snippet and runs the eager PyTorch network batch by batch, one thing after the other, with the same
weights; it stands below. With ``--video-features`` a clone of github.com/v-iashin/video_features
takes its place, run as it is. Where its weights are missing (they lie in Git LFS), it gets ours,
under its names. Both run as commands of their own, in turn, and are timed from start to end, with
the start of Python and the loading of the weights. CPU time is that of all their processes.
Without videos, six short clips are made. How far the features differ is said.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vidkd.cache import CacheFile, cache_path
from vidkd.console import emit_json, emit_table, log
from vidkd.networks import DEFAULT_ENCODER, ensure_weights
from vidkd.video import read_frames
from vidkd.video.encode import VideoWriter

SHORT_SIDE, LENGTH, BATCH = 256, 16, 4


def plain(videos: list[Path], crop: int, folder: Path) -> None:
    """The obvious script: everything in turn, in one process."""
    import cv2
    import torch
    from i3d import Ported

    from vidkd.networks.zoo import load_network

    trained = load_network(DEFAULT_ENCODER)[0].eval()
    network = Ported(trained)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    found: list[torch.Tensor] = []
    trained.classifier = torch.nn.Identity()  # type: ignore[assignment]  # features, not classes

    def run(snippets: list[np.ndarray]) -> None:
        x = torch.from_numpy(np.stack(snippets)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        with torch.no_grad():
            found.append(network(x).flatten(1))

    for video in videos:
        found.clear()
        capture = cv2.VideoCapture(str(video))
        frames: list[np.ndarray] = []
        snippets: list[np.ndarray] = []
        while True:
            more, image = capture.read()
            if more:
                height, width = image.shape[:2]
                scale = SHORT_SIDE / min(height, width)
                image = cv2.resize(image, (round(width * scale), round(height * scale)))
                top, left = (image.shape[0] - crop) // 2, (image.shape[1] - crop) // 2
                image = image[top : top + crop, left : left + crop]
                frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            elif frames:
                frames += [frames[-1]] * (LENGTH - len(frames))
            if len(frames) == LENGTH:
                snippets.append(np.stack(frames))
                frames = []
            if len(snippets) == BATCH or (not more and snippets):
                run(snippets)
                snippets = []
            if not more:
                break
        np.save(folder / f"{video.stem}.npy", torch.cat(found).numpy())


ITS_BRANCHES = {"b0": "0", "b1a": "1.0", "b1b": "1.1", "b2a": "2.0", "b2b": "2.1", "b3b": "3.1"}


def give_weights(path: Path) -> None:
    """Write our weights of I3D as video_features reads them."""
    import torch

    from vidkd.networks.zoo import load_network

    state = {}
    for name, value in load_network(DEFAULT_ENCODER)[0].state_dict().items():
        head, *rest = name.removeprefix("layers.").split(".")
        if head == "classifier":
            shape = (*value.shape, 1, 1, 1) if rest == ["weight"] else value.shape
            state[f"conv3d_0c_1x1.conv3d.{rest[0]}"] = value.reshape(shape)
            continue
        if rest[0] in ITS_BRANCHES:
            rest[0] = f"branch_{ITS_BRANCHES[rest[0]]}"
        rest = [{"conv": "conv3d", "norm": "batch3d"}.get(part, part) for part in rest]
        state[".".join([head[0].lower() + head[1:], *rest])] = value
    path.parent.mkdir(exist_ok=True)
    torch.save(state, path)


def timed(command: list[str], threads: int, folder: Path | None) -> tuple[float, float]:
    """Run a command in a folder; return seconds of wall time and of CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=folder)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def difference(videos: list[Path], cache: Path, written: str) -> float:
    """Return the median relative distance between the features that both wrote.

    ``written`` is the path of the other's, with ``{}`` for the name of a video.
    """
    away = []
    for video in videos:
        theirs = np.load(written.format(video.stem))
        with CacheFile(cache_path(cache, "features", video.stem, DEFAULT_ENCODER)) as file:
            rows = file.rows()[: len(theirs)]  # video_features leaves out a last, shorter snippet
        distance = np.linalg.norm(rows - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
        away.extend(distance.tolist())
    return statistics.median(away)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def obvious_command(paths: list[str], crop: int, output: Path) -> list[str]:
    return [sys.executable, __file__, *paths, "--plain", str(output), "--crop", str(crop)]


def its_command(python: str, paths: list[str], output: Path) -> list[str]:
    """Return the command line of video_features, to be run in its own folder."""
    settings = {
        "feature_type": "i3d",
        "streams": "rgb",
        "stack_size": LENGTH,
        "step_size": LENGTH,
        "device": "cpu",
        "on_extraction": "save_numpy",
        "output_path": output,
        "tmp_path": output / "tmp",
        "video_paths": f"[{','.join(paths)}]",
    }
    return [python, "main.py", *(f"{name}={value}" for name, value in settings.items())]


def measure(videos: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    rounds, crop, threads, clone = (
        getattr(options, name) for name in ("rounds", "crop", "threads", "video_features")
    )
    frames = sum(1 for video in videos for _ in read_frames(video, short_side=64))
    peer = "obvious" if clone is None else "video_features"
    seconds: dict[str, list[tuple[float, float]]] = {peer: [], "vidkd": []}
    loads = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = [str(video.resolve()) for video in videos]
        for turn in range(rounds):
            cache, output = folder / f"cache{turn}", folder / f"output{turn}"
            output.mkdir()
            settings = ["--modality", "rgb", "--dtype", "float32", "--device", "cpu"]
            settings += ["--short-side", str(SHORT_SIDE), "--crop", str(crop)]
            extract = [sys.executable, "-m", "vidkd", "extract-features", *paths, *settings]
            commands = {
                peer: obvious_command(paths, crop, output)
                if clone is None
                else its_command(options.python, paths, output),
                "vidkd": [*extract, "--cache", str(cache)],
            }
            names = list(commands) if turn % 2 == 0 else list(reversed(commands))
            for name in names:
                loads.append(os.getloadavg()[0])
                seconds[name].append(
                    timed(commands[name], threads, clone if name == peer else None)
                )
                log(f"round {turn + 1}, {name}: {seconds[name][-1][0]:.1f} s")
        written = "{}.npy" if clone is None else "i3d/{}_rgb.npy"
        away = difference(videos, folder / "cache0", str(folder / "output0" / written))
    pairs = list(zip(seconds[peer], seconds["vidkd"], strict=True))
    return {
        "videos": len(videos),
        "frames": frames,
        "crop": crop,
        "threads": threads,
        "rounds": rounds,
        "load": spread(loads),
        "wall": {name: spread([wall for wall, _ in both]) for name, both in seconds.items()},
        "cpu": {name: spread([cpu for _, cpu in both]) for name, both in seconds.items()},
        "wall_ratio": spread([one[0] / other[0] for one, other in pairs]),
        "cpu_ratio": spread([one[1] / other[1] for one, other in pairs]),
        "feature_distance": away,
    }


def clips(folder: Path, count: int) -> list[Path]:
    """Write short clips, of 100 frames of 342x256, and return their paths."""
    from tvl1 import generated

    folder.mkdir()
    frames = [np.repeat(image[..., None], 3, axis=2) for image in generated(SHORT_SIDE, 100)]
    height, width = frames[0].shape[:2]
    paths = [folder / f"{number}.mp4" for number in range(count)]
    for path in paths:
        with VideoWriter(path, width, height, 25) as video:
            for frame in frames:
                video.write(frame)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--video-features", type=Path, metavar="CLONE", help="Compare with it, at crop 224."
    )
    parser.add_argument("--python", default=sys.executable, help="That video_features runs with.")
    parser.add_argument("--plain", type=Path, metavar="DIR", help="Be the obvious script.")
    options = parser.parse_args()
    if options.plain is not None:
        plain(options.videos, options.crop, options.plain)
        return
    ensure_weights(DEFAULT_ENCODER)
    if options.video_features is not None:
        options.video_features = options.video_features.resolve()
        options.crop = 224  # it has no other
        weights = options.video_features / "models/i3d/checkpoints/i3d_rgb.pt"
        if not weights.is_file() or weights.stat().st_size < 1000:  # a pointer of Git LFS
            give_weights(weights)
            log(f"wrote our weights to {weights}")
    with tempfile.TemporaryDirectory() as place:
        videos = options.videos or clips(Path(place) / "videos", 6)
        result = measure(videos, options)
    if options.json:
        emit_json(result)
        return
    rows = [
        [
            name,
            f"{result['wall'][name]['median']:.1f}",
            f"{result['cpu'][name]['median']:.1f}",
            f"{result['frames'] / result['wall'][name]['median']:.0f}",
        ]
        for name in result["wall"]
    ]
    emit_table("", ["script", "wall, s", "CPU, s", "frames/s"], rows)
    log(json.dumps({key: result[key] for key in ("wall_ratio", "cpu_ratio", "feature_distance")}))


if __name__ == "__main__":
    main()
