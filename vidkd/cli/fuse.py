"""``vidkd fuse``: several students, and the weights of their fusion, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from vidkd.cli.evaluate import GroundTruth
from vidkd.cli.export import Format
from vidkd.cli.options import Device, Json, SkipMissing, argument, option
from vidkd.console import emit, log


def fuse(
    runs: Annotated[list[Path], argument("Run folders or weights of students.", "RUN...")],
    cache: Annotated[Path, option("The cache with their features.", "DIR")],
    annotations: GroundTruth,
    output: Annotated[Path, option("Write all of them into this file.", "FILE.safetensors")],
    subset: Annotated[str, option("Subset that the weights are chosen on.", "NAME")] = "validation",
    kind: Annotated[
        Literal["auto", "equal", "per-model", "per-class"],
        option(
            "One weight for each model, one for each model and class, or all equal; auto takes "
            "what is best on held-out videos of the subset.",
            names=("--weights",),
        ),
    ] = "auto",
    step: Annotated[
        float, option("Step of the grid of weights.", "NUMBER", min=0.01, max=0.5)
    ] = 0.1,
    format: Format = "auto",
    skip_missing: SkipMissing = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Choose how much each of several models counts, and write all of them into one file.

    The file works as --model of detect and as --run of evaluate. It also holds encoders that do
    not come with vidkd, such as that of poses.
    """
    from vidkd.annotations import load_annotations
    from vidkd.detection.fuse import KINDS, fuse_runs

    result = fuse_runs(
        runs,
        cache,
        load_annotations(annotations, format),
        output,
        subset=subset,
        step=step,
        kind=next((item for item in KINDS if item.replace(" ", "-") == kind), None),
        device=device,
        skip_missing=skip_missing,
    )
    shares = result.weights.mean(axis=1)
    rows = zip(result.students, shares, result.alone, strict=True)
    emit(
        result.to_json(),
        as_json,
        ("model", "weight", f"{subset} frame mAP alone"),
        [(name, f"{share:.2f}", f"{100 * alone:.1f}") for name, share, alone in rows],
    )
    tried = ", ".join(f"{name} {100 * value:.1f}" for name, value in result.held_out.items())
    log(
        f"weights: {result.kind}"
        + (" (the table has their means)" if result.kind == "per class" else "")
        + f"; fused {100 * result.frame_map:.1f} on the videos they were chosen on; on held-out "
        f"videos: {tried}"
    )
    log(f"wrote {output}")
