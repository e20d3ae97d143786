"""Feed damaged and malicious files to the readers, as a process of its own.

    python tests/hostile/fuzz.py FOLDER READER... [--first 0] [--count 100]

Every case is made from its number alone, so that a failure can be repeated. A reader may accept a
file or raise VidkdError; anything else ends the process with the case's number: another exception,
a crash, ten seconds without an answer, or more memory than such a file can need.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import pickle
import random
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidkd.errors import VidkdError

SECONDS = 60
MEGABYTES = 700

HOSTILE_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    -0.0,
    "",
    "../../etc/passwd",
    "/etc/passwd",
    "a" * 5000,
    "\x00",
    "\ud800",
    "!!python/object/apply:os.system [touch owned]",
    [],
    {},
    [[]],
    {"a": {"b": []}},
)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut, repeat or insert: one to six times."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        if not found:
            break
        place = rng.randrange(len(found))
        # Headers are at the start in most formats; there damage matters most.
        if rng.random() < 0.5:
            place = min(place, rng.randrange(min(len(found), 512)))
        length = rng.choice((1, 2, 4, 8, 64))
        kind = rng.randrange(6)
        if kind == 0:
            found[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[place : place + length] = rng.choice((b"\x00", b"\xff", b"\x7f")) * length
        elif kind == 2:
            found[place : place + length] = rng.randbytes(length)
        elif kind == 3:
            del found[place:]
        elif kind == 4:
            found[place:place] = found[place : place + rng.randrange(1, 400)]
        else:
            del found[place : place + length]
    return bytes(found)


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Replace, remove or rename something anywhere in a JSON tree, one to three times."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.randint(1, 3)):
        node, parent, key = tree, None, None
        while isinstance(node, dict | list) and node and rng.random() < 0.85:
            parent = node
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            node = node[key]
        if parent is None:
            if rng.random() < 0.1:
                return rng.choice(HOSTILE_VALUES)
            continue
        kind = rng.randrange(4)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("", "../x", "a/b", "/x", "\x00", "x" * 300))] = parent.pop(key)
        else:
            parent[key] = rng.choice(HOSTILE_VALUES)
    return tree


@dataclass(frozen=True)
class Reader:
    """What is read: good files to begin with, and the call that reads one.

    Attributes:
        seeds: makes good files in a folder.
        read: reads one file, all of it.
        tree: the files are text trees (JSON, YAML), also changed as such.
    """

    seeds: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    tree: bool = False


TREES = {".json", ".yaml", ".boris", ".otio", ".llc"}


def cases(reader: Reader, seeds: list[Path], folder: Path, number: int) -> Path:
    """Write the damaged file of one case."""
    rng = random.Random(number)
    seed = seeds[number % len(seeds)]
    target = folder / f"case{seed.suffix}"
    data = seed.read_bytes()
    if reader.tree and seed.suffix in TREES and rng.random() < 0.8:
        import yaml

        tree = yaml.safe_load(data) if seed.suffix == ".yaml" else json.loads(data)
        text = json.dumps(mutate_tree(tree, rng))
        if rng.random() < 0.1:
            text = "[" * 20_000 + text
        data = text.encode("utf-8", "surrogatepass")
    else:
        data = mutate_bytes(data, rng)
    target.write_bytes(data)
    return target


def _videos(folder: Path) -> list[Path]:
    from vidkd.video import VideoWriter

    path = folder / "seed.mp4"
    with VideoWriter(path, 64, 48, Fraction(25)) as writer:
        for number in range(6):
            writer.write(np.full((48, 64, 3), number * 20, np.uint8))
    import av

    matroska, old = folder / "seed.mkv", folder / "seed.avi"
    with av.open(str(path)) as source, av.open(str(matroska), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(old), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        for number in range(6):
            image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 20, np.uint8))
            target.mux(stream.encode(image))
        target.mux(stream.encode(None))
    return [path, matroska, old]


def _read_video(path: Path) -> None:
    from vidkd.video import probe, read_frames

    probe(path)
    for frame in read_frames(path, short_side=32):
        assert frame.end >= frame.start


def _caches(folder: Path) -> list[Path]:
    from vidkd.cache import CacheWriter, Provenance, Source

    path = folder / "seed.h5"
    source = Source("a.mp4", 3, "0" * 64, Fraction(25), 8)
    rows = np.random.default_rng(0).integers(0, 255, (8, 6, 4), dtype=np.uint8)
    pts = np.arange(8)[:, None] + np.array([0.0, 1.0])
    with CacheWriter(path, Provenance("flow", source, {"a": 1}), (6, 4), "uint8") as writer:
        writer.append(rows, pts)
    return [path]


def _read_cache(path: Path) -> None:
    from vidkd.cache import CacheFile, verify

    verify(path)
    with CacheFile(path) as file:
        for _ in file.blocks():
            pass


def _annotations(folder: Path) -> list[Path]:
    segment = {"segment": [0.5, 2.0], "label": "walk"}
    activitynet = {
        "classes": ["walk", "sit"],
        "database": {
            "a": {"subset": "training", "duration": 4.0, "annotations": [segment]},
            "b": {"subset": "testing", "duration": 5, "annotations": [segment, segment]},
        },
    }
    numbered = {"v": {"subset": "training", "duration": 9.0, "actions": [[0, 1.5, 3.0]]}}
    trees = {"one.json": activitynet, "two.json": numbered}
    for name, tree in trees.items():
        (folder / name).write_text(json.dumps(tree))
    (folder / "three.csv").write_text(
        "video,start,end,label,subset,duration\na,0,1.5,walk,training,4\nb,1,2,sit,testing,5\n"
    )
    return [folder / name for name in (*trees, "three.csv")]


def _tools(folder: Path) -> list[Path]:
    from vidkd.annotations import Annotations, Segment, VideoAnnotation
    from vidkd.annotations.writers import WRITERS, write_as

    segments = (Segment(0.5, 2.0, "walk"), Segment(1.0, 1.0, "sit"), Segment(3.0, 4.0, "walk"))
    found = Annotations.of_labels({"a": VideoAnnotation("a", "training", 9.0, 25.0, segments)})
    return [
        write_as(folder / f"{name}{WRITERS[name].ending}", name, found)[0][0] for name in WRITERS
    ]


def _read_annotations(path: Path) -> None:
    from vidkd.annotations import READERS, load_annotations

    for name in ("auto", *READERS):
        try:
            load_annotations(path, name)
        except VidkdError:
            continue


def _predictions(folder: Path) -> list[Path]:
    item = {"label": "walk", "score": 0.5, "segment": [0.0, 1.0]}
    path = folder / "seed.json"
    path.write_text(json.dumps({"version": "1", "results": {"a": [item]}, "external_data": {}}))
    return [path]


def _read_predictions(path: Path) -> None:
    from vidkd.evaluation import read_detections

    read_detections(path)


def _scores(folder: Path) -> list[Path]:
    from vidkd.evaluation import DenseScores, write_dense_scores

    path = folder / "seed.h5"
    pts = np.arange(5)[:, None] + np.array([0.0, 1.0])
    write_dense_scores(path, DenseScores(("a", "b"), {"v": (np.zeros((5, 2)), pts)}))
    return [path]


def _read_scores(path: Path) -> None:
    from vidkd.evaluation import read_dense_scores

    read_dense_scores(path)


def _recipes(folder: Path) -> list[Path]:
    from vidkd.files import resources

    paths = []
    for name in ("pipelines/demo.yaml", "models/i3d-rgb-kinetics400.yaml"):
        kind, file = name.split("/")
        paths.append(folder / file)
        paths[-1].write_bytes((resources(kind) / file).read_bytes())
    return paths


def _read_recipe(path: Path) -> None:
    from vidkd.recipe import ModelCard, Pipeline, load_yaml

    for schema in (Pipeline, ModelCard):
        try:
            load_yaml(path, schema)
        except VidkdError:
            continue


def _weights(folder: Path) -> list[Path]:
    import torch

    from vidkd.networks import build_temporal_filter, save_temporal_filter
    from vidkd.networks.filter_weights import FilterHeader
    from vidkd.recipe import FilterSettings, FrameSettings, SegmentSettings, SnippetSettings

    torch.manual_seed(0)
    settings = FilterSettings(channels=4, layers=1)
    header = FilterHeader(
        filter=settings,
        in_features=3,
        classes=("walk", "sit"),
        modality="rgb",
        encoder="i3d-rgb-kinetics400",
        encoder_sha256="0" * 64,
        frames=FrameSettings(),
        snippet=SnippetSettings(),
        crop=224,
        training_data={},
        teachers=(),
        segments=SegmentSettings(),
    )
    path = folder / "seed.safetensors"
    save_temporal_filter(path, build_temporal_filter(settings, 3, 2), header)
    return [path]


def _read_weights(path: Path) -> None:
    from vidkd.networks import load_temporal_filter
    from vidkd.networks.weights import load_weights

    load_weights(path)
    load_temporal_filter(path, "cpu")


class _Owned:
    """Unpickled by a careless reader, it leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('owned', 'w').close()",))


def _checkpoints(folder: Path) -> list[Path]:
    import torch

    (folder / "one.ckpt").write_bytes(
        pickle.dumps({"a": {"b": np.ones((2, 3), np.float32)}}, protocol=4)
    )
    (folder / "two.ckpt").write_bytes(pickle.dumps({"a": _Owned()}))
    torch.save({"conv.weight": torch.ones(2, 2)}, folder / "three.pt")
    torch.save({"conv.weight": _Owned()}, folder / "four.pt")
    return [folder / name for name in ("one.ckpt", "two.ckpt", "three.pt", "four.pt")]


def _read_checkpoint(path: Path) -> None:
    from vidkd.networks.converters import from_flax_pickle, from_pytorch, read_pytorch

    if path.suffix == ".ckpt":
        from_flax_pickle(path.read_bytes(), path, 3)
    else:
        from_pytorch(read_pytorch(path), path, 3)


READERS = {
    "video": Reader(_videos, _read_video),
    "cache": Reader(_caches, _read_cache),
    "annotations": Reader(_annotations, _read_annotations, tree=True),
    "tools": Reader(_tools, _read_annotations, tree=True),
    "predictions": Reader(_predictions, _read_predictions, tree=True),
    "scores": Reader(_scores, _read_scores),
    "recipe": Reader(_recipes, _read_recipe, tree=True),
    "weights": Reader(_weights, _read_weights),
    "checkpoint": Reader(_checkpoints, _read_checkpoint),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("readers", nargs="+", choices=READERS, metavar="READER")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    result = {}
    for name in options.readers:
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        reader = READERS[name]
        seeds = reader.seeds(folder)
        for seed in seeds:
            accepted_or_refused(reader, seed)
        before = peak()
        accepted = 0
        for number in range(options.first, options.first + options.count):
            path = cases(reader, seeds, folder, number)
            print(f"{name}, case {number}", file=sys.stderr, flush=True)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            accepted += accepted_or_refused(reader, path)
            faulthandler.cancel_dump_traceback_later()
            if peak() - before > MEGABYTES:
                print(f"memory grew by {peak() - before:.0f} MB", file=sys.stderr)
                return 1
        result[name] = {"accepted": accepted, "refused": options.count - accepted}
    print(json.dumps(result))
    return 0


def peak() -> float:
    """Return the most megabytes this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def accepted_or_refused(reader: Reader, path: Path) -> bool:
    """Return whether a file was accepted; only our own errors may refuse it."""
    try:
        reader.read(path)
    except VidkdError as error:
        if len(str(error).splitlines()) != 1:
            raise ValueError(f"the error is not one line: {error}") from error
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
