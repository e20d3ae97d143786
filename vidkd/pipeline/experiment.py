"""An experiment: the stages from video to the table, and running them; what ``vidkd run`` does."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.pipeline.data_stages import data_stages
from vidkd.pipeline.division import Division
from vidkd.pipeline.layout import Layout
from vidkd.pipeline.results import Results, Row
from vidkd.pipeline.scoring import score_runs
from vidkd.pipeline.stages import Stage, run_stages
from vidkd.pipeline.workplace import Workplace
from vidkd.recipe import Modality, Pipeline


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
    """The models of a recipe at one workplace."""

    place: Workplace

    @property
    def recipe(self) -> Pipeline:
        """What to do."""
        return self.place.recipe

    @property
    def layout(self) -> Layout:
        """Where."""
        return self.place.layout

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

    def stages(self) -> list[Stage]:
        """Return all stages in order; each one's settings include those of what it builds on."""
        recipe, layout, place = self.recipe, self.layout, self.place
        features = place.part("synth", "data", "frames", "flow", "snippet", "encoders")
        if "pose" in recipe.encoders:
            features |= place.part("pose", "pose_encoder")
        training = {**features, **place.part("filter", "optimiser", "subsets", "segments")}
        distilling = {**training, **place.part("distillation", "teachers")}
        evaluating = {**distilling, **place.part("evaluation")}
        stages = data_stages(place)
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

    def train(self, name: str, modality: Modality, seed: int) -> None:
        """Train one teacher, the vanilla baseline, or the student with all its teachers."""
        from vidkd.distillation import train
        from vidkd.recipe.jobs import TrainingJob

        recipe, place = self.recipe, self.place
        teachers: tuple[Path, ...] = ()
        if name == "augmented-rgb":
            teachers = tuple(self.layout.run(f"teacher-{m}", seed) for m in recipe.teachers)
        train(
            TrainingJob(
                output=self.layout.run(name, seed),
                cache=self.layout.cache,
                annotations=place.division.path,
                annotation_format=place.division.format,
                modality=modality,
                encoder=place.encoder_name(modality),
                teachers=teachers,
                filter=recipe.filter,
                optimiser=recipe.optimiser.model_copy(update={"seed": seed}),
                distillation=recipe.distillation,
                subsets=recipe.subsets,
                segments=recipe.segments,
                device=place.device,
                overwrite=place.overwrite,
            )
        )

    def evaluate(self, model: Model, seed: int) -> None:
        """Score the evaluated subset with one model, and compute both kinds of mAP."""
        settings = self.recipe.evaluation
        score_runs(
            [self.layout.run(run, seed) for run in model.runs],
            self.layout.cache,
            self.place.division.annotations.subset(settings.subset),
            settings,
            self.recipe.segments,
            self.place.device,
            self.layout.evaluation(model.slug, seed),
        )

    def detect(self) -> None:
        """Run the finished student on one video of the evaluated subset, from RGB alone."""
        from vidkd.detection.detector import detect
        from vidkd.report.detection import draw_detection, render_detection

        division = self.place.division
        truth = division.annotations.subset(self.recipe.evaluation.subset)
        name = max(truth.videos, key=lambda video: len(truth.videos[video].segments))
        video = division.video(name)
        model = self.layout.run("augmented-rgb", self.recipe.seeds[0])
        result = detect(video.path, model, self.place.device)
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
    division = Division(recipe, Layout(output))
    experiment = Experiment(Workplace(division, workers, device, overwrite, overwrite))
    run_stages(experiment.stages(), output, overwrite=overwrite)
    return experiment.results()
