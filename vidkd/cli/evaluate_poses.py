"""``vidkd evaluate-poses``: a pose detector against labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidkd.console import emit_json, emit_table, progress


def evaluate_poses(
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR|labels.json",
            help="Labels of `vidkd label-poses`, or a folder of `vidkd synth`; repeat it for more.",
        ),
    ],
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A detector by name, or a run of `vidkd train-pose`. Default: the one that ships "
            "with vidkd.",
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option(help="People found with a lower score are ignored.")
    ] = 0.5,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Pictures of each source, evenly spread.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say how far a pose detector agrees with labels it was not trained on."""
    from vidkd.pose.detector import DEFAULT_DETECTOR, load_pose_detector
    from vidkd.pose.labels import load_pictures, read_labels
    from vidkd.pose.metrics import evaluate_detector

    network = load_pose_detector(detector or DEFAULT_DETECTOR, device)
    network.least_score = min_score
    results = {}
    for source in data:
        frames = read_labels(source)
        count = len(frames) if limit is None else min(limit, len(frames))
        chosen = [frames[number * len(frames) // count] for number in range(count)]
        pictures = ((frame.people, image) for frame, image in load_pictures(chosen))
        with progress("evaluate-poses", count, "pictures") as advance:
            scores = evaluate_detector(network, pictures, advance)
        results[str(source)] = {"pictures": count, **scores.to_json()}
    if as_json:
        emit_json({"detector": network.name, "min_score": min_score, "results": results})
        return
    names = list(next(iter(results.values())))
    emit_table(
        network.name,
        ("", *results),
        [(name, *(_short(item[name]) for item in results.values())) for name in names],
    )


def _short(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
