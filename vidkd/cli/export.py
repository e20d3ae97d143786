"""``vidkd export``, ``vidkd data export`` and ``vidkd data convert``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidkd.cli.options import Json, argument, flag, option
from vidkd.console import emit_json, log
from vidkd.errors import UsageError
from vidkd.recipe import Precision

if TYPE_CHECKING:
    from vidkd.annotations import Annotations
    from vidkd.evaluation import DenseScores, Detection
    from vidkd.video import VideoFolder


Format = Annotated[
    str,
    option(
        "Format of the annotations; `vidkd data formats` lists them.", "FORMAT", names=("--format",)
    ),
]
AnnotationRate = Annotated[
    float | None,
    option(
        "Frames per second of annotations that count in frames. Default: the data set's.",
        "FPS",
        min=0.001,
    ),
]
Overwrite = Annotated[
    bool, flag("--overwrite", "Replace files, or write into a folder with others.")
]
_Truth = Annotated[
    Path | None, option("Which videos to export, their durations and subsets.", "FILE")
]
_TruthFormat = Annotated[str, option("Their format; `vidkd data formats` lists them.", "FORMAT")]
_Subset = Annotated[
    str | None, option("Subset to export. Default: testing, if there is one.", "NAME")
]


_TOOLS = "Results for other tools: --to"
_GRAPHS = "Students that run without vidkd: --format"


def export(
    inputs: Annotated[
        list[Path],
        argument(
            "For --to: detections (.json) or dense scores (.h5). For --format: run folder or "
            "weights of a student, or a file of `vidkd fuse`; several are averaged.",
            "RESULT_OR_STUDENT...",
        ),
    ],
    output: Annotated[
        Path,
        option(
            "The file; a folder for --format, and where a file holds one video and there are more.",
            "PATH",
            names=("--output", "-o"),
        ),
    ],
    to: Annotated[
        str | None,
        option(
            "Annotation tool, editor or submission; `vidkd data formats` lists them.",
            "FORMAT",
            rich_help_panel=_TOOLS,
        ),
    ] = None,
    videos: Annotated[
        Path | None,
        option(
            "Videos, for their names, durations and frame rates.", "DIR", rich_help_panel=_TOOLS
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        option("Leave out detections with a lower score.", "SCORE", rich_help_panel=_TOOLS),
    ] = None,
    annotations: Annotated[
        Path | None,
        option(
            "Which videos to export, their durations and subsets.", "FILE", rich_help_panel=_TOOLS
        ),
    ] = None,
    annotation_format: Annotated[
        str | None,
        option("Their format; `vidkd data formats` lists them.", "FORMAT", rich_help_panel=_TOOLS),
    ] = None,
    annotation_rate: Annotated[
        float | None,
        option(
            "Frames per second of annotations that count in frames. Default: the data set's.",
            "FPS",
            min=0.001,
            rich_help_panel=_TOOLS,
        ),
    ] = None,
    subset: Annotated[
        str | None,
        option(
            "Subset to export. Default: testing, if there is one.", "NAME", rich_help_panel=_TOOLS
        ),
    ] = None,
    form: Annotated[
        str | None,
        option(
            "Format of the graphs.",
            "onnx|openvino|torch-export",
            names=("--format",),
            rich_help_panel=_GRAPHS,
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        option(
            "Arithmetic of the encoder: float32, or int8 with --format openvino; auto is what the "
            "student was trained on.",
            "auto|float32|int8",
            rich_help_panel=_GRAPHS,
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write detections for annotation tools, editors and submissions, or a student as graphs.

    With --to, scores go along where a tool has a place for them; what it cannot hold is named.
    Label Studio gets tasks with predictions. Dense scores become segments with the default settings
    of watershed grouping and NMS.

    With --format, the folder gets the graphs of the encoder and of what follows it, checked
    against the student, and run.py, which finds a video's actions with them. docs/export.md has
    an example.
    """
    for_tools = (to, videos, threshold, annotations, annotation_format, annotation_rate, subset)
    tools = any(value is not None for value in for_tools)
    if tools == (form is not None or precision is not None):
        raise UsageError(
            "options of --to and of --format do not go together"
            if tools
            else "nothing says what to write",
            remedy="give --to FORMAT for results, or --format onnx for a student",
        )
    if not tools:
        _export_student(inputs, output, form, precision, overwrite, as_json)
        return
    if to is None:
        raise UsageError("there is no --to", remedy="`vidkd data formats` lists what it can be")
    from vidkd.evaluation.exports import EXPORTS

    for path in inputs:
        if path.is_dir() or path.suffix == ".safetensors":
            raise UsageError(
                "is no result",
                path=path,
                remedy="give detections or dense scores; a student is exported with --format onnx",
            )
    lowest = float("-inf") if threshold is None else threshold
    truth = _truth(annotations, annotation_format or "auto", annotation_rate, subset)
    if to in EXPORTS:
        if len(inputs) > 1:
            raise UsageError("a submission is made of one result", remedy="give one file")
        _submit(inputs[0], output, to, truth, lowest, overwrite, as_json)
        return
    found = _merged(inputs)
    kept = {
        video: [item for item in items if item.score >= lowest] for video, items in found.items()
    }
    _write(output, to, as_annotations(kept, truth), videos, overwrite, as_json)


def _export_student(
    models: list[Path],
    output: Path,
    form: str | None,
    precision: Precision | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    from vidkd.deployment import FORMATS, export_student

    if form not in FORMATS:
        raise UsageError(
            "there is no --format" if form is None else f"there is no format {form!r} of graphs",
            remedy=f"give one of {', '.join(FORMATS)}; those of annotation tools go with --to",
        )
    for path in models:
        if path.suffix in {".json", ".h5"}:
            raise UsageError(
                "is a result, not a student",
                path=path,
                remedy="give a run folder, or --to FORMAT to write the result for another tool",
            )
    made = export_student(
        models, output, form, precision=precision or "auto", overwrite=overwrite, log=log
    )
    if as_json:
        files = [str(file) for file in made.files]
        emit_json({"files": files, "largest_difference": made.scores, "segments": made.segments})
    log(
        f"{output}: {', '.join(file.name for file in made.files)}; scores differ from the"
        f" student's by at most {made.scores:.1e}, segments are the same"
    )
    log(f"run it with: python {output / 'run.py'} VIDEO")


def export_submission(
    predictions: Annotated[Path, option("Dense scores (.h5) or detections (.json).", "FILE")],
    output: Annotated[Path, option("A file; a folder for pku-mmd.", "PATH")],
    export_format: Annotated[
        str,
        option(
            "charades-localization, pku-mmd, thumos14, activitynet, or one of a package.",
            "NAME",
            names=("--format",),
        ),
    ],
    annotations: _Truth = None,
    annotation_format: _TruthFormat = "auto",
    annotation_rate: AnnotationRate = None,
    subset: _Subset = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write predictions in a data set's submission format; `vidkd export` also serves tools.

    Dense scores become segments, where a format wants these, with the default settings of
    watershed grouping and NMS.
    """
    truth = _truth(annotations, annotation_format, annotation_rate, subset)
    _submit(predictions, output, export_format, truth, float("-inf"), overwrite, as_json)


def _truth(
    path: Path | None, form: str, rate: float | None, subset: str | None
) -> Annotations | None:
    from vidkd.annotations import load_annotations

    if path is None:
        return None
    truth = load_annotations(path, form, frame_rate=rate)
    if subset is None and "testing" in truth.subsets:
        subset = "testing"
    return truth if subset is None else truth.subset(subset)


def _submit(
    result: Path,
    output: Path,
    form: str,
    truth: Annotations | None,
    threshold: float,
    overwrite: bool,
    as_json: bool,
) -> None:
    from vidkd.evaluation.exports import EXPORTS

    chosen = EXPORTS[form]
    found = _read(result)
    if chosen.dense:
        if truth is None:
            raise UsageError(f"{form} needs the videos' durations", remedy="give --annotations")
        if isinstance(found, dict):
            raise UsageError(f"{form} needs dense scores", remedy="give the HDF5 file of scores")
        count = chosen.write(output, found, truth, overwrite)
    else:
        detections = found if isinstance(found, dict) else _segments(found)
        if truth is not None:
            detections = {video: detections.get(video, []) for video in truth.videos}
        kept = {
            video: [item for item in items if item.score >= threshold]
            for video, items in detections.items()
        }
        count = chosen.write(output, kept, truth, overwrite)
    if as_json:
        emit_json({"files": [str(output)], chosen.unit: count, "notes": []})
    log(f"{output}: {count} {chosen.unit}")


def _merged(results: Sequence[Path]) -> dict[str, list[Detection]]:
    """Return the detections of several files, of which each video is in one."""
    merged: dict[str, list[Detection]] = {}
    for path in results:
        found = _read(path)
        for video, items in (found if isinstance(found, dict) else _segments(found)).items():
            if video in merged:
                raise UsageError(
                    f"video {video!r} is in another result, too",
                    path=path,
                    remedy="export the results of different models one by one",
                )
            merged[video] = items
    return merged


def as_annotations(found: dict[str, list[Detection]], truth: Annotations | None) -> Annotations:
    """Return detections as annotations whose segments have scores."""
    from dataclasses import replace

    from vidkd.annotations import Annotations, Segment, VideoAnnotation

    known = {} if truth is None else truth.videos
    videos = {
        name: replace(
            known.get(name, VideoAnnotation(name)),
            segments=tuple(
                Segment(item.start, item.end, item.label, float(item.score))
                for item in found.get(name, ())
            ),
        )
        for name in (found if truth is None else known)
    }
    return Annotations.of_labels(videos, () if truth is None else truth.classes)


def _write(
    output: Path,
    to: str,
    annotations: Annotations,
    videos: Path | VideoFolder | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write annotations in a format, and say what became of them."""
    from vidkd.annotations.writers import write_as
    from vidkd.video import VideoFolder

    if videos is not None:
        folder = videos if isinstance(videos, VideoFolder) else VideoFolder(videos)
        annotations = completed(annotations, folder)
    files, left_out = write_as(output, to, annotations, overwrite=overwrite)
    counts = [
        f"{len(annotations.subset(name).videos)} {name or '(no subset)'}"
        for name in annotations.subsets
    ]
    segments = sum(len(video.segments) for video in annotations.videos.values())
    notes = [*annotations.notes, *left_out]
    if as_json:
        emit_json(
            {
                "files": [str(file) for file in files],
                "videos": len(annotations.videos),
                "segments": segments,
                "classes": list(annotations.classes),
                "notes": notes,
            }
        )
    log(f"{output}: {len(annotations.videos)} videos ({', '.join(counts)}), {segments} segments")
    for note in notes:
        log(f"note: {note}")


def _read(path: Path) -> DenseScores | dict[str, list[Detection]]:
    from vidkd.evaluation import read_dense_scores, read_detections

    return read_detections(path) if path.suffix.lower() == ".json" else read_dense_scores(path)


def _segments(scores: DenseScores) -> dict[str, list[Detection]]:
    from vidkd.detection.predict import ranked_segments
    from vidkd.recipe import SegmentSettings

    return ranked_segments(scores, SegmentSettings())


def convert(
    annotations: Annotated[Path, option("The annotations.", "FILE")],
    output: Annotated[
        Path, option("The file; a folder where a file holds one video and there are more.", "PATH")
    ],
    annotation_format: Format = "auto",
    to: Annotated[
        str, option("Format to write; `vidkd data formats` lists them.", "FORMAT")
    ] = "activitynet",
    annotation_rate: AnnotationRate = None,
    rename: Annotated[
        list[str] | None, option("Another name for a subset; may be repeated.", "OLD=NEW")
    ] = None,
    fraction: Annotated[
        float | None,
        option(
            "Part of `training` to become `validation`, as 0.15.", "SHARE", names=("--hold-out",)
        ),
    ] = None,
    videos: Annotated[
        Path | None, option("Videos, for durations and rates not in the file.", "DIR")
    ] = None,
    subsets_from: Annotated[
        Path | None,
        option(
            "Annotations of the same videos, for subsets and what else the file leaves out.", "FILE"
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write annotations of any format as ActivityNet-style JSON, or for an annotation tool.

    What the other format cannot hold is named. With --hold-out, data sets that have only training
    and testing get a subset for validation: whole subjects where they are known, always the same
    videos. With --subsets-from, labels that were corrected in a tool without subsets get back what
    they had.
    """
    from vidkd.annotations import load_annotations
    from vidkd.annotations.subsets import hold_out, like, rename_subsets
    from vidkd.video import VideoFolder

    folder = None if videos is None else VideoFolder(videos)
    found = load_annotations(
        annotations,
        annotation_format,
        frame_rate=annotation_rate,
        rate_of=None if folder is None else folder.rate,
    )
    if subsets_from is not None:
        found = like(found, load_annotations(subsets_from), subsets_from)
    if rename:
        found = rename_subsets(found, dict(_pair(text) for text in rename))
    if fraction is not None:
        found = hold_out(found, fraction)
    _write(output, to, found, folder, overwrite, as_json)


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} renames nothing", remedy="give such as validation=training")
    return old, new


def completed(annotations: Annotations, folder: VideoFolder) -> Annotations:
    """Return annotations with the files, durations and frame rates of their videos."""
    from dataclasses import replace

    videos = dict(annotations.videos)
    missing = []
    for key, video in annotations.videos.items():
        path = folder.path(key)
        if path is None:
            missing.append(key)
            continue
        found = replace(video, file=str(path.absolute()))
        if video.duration is None or video.frame_rate is None:
            info = folder.info(key)
            assert info is not None  # it has a path
            found = replace(
                found,
                duration=video.duration or info.duration,
                frame_rate=video.frame_rate or float(info.frame_rate),
            )
        videos[key] = found
    if missing:
        log(f"warning: no video for {', '.join(missing[:3])} ({len(missing)} in all)")
    return replace(annotations, videos=videos)
