"""Training of teachers, of the vanilla baseline and of the distilled student.

Adam with a plateau schedule, validation frame mAP after every epoch, the best epoch kept
(METHOD section 2, "Training"). A run that is killed at any moment and started again ends with the
same weights as an undisturbed one on the same machine: everything random in an epoch follows from
the seed and the number of the epoch, and the state of model, optimiser and schedule is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from vidkd.console import log, progress
from vidkd.distillation.batches import Batch, TrainingSet
from vidkd.distillation.data import Features
from vidkd.distillation.epochs import Epochs
from vidkd.distillation.job import TrainResult
from vidkd.distillation.objective import loss_weights, student_loss
from vidkd.distillation.prepare import TrainingData, recipe_as_run
from vidkd.distillation.run_folder import RunFolder
from vidkd.distillation.storage import MemoryBudget
from vidkd.distillation.teachers import TeacherMaps
from vidkd.distillation.validation import Validator
from vidkd.errors import VidkdError
from vidkd.networks import (
    FilterHeader,
    TemporalFilter,
    build_temporal_filter,
    save_temporal_filter,
)
from vidkd.networks.temporal import FILTERS
from vidkd.recipe.jobs import TrainingJob

# A killed run repeats at most the epochs of these seconds; writing the state takes about 20 ms.
_SAVE_SECONDS = 5.0
# Above this multiple of the classification loss a distillation loss decides the training alone.
_DROWNING = 50.0


def train(job: TrainingJob) -> TrainResult:
    """Train one temporal filter and leave a finished run folder.

    A finished run with the same settings on the same data is left alone, an unfinished one goes
    on where it stopped.

    Raises:
        UsageError: the settings do not fit each other, the data, or the run in the folder.
        CacheError: features are missing, damaged, or do not fit each other.
        AnnotationError: the annotations cannot be read.
        WeightsError: a teacher cannot be read.
        VidkdError: the training diverged, or the run folder cannot be written.
    """
    # What does not exist is refused before anything is read.
    _ = FILTERS[job.filter.kind], loss_weights(job.distillation)
    data = TrainingData.load(job)
    folder = RunFolder(job.output)
    with folder.lock():
        folder.remove_leftovers()
        if folder.begin(recipe_as_run(job, data), overwrite=job.overwrite):
            result = folder.read_result(TrainResult)
            log(
                f"{job.output}: done before, best validation frame mAP "
                f"{100 * result.validation_map:.1f} in epoch {result.best_epoch}"
            )
            return result
        folder.write_environment(data.device, job.optimiser.seed)
        with _reproducible(data.device):
            return TrainingRun(job, data, folder).run()


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """Keep the caller's random state, and let cuDNN choose deterministic algorithms."""
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        yield


class TrainingRun:
    """One run, from the features to the finished folder; making it reads all features.

    Attributes:
        training: the training batches.
        validator: what scores the model after every epoch.
        model: in training.
    """

    def __init__(self, job: TrainingJob, data: TrainingData, folder: RunFolder) -> None:
        self.job = job
        self.data = data
        self.folder = folder
        classes = len(data.annotations.classes)
        # What every step reads comes first in memory, what every epoch reads after it.
        memory = MemoryBudget(None if job.memory is None else int(job.memory * 2**30))
        features = Features(data.training, 0, data.stream.width, memory, folder.path)
        maps = [
            TeacherMaps(teacher, data.training, number, data.device, memory, folder.path)
            for number, teacher in enumerate(data.teachers, start=1)
        ]
        self.training = TrainingSet(
            data.training,
            features,
            maps,
            classes,
            job.optimiser,
            job.distillation,
            data.device,
        )
        self.validator = Validator(
            data.validation,
            Features(data.validation, 0, data.stream.width, memory, folder.path),
            data.annotations.subset(job.subsets.validation),
            data.device,
        )
        torch.manual_seed(job.optimiser.seed)
        self.model: TemporalFilter = build_temporal_filter(
            job.filter, data.stream.width, classes
        ).to(data.device)
        settings = job.optimiser
        self.optimiser = torch.optim.Adam(
            self.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser,
            mode="min",
            factor=settings.plateau_factor,
            patience=settings.plateau_patience,
        )
        self.epochs = Epochs(folder, {"epoch": 0, "map": -1.0, "model": {}})
        self.epochs.keep(model=self.model, optimiser=self.optimiser, schedule=self.schedule)
        if not self.epochs.resumed and job.filter.standardise:
            self.model.standardise(features.read(number) for number in range(len(data.training)))

    def run(self) -> TrainResult:
        self._warn_about_negatives()
        total, epochs = self.job.optimiser.epochs, self.epochs
        saved = epochs.seconds
        with (
            epochs.recorded(name=_curve_name),
            progress(self.job.stage, total, "epochs") as advance,
        ):
            advance(epochs.number)
            while epochs.number < total:
                epochs.number += 1
                row = self._epoch()
                epochs.add(row)
                self._warn_about_weights(row)
                if epochs.seconds - saved >= _SAVE_SECONDS or epochs.number == total:
                    self._save()
                    saved = epochs.seconds
                advance(1)
        result = TrainResult(
            output=self.job.output,
            stage=self.job.stage,
            best_epoch=epochs.best["epoch"],
            epochs=total,
            validation_map=epochs.best["map"],
            training_videos=len(self.data.training),
            unlabelled_videos=sum(item.targets is None for item in self.data.training),
            validation_videos=len(self.data.validation),
            seconds=round(epochs.seconds, 2),
        )
        self.folder.finish(result)
        log(
            f"{self.job.output}: best validation frame mAP {100 * result.validation_map:.1f} "
            f"in epoch {result.best_epoch} of {total}"
        )
        return result

    def _epoch(self) -> dict[str, float]:
        """Train and validate once, and return the epoch's row of ``metrics.csv``."""
        number = self.epochs.number
        rng = np.random.default_rng([self.job.optimiser.seed, number])
        torch.manual_seed(int(rng.integers(2**62)))
        rate = self.optimiser.param_groups[0]["lr"]
        self.model.train()
        sums: dict[str, Tensor] = {}
        steps = 0
        for batch in self.training.epoch(rng):
            for name, value in self.step(batch).items():
                sums[name] = sums[name] + value if name in sums else value
            steps += 1
        names = list(sums)
        means = dict(
            zip(names, (torch.stack([sums[n] for n in names]) / steps).tolist(), strict=True)
        )
        if not np.isfinite(means["loss"]):
            raise VidkdError(
                f"the training diverged in epoch {number} (the loss is {means['loss']})",
                path=self.folder.path,
                remedy="use a smaller --learning-rate or smaller weights, in another --output",
            )
        self.model.eval()
        validation = self.validator(self.model)
        score = validation.frame_map
        # Without a single class in the validation set the last epoch is as good as any.
        if not np.isfinite(score):
            score = 0.0
        if score > self.epochs.best["map"]:
            state = {
                name: value.detach().cpu().clone()
                for name, value in self.model.state_dict().items()
            }
            self.epochs.best = {
                "epoch": number,
                "map": score,
                "thresholds": validation.thresholds(),
                "model": state,
            }
        # Progress is that of the training loss. Validation frame mAP is too noisy on a small set:
        # measured there, it brought the rate down within 50 epochs, and long before the
        # distillation losses had begun to show.
        self.schedule.step(means["loss"])
        return {
            "epoch": number,
            "learning_rate": rate,
            **means,
            "validation_classification": validation.loss,
            "validation_map": score,
        }

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step of the optimiser and return the parts of the loss."""
        loss, parts = student_loss(
            self.model(batch.inputs, batch.mask),
            batch,
            self.job.distillation,
            self.job.optimiser.classification_reduction,
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return parts

    def _save(self) -> None:
        """Write the weights of the best epoch, and the state that refers to them."""
        stage, data, found = self.job.stage, self.data, self.epochs.best
        header = FilterHeader(
            filter=self.job.filter,
            in_features=data.stream.width,
            classes=tuple(data.annotations.classes),
            modality=data.stream.modality,
            encoder=data.stream.encoder,
            encoder_sha256=data.stream.weights_sha256,
            frames=data.stream.frames,
            snippet=data.stream.snippet,
            crop=data.stream.crop,
            training_data={
                "stage": stage,
                "annotations_sha256": data.annotations_sha256,
                "training_sha256": data.training_sha256,
                "training_subset": self.job.subsets.training,
                "validation_subset": self.job.subsets.validation,
                "videos": len(data.training),
                "snippets": sum(len(item) for item in data.training),
                "epoch": found["epoch"],
                "validation_map": found["map"],
            },
            teachers=tuple(teacher.name for teacher in data.teachers),
            segments=self.job.segments,
            thresholds=tuple(found["thresholds"]),
        )
        with torch.device("meta"):
            best = build_temporal_filter(self.job.filter, header.in_features, len(header.classes))
        best.load_state_dict(found["model"], assign=True)
        save_temporal_filter(self.folder.weights, best, header)
        self.epochs.save()

    def _warn_about_negatives(self) -> None:
        if self.data.teachers and self.job.distillation.atomic > 0 and not self.training.contrast:
            log(
                "warning: all training videos have the same set of labels, so that none is a "
                "negative by its set; snippets at the same t with other labels serve instead"
            )

    def _warn_about_weights(self, row: dict[str, float]) -> None:
        """Say so when one loss drowns the others; later epochs are no guide, as losses shrink."""
        if self.epochs.number != 1:
            return
        for name, value in row.items():
            if name.endswith("_weighted") and value > _DROWNING * row["classification"] > 0:
                log(
                    f"warning: {name.removesuffix('_weighted')}, weighted, is {value:.3g} and the "
                    f"classification loss {row['classification']:.3g}; a smaller weight may help"
                )


def _curve_name(column: str) -> str:
    """Return the TensorBoard name of a column of ``metrics.csv``."""
    if column.startswith("validation_"):
        return f"validation/{column.removeprefix('validation_')}"
    if column.endswith("_weighted"):
        return f"weighted/{column.removesuffix('_weighted')}"
    return column if column == "learning_rate" else f"loss/{column}"
