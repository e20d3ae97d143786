"""``vidkd init``: from videos and labels to subsets and a recipe."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidkd.cli.export import AnnotationRate, Format
from vidkd.cli.options import Json, argument, flag, numbers, option
from vidkd.console import emit_json, emit_table, log
from vidkd.errors import UsageError

if TYPE_CHECKING:
    from vidkd.annotations import Annotations


def init(
    videos: Annotated[Path, argument("Folder of the videos.", "VIDEOS")],
    labels: Annotated[
        Path,
        option(
            "Labels of any format of `vidkd data formats`: a CSV with the columns video, start, "
            "end and label (seconds), ELAN, BORIS, Label Studio, ActivityNet JSON ...",
            "FILE",
        ),
    ],
    annotation_format: Format = "auto",
    annotation_rate: AnnotationRate = None,
    subject_pattern: Annotated[
        str | None,
        option(
            "Finds in a video's name the person or place that must not be in two subsets, such as "
            "'^(S[0-9]+)_'.",
            "REGEX",
        ),
    ] = None,
    split_by: Annotated[
        Literal["auto", "subject", "folder", "random"],
        option(
            "What must not be in two subsets: a subject, a folder, or single videos. auto: "
            "subjects that the labels name, else folders if there are three or more, else videos."
        ),
    ] = "auto",
    shares: Annotated[
        str, option("Per cent for training, validation, testing.", "N,N,N")
    ] = "60,20,20",
    seed: Annotated[int, option("Seed of the division.", "NUMBER")] = 0,
    teachers: Annotated[str, option("Teachers: streams such as flow, or flow,pose.", "NAMES")] = "",
    output: Annotated[
        Path | None, option("Folder to write to. Default: runs/NAME OF VIDEOS.", "DIR")
    ] = None,
    force: Annotated[bool, flag("--force", "Replace files that exist.")] = False,
    as_json: Json = False,
) -> None:
    """Look at videos and labels, divide them into subsets, and write a recipe for `vidkd run`.

    Videos are divided so that every subset has every class where that is possible (iterative
    stratification). Subsets that the labels have are kept. Nothing outside --output is changed.
    """
    from vidkd.annotations.activitynet import write_annotations
    from vidkd.files import write_text
    from vidkd.networks import DEFAULT_ENCODER, find_card
    from vidkd.pipeline.first_recipe import Machine, recipe_text
    from vidkd.pipeline.people import look_for_people
    from vidkd.pipeline.start import SUBSETS, Division, divided, missing_classes, survey
    from vidkd.recipe.choices import STUDENT_STREAMS
    from vidkd.streams import STREAMS

    chosen = tuple(name for name in teachers.replace(" ", "").split(",") if name)
    offered = [name for name in STREAMS if name not in STUDENT_STREAMS]
    if unknown := [name for name in chosen if name not in offered]:
        raise UsageError(
            f"there is no teacher {unknown[0]!r}", remedy=f"give some of {', '.join(offered)}"
        )
    root = output or Path("runs") / (videos.resolve().name or "mine")
    files = {"annotations": root / "annotations.json", "recipe": root / "recipe.yaml"}
    if not force and (there := [path for path in files.values() if path.exists()]):
        raise UsageError(
            "exists already",
            path=there[0],
            remedy="give --force to replace it, or another --output",
        )
    how = Division(subject_pattern, split_by, _shares(shares), seed)
    found = survey(videos, labels, annotation_format, annotation_rate)
    facts = found.to_json()
    if not as_json:
        _show(facts)
    truth, phrase = divided(found, how)
    lacking = missing_classes(truth)
    paths = [info.path for info in found.infos.values()]
    people = look_for_people(paths, find_card(DEFAULT_ENCODER))
    text = recipe_text(
        root.resolve().name,
        videos.resolve(),
        files["annotations"].resolve(),
        found,
        truth,
        phrase,
        Machine.here(),
        people,
        chosen,
    )
    write_annotations(files["annotations"], truth)
    write_text(files["recipe"], text)
    student = "augmented-rgb" if chosen else "vanilla-rgb"
    commands = [
        shlex.join(["vidkd", "run", str(files["recipe"]), "--output", str(root)]),
        shlex.join(
            ["vidkd", "detect", "NEW.mp4", "--model", str(root / f"models/{student}-seed0")]
        ),
    ]
    if as_json:
        emit_json(
            {
                **facts,
                "subsets": {name: list(truth.subset(name).videos) for name in SUBSETS},
                "division": phrase,
                "missing_classes": lacking,
                "files": {name: str(path) for name, path in files.items()},
                "next": commands,
            }
        )
        return
    _show_subsets(truth, SUBSETS)
    log(f"subsets: {phrase}")
    if "at random" in phrase:
        log(
            "note: videos of one person may be in several subsets, which makes results look better"
            " than they are on new people; --subject-pattern keeps them apart"
        )
    for line in lacking:
        log(f"note: {line}")
    log(f"wrote {files['annotations']} and {files['recipe']}")
    typer.echo("next:")
    for command in commands:
        typer.echo(f"  {command}")


def _shares(text: str) -> tuple[float, float, float]:
    found = numbers(text, "--shares", "60,20,20") or []
    if len(found) != 3 or not min(found) > 0 or sum(found) > 1000:
        raise UsageError(
            f"--shares {text!r} is not three numbers above 0", remedy="give such as 60,20,20"
        )
    return found[0], found[1], found[2]


def _show(facts: dict[str, Any]) -> None:
    hours = facts["hours"]
    emit_table(
        "",
        ("found", ""),
        [
            ("videos with labels", facts["videos"]),
            ("length in all", f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"),
            ("segments", facts["segments"]),
            ("median length of a segment", f"{facts['median_seconds']:.1f} s"),
            ("time with a segment", f"{facts['labelled_share']:.0%}"),
            ("time with several at once", f"{facts['overlapping_share']:.0%}"),
        ],
    )
    emit_table(
        "",
        ("class", "segments", "videos", "median length"),
        [
            (name, item["segments"], item["videos"], f"{item['median_seconds']:.1f} s")
            for name, item in facts["classes"].items()
        ],
    )
    for note in facts["notes"]:
        log(f"note: {note}")


def _show_subsets(truth: Annotations, subsets: tuple[str, ...]) -> None:
    parts = [truth.subset(name).videos.values() for name in subsets]
    counts = [Counter(item.label for video in part for item in video.segments) for part in parts]
    rows = [(f"class {name}", *(count[name] for count in counts)) for name in truth.classes]
    emit_table("", ("subset", *subsets), [("videos", *map(len, parts)), *rows])
