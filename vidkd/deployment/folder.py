"""A student as a folder of graphs, checked against the student itself before it is there."""

from __future__ import annotations

import runpy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidkd import __version__
from vidkd.deployment.formats import FORMATS, LOAD, Format, Graph
from vidkd.deployment.graphs import SequenceGraph, SnippetGraph, StreamGraph
from vidkd.detection.detector import Detector
from vidkd.detection.fusion import Fusion, load_models
from vidkd.detection.scorers import Source, StudentScorer, encoder_name, source_key
from vidkd.detection.segments import shown_segments
from vidkd.errors import UsageError, VidkdError
from vidkd.evaluation import Detection
from vidkd.files import refuse_address, write_json
from vidkd.networks.i3d_int8 import load_openvino
from vidkd.networks.temporal import LSTM
from vidkd.networks.zoo import load_network
from vidkd.recipe import Precision
from vidkd.streams import RGB
from vidkd.video import VideoWriter, clip_frames

TOLERANCE = 1e-4
"""By how much scores may differ from those of the student."""
SECONDS = 1e-3
"""By how much the ends of segments may."""
DESCRIPTION = "detector.json"
SCRIPT = "run.py"


@dataclass(frozen=True)
class Exported:
    """What was written and how far it is from the student.

    Attributes:
        files: the graphs, their description and the script.
        scores: the largest difference of a score, on random sequences and a random video.
        segments: how many the script and the student found in the random video.
    """

    files: list[Path]
    scores: float
    segments: int


def export_student(
    models: Sequence[str | Path],
    output: Path,
    form: str,
    *,
    precision: Precision = "auto",
    overwrite: bool = False,
    log: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write students as graphs, with a script that runs them without vidkd.

    Args:
        models: run folder or weights file of a student, several whose logits are averaged, or a
            file of ``vidkd fuse``; all take the same features of RGB frames.
        output: the folder; it appears when all that is in it was checked.
        form: a name of `FORMATS`.
        precision: of the encoder; ``int8`` for ``openvino`` only.
        overwrite: replace an earlier export.
        log: is told what is being done.

    Raises:
        UsageError: there is no such format, a package is missing, the folder exists, or the
            student takes something else than RGB frames.
        WeightsError: weights cannot be read or fetched.
        VidkdError: a network cannot be written as a graph, or the graphs do not give its scores.
    """
    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}", remedy=f"give one of {', '.join(FORMATS)}")
    chosen = FORMATS[form]
    chosen.check()
    _check_output(output, overwrite)
    _check_students(load_models(models))
    detector = Detector(models, "cpu", precision=precision)
    scorer = detector.scorer
    assert isinstance(scorer, StudentScorer)
    [source] = scorer.sources
    if source.encoder.precision == "int8" and form != "openvino":
        raise UsageError(
            f"an encoder in int8 cannot be written as {form}",
            remedy="give --format openvino, or --precision float32",
        )
    graphs = _graphs(scorer, source)
    with _folder_beside(output) as folder:
        for name, graph in graphs.items():
            log(f"writing the graph of the {name}")
            chosen.write(graph, folder / f"{name}{chosen.ending}")
        if source.encoder.precision == "int8":
            log("writing the graph of the encoder")
            _write_int8(scorer, source, folder / f"encoder{chosen.ending}")
        write_json(folder / DESCRIPTION, _description(scorer, source, form, graphs))
        script = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
        (folder / SCRIPT).write_text(script.replace(LOAD, chosen.load), encoding="utf-8")
        log("comparing what they compute with the student")
        try:
            scores, segments = _check(folder, detector, graphs, chosen)
        except VidkdError:
            raise
        except Exception as error:  # whatever the other library does
            raise _wrong(f"{type(error).__name__}: {str(error)[:200]}") from error
        for file in folder.iterdir():
            file.chmod(0o644)
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)
    return Exported(sorted(output.iterdir()), scores, segments)


@contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """Give a folder that is removed after the block, unless it has been renamed.

    Raises:
        VidkdError: it cannot be written.
    """
    try:
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.absolute().parent) as made:
            folder = Path(made) / output.name
            folder.mkdir()
            yield folder
    except OSError as error:
        raise VidkdError(
            f"cannot be written ({error.strerror or error})",
            path=output,
            remedy="free some space or choose another place",
        ) from error


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse to write over anything but an earlier export."""
    refuse_address(output)
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / DESCRIPTION).is_file():
        raise UsageError(
            "exists and is no exported student", path=output, remedy="choose another --output"
        )
    if not overwrite:
        raise UsageError(
            "holds an exported student already",
            path=output,
            remedy="choose another --output, or give --overwrite",
        )


def _check_students(fusion: Fusion) -> None:
    """Refuse students that `SequenceGraph` or the script cannot serve.

    Raises:
        UsageError: they take something else than RGB frames, or different features, or have a
            filter whose length has to be known.
    """
    for student in fusion.students:
        header = student.header
        if header.modality != RGB.name:
            raise UsageError(
                f"takes {header.modality}; what is exported takes frames as they are",
                path=student.name,
                remedy="export a student of RGB, such as one that was distilled from this",
            )
        if isinstance(student.module, LSTM):
            raise UsageError(
                "has an LSTM, which can only be written for one length of video",
                path=student.name,
                remedy="train with another --filter",
            )
    if len({source_key(student.header) for student in fusion.students}) > 1:
        raise UsageError(
            "the students take the features of different encoders, or of different snippets",
            remedy="export them one by one",
        )


def _graphs(scorer: StudentScorer, source: Source) -> dict[str, Graph]:
    """Return the graphs by name, without that of an encoder in int8, which is no module."""
    fusion = scorer.fusion
    student = fusion.students[0]
    header = student.header
    graphs: dict[str, Graph] = {}
    if source.encoder.precision != "int8":
        with encoder_name(student, source.stream) as name:
            chosen = name if source.encoder.weights_sha256 == header.encoder_sha256 else None
            network, card = load_network(chosen or source.encoder.card.name)
        side = header.crop
        graphs["encoder"] = Graph(
            SnippetGraph(network, card, side).eval(),
            {"frames": torch.zeros(2, header.snippet.length, side + 2, side + 4, 3).byte()},
            ({0: "batch", 2: "height", 3: "width"},),
            ("features",),
            {"height": side, "width": side},
        )
    rows = torch.zeros(37, header.in_features)
    graphs["filter"] = Graph(
        SequenceGraph(fusion).eval(),
        {
            "features": rows,
            "times": torch.arange(74, dtype=torch.float64).view(37, 2),
            "threshold": torch.tensor(scorer.threshold, dtype=torch.float64),
        },
        ({0: "snippets"}, {0: "snippets"}, {}),
        ("scores", "label", "score", "start", "end"),
        {},
    )
    if fusion.single and student.module.causal:
        stream = StreamGraph(fusion).eval()
        state = stream.stream.start(2)
        names = [f"state_{number}" for number in range(len(state))]
        graphs["stream"] = Graph(
            stream,
            {"features": rows[:2], **dict(zip(names, state, strict=True))},
            ({0: "streams"},) * (1 + len(state)),
            ("scores", *(f"next_{name}" for name in names)),
            {},
        )
    return graphs


def _write_int8(scorer: StudentScorer, source: Source, path: Path) -> None:
    """Write the graph of an encoder in int8, with all that comes before it but the resize."""
    header = scorer.students[0].header
    network = source.encoder.network  # type: ignore[attr-defined]
    model = network.frames_model(header.snippet.length, header.crop)
    load_openvino().save_model(model, path, compress_to_fp16=False)


def _description(
    scorer: StudentScorer, source: Source, form: str, graphs: Mapping[str, Graph]
) -> dict[str, Any]:
    """Return what is to be known of the graphs, as JSON."""
    student, card = scorer.students[0], source.encoder.card
    header, ending = student.header, FORMATS[form].ending
    files: dict[str, Any] = {
        "encoder": {
            "file": f"encoder{ending}",
            "inputs": {"frames": ["batch", header.snippet.length, "height", "width", 3]},
            "outputs": ["features"],
        }
    }
    for name, graph in graphs.items():
        shapes = {
            key: [sizes.get(place, size) for place, size in enumerate(value.shape)]
            for (key, value), sizes in zip(graph.inputs.items(), graph.sizes, strict=True)
        }
        outputs = list(graph.outputs)
        files[name] = {"file": f"{name}{ending}", "inputs": shapes, "outputs": outputs}
    return {
        "format": 1,
        "made_by": f"vidkd {__version__}, torch {torch.__version__}",
        "student": " + ".join(Path(own.name).name for own in scorer.fusion.students),
        "classes": list(scorer.classes),
        "threshold": scorer.threshold,
        "minimum_seconds": scorer.settings.minimum_seconds,
        "release": scorer.settings.release,
        "score": scorer.score_name,
        "short_side": header.frames.short_side,
        "frame_rate": header.frames.frame_rate,
        "resize": header.frames.resize,
        "crop": header.crop,
        "snippets": {
            "stride": header.snippet.stride,
            "window": header.snippet.row_length,
            "clip": clip_frames(0, header.snippet).tolist(),
        },
        "border": "halfway between the end of a snippet and the start of the next",
        "encoder": {
            "name": card.name,
            "precision": source.encoder.precision,
            "weights_sha256": source.encoder.weights_sha256,
            "licence": card.licence,
        },
        "graphs": files,
    }


def _check(
    folder: Path, detector: Detector, graphs: Mapping[str, Graph], chosen: Format
) -> tuple[float, int]:
    """Run the script's functions and the student on a random video and random features.

    Returns:
        the largest difference of a score, and how many segments both found in the video.

    Raises:
        VidkdError: they differ.
    """
    script = runpy.run_path(str(folder / SCRIPT))
    scorer = detector.scorer
    assert isinstance(scorer, StudentScorer)
    header = scorer.students[0].header
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as made:
        video = Path(made) / "random.mp4"
        length = header.snippet.row_length + 3 * header.snippet.stride + 1
        _write_random(video, length, generator)
        # So that there are segments, although nothing is to be seen.
        own = detector(video)
        threshold = float(np.median(own.scores))
        own = detector(video, threshold=threshold)
        found, scores, times = script["detect"](video, threshold, folder)
    difference = _difference(own.scores, scores)
    _compare(own.segments, found, "a random video")
    if np.abs(own.pts - times).max() > 1e-6:
        raise _wrong("a random video has snippets at other times")
    find = script["load"](folder / f"filter{chosen.ending}")
    module = scorer.fusion.students[0].module
    for count in (1, 2, 65, 400):
        noise = generator.standard_normal((count, header.in_features), np.float32)
        rows = module.input_mean.numpy() + noise * module.input_deviation.numpy()
        pts = np.arange(count)[:, None] * 0.25 + np.array([0.0, 0.5])
        expected, axis, candidates = scorer.scores([rows], [pts])
        settings, names = scorer.settings, scorer.classes
        limit = np.array(np.median(expected), np.float64)
        shown = shown_segments(expected, axis, names, float(limit), settings, candidates)
        scores, *parts = find(rows, pts, limit)
        difference = max(difference, _difference(expected, scores))
        found = script["clear"](names, settings.minimum_seconds, *parts)
        _compare(shown, found, f"a random sequence of {count} snippets")
        if "stream" in graphs:
            step = script["load"](folder / f"stream{chosen.ending}")
            state = [item[:1].numpy() for item in list(graphs["stream"].inputs.values())[1:]]
            for row, right in zip(rows[:65], expected, strict=False):
                score, *state = step(row[None], *state)
                difference = max(difference, _difference(right[None], score))
    return difference, len(own.segments)


def _write_random(path: Path, frames: int, generator: np.random.Generator) -> None:
    """Write a video of blocks of random colours that change."""
    with VideoWriter(path, 320, 240, 25) as writer:
        for _ in range(frames):
            blocks = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            writer.write(blocks.repeat(40, axis=0).repeat(40, axis=1))


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        raise _wrong(f"scores are {found.shape}, not {expected.shape}, or not finite")
    difference = float(np.abs(expected - found).max())
    if difference > TOLERANCE:
        raise _wrong(f"scores differ by {difference:.2g}")
    return difference


def _compare(expected: Sequence[Detection], found: Sequence[Mapping[str, Any]], what: str) -> None:
    """Refuse segments of other classes, times or scores."""
    own = [(item.label, item.start, item.end, item.score) for item in expected]
    other = [(item["label"], *item["segment"], item["score"]) for item in found]
    alike = len(own) == len(other) and all(
        a[0] == b[0] and np.allclose(a[1:], b[1:], rtol=0, atol=SECONDS)
        for a, b in zip(sorted(own), sorted(other), strict=True)
    )
    if not alike:
        raise _wrong(f"{what} gets {len(other)} segments where the student finds {len(own)}")


def _wrong(what: str) -> VidkdError:
    return VidkdError(
        f"the graphs do not compute what the student does: {what}; nothing was written",
        remedy="give another --format, and report this with the student and the versions of torch"
        " and the runtime",
    )
