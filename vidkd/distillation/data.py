"""What a run is trained on: annotations, cached features and teachers, aligned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidkd.annotations import Annotations, load_annotations, snippet_events, snippet_targets
from vidkd.cache import CacheFile, cache_files, encoder_folders
from vidkd.console import log
from vidkd.detection.fusion import SAME_TIME
from vidkd.detection.segments import cell_borders
from vidkd.differences import differences, listed
from vidkd.errors import CacheError, UsageError
from vidkd.files import sha256
from vidkd.networks import FilterHeader, TemporalFilter, load_temporal_filter, select_device
from vidkd.networks.filter_weights import weights_file
from vidkd.recipe import FrameSettings, Modality, SnippetSettings
from vidkd.recipe.jobs import TrainingJob
from vidkd.streams import RGB, STREAMS


@dataclass(frozen=True)
class CachedFeatures:
    """The features that one encoder made of one stream: what all their files must agree in.

    Attributes:
        cache: the cache folder.
        encoder: the encoder's name.
        folder: name of the folder of these features.
        modality: what the encoder saw.
        weights_sha256: hash of the encoder's weights.
        settings: everything else that changed the numbers, as in the files' provenance.
        width: D.
    """

    cache: Path
    encoder: str
    folder: str
    modality: Modality
    weights_sha256: str
    settings: dict[str, Any]
    width: int

    @property
    def frames(self) -> FrameSettings:
        """How the videos became frames."""
        return FrameSettings.model_validate(self.settings.get("frames", {}))

    @property
    def snippet(self) -> SnippetSettings:
        """How the frames became snippets."""
        return SnippetSettings.model_validate(self.settings.get("snippet", {}))

    @property
    def crop(self) -> int:
        """Side in pixels of the square that the encoder saw."""
        return int(self.settings.get("crop", 224))

    @property
    def more(self) -> dict[str, Any]:
        """What the features were made with besides, such as settings of flow or of poses."""
        apart = {"modality", "frames", "snippet", "crop", "dtype"}
        return {name: value for name, value in self.settings.items() if name not in apart}


@dataclass(frozen=True)
class VideoFeatures:
    """One video: where its features lie, and what is known of its snippets.

    Attributes:
        id: the video's name in the annotation file, or its cache key when it is not in there.
        paths: one feature file per stream.
        hashes: content hash of each.
        half: whether all of them store float16.
        pts: (T, 2) start and end second of every snippet.
        targets: (T, K) bool; None for a video without labels.
        labels: classes that occur in the video; None for a video without labels.
        events: (N, 3) float32 class, start and end of every labelled segment, in snippets: snippet
            t owns the cell [t, t + 1).
    """

    id: str
    paths: tuple[Path, ...]
    hashes: tuple[str, ...]
    half: bool
    pts: np.ndarray
    targets: Tensor | None
    labels: frozenset[int] | None
    events: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.pts)


def find_stream(cache: Path, modality: Modality, encoder: str | None = None) -> CachedFeatures:
    """Return the stream of a modality in a cache.

    Args:
        cache: the cache folder.
        modality: what the encoder saw.
        encoder: its name; None takes the only encoder of that modality.

    Raises:
        UsageError: there is none, or several to choose from, or no such modality.
        CacheError: the features are of another modality, or damaged.
    """
    kind = STREAMS[modality]
    if encoder is not None:
        stream = _describe(cache, kind.folder(encoder))
        if stream is None:
            raise UsageError(
                f"there are no features of encoder {encoder!r}",
                path=cache,
                remedy=f"run `vidkd extract-features --modality {modality}` first",
            )
        if stream.modality != modality:
            raise CacheError(
                f"holds features of {stream.modality}, not of {modality}",
                path=cache / "features" / kind.folder(encoder),
                remedy="name another --encoder",
            )
        return stream
    described = (_describe(cache, name) for name in encoder_folders(cache))
    streams = [item for item in described if item]
    found = [item for item in streams if item.modality == modality]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(item.encoder for item in found)
        raise UsageError(
            f"several encoders have {modality} features here: {choices}",
            path=cache,
            remedy="choose one with --encoder",
        )
    raise UsageError(
        f"there are no {modality} features here",
        path=cache,
        remedy=f"run `vidkd extract-features --modality {modality}` first",
    )


def _describe(cache: Path, folder: str) -> CachedFeatures | None:
    files = cache_files(cache, "features", folder).items
    if not files:
        return None
    with CacheFile(next(iter(files.values()))) as file:
        return _stream_of(cache, folder, file)


def _stream_of(cache: Path, folder: str, file: CacheFile) -> CachedFeatures:
    settings = dict(file.provenance.settings)
    settings.pop("inputs", None)  # which files these features were made of: another for each video
    modality = settings.get("modality", RGB.name)
    return CachedFeatures(
        cache=cache,
        # Features of a stream whose package is gone are no reason to refuse the others.
        encoder=STREAMS[modality].encoder(folder) if modality in STREAMS else folder,
        folder=folder,
        modality=modality,
        weights_sha256=file.provenance.weights_sha256 or "",
        settings=settings,
        width=file.width,
    )


def load_sequences(
    streams: Sequence[CachedFeatures], annotations: Annotations, *, skip_missing: bool = False
) -> list[VideoFeatures]:
    """Align the cached features of all streams with the annotated videos; no features are read.

    Args:
        streams: the student's stream and those of the teachers.
        annotations: the videos to take, with their classes.
        skip_missing: leave out videos whose features are missing, and say so, instead of
            raising.

    Returns:
        One sequence for each video, in the order of the annotation file.

    Raises:
        CacheError: features are missing, damaged, of other settings than the others, or the
            streams of one video do not have the same snippets.
        UsageError: the annotations name a video so that several could be meant.
    """
    indices = [cache_files(stream.cache, "features", stream.folder) for stream in streams]
    numbers = {name: number for number, name in enumerate(annotations.classes)}
    sequences, missing = [], []
    for video in annotations.videos.values():
        files = [index.find(video.id) for index in indices]
        lacking = [s.encoder for s, path in zip(streams, files, strict=True) if path is None]
        if lacking:
            missing.append((video.id, lacking))
            continue
        paths = [path for path in files if path]
        pts, hashes, half = _aligned(streams, paths)
        targets = torch.from_numpy(snippet_targets(video, annotations.classes, pts)).bool()
        labels = frozenset(numbers[segment.label] for segment in video.segments)
        events = snippet_events(video, annotations.classes, cell_borders(pts))
        sequences.append(
            VideoFeatures(video.id, tuple(paths), hashes, half, pts, targets, labels, events)
        )
    if missing:
        _report_missing(streams[0].cache, missing, skip_missing)
    return sequences


def load_unlabelled(
    streams: Sequence[CachedFeatures], annotations: Annotations
) -> list[VideoFeatures]:
    """Return the cached videos that the annotation file does not name, as sequences without labels.

    Videos of every subset are left out, so that nothing is trained on a test video.

    Raises:
        CacheError: see ``load_sequences``.
    """
    indices = [cache_files(stream.cache, "features", stream.folder) for stream in streams]
    named = {index.key(video) for video in annotations.videos for index in indices[:1]}
    sequences = []
    for key in indices[0].items:
        if key in named or any(key not in index.items for index in indices):
            continue
        paths = [index.items[key] for index in indices]
        pts, hashes, half = _aligned(streams, paths)
        sequences.append(VideoFeatures(key, tuple(paths), hashes, half, pts, None, None))
    return sequences


def _report_missing(cache: Path, missing: list[tuple[str, list[str]]], skip: bool) -> None:
    shown = listed([f"{video} ({' and '.join(names)})" for video, names in missing])
    if not skip:
        raise CacheError(
            f"there are no features of {shown}",
            path=cache,
            remedy="run `vidkd extract-features` on these videos, or pass --skip-missing",
        )
    log(f"warning: left out, for they have no features: {shown}")


def _aligned(
    streams: Sequence[CachedFeatures], paths: Sequence[Path]
) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """Check one video's files against their streams and each other.

    Returns:
        Times, content hashes, and whether all rows are float16.
    """
    first: np.ndarray | None = None
    hashes = []
    half = True
    for stream, path in zip(streams, paths, strict=True):
        with CacheFile(path) as file:
            found = _stream_of(stream.cache, stream.folder, file)
            if found != stream:
                raise CacheError(
                    f"was made with other settings than the rest of {stream.encoder}"
                    f" ({', '.join(differences(_settings_of(found), _settings_of(stream)))})",
                    path=path,
                    remedy="compute the features again with --overwrite, all with one setting",
                )
            if first is None:
                first = file.pts
            elif file.pts.shape != first.shape:
                raise CacheError(
                    f"has {len(file)} snippets, but {paths[0]} has {len(first)}",
                    path=path,
                    remedy="extract both with the same frame and snippet settings",
                )
            elif np.abs(file.pts - first).max() > SAME_TIME:
                raise CacheError(
                    f"has snippets at other times than {paths[0]}",
                    path=path,
                    remedy="extract both with the same frame and snippet settings",
                )
            hashes.append(file.sha256)
            half &= file.data.dtype == np.float16
    if first is None:
        raise ValueError("at least one stream is needed")
    return first, tuple(hashes), half


def _settings_of(item: CachedFeatures) -> dict[str, Any]:
    names = ("modality", "weights_sha256", "width")
    return {**{name: getattr(item, name) for name in names}, **item.settings}


def fingerprint(sequences: Iterable[VideoFeatures]) -> str:
    """Return a hash of everything that is trained on: the features, their times, the labels."""
    digest = hashlib.sha256()
    for item in sequences:
        digest.update(repr((item.id, item.hashes)).encode())
        labels = item.targets
        digest.update(b"unlabelled" if labels is None else labels.float().numpy().tobytes())
    return digest.hexdigest()


def read_rows(video: VideoFeatures, stream: int) -> Tensor:
    """Return the features (T, D) of one video: float16 when stored so, else float32.

    Args:
        video: the video.
        stream: number of the stream among its ``paths``.

    Raises:
        CacheError: the file is damaged, holds numbers that are not finite, or is not the one that
            was found before.
    """
    path = video.paths[stream]
    with CacheFile(path) as file:
        if file.sha256 != video.hashes[stream]:
            raise CacheError(
                "was written again in the meantime", path=path, remedy="start the training again"
            )
        rows = file.features()
    return torch.from_numpy(rows if rows.dtype == np.float16 else rows.astype(np.float32))


@dataclass(frozen=True)
class Teacher:
    """A trained filter that is not trained any more.

    Attributes:
        label: name of its losses in the metrics: the modality, numbered when it comes twice.
        path: the run folder.
        module: in evaluation mode, without gradients.
        header: what its weights belong to.
        stream: the features it sees.
        sha256: hash of the weights file.
    """

    label: str
    path: Path
    module: TemporalFilter
    header: FilterHeader
    stream: CachedFeatures
    sha256: str

    @property
    def name(self) -> str:
        """Name for the header of the student's weights."""
        return f"{self.header.modality} {self.header.encoder} {self.sha256[:12]}"


def load_teachers(
    runs: Sequence[Path],
    cache: Path,
    classes: Sequence[str],
    channels: int,
    device: torch.device,
) -> list[Teacher]:
    """Load the teachers of a distillation and find the features each of them sees.

    Args:
        runs: run folders, or weights files.
        cache: the cache folder.
        classes: the classes of the annotations, which must be the teachers' too.
        channels: C of the student, which must be the teachers' too.
        device: where the teachers run.

    Raises:
        WeightsError: a run has no readable weights.
        UsageError: a teacher knows other classes or has another C.
        CacheError: the features in the cache are not those the teacher was trained on.
    """
    teachers: list[Teacher] = []
    for run in runs:
        module, header = load_temporal_filter(run, device)
        if header.classes != tuple(classes):
            raise UsageError(
                f"this teacher knows {_names(header.classes)}, the annotations {_names(classes)}",
                path=run,
                remedy="train the teacher on the same annotation file",
            )
        if header.filter.channels != channels:
            raise UsageError(
                f"this teacher has {header.filter.channels} channels, the student {channels}",
                path=run,
                remedy=f"pass --channels {header.filter.channels}",
            )
        stream = find_stream(cache, header.modality, header.encoder)
        if stream.weights_sha256 != header.encoder_sha256 or stream.width != header.in_features:
            raise CacheError(
                f"these features are not those that teacher {run} was trained on",
                path=cache / "features" / stream.folder,
                remedy="train the teacher on this cache",
            )
        same = sum(teacher.header.modality == header.modality for teacher in teachers)
        label = f"{header.modality}{same + 1}" if same else header.modality
        teachers.append(Teacher(label, run, module, header, stream, sha256(weights_file(run))))
    return teachers


def _names(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:3])
    return f"{len(classes)} classes ({shown}{', ...' if len(classes) > 3 else ''})"


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
    stream: CachedFeatures
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
        # Only training looks at the teachers.
        training = _subset(job, annotations, job.subsets.training, streams)
        if teachers and job.subsets.unlabelled is not None:
            more = _subset(job, annotations, job.subsets.unlabelled, streams)
            nothing = np.zeros((0, 3), dtype=np.float32)
            training += [
                replace(video, targets=None, labels=None, events=nothing) for video in more
            ]
        if job.unlabelled:
            training += load_unlabelled(streams, annotations)
        validation = _subset(job, annotations, job.subsets.validation, streams[:1])
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


def _subset(
    job: TrainingJob, annotations: Annotations, name: str, streams: Sequence[CachedFeatures]
) -> list[VideoFeatures]:
    videos = load_sequences(streams, annotations.subset(name), skip_missing=job.skip_missing)
    if not videos:
        known = sorted({video.subset for video in annotations.videos.values()})
        raise UsageError(
            f"subset {name!r} has no videos to train or validate on",
            path=job.annotations,
            remedy=f"name another subset; the file has {', '.join(known) or 'none'}",
        )
    return videos


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
    if job.calibrate != "none":  # runs of before there was a choice are the same runs still
        recipe["calibrate"] = job.calibrate
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
