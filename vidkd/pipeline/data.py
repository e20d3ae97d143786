"""From videos to features: plain functions of a split of the videos and a way to work.

Encoders of pictures come trained, or are quantised here. That of poses is trained by the recipe
itself, once for each split of the videos, on its training videos, with the epoch chosen on its
validation videos; its features then serve all seeds.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vidkd.cache import CacheFile, cache_files
from vidkd.cluster import Executor
from vidkd.errors import CacheError, VidkdError
from vidkd.features import FeatureSettings, FlowTask, Task, feature_task, run_jobs
from vidkd.pipeline.layout import file_name
from vidkd.pipeline.split import Split
from vidkd.pipeline.stages import Stage
from vidkd.recipe import FlowSettings, Modality
from vidkd.streams import STREAMS

if TYPE_CHECKING:
    from vidkd.recipe.jobs import PoseEncoderJob


@dataclass(frozen=True)
class Execution:
    """How work is done, none of which changes what comes out.

    Attributes:
        workers: videos rendered or read at once.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        overwrite: make again what the cache holds and was made with other settings.
        retrain: train again what was trained with other settings, in the run's own folder.
        cluster: reads the videos in place of the workers.
    """

    workers: int = 1
    device: str = "auto"
    overwrite: bool = False
    retrain: bool = False
    cluster: Executor | None = None

    @functools.cached_property
    def encoding_workers(self) -> int:
        """Videos encoded at once: one keeps a GPU busy, and several would each hold the network."""
        from vidkd.networks import select_device

        return 1 if select_device(self.device).type == "cuda" else self.workers


def render_stage(split: Split, how: Execution) -> Stage:
    """Return the stage that renders the videos of a recipe that has none."""
    outputs = [split.layout.data / "annotations.json"]
    return Stage(
        "render", split.part("synth", "data"), outputs, functools.partial(render, split, how)
    )


def feature_stages(split: Split, modality: Modality, how: Execution) -> list[Stage]:
    """Return the stages from videos to the features of one modality, in order."""
    recipe, stream, cache = split.recipe, STREAMS[modality], split.layout.cache
    end = f"-{file_name(split.name)}" if split.name and split.makes_encoder(modality) else ""
    sources = {"flow": extract_flow, "pose": extract_poses}
    own = (stream.artefact,) if stream.artefact in sources else ()
    before = split.part("synth", "data", "frames", *own)
    settings = {**before, **split.part("snippet", "encoders")}
    stages = []
    for name in own:
        action = functools.partial(sources[name], split, how)
        stages.append(Stage(name, before, [cache / name], action))
    if stream.trained_by_recipe:
        settings |= split.part("pose_encoder", "subsets")
        run = split.encoder_run(modality)
        action = functools.partial(train_pose_encoder, split, how)
        stages.append(Stage(f"encoder-{modality}{end}", settings, [run / "result.json"], action))
    else:
        settings |= split.part("flow")
    if recipe.encoders[modality].precision == "int8":
        action = functools.partial(quantise, split, modality, how)
        made = [split.quantised_file(modality)]
        stages.append(Stage(f"quantise-{modality}{end}", settings, made, action))
    made = [cache / "features" / split.features_folder(modality)]
    action = functools.partial(extract_features, split, modality, how)
    return [*stages, Stage(f"features-{modality}{end}", settings, made, action)]


def render(split: Split, how: Execution) -> None:
    """Render the data set (``vidkd synth``)."""
    from vidkd.synth import render_dataset

    assert split.recipe.synth is not None
    render_dataset(split.layout.data, split.recipe.synth, how.workers)


def extract_flow(split: Split, how: Execution) -> None:
    """Compute the TV-L1 flow of every annotated video (``vidkd extract-flow``)."""
    flow, device = flow_of(split, how)
    task = FlowTask(split.layout.cache, split.recipe.frames, flow, device, how.overwrite)
    _run(split, task, 1 if device.startswith("cuda") else how.workers, how.cluster)


def flow_of(split: Split, how: Execution) -> tuple[FlowSettings, str]:
    """Return the settings of flow with the backend that ``auto`` stands for, and the device.

    ``auto`` stays with the backend of the flow that is there, so that a run may go on on another
    machine: the flow of two backends is not mixed.
    """
    from vidkd.flow import resolve
    from vidkd.networks import select_device

    flow, device = split.recipe.flow, str(select_device(how.device))
    if flow.backend == "auto":
        found = None if how.overwrite else _flow_backend(split)
        flow = flow.model_copy(update={"backend": found or resolve("auto", device)})
    return flow, device if flow.backend == "torch" else "cpu"


def _flow_backend(split: Split) -> str | None:
    """Return the backend of the flow in the cache, or None where there is none."""
    for path in cache_files(split.layout.cache, "flow").items.values():
        with contextlib.suppress(CacheError), CacheFile(path) as file:
            return str(file.provenance.settings["flow"]["backend"])
    return None


def quantise(split: Split, modality: Modality, how: Execution) -> None:
    """Quantise an encoder, calibrated on the training videos (``vidkd models quantise``)."""
    from vidkd.features.calibration import quantise_encoder
    from vidkd.networks import ensure_weights

    encoder = split.recipe.encoders[modality]
    ensure_weights(encoder.name)
    quantise_encoder(
        encoder.name,
        split.training_videos(),
        split.quantised_file(modality),
        called=split.encoder_name(modality),
        frames=split.recipe.frames,
        crop=encoder.given_crop,
        # A stage that runs again was killed, or its settings have changed.
        overwrite=True,
    )


def extract_features(split: Split, modality: Modality, how: Execution) -> None:
    """Encode every annotated video in one modality (``vidkd extract-features``)."""
    stream, settings = STREAMS[modality], feature_settings(split, modality)
    stream.fetch_encoder(settings.encoder)
    # The backend of flow is that of the flow in the cache.
    settings = replace(
        settings, stream=stream.configured(flow_of(split, how)[0]), device=how.device
    )
    task = feature_task(split.layout.cache, settings, overwrite=how.overwrite)
    _run(split, task, how.encoding_workers, how.cluster)


def feature_settings(split: Split, modality: Modality) -> FeatureSettings:
    """Return how a recipe makes the features of one modality."""
    recipe, stream, encoder = split.recipe, STREAMS[modality], split.recipe.encoders[modality]
    name, precision = encoder.name, encoder.precision
    if stream.trained_by_recipe:
        name = str(split.encoder_run(modality))
    if precision == "int8":
        name, precision = str(split.quantised_file(modality)), "auto"
    return FeatureSettings(
        stream.configured(recipe.flow),
        name,
        recipe.sampling,
        recipe.snippet,
        encoder.given_crop,
        precision=precision,
    )


def extract_poses(split: Split, how: Execution) -> None:
    """Find the people in every annotated video (``vidkd extract-pose``)."""
    from vidkd.features.poses import pose_task

    recipe, chosen = split.recipe, split.recipe.pose
    poses = chosen.poses
    if chosen.backend == "files" and poses is None and recipe.synth is not None:
        poses = split.layout.data / "poses"
    task = pose_task(
        split.layout.cache,
        recipe.frames,
        chosen.settings,
        detector=chosen.detector,
        poses=poses,
        device=how.device,
        overwrite=how.overwrite,
    )
    _run(split, task, how.encoding_workers, how.cluster)


def pose_encoder_job(split: Split, how: Execution) -> PoseEncoderJob:
    """Return what the recipe's 2s-AGCN is trained on, and how."""
    from vidkd.recipe.jobs import PoseEncoderJob

    recipe = split.recipe
    return PoseEncoderJob(
        **recipe.pose_encoder.model_dump(),
        annotations=split.path,
        annotation_format=split.format,
        output=split.encoder_run("pose"),
        cache=split.layout.cache,
        subsets=recipe.subsets,
        snippet=recipe.snippet,
        device=how.device,
        overwrite=how.retrain,
    )


def train_pose_encoder(split: Split, how: Execution) -> None:
    """Train the recipe's 2s-AGCN (``vidkd train-encoder --modality pose``)."""
    from vidkd.finetuning import train_encoder

    train_encoder(pose_encoder_job(split, how))


def _run(split: Split, task: Task, workers: int, cluster: Executor | None) -> None:
    """Do a task with every annotated video, and go on only when every one of them was done.

    A table on some of the videos would mislead.

    Raises:
        VidkdError: a video failed.
    """
    results = run_jobs(split.videos, task, workers=workers, executor=cluster)
    failed = [result for result in results if result.status == "failed"]
    if failed:
        raise VidkdError(
            f"{len(failed)} of {len(results)} videos failed (named above)",
            remedy="mend or replace them, or take them out of the annotations, and run again",
        )
