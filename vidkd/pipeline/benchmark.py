"""``vidkd benchmark``: a matrix of runs as stages, and the numbers of every row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.pipeline.data_stages import data_stages
from vidkd.pipeline.division import Division
from vidkd.pipeline.feature_cache import FeatureState, feature_state, features_hash
from vidkd.pipeline.layout import Layout
from vidkd.pipeline.matrix import Run, Table, TableRow, all_runs, build_tables
from vidkd.pipeline.needed_features import Features, Needed, needed_features
from vidkd.pipeline.pose import encoder_job
from vidkd.pipeline.row_jobs import EvaluateJob, UntrainedJob
from vidkd.pipeline.stages import Stage, run_stages
from vidkd.pipeline.waves import Outcome, run_waves
from vidkd.pipeline.workplace import Workplace
from vidkd.recipe import Modality, Pipeline


@dataclass
class Benchmark:
    """A recipe's matrix, with a place and a machine.

    Attributes:
        recipe: what to run.
        layout: where.
        workers: rows trained at once, and videos read at once.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        tables: what the recipe asks for, or the tables chosen instead.
        subset: the subset that the tables show; None takes the recipe's.
    """

    recipe: Pipeline
    layout: Layout
    workers: int
    device: str
    tables: list[Table]
    subset: str | None = None

    @classmethod
    def of(
        cls,
        recipe: Pipeline,
        output: Path,
        *,
        cache: Path | None = None,
        workers: int = 1,
        device: str = "auto",
        numbers: Sequence[int] | None = None,
        subset: str | None = None,
    ) -> Benchmark:
        """Plan a benchmark; nothing is read or written yet.

        Raises:
            UsageError: the recipe has no teacher, or two methods of the same name.
        """
        tables = build_tables(recipe, numbers)
        return cls(recipe, Layout(output, cache), workers, device, tables, subset)

    @property
    def reported(self) -> str:
        """Name of the subset that the tables show."""
        return self.subset or self.recipe.evaluation.subset

    @property
    def subsets(self) -> tuple[str, ...]:
        """What is evaluated: the reported subset, and validation for tuning."""
        return tuple(dict.fromkeys((self.reported, self.recipe.subsets.validation)))

    @functools.cached_property
    def divisions(self) -> dict[str, Division]:
        """Every division of the videos that the tables need, by name; empty for the recipe's own.

        They are read when they are first asked for.
        """
        found = {}
        for name in dict.fromkeys(("", *(run.split for run in all_runs(self.tables)))):
            found[name] = Division(self.recipe, self.layout, name, self.subset)
        return found

    def modalities(self) -> list[Modality]:
        """Return the modalities that the tables need, RGB first."""
        runs = all_runs(self.tables)
        return list(dict.fromkeys(("rgb", *(m for run in runs for m in run.modalities))))

    def prepare(self) -> Outcome:
        """Make what all rows share: the videos of a recipe that renders them, flow, features.

        What the cache already holds is not made again, and then no videos are needed.

        Raises:
            VidkdError: there are no RGB features, and they cannot be made.
        """
        outcome = Outcome()
        root = self.layout.root
        if self.recipe.synth is not None:
            stages = self._data_stages(self.divisions[""])
            run_stages([item for item in stages if item.name == "render"], root, overwrite=True)
        for features in self._all_features():
            state = self._state(features)
            if state.complete:
                log(f"features of {features.title}: all {state.videos} are in {self.layout.cache}")
                continue
            log(f"features of {features.title}: {state.reason}")
            try:
                self._extract(features, state)
            except VidkdError as error:
                if features.modality == "rgb" and not features.division:
                    raise
                outcome.failed[features.stage] = str(error)
                log(f"failed: features of {features.title}: {error}")
        return outcome

    def _all_features(self) -> list[Features]:
        return list(dict.fromkeys(self.features.values()))

    def _state(self, features: Features) -> FeatureState:
        found = features.modality, features.encoder, features.videos
        made_of = ""
        if features.modality == "pose":
            division = self.divisions[features.division]
            made_of = encoder_job(self._place(division)).made_of(division.sha256)
        return feature_state(self.recipe, self.layout.cache, *found, made_of)

    def _extract(self, features: Features, state: FeatureState) -> None:
        modality = features.modality
        division = self.divisions[features.division]
        # A folder that others may share is never overwritten: they are told what differs.
        renew = state.stale and self.layout.shared is None
        # Found before anything is loaded: whoever gave no videos is told that first.
        log(f"extracting {features.title} from {len(division.videos)} videos")
        needed = {f"{step}-{modality}" for step in ("quantise", "encoder", "features")}
        for stage in self._data_stages(division, overwrite=renew):
            if stage.name in {modality, *needed}:
                stage.action()

    def _data_stages(self, division: Division, *, overwrite: bool = False) -> list[Stage]:
        """Return the stages from video to features, as ``vidkd run`` has them."""
        return data_stages(self._place(division, overwrite=overwrite))

    def _place(self, division: Division, *, overwrite: bool = False) -> Workplace:
        return Workplace(division, self.workers, self.device, overwrite, retrain=True)

    @functools.cached_property
    def features(self) -> Needed:
        """Everything that must be in the cache, RGB first."""
        runs = all_runs(self.tables)
        return needed_features(self.recipe, self.modalities(), runs, self.divisions)

    def features_of(self, run: Run) -> list[Features]:
        """Return what a run is trained on, its teachers' included."""
        return [self.features[modality, run.split] for modality in run.modalities]

    def stages(self, missing: Sequence[Features] = ()) -> list[Stage]:
        """Return the stages of all runs and rows, those they build on first.

        Args:
            missing: features that are not there: the stages that need them cannot be done.
        """
        hashes = {
            item.encoder: features_hash(self.layout.cache, item.encoder, item.videos)
            for item in self._all_features()
            if item not in missing
        }
        stages = []
        for seed in self.recipe.seeds:
            for run in all_runs(self.tables):
                stages.append(self._run_stage(run, seed, hashes))
        for seed in self.recipe.seeds:
            for row in self.rows():
                for subset in self.subsets:
                    stages.append(self._evaluation_stage(row, seed, subset, hashes))
        return stages

    def rows(self) -> list[TableRow]:
        """Return every row once, by what it runs."""
        rows = {row.slug: row for table in self.tables for row in table.rows}
        return list(rows.values())

    def settings(self, run: Run, seed: int, hashes: dict[str, str]) -> dict[str, Any]:
        """Return everything that decides the weights of a run."""
        recipe = self.recipe
        encoder = self.features[run.modality, run.split].encoder
        found: dict[str, Any] = {
            "encoder": encoder,
            "features": hashes.get(encoder, ""),
            "filter": run.filter.model_dump(mode="json"),
            "seed": seed,
            "trained": run.trained,
            "annotations": self.divisions[run.split].sha256,
            "subsets": recipe.subsets.model_dump(mode="json"),
        }
        if run.trained:
            found["optimiser"] = recipe.optimiser.model_dump(mode="json", exclude={"seed"})
        if run.teachers:
            assert run.distillation is not None
            found["distillation"] = run.distillation.model_dump(mode="json")
            found["teachers"] = [self.settings(item, seed, hashes) for item in run.teachers]
        return found

    def _run_stage(self, run: Run, seed: int, hashes: dict[str, str]) -> Stage:
        folder = self.layout.run(run.slug, seed)
        teachers = (self.layout.run(item.slug, seed).name for item in run.teachers)
        after = (*teachers, *(item.stage for item in self.features_of(run)))
        result = folder / ("result.json" if run.trained else "weights.safetensors")
        return Stage(
            folder.name,
            self.settings(run, seed, hashes),
            [result],
            self._train(run, seed) if run.trained else self._untrained(run, seed),
            after,
        )

    def _train(self, run: Run, seed: int) -> functools.partial[Any]:
        from vidkd.pipeline.row_jobs import train_job
        from vidkd.recipe.jobs import TrainingJob

        recipe, division = self.recipe, self.divisions[run.split]
        fields: dict[str, Any] = {}
        if run.distillation is not None:
            fields["distillation"] = run.distillation
        job = TrainingJob(
            output=self.layout.run(run.slug, seed),
            cache=self.layout.cache,
            annotations=division.path,
            annotation_format=division.format,
            modality=run.modality,
            encoder=self.features[run.modality, run.split].encoder,
            teachers=tuple(self.layout.run(item.slug, seed) for item in run.teachers),
            filter=run.filter,
            optimiser=recipe.optimiser.model_copy(update={"seed": seed}),
            subsets=recipe.subsets,
            segments=recipe.segments,
            device=self.device,
            overwrite=True,
            **fields,
        )
        return functools.partial(train_job, job)

    def _untrained(self, run: Run, seed: int) -> UntrainedJob:
        division = self.divisions[run.split]
        return UntrainedJob(
            self.layout.run(run.slug, seed),
            self.layout.cache,
            division.path,
            division.format,
            self.recipe.subsets.training,
            run.modality,
            self.features[run.modality, run.split].encoder,
            run.filter,
            seed,
        )

    def evaluation_folder(self, row: TableRow, seed: int, subset: str) -> Path:
        """Return where scores, segments and metrics of a row are."""
        return self.layout.evaluation(row.slug, seed) / subset

    def _evaluation_stage(
        self, row: TableRow, seed: int, subset: str, hashes: dict[str, str]
    ) -> Stage:
        recipe = self.recipe
        division = self.divisions[row.split]
        folder = self.evaluation_folder(row, seed, subset)
        settings = {
            "runs": [self.settings(run, seed, hashes) for run in row.runs],
            "annotations": division.sha256,
            "segments": recipe.segments.model_dump(mode="json"),
            "evaluation": recipe.evaluation.model_dump(mode="json", exclude={"subset"}),
            "subset": subset,
        }
        job = EvaluateJob(
            tuple(self.layout.run(run.slug, seed) for run in row.runs),
            self.layout.cache,
            division.path,
            division.format,
            subset,
            recipe.evaluation,
            recipe.segments,
            self.device,
            folder,
        )
        after = tuple(self.layout.run(run.slug, seed).name for run in row.runs)
        name = f"evaluate-{folder.parent.name}-{subset}"
        return Stage(name, settings, [folder / "metrics.json"], job, after)

    def planned(self) -> dict[str, Any]:
        """Return what is to be done as JSON values; nothing is written."""
        rendered = self.recipe.synth is None or self.divisions[""].path.exists()
        features: dict[str, str] = {}
        missing: list[Features] = []
        if not rendered:
            later = "to be made, after the videos are rendered"
            features = dict.fromkeys(self.modalities(), later)
        for item in self._all_features() if rendered else ():
            state = self._state(item)
            features[item.title] = state.reason or f"all {state.videos} in the cache"
            if not state.complete:
                missing.append(item)
        runs = [run for run in all_runs(self.tables) for _ in self.recipe.seeds]
        evaluations = len(self.rows()) * len(self.subsets) * len(self.recipe.seeds)
        names: set[str] = set()
        if rendered:
            stages = self.stages(missing)
            names = {stage.name for stage in stages if not stage.finished(self.layout.root)}
        to_evaluate = sum(name.startswith("evaluate-") for name in names)
        return {
            "tables": [
                {
                    "title": table.title,
                    "columns": list(table.columns),
                    "rows": [
                        {"cells": list(row.cells), "runs": [run.slug for run in row.runs]}
                        for row in table.rows
                    ],
                    "left_out": list(table.left_out),
                }
                for table in self.tables
            ],
            "features": features,
            "seeds": list(self.recipe.seeds),
            "runs": len(runs),
            "to_train": len(names) - to_evaluate if rendered else len(runs),
            "evaluations": evaluations,
            "to_evaluate": to_evaluate if rendered else evaluations,
        }

    def run(self) -> Outcome:
        """Do everything that is not done, and say what failed."""
        outcome = self.prepare()
        missing = [item for item in self._all_features() if item.stage in outcome.failed]
        return run_waves(
            self.stages(missing), self.layout.root, workers=self._workers(), outcome=outcome
        )

    def _workers(self) -> int:
        from vidkd.networks import select_device

        # On a GPU one process keeps it busy.
        return 1 if select_device(self.device).type == "cuda" else self.workers


def check_subset(benchmark: Benchmark) -> None:
    """Refuse a subset that cannot be reported.

    Raises:
        UsageError: it is the one trained on.
    """
    if benchmark.reported == benchmark.recipe.subsets.training:
        raise UsageError(
            f"subset {benchmark.reported!r} is what the rows are trained on",
            remedy="report another --subset",
        )
