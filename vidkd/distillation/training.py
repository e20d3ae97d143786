"""Training of teachers, of the vanilla baseline and of the distilled student.

Adam whose rate falls when the training loss does not; validation frame mAP after every epoch, the
best epoch kept. The loss is that of Eq. 7 (``vidkd.distillation.objective``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from vidkd.console import log
from vidkd.distillation.batches import Batch, TrainingSet
from vidkd.distillation.data import TrainingData, recipe_as_run
from vidkd.distillation.objective import loss_weights, student_loss
from vidkd.distillation.segment_loss import levels_for
from vidkd.distillation.storage import MemoryBudget, TeacherMaps, feature_rows
from vidkd.distillation.validation import Validator
from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter
from vidkd.networks.segment_head import Level
from vidkd.networks.temporal import FILTERS, TemporalOutput
from vidkd.recipe.jobs import TrainingJob, TrainingStage
from vidkd.training.loop import RunFolder, RunResult, Training, train_in
from vidkd.training.processes import Processes, join
from vidkd.training.whole_batch import Rows, sum_gradients

_WARM_UP = 0.05
_LARGEST_GRADIENT = 1.0
# Above this multiple of the classification loss a distillation loss decides the training alone.
_DROWNING = 50.0


def warmed_cosine(progress: float) -> float:
    """Return the share of the learning rate after a share of the training, both in [0, 1]."""
    return min(1.0, progress / _WARM_UP + 1e-3) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


@dataclass(frozen=True, kw_only=True)
class TrainResult(RunResult):
    """What a finished run found.

    Attributes:
        stage: ``train-teacher``, ``train-baseline`` or ``distill``.
        validation_map: frame mAP of the best epoch on the validation subset, in [0, 1], over the
            classes present there.
        training_videos: how many were trained on; ``unlabelled_videos`` of them had no labels.
        unlabelled_videos: see above.
        validation_videos: how many were validated on.
    """

    stage: TrainingStage
    validation_map: float
    training_videos: int
    unlabelled_videos: int
    validation_videos: int

    @property
    def summary(self) -> str:
        """The best epoch in words."""
        return (
            f"best validation frame mAP {100 * self.validation_map:.1f} "
            f"in epoch {self.best_epoch} of {self.epochs}"
        )


def train(job: TrainingJob) -> TrainResult:
    """Train one temporal filter and leave a finished run folder.

    Under ``torchrun`` all processes train together, each on its rows of every batch.

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
    folder = RunFolder(job.output)
    with (
        join(job.device) as processes,
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        job = job.model_copy(update={"device": str(processes.device)})
        data = TrainingData.load(job)
        return train_in(
            folder,
            recipe_as_run(job, data),
            lambda: FilterTraining(job, data, folder, processes),
            TrainResult,
            processes=processes,
            seed=job.optimiser.seed,
            overwrite=job.overwrite,
        )


class FilterTraining(Training[TrainResult]):
    """One run; making it reads all features.

    Attributes:
        training: the training batches.
        validator: what scores the model after every epoch.
        model: in training.
    """

    save_seconds = 5.0  # Writing the state takes about 20 ms.

    def __init__(
        self, job: TrainingJob, data: TrainingData, folder: RunFolder, processes: Processes
    ) -> None:
        settings = job.optimiser
        super().__init__(
            folder,
            processes,
            stage=job.stage,
            epochs=settings.epochs,
            seed=settings.seed,
        )
        self.job, self.data = job, data
        classes = len(data.annotations.classes)
        # What every step reads comes first in memory, what every epoch reads after it.
        memory = MemoryBudget(None if job.memory is None else int(job.memory * 2**30))
        features = feature_rows(data.training, data.stream.width, memory, folder.path)
        maps = [
            TeacherMaps(teacher, data.training, number, data.device, memory, folder.path)
            for number, teacher in enumerate(data.teachers, start=1)
        ]
        self.training = TrainingSet(
            data.training, features, maps, classes, settings, job.distillation, data.device
        )
        self.validator = Validator(
            data.validation,
            feature_rows(data.validation, data.stream.width, memory, folder.path),
            data.annotations.subset(job.subsets.validation),
            data.device,
        )
        torch.manual_seed(settings.seed)
        self.filter = job.filter
        if job.filter.levels is None:
            levels = (
                0
                if FILTERS[job.filter.kind].causal
                else levels_for(item.events for item in data.training)
            )
            self.filter = job.filter.model_copy(update={"levels": levels})
        self.model = build_temporal_filter(self.filter, data.stream.width, classes).to(data.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.schedule: LambdaLR | ReduceLROnPlateau = ReduceLROnPlateau(
            self.optimiser,
            factor=settings.plateau_factor,
            patience=settings.plateau_patience,
        )
        if settings.schedule == "cosine":
            # While the rate is high epochs differ by chance, and on few validation videos an early
            # one may win.
            self.kept_from = 0.5
            steps = settings.epochs * math.ceil(len(data.training) / settings.batch_size)
            self.schedule = LambdaLR(self.optimiser, lambda step: warmed_cosine(step / steps))
        self.keep_state(model=self.model, optimiser=self.optimiser, schedule=self.schedule)
        if not self.resumed and job.filter.standardise:
            self.model.standardise(features.read(number) for number in range(len(data.training)))
        if data.teachers and job.distillation.atomic > 0 and not self.training.contrast:
            log(
                "warning: all training videos have the same set of labels, so that none is a "
                "negative by its set; snippets at the same t with other labels serve instead"
            )

    def train(self, rng: np.random.Generator) -> dict[str, float]:
        torch.manual_seed(int(rng.integers(2**62)))
        self.model.train()
        rate = self.optimiser.param_groups[0]["lr"]
        sums: dict[str, Tensor] = {}
        steps = 0
        for batch in self.training.epoch(rng):
            for name, value in self.step(batch).items():
                sums[name] = sums[name] + value if name in sums else value
            steps += 1
        losses = dict(zip(sums, (torch.stack(list(sums.values())) / steps).tolist(), strict=True))
        # On GPUs the processes' numbers may differ in their last bits, and the rate must not.
        means = self.processes.share(losses)
        # Progress is that of the training loss. Validation frame mAP is too noisy on a small set:
        # measured there, it brought the rate down within 50 epochs, and long before the
        # distillation losses had begun to show.
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(means["loss"])
        self._warn_about_weights(means)
        self.advance(1)
        return {"learning_rate": rate, **means}

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step of the optimiser and return the parts of the loss."""
        output, levels = self._outputs(batch)
        loss, parts = student_loss(
            output,
            batch,
            self.job.distillation,
            self.job.optimiser.classification_reduction,
            levels,
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.processes.size > 1:
            sum_gradients(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        self.optimiser.step()
        if isinstance(self.schedule, LambdaLR):
            self.schedule.step()
        return parts

    def _outputs(self, batch: Batch) -> tuple[TemporalOutput, list[Level]]:
        """Return what the model says of a batch, of which this process computes its rows."""
        if self.processes.size == 1:
            output = self.model(batch.inputs, batch.mask)
            return output, self.model.segments(output, batch.mask)
        rows = Rows(self.processes, len(batch.inputs))
        mask = batch.mask[rows.computed]
        with rows.random():
            own = self.model(batch.inputs[rows.computed], mask)
            levels = self.model.segments(own, mask)
        found = rows.joined([*own, *(part for level in levels for part in level[:3])])
        output = TemporalOutput(found[0], found[1])
        parts = zip(found[2::3], found[3::3], found[4::3], levels, strict=True)
        return output, [Level(a, b, mask > 0, level.stride) for a, b, mask, level in parts]

    def validate(self) -> tuple[float, dict[str, float]]:
        """See :meth:`Training.validate`; the score is the frame mAP."""
        return self.processes.share(self._validated() if self.processes.first else None)

    def _validated(self) -> tuple[float, dict[str, float]]:
        self.model.eval()
        self.validation = self.validator(self.model)
        # Without a single class in the validation set the last epoch is as good as any.
        score = float(np.nan_to_num(self.validation.frame_map))
        return score, {
            "validation_classification": self.validation.loss,
            "validation_map": score,
        }

    def keep(self, score: float) -> dict[str, Any]:
        """Keep the weights in memory: epochs are short, and writing would take longer."""
        state = self.model.state_dict()
        return {
            "thresholds": self.validation.thresholds(),
            "segment_thresholds": self.validation.segment_thresholds(),
            **self._calibration(),
            "model": {name: value.detach().cpu().clone() for name, value in state.items()},
        }

    def _calibration(self) -> dict[str, Any]:
        if self.job.calibrate == "none":
            return {}
        per_class = self.job.calibrate == "per-class"
        return {
            "calibration": self.validation.calibration(per_class=per_class),
            "segment_calibration": self.validation.segment_calibration(per_class=per_class),
        }

    def write_weights(self) -> None:
        """Write the weights of the best epoch with their header."""
        job, data, found = self.job, self.data, self.best
        header = FilterHeader(
            filter=self.filter,
            in_features=data.stream.width,
            classes=tuple(data.annotations.classes),
            modality=data.stream.modality,
            encoder=data.stream.encoder,
            encoder_sha256=data.stream.weights_sha256,
            frames=data.stream.frames,
            snippet=data.stream.snippet,
            crop=data.stream.crop,
            stream_settings=data.stream.more,
            training_data={
                "stage": job.stage,
                "annotations_sha256": data.annotations_sha256,
                "training_sha256": data.training_sha256,
                "training_subset": job.subsets.training,
                "validation_subset": job.subsets.validation,
                "videos": len(data.training),
                "snippets": sum(len(item) for item in data.training),
                "epoch": found["epoch"],
                "validation_map": found["map"],
            },
            teachers=tuple(teacher.name for teacher in data.teachers),
            segments=job.segments,
            thresholds=tuple(found["thresholds"]),
            segment_thresholds=found["segment_thresholds"],
            calibration=found.get("calibration"),
            segment_calibration=found.get("segment_calibration"),
        )
        with torch.device("meta"):
            best = build_temporal_filter(self.filter, header.in_features, len(header.classes))
        best.load_state_dict(found["model"], assign=True)
        save_temporal_filter(self.folder.weights, best, header)

    def result(self) -> TrainResult:
        return TrainResult(
            output=self.folder.path,
            stage=self.job.stage,
            best_epoch=self.best["epoch"],
            epochs=self.total,
            validation_map=self.best["map"],
            training_videos=len(self.data.training),
            unlabelled_videos=sum(item.targets is None for item in self.data.training),
            validation_videos=len(self.data.validation),
            seconds=round(self.seconds, 2),
        )

    def curve(self, column: str) -> str:
        if column.startswith("validation_"):
            return f"validation/{column.removeprefix('validation_')}"
        if column.endswith("_weighted"):
            return f"weighted/{column.removesuffix('_weighted')}"
        return column if column == "learning_rate" else f"loss/{column}"

    def _warn_about_weights(self, means: dict[str, float]) -> None:
        """Say so when one loss drowns the others; later epochs are no guide, as losses shrink."""
        if self.number != 1:
            return
        for name, value in means.items():
            if name.endswith("_weighted") and value > _DROWNING * means["classification"] > 0:
                log(
                    f"warning: {name.removesuffix('_weighted')}, weighted, is {value:.3g} and the "
                    f"classification loss {means['classification']:.3g}; a smaller weight may help"
                )
