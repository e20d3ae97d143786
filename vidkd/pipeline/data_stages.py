"""The stages that every model shares, from video to features."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from vidkd.cache import CacheFile, cache_files
from vidkd.errors import CacheError
from vidkd.features import FeatureSettings, FlowTask, feature_task, run_jobs
from vidkd.pipeline.pose import pose_stages
from vidkd.pipeline.stages import Stage
from vidkd.pipeline.workplace import Workplace, succeed
from vidkd.recipe import FlowSettings, Modality
from vidkd.streams import STREAMS


def data_stages(place: Workplace) -> list[Stage]:
    """Return the stages from video to features, in order."""
    recipe, layout = place.recipe, place.layout
    data = place.part("synth", "data")
    flow = {**data, **place.part("frames", "flow")}
    features = {**flow, **place.part("snippet", "encoders")}
    stages = []
    if recipe.synth is not None:
        truth = layout.data / "annotations.json"
        stages.append(Stage("render", data, [truth], functools.partial(render, place)))
    if "flow" in recipe.encoders:
        action = functools.partial(extract_flow, place)
        stages.append(Stage("flow", flow, [layout.cache / "flow"], action))
    for modality, encoder in recipe.encoders.items():
        if modality == "pose":
            stages.extend(pose_stages(place))
            continue
        if encoder.precision == "int8":
            action = functools.partial(quantise, place, modality)
            made = [place.quantised_file(modality)]
            stages.append(Stage(f"quantise-{modality}", features, made, action))
        action = functools.partial(extract_features, place, modality)
        made = [place.features_folder(modality)]
        stages.append(Stage(f"features-{modality}", features, made, action))
    return stages


def render(place: Workplace) -> None:
    """Render the data set (``vidkd synth``)."""
    from vidkd.synth import render_dataset

    assert place.recipe.synth is not None
    render_dataset(place.layout.data, place.recipe.synth, place.workers)


def extract_flow(place: Workplace) -> None:
    """TV-L1 flow of every annotated video."""
    flow, device = flow_of(place)
    task = FlowTask(place.layout.cache, place.recipe.frames, flow, device, place.overwrite)
    workers = 1 if device.startswith("cuda") else place.workers
    succeed(run_jobs(place.division.videos, task, workers=workers))


def flow_of(place: Workplace) -> tuple[FlowSettings, str]:
    """Return the settings of flow with the backend that ``auto`` stands for, and the device.

    ``auto`` stays with the backend of the flow that is there, so that a run may go on on another
    machine: the flow of two backends is not mixed.
    """
    from vidkd.flow import resolve
    from vidkd.networks import select_device

    flow, device = place.recipe.flow, str(select_device(place.device))
    if flow.backend == "auto":
        found = None if place.overwrite else _flow_backend(place.layout.cache)
        flow = flow.model_copy(update={"backend": found or resolve("auto", device)})
    return flow, device if flow.backend == "torch" else "cpu"


def _flow_backend(cache: Path) -> str | None:
    """Return the backend of the flow in a cache, or None where there is none."""
    for path in cache_files(cache, "flow").items.values():
        with contextlib.suppress(CacheError), CacheFile(path) as file:
            return str(file.provenance.settings["flow"]["backend"])
    return None


def quantise(place: Workplace, modality: Modality) -> None:
    """Quantise an encoder, calibrated on the training videos."""
    from vidkd.features.calibration import quantise_encoder
    from vidkd.networks import ensure_weights

    encoder = place.recipe.encoders[modality]
    ensure_weights(encoder.name)
    quantise_encoder(
        encoder.name,
        place.division.training_videos(),
        place.quantised_file(modality),
        called=place.encoder_name(modality),
        frames=place.recipe.frames,
        crop=encoder.crop,
        # A stage that runs again was killed, or its settings have changed.
        overwrite=True,
    )


def extract_features(place: Workplace, modality: Modality) -> None:
    """Features of every annotated video in one modality of pictures."""
    recipe = place.recipe
    encoder = recipe.encoders[modality]
    name, precision = encoder.name, encoder.precision
    if precision == "int8":
        name, precision = str(place.quantised_file(modality)), "auto"
    stream = STREAMS[modality]
    stream.fetch_encoder(name)
    settings = FeatureSettings(
        stream.configured(flow_of(place)[0]),
        name,
        recipe.frames,
        recipe.snippet,
        encoder.crop,
        precision=precision,
        device=place.device,
    )
    task = feature_task(place.layout.cache, settings, overwrite=place.overwrite)
    succeed(run_jobs(place.division.videos, task, workers=place.encoding_workers))
