"""Experiments: the tables of a recipe, and running all that they need.

``vidkd benchmark`` makes the paper's tables, ``vidkd run`` one table with every teacher of the
recipe.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.cluster import Executor
from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.pipeline.check import check_recipe
from vidkd.pipeline.data import Execution, feature_stages, render_stage
from vidkd.pipeline.features import Features, Needed, needed_features
from vidkd.pipeline.layout import Layout
from vidkd.pipeline.runs import evaluate_runs, fuse_row, keep_untrained, show_detection, train_run
from vidkd.pipeline.split import Split
from vidkd.pipeline.stages import Outcome, Stage, run_stages
from vidkd.pipeline.tables import Run, Table, TableRow, all_runs, build_tables, models_table
from vidkd.recipe import Pipeline
from vidkd.recipe.jobs import TrainingJob


@dataclass
class Benchmark:
    """The tables of a recipe, with a place and a machine.

    Attributes:
        recipe: what to run.
        layout: where.
        tables: to be made.
        workers: rows trained at once, and videos read at once.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        subset: the subset that the tables show; None takes the recipe's.
        strict: as ``vidkd run``: what was made with other settings is refused, the first failure
            ends it, runs are trained one by one in this process, and only the reported subset is
            evaluated. Otherwise what has changed is made again, and failed rows are noted.
        overwrite: if ``strict``, make again what was made with other settings.
        cluster: reads the videos, and trains the rows of a benchmark, in place of the workers.
        validated: evaluate validation too if ``strict``: a model is to be chosen.
    """

    recipe: Pipeline
    layout: Layout
    tables: list[Table[TableRow]]
    workers: int = 1
    device: str = "auto"
    subset: str | None = None
    strict: bool = False
    overwrite: bool = False
    cluster: Executor | None = None
    validated: bool = False

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
        cluster: Executor | None = None,
    ) -> Benchmark:
        """Plan ``vidkd benchmark``; nothing is read or written yet.

        Raises:
            UsageError: the recipe has no teacher, names what there is not, or two methods of the
                same name, or the subset is the one trained on.
        """
        layout = Layout(output, cache)
        check_recipe(recipe, layout.cache)
        if (subset or recipe.evaluation.subset) == recipe.subsets.training:
            raise UsageError(
                f"the models are trained on subset {subset or recipe.evaluation.subset!r}",
                remedy="report another --subset",
            )
        tables = build_tables(recipe, numbers)
        return cls(recipe, layout, tables, workers, device, subset, cluster=cluster)

    @classmethod
    def of_models(
        cls,
        recipe: Pipeline,
        output: Path,
        *,
        cache: Path | None = None,
        workers: int = 1,
        device: str = "auto",
        overwrite: bool = False,
        cluster: Executor | None = None,
        validated: bool = False,
    ) -> Benchmark:
        """Plan ``vidkd run``; nothing is read or written yet.

        Raises:
            UsageError: the recipe names what there is not.
        """
        layout = Layout(output, cache)
        check_recipe(recipe, layout.cache)
        tables = [models_table(recipe)]
        return cls(
            recipe,
            layout,
            tables,
            workers,
            device,
            strict=True,
            overwrite=overwrite,
            cluster=cluster,
            validated=validated,
        )

    @property
    def reported(self) -> str:
        """Name of the subset that the tables show."""
        return self.subset or self.recipe.evaluation.subset

    @property
    def subsets(self) -> tuple[str, ...]:
        """What is evaluated: the reported subset, and in a benchmark validation, for tuning."""
        alone = self.strict and not self.validated
        further = () if alone else (self.recipe.subsets.validation,)
        return tuple(dict.fromkeys((self.reported, *further)))

    @functools.cached_property
    def splits(self) -> dict[str, Split]:
        """Every split of the videos that the tables need, by name; empty for the recipe's own."""
        names = dict.fromkeys(("", *(run.split for run in self.runs())))
        return {name: Split(self.recipe, self.layout, name, self.subset) for name in names}

    @functools.cached_property
    def features(self) -> Needed:
        """Everything that must be in the cache, RGB first."""
        return needed_features(self.runs(), self.splits)

    def all_features(self) -> list[Features]:
        """Return everything that must be in the cache, each once."""
        return list({item.stage: item for item in self.features.values()}.values())

    def features_of(self, run: Run) -> list[Features]:
        """Return what a run is trained on, its teachers' included."""
        return [self.features[modality, run.split] for modality in run.modalities]

    def runs(self) -> list[Run]:
        """Return every run that the tables need, teachers first."""
        return all_runs(self.tables)

    def rows(self) -> list[TableRow]:
        """Return every row once, by what it runs."""
        return list({row.slug: row for table in self.tables for row in table.rows}.values())

    def run(self) -> Outcome:
        """Do everything that is not done, and say what failed.

        Raises:
            UsageError: something was made with other settings, and that is not to be overwritten.
            VidkdError: there are no RGB features and they cannot be made, or anything else failed
                if ``strict``.
        """
        outcome = self.make_features()
        missing = [item for item in self.all_features() if item.stage in outcome.failed]
        stages = self.stages(missing)
        if self.strict:
            stages.append(self._show_stage())
        return run_stages(
            stages,
            self.layout.root,
            workers=self._training_workers(),
            keep_going=not self.strict,
            overwrite=self.overwrite or not self.strict,
            outcome=outcome,
            cluster=None if self.strict else self.cluster,
        )

    def _training_workers(self) -> int:
        from vidkd.networks import select_device

        # On a GPU one process keeps it busy.
        alone = self.strict or select_device(self.device).type == "cuda"
        return 1 if alone else self.workers

    def _execution(self, *, overwrite: bool) -> Execution:
        retrain = overwrite or not self.strict
        return Execution(self.workers, self.device, overwrite, retrain, self.cluster)

    def make_features(self) -> Outcome:
        """Make what all rows share: the videos of a recipe that renders them, flow, features.

        What the cache already holds is not made again, and then no videos are needed.

        Raises:
            UsageError: see ``run``.
            VidkdError: see ``run``.
        """
        outcome, root = Outcome(), self.layout.root
        how = self._execution(overwrite=self.overwrite)
        if self.recipe.synth is not None:
            again = self.overwrite or not self.strict
            stage = render_stage(self.splits[""], how)
            run_stages([stage], root, overwrite=again, outcome=outcome)
        if self.strict and not self.overwrite:
            for item in self.all_features():
                for stage in feature_stages(item.split, item.modality, how):
                    stage.refuse_changes(root)
        for item in self.all_features():
            try:
                self._make(item, outcome)
            except VidkdError as error:
                if self.strict or (item.modality == self.recipe.student and not item.split.name):
                    raise
                outcome.failed[item.stage] = str(error)
                log(f"failed: {item.stage}: {error}")
        return outcome

    def _make(self, item: Features, outcome: Outcome) -> None:
        """Make the features of one encoder, unless they are there."""
        state, root = item.state(), self.layout.root
        # A folder that others may share is never overwritten: they are told what differs.
        renew = self.overwrite or (not self.strict and state.stale and self.layout.shared is None)
        stages = feature_stages(item.split, item.modality, self._execution(overwrite=renew))
        changed = self.overwrite and any(stage.changed(root) for stage in stages)
        if state.complete and not changed:
            log(f"{item.stage}: done before, all {state.videos} are in {self.layout.cache}")
            outcome.skipped.append(item.stage)
            return
        log(f"{item.stage}: {state.reason or 'made with other settings'}")
        # Found before anything is loaded: whoever gave no videos is told that first.
        log(f"extracting {item.title} from {len(item.split.videos)} videos")
        for stage in stages:
            started = time.monotonic()
            stage.action()
            stage.finish(root, time.monotonic() - started)
        outcome.ran.append(item.stage)

    def stages(self, missing: Sequence[Features] = ()) -> list[Stage]:
        """Return the stages of all runs and rows, those they build on first.

        Args:
            missing: features that are not there: the stages that need them cannot be done.
        """
        hashes = {item.stage: item.sha256() for item in self.all_features() if item not in missing}
        stages = []
        for seed in self.recipe.seeds:
            stages += [self._run_stage(run, seed, hashes) for run in self.runs()]
        for seed in self.recipe.seeds:
            stages += [self._fuse_stage(row, seed, hashes) for row in self.rows() if row.fused]
        for seed in self.recipe.seeds:
            for row in self.rows():
                for subset in self.subsets:
                    stages.append(self._evaluation_stage(row, seed, subset, hashes))
        return stages

    def run_folder(self, run: Run, seed: int) -> Path:
        """Return the folder of a run."""
        return self.layout.run(run.slug, seed)

    def run_stage_name(self, run: Run, seed: int) -> str:
        """Return the name of the stage that makes a run."""
        return f"train-{self.run_folder(run, seed).name}"

    def models(self, row: TableRow, seed: int) -> list[Path]:
        """Return the run folders whose logits a row averages: of its runs, or what they became."""
        if row.fused:
            return [self.layout.run(row.slug, seed)]
        return [self.run_folder(run, seed) for run in row.runs]

    def fuse_stage_name(self, row: TableRow, seed: int) -> str:
        """Return the name of the stage that fuses the runs of a row."""
        return f"fuse-{self.layout.run(row.slug, seed).name}"

    def evaluation_folder(self, row: TableRow, seed: int, subset: str) -> Path:
        """Return where scores, segments and metrics of a row are."""
        return self.layout.evaluation(row.slug, seed) / subset

    def evaluation_stage_name(self, row: TableRow, seed: int, subset: str) -> str:
        """Return the name of the stage that evaluates a row."""
        return f"evaluate-{self.layout.evaluation(row.slug, seed).name}-{subset}"

    def settings(self, run: Run, seed: int, hashes: dict[str, str]) -> dict[str, Any]:
        """Return everything that decides the weights of a run.

        Args:
            run: one of ``runs``.
            seed: of the training.
            hashes: of the features, by their stage.
        """
        features = self.features[run.modality, run.split]
        found: dict[str, Any] = {
            "encoder": features.encoder,
            "features": hashes.get(features.stage, ""),
            "filter": run.filter.model_dump(mode="json"),
            "seed": seed,
            "trained": run.trained,
            "annotations": self.splits[run.split].sha256,
            "subsets": self.recipe.subsets.model_dump(mode="json"),
        }
        if run.trained:
            found["optimiser"] = self.recipe.optimiser.model_dump(mode="json", exclude={"seed"})
        if run.teachers:
            assert run.distillation is not None
            found["distillation"] = run.distillation.model_dump(mode="json")
            found["teachers"] = [self.settings(item, seed, hashes) for item in run.teachers]
        return found

    def job(self, run: Run, seed: int) -> TrainingJob:
        """Return what training a run is."""
        recipe, split = self.recipe, self.splits[run.split]
        return TrainingJob(
            output=self.run_folder(run, seed),
            cache=self.layout.cache,
            annotations=split.path,
            annotation_format=split.format,
            modality=run.modality,
            encoder=self.features[run.modality, run.split].encoder,
            teachers=tuple(self.run_folder(item, seed) for item in run.teachers),
            filter=run.filter,
            optimiser=recipe.optimiser.model_copy(update={"seed": seed}),
            distillation=run.distillation or recipe.distillation,
            subsets=recipe.subsets,
            segments=recipe.segments,
            device=self.device,
            overwrite=self.overwrite or not self.strict,
        )

    def _run_stage(self, run: Run, seed: int, hashes: dict[str, str]) -> Stage:
        teachers = (self.run_stage_name(item, seed) for item in run.teachers)
        return Stage(
            self.run_stage_name(run, seed),
            self.settings(run, seed, hashes),
            [
                self.run_folder(run, seed)
                / ("result.json" if run.trained else "weights.safetensors")
            ],
            functools.partial(train_run if run.trained else keep_untrained, self.job(run, seed)),
            (*teachers, *(item.stage for item in self.features_of(run))),
        )

    def _fuse_stage(self, row: TableRow, seed: int, hashes: dict[str, str]) -> Stage:
        split, (folder,) = self.splits[row.split], self.models(row, seed)
        settings = {
            "runs": [self.settings(run, seed, hashes) for run in row.runs],
            "annotations": split.sha256,
            "subset": self.recipe.subsets.validation,
        }
        action = functools.partial(
            fuse_row,
            [self.run_folder(run, seed) for run in row.runs],
            self.layout.cache,
            (split.path, split.format, self.recipe.subsets.validation),
            self.device,
            folder,
        )
        after = tuple(self.run_stage_name(run, seed) for run in row.runs)
        made = [folder / "weights.safetensors"]
        return Stage(self.fuse_stage_name(row, seed), settings, made, action, after)

    def _evaluation_stage(
        self, row: TableRow, seed: int, subset: str, hashes: dict[str, str]
    ) -> Stage:
        recipe, split = self.recipe, self.splits[row.split]
        folder = self.evaluation_folder(row, seed, subset)
        settings: dict[str, Any] = {
            "runs": [self.settings(run, seed, hashes) for run in row.runs],
            "annotations": split.sha256,
            "segments": recipe.segments.model_dump(mode="json"),
            "evaluation": recipe.evaluation.model_dump(mode="json", exclude={"subset"}),
            "subset": subset,
        }
        action = functools.partial(
            evaluate_runs,
            self.models(row, seed),
            self.layout.cache,
            (split.path, split.format, subset),
            recipe.evaluation,
            recipe.segments,
            self.device,
            folder,
        )
        after = tuple(self.run_stage_name(run, seed) for run in row.runs)
        if row.fused:
            settings |= {"fused": True}
            after = (self.fuse_stage_name(row, seed),)
        name = self.evaluation_stage_name(row, seed, subset)
        return Stage(name, settings, [folder / "metrics.json"], action, after)

    def _show_stage(self) -> Stage:
        """Return the stage that runs the student on one video of the reported subset."""
        student, seed = self.rows()[-1].runs[0], self.recipe.seeds[0]
        model, split = self.run_folder(student, seed), self.splits[""]
        settings = {"model": model.name, "annotations": split.sha256, "subset": self.reported}
        action = functools.partial(show_detection, split, model, self.reported, self.device)
        made = [self.layout.pictures / "detection.png"]
        return Stage(
            "show-detection", settings, made, action, (self.run_stage_name(student, seed),)
        )

    def planned(self) -> dict[str, Any]:
        """Return what is to be done as JSON values; nothing is written."""
        rendered = self.recipe.synth is None or self.splits[""].path.exists()
        modalities = dict.fromkeys(
            (self.recipe.student, *(m for run in self.runs() for m in run.modalities))
        )
        features = dict.fromkeys(modalities, "to be made, after the videos are rendered")
        runs = [run for run in self.runs() for _ in self.recipe.seeds]
        evaluations = len(self.rows()) * len(self.subsets) * len(self.recipe.seeds)
        to_train, to_evaluate = len(runs), evaluations
        if rendered:
            states = [(item, item.state()) for item in self.all_features()]
            features = {
                item.title: state.reason or f"all {state.videos} in the cache"
                for item, state in states
            }
            missing = [item for item, state in states if not state.complete]
            todo = [item for item in self.stages(missing) if not item.finished(self.layout.root)]
            to_train = sum(stage.name.startswith("train-") for stage in todo)
            to_evaluate = len(todo) - to_train
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
            "to_train": to_train,
            "evaluations": evaluations,
            "to_evaluate": to_evaluate,
        }
