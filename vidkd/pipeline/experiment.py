"""The stages of an experiment, from video to the table: what ``vidkd run`` does."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.annotations import Annotations, check, load_annotations
from vidkd.console import log
from vidkd.errors import AnnotationError, UsageError, VidkdError
from vidkd.features import JobResult, extract_features_all, extract_flow_all
from vidkd.pipeline import pose
from vidkd.pipeline.feature_cache import encoder_name
from vidkd.pipeline.results import Results, Row
from vidkd.pipeline.scoring import score_runs
from vidkd.pipeline.stages import Stage, run_stages
from vidkd.recipe import Modality, Pipeline
from vidkd.video import VideoFile, find_videos


@dataclass(frozen=True)
class Layout:
    """Where an experiment keeps what it makes.

    Attributes:
        root: the folder of everything.
        shared: the folder of flow and features, if it is not in there.
    """

    root: Path
    shared: Path | None = None

    @property
    def data(self) -> Path:
        """Rendered videos, annotations and poses."""
        return self.root / "data"

    @property
    def cache(self) -> Path:
        """Flow and features."""
        return self.shared or self.root / "cache"

    @property
    def encoders(self) -> Path:
        """Quantised encoders; detection looks for them here."""
        return self.root / "encoders"

    @property
    def pictures(self) -> Path:
        """The timeline of a detection, the annotated video, and the training curves."""
        return self.root / "pictures"

    def run(self, name: str, seed: int) -> Path:
        """Run folder of one model and seed."""
        return self.root / "models" / f"{name}-seed{seed}"

    def evaluation(self, name: str, seed: int) -> Path:
        """Scores, segments and metrics of one row of the table and seed."""
        return self.root / "evaluation" / f"{name}-seed{seed}"


@dataclass(frozen=True)
class Model:
    """One row of the table.

    Attributes:
        name: as printed.
        inputs: what it sees at run time.
        runs: names of the trained runs whose logits are averaged.
    """

    name: str
    inputs: str
    runs: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True)
class Experiment:
    """A recipe with a place and a machine to run it on."""

    recipe: Pipeline
    layout: Layout
    workers: int
    device: str
    overwrite: bool

    def models(self) -> list[Model]:
        """Return the rows of the table, in the paper's order (Dai et al. 2021, Table 5)."""
        names = {modality: f"teacher-{modality}" for modality in self.recipe.teachers}
        return [
            *(Model(f"{modality} teacher", modality, (run,)) for modality, run in names.items()),
            Model("vanilla RGB", "rgb", ("vanilla-rgb",)),
            Model(
                "two-stream" if len(names) == 1 else "late fusion",
                " + ".join(["rgb", *names]),
                ("vanilla-rgb", *names.values()),
            ),
            Model("augmented RGB", "rgb", ("augmented-rgb",)),
        ]

    def data_stages(self) -> list[Stage]:
        """Return the stages that every model shares, from video to features, in order."""
        recipe, layout = self.recipe, self.layout
        data = _part(recipe, "synth", "data")
        flow = {**data, **_part(recipe, "frames", "flow")}
        features = {**flow, **_part(recipe, "snippet", "encoders")}
        stages = []
        if recipe.synth is not None:
            truth = layout.data / "annotations.json"
            stages.append(Stage("render", data, [truth], self.render))
        if "flow" in recipe.encoders:
            stages.append(Stage("flow", flow, [layout.cache / "flow"], self.extract_flow))
        for modality, encoder in recipe.encoders.items():
            if modality == "pose":
                stages.extend(pose.pose_stages(self))
                continue
            if encoder.precision == "int8":
                quantise = functools.partial(self.quantise, modality)
                made = [self._quantised_file(modality)]
                stages.append(Stage(f"quantise-{modality}", features, made, quantise))
            folder = layout.cache / "features" / self.encoder_name(modality)
            action = functools.partial(self.extract_features, modality)
            stages.append(Stage(f"features-{modality}", features, [folder], action))
        return stages

    def stages(self) -> list[Stage]:
        """Return all stages in order; each one's settings include those of what it builds on."""
        recipe, layout = self.recipe, self.layout
        features = _part(recipe, "synth", "data", "frames", "flow", "snippet", "encoders")
        if "pose" in recipe.encoders:
            features |= _part(recipe, "pose", "pose_encoder")
        training = {**features, **_part(recipe, "filter", "optimiser", "subsets", "segments")}
        distilling = {**training, **_part(recipe, "distillation", "teachers")}
        evaluating = {**distilling, **_part(recipe, "evaluation")}
        stages = self.data_stages()
        for seed in recipe.seeds:
            for modality in recipe.teachers:
                stages.append(self._training(f"teacher-{modality}", modality, seed, training))
            stages.append(self._training("vanilla-rgb", "rgb", seed, training))
            stages.append(self._training("augmented-rgb", "rgb", seed, distilling))
            for model in self.models():
                folder = layout.evaluation(model.slug, seed)
                action = functools.partial(self.evaluate, model, seed)
                stages.append(
                    Stage(f"evaluate-{folder.name}", evaluating, [folder / "metrics.json"], action)
                )
        picture = layout.pictures / "detection.png"
        stages.append(Stage("detect", evaluating, [picture], self.detect))
        report = {**evaluating, "seeds": list(recipe.seeds)}
        stages.append(Stage("report", report, [layout.root / "results.json"], self.report))
        return stages

    def _training(
        self, name: str, modality: Modality, seed: int, settings: dict[str, Any]
    ) -> Stage:
        run = self.layout.run(name, seed)
        action = functools.partial(self.train, name, modality, seed)
        return Stage(run.name, settings, [run / "result.json"], action)

    @functools.cached_property
    def annotations_file(self) -> Path:
        """The ground truth."""
        if self.recipe.data is None:
            return self.layout.data / "annotations.json"
        if self.recipe.data.annotations is None:
            raise UsageError("the recipe names no annotations", remedy="give --annotations FILE")
        return self.recipe.data.annotations

    @functools.cached_property
    def annotation_format(self) -> str:
        """Name of the format of the ground truth."""
        return "activitynet" if self.recipe.data is None else self.recipe.data.format

    @functools.cached_property
    def annotations(self) -> Annotations:
        """The ground truth, read once."""
        found = load_annotations(self.annotations_file, self.annotation_format)
        needed = (
            self.recipe.subsets.training,
            self.recipe.subsets.validation,
            self.recipe.evaluation.subset,
        )
        for subset in needed:
            if not found.subset(subset).videos:
                raise AnnotationError(
                    f"subset {subset!r} has no video",
                    path=self.annotations_file,
                    remedy="name the subsets in the recipe (subsets, evaluation.subset)",
                )
        return found

    @functools.cached_property
    def videos(self) -> list[VideoFile]:
        """The annotated videos.

        Raises:
            VidkdError: an annotated video is missing.
        """
        folder = self.layout.data / "videos"
        if self.recipe.data is not None:
            if self.recipe.data.videos is None:
                raise UsageError("the recipe names no videos", remedy="give --videos FOLDER")
            folder = self.recipe.data.videos
            if not folder.is_dir():
                raise UsageError("is not a folder", path=folder, remedy="give --videos FOLDER")
        found = {Path(video.key).name: video for video in find_videos([folder])}
        missing = [name for name in self.annotations.videos if Path(name).name not in found]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise VidkdError(
                f"has no video for {', '.join(missing[:3])}{more}",
                path=folder,
                remedy="add the videos, or take them out of the annotations",
            )
        for problem in check(self.annotations)[:10]:
            log(f"note: {self.annotations_file.name}: {problem}")
        return [found[Path(name).name] for name in self.annotations.videos]

    def render(self) -> None:
        """Render the data set (``vidkd synth``)."""
        from vidkd.synth import render_dataset

        assert self.recipe.synth is not None
        render_dataset(self.layout.data, self.recipe.synth, self.workers)

    def extract_flow(self) -> None:
        """TV-L1 flow of every annotated video."""
        _succeed(
            extract_flow_all(
                self.videos,
                self.layout.cache,
                self.recipe.frames,
                self.recipe.flow,
                workers=self.workers,
                overwrite=self.overwrite,
            )
        )

    def encoder_name(self, modality: Modality) -> str:
        """Name of the encoder whose features are trained on."""
        return encoder_name(self.recipe, modality)

    def _quantised_file(self, modality: Modality) -> Path:
        return self.layout.encoders / f"{self.encoder_name(modality)}.safetensors"

    def quantise(self, modality: Modality) -> None:
        """Quantise an encoder, calibrated on the training videos."""
        from vidkd.features.calibration import quantise_encoder
        from vidkd.networks import ensure_weights

        encoder = self.recipe.encoders[modality]
        ensure_weights(encoder.name)
        training = self.annotations.subset(self.recipe.subsets.training).videos
        names = {Path(name).name for name in training}
        quantise_encoder(
            encoder.name,
            [video for video in self.videos if Path(video.key).name in names],
            self._quantised_file(modality),
            called=self.encoder_name(modality),
            frames=self.recipe.frames,
            crop=encoder.crop,
            # A stage that runs again was killed, or its settings have changed.
            overwrite=True,
        )

    def extract_features(self, modality: Modality) -> None:
        """Features of every annotated video in one modality."""
        if modality == "pose":
            _succeed(pose.extract_features(self, 1 if self._on_gpu else self.workers))
            return
        from vidkd.networks import ensure_weights

        encoder = self.recipe.encoders[modality]
        name, precision = encoder.name, encoder.precision
        if precision == "int8":
            name, precision = str(self._quantised_file(modality)), "auto"
        ensure_weights(name)
        _succeed(
            extract_features_all(
                self.videos,
                self.layout.cache,
                modality,
                name,
                self.recipe.frames,
                self.recipe.snippet,
                encoder.crop,
                device=self.device,
                precision=precision,
                flow=self.recipe.flow if modality == "flow" else None,
                # On a GPU one process keeps it busy; several would each hold the network.
                workers=1 if self._on_gpu else self.workers,
                overwrite=self.overwrite,
            )
        )

    def extract_pose(self) -> None:
        """Poses of every annotated video."""
        _succeed(pose.extract(self, 1 if self._on_gpu else self.workers))

    @functools.cached_property
    def _on_gpu(self) -> bool:
        from vidkd.networks import select_device

        return select_device(self.device).type == "cuda"

    def train(self, name: str, modality: Modality, seed: int) -> None:
        """Train one teacher, the vanilla baseline, or the student with all its teachers."""
        from vidkd.distillation import TrainingJob, train

        recipe = self.recipe
        teachers: tuple[Path, ...] = ()
        if name == "augmented-rgb":
            teachers = tuple(self.layout.run(f"teacher-{m}", seed) for m in recipe.teachers)
        train(
            TrainingJob(
                output=self.layout.run(name, seed),
                cache=self.layout.cache,
                annotations=self.annotations_file,
                annotation_format=self.annotation_format,
                modality=modality,
                encoder=self.encoder_name(modality),
                teachers=teachers,
                filter=recipe.filter,
                optimiser=recipe.optimiser.model_copy(update={"seed": seed}),
                distillation=recipe.distillation,
                subsets=recipe.subsets,
                segments=recipe.segments,
                device=self.device,
                overwrite=self.overwrite,
            )
        )

    def evaluate(self, model: Model, seed: int) -> None:
        """Score the evaluated subset with one model, and compute both kinds of mAP."""
        settings = self.recipe.evaluation
        score_runs(
            [self.layout.run(run, seed) for run in model.runs],
            self.layout.cache,
            self.annotations.subset(settings.subset),
            settings,
            self.recipe.segments,
            self.device,
            self.layout.evaluation(model.slug, seed),
        )

    def detect(self) -> None:
        """Run the finished student on one video of the evaluated subset, from RGB alone."""
        from vidkd.detection.detector import detect
        from vidkd.report.detection import draw_detection, render_detection

        truth = self.annotations.subset(self.recipe.evaluation.subset)
        name = max(truth.videos, key=lambda video: len(truth.videos[video].segments))
        video = next(item for item in self.videos if Path(item.key).name == Path(name).name)
        model = self.layout.run("augmented-rgb", self.recipe.seeds[0])
        result = detect(video.path, model, self.device)
        draw_detection(
            self.layout.pictures / "detection.png", result, truth=truth.videos[name].segments
        )
        render_detection(self.layout.pictures / "detection.mp4", result)

    def report(self) -> None:
        """Gather the metrics of all models into the table."""
        self.results().save(self.layout.root)

    def results(self) -> Results:
        """Return the table from the metrics on disk."""
        tiou = [f"{value:g}" for value in self.recipe.evaluation.tiou]
        metrics = ("frame mAP", *(f"mAP@{value}" for value in tiou))
        rows = []
        facts: dict[str, Any] = {}
        for model in self.models():
            values: dict[str, list[float]] = {metric: [] for metric in metrics}
            for seed in self.recipe.seeds:
                path = self.layout.evaluation(model.slug, seed) / "metrics.json"
                found = json.loads(path.read_text(encoding="utf-8"))
                facts = found["frame"]
                values["frame mAP"].append(100 * facts["map"])
                for value in tiou:
                    values[f"mAP@{value}"].append(100 * found["event"]["map"][value])
            rows.append(Row(model.name, model.inputs, values))
        protocol = {
            "subset": self.recipe.evaluation.subset,
            "frame_protocol": self.recipe.evaluation.frame_protocol,
            "event_protocol": self.recipe.evaluation.event_protocol,
            "seeds": len(self.recipe.seeds),
            **{key: facts[key] for key in ("videos", "classes", "ground_truth_sha256")},
        }
        pictures = sorted(self.layout.pictures.glob("*.*"))
        return Results(self.recipe.name, metrics, protocol, rows, pictures)


def _part(recipe: Pipeline, *names: str) -> dict[str, Any]:
    part = recipe.model_dump(mode="json", include=set(names))
    for encoder in part.get("encoders", {}).values():
        if encoder["precision"] == "auto":
            # So that what was made before there was a choice still counts as finished.
            del encoder["precision"]
    return part


def _succeed(results: Sequence[JobResult]) -> None:
    """Go on only when every video was done: a table on some of the videos would mislead."""
    failed = [result for result in results if result.status == "failed"]
    if failed:
        raise VidkdError(
            f"{len(failed)} of {len(results)} videos failed (named above)",
            remedy="mend or replace them, or take them out of the annotations, and run again",
        )


def run_experiment(
    recipe: Pipeline,
    output: Path,
    *,
    workers: int = 1,
    device: str = "auto",
    overwrite: bool = False,
) -> Results:
    """Run every stage of a recipe that is not finished, and return its results.

    Args:
        recipe: what to do.
        output: folder of everything that is made; a second call on it goes on or skips.
        workers: videos rendered or read at once.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        overwrite: make again what was made with other settings.

    Raises:
        UsageError: the recipe lacks its data, or ``output`` was made with other settings.
        VidkdError: a stage failed; finished work is kept.
    """
    experiment = Experiment(recipe, Layout(output), workers, device, overwrite)
    run_stages(experiment.stages(), output, overwrite=overwrite)
    return experiment.results()
