"""What a run is trained on: annotations, features and teachers, aligned and fingerprinted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vidkd.annotations import Annotations, load_annotations
from vidkd.distillation.data import (
    Stream,
    VideoFeatures,
    find_stream,
    fingerprint,
    load_sequences,
    load_unlabelled,
)
from vidkd.distillation.teachers import Teacher, load_teachers
from vidkd.errors import UsageError
from vidkd.files import sha256
from vidkd.networks import select_device
from vidkd.recipe.jobs import TrainingJob


@dataclass(frozen=True)
class TrainingData:
    """Everything that a run is trained on, before any feature is read.

    Attributes:
        device: where it is trained.
        annotations_sha256: hash of the annotation file.
        annotations: all of it.
        stream: the features that the trained filter sees.
        teachers: frozen; empty when there is no distillation.
        training: the training videos, with one feature file for the stream and each teacher.
        validation: the validation videos, with the stream's feature file.
        training_sha256: hash of the features and labels that are trained on.
        validation_sha256: the same for validation.
    """

    device: torch.device
    annotations_sha256: str
    annotations: Annotations
    stream: Stream
    teachers: list[Teacher]
    training: list[VideoFeatures]
    validation: list[VideoFeatures]
    training_sha256: str
    validation_sha256: str

    @classmethod
    def load(cls, job: TrainingJob) -> TrainingData:
        """Align annotations, features and teachers; see ``vidkd.distillation.training.train``."""
        device = select_device(job.device)
        annotations = load_annotations(job.annotations, job.annotation_format).actions()
        stream = find_stream(job.cache, job.modality, job.encoder)
        teachers = load_teachers(
            job.teachers, job.cache, annotations.classes, job.filter.channels, device
        )
        streams = [stream, *(teacher.stream for teacher in teachers)]
        subsets = {}
        for name in (job.subsets.training, job.subsets.validation):
            subset = annotations.subset(name)
            # Only training looks at the teachers.
            wanted = streams if name == job.subsets.training else streams[:1]
            subsets[name] = load_sequences(wanted, subset, skip_missing=job.skip_missing)
            if not subsets[name]:
                known = sorted({video.subset for video in annotations.videos.values()})
                raise UsageError(
                    f"subset {name!r} has no videos to train or validate on",
                    path=job.annotations,
                    remedy=f"name another subset; the file has {', '.join(known) or 'none'}",
                )
        training = subsets[job.subsets.training]
        if job.unlabelled:
            training = training + load_unlabelled(streams, annotations)
        validation = subsets[job.subsets.validation]
        return cls(
            device,
            sha256(job.annotations),
            annotations,
            stream,
            teachers,
            training,
            validation,
            fingerprint(training),
            fingerprint(validation),
        )


def recipe_as_run(job: TrainingJob, data: TrainingData) -> dict[str, Any]:
    """Return all that decides the result of a run, for ``recipe.yaml``."""
    recipe: dict[str, Any] = {
        "stage": job.stage,
        "modality": job.modality,
        "encoder": data.stream.encoder,
        "encoder_sha256": data.stream.weights_sha256,
        "features": data.stream.settings,
        "filter": job.filter.model_dump(mode="json"),
        "optimiser": job.optimiser.model_dump(mode="json"),
        "subsets": job.subsets.model_dump(mode="json"),
        "segments": job.segments.model_dump(mode="json"),
        "unlabelled": job.unlabelled,
        "annotations_sha256": data.annotations_sha256,
        "training_sha256": data.training_sha256,
        "validation_sha256": data.validation_sha256,
        "paths": {
            "cache": str(job.cache),
            "annotations": str(job.annotations),
            "teachers": [str(path) for path in job.teachers],
        },
    }
    if data.teachers:
        recipe["distillation"] = job.distillation.model_dump(mode="json")
        recipe["teachers"] = [
            {
                "modality": teacher.header.modality,
                "encoder": teacher.header.encoder,
                "weights_sha256": teacher.sha256,
            }
            for teacher in data.teachers
        ]
    return recipe
