"""The recipe that ``vidkd init`` writes: every choice with its reason, in a comment."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidkd.annotations import Annotations
from vidkd.annotations.division import SUBSETS
from vidkd.machine import cores
from vidkd.networks.cards import BEST_ENCODER
from vidkd.pipeline.people import People
from vidkd.pipeline.start import Survey
from vidkd.recipe.choices import STUDENT_STREAM
from vidkd.streams import STREAMS

_SMALL = 200
"""Training videos up to which a small network learns as well (docs/experiments.md)."""
_FAST = 31.0
"""Frames per second; faster videos are thinned to the 25 that the encoder was trained on."""


@dataclass(frozen=True)
class Machine:
    """What decides which encoder is fast enough.

    Attributes:
        gpu: name of the GPU; empty for none.
        cores: of the processor.
        int8: name of the quantised encoder that is on this machine; empty for none.
    """

    gpu: str
    cores: int
    int8: str

    @classmethod
    def here(cls) -> Machine:
        """Look at this machine."""
        import torch

        from vidkd.networks.cards import quantised_name, trained_file

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        name = quantised_name(BEST_ENCODER)
        return cls(gpu, cores(), "" if trained_file(name) is None else name)

    @property
    def description(self) -> str:
        """The machine in words."""
        int8 = f"with {self.int8}" if self.int8 else "without an int8 encoder"
        return f"{self.gpu or 'no GPU'}, {self.cores} processor cores, {int8}"


def snippet_of(shortest: float, rate: float) -> tuple[int, int]:
    """Return length and stride of snippets in frames.

    Args:
        shortest: seconds that nine of ten actions last at least.
        rate: frames per second.
    """
    frames = shortest * rate
    length = 8 if frames < 12 else 16 if frames < 128 else 32
    stride = next((size for size in (16, 8) if 4 * size <= frames), 4)
    return length, stride


def recipe_text(
    name: str,
    videos: Path,
    annotations: Path,
    found: Survey,
    truth: Annotations,
    division: str,
    machine: Machine,
    people: People,
    teachers: Sequence[str] = (),
) -> str:
    """Return a recipe for ``vidkd run`` in which a comment gives the reason of each choice.

    Args:
        name: of the recipe.
        videos: the folder.
        annotations: the annotation file.
        found: what the survey found.
        truth: in subsets.
        division: how the subsets came about, in words.
        machine: that it is to run on.
        people: who was found in the videos.
        teachers: names of streams; none trains on RGB alone.
    """
    parts = [
        _part(
            "A recipe for `vidkd run`, written by `vidkd init`. Change what you like and run it"
            " again: what is done stays, and `--overwrite` makes again what was made with other"
            " settings.",
            f"name: {_quoted(name)}",
            f"description: {_description(teachers)}",
        ),
        _data(videos, annotations, found, truth, division),
        *_input(found, machine, people, teachers),
        *_training(len(truth.subset(SUBSETS[0]).videos)),
        _part(
            "Mean average precision on the testing videos: of frames, and of segments that overlap"
            " with labelled ones by these shares (tIoU).",
            "evaluation:",
            "  subset: testing",
            "  frame_protocol: frame",
            "  event_protocol: anet",
            "  tiou: [0.1, 0.3, 0.5]",
        ),
    ]
    return "\n".join(parts)


def _part(why: str, *lines: str) -> str:
    comment = textwrap.fill(
        " ".join(why.split()), 96, initial_indent="# ", subsequent_indent="# ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join((comment, *lines, ""))


def _quoted(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _description(teachers: Sequence[str]) -> str:
    if not teachers:
        return "RGB alone, on your own videos."
    return f"RGB, taught by {' and '.join(teachers)}, on your own videos."


def _data(videos: Path, annotations: Path, found: Survey, truth: Annotations, division: str) -> str:
    minutes = sum(video.duration or 0.0 for video in truth.videos.values()) / 60
    length = f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{minutes:.1f} minutes"
    counts = ", ".join(f"{len(truth.subset(subset).videos)} {subset}" for subset in SUBSETS)
    return _part(
        f"{len(truth.videos)} videos, {length}, {len(found.lengths)} segments of"
        f" {len(truth.classes)} classes. {counts}: {division}.",
        "data:",
        f"  videos: {_quoted(videos)}",
        f"  annotations: {_quoted(annotations)}",
        "  format: activitynet",
    )


def _input(
    found: Survey, machine: Machine, people: People, teachers: Sequence[str]
) -> Iterator[str]:
    """Yield the sections on frames, snippets, encoders and teachers."""
    rate = statistics.median(float(info.frame_rate) for info in found.infos.values())
    side = statistics.median(min(info.width, info.height) for info in found.infos.values())
    large = bool(machine.gpu) and side >= 200
    # Flow is computed of whole frames, which takes long.
    around = people.far and "flow" not in teachers
    if large:
        why = "The size that the encoder was trained at: there is a GPU."
    elif around:
        why = (
            "Twice the size that the encoder sees without a GPU, since it sees only what is around"
            " the person."
        )
    else:
        reason = "the videos are small" if machine.gpu else "without a GPU full size takes long"
        why = (
            f"Half the size that the encoder was trained at, which is four times less to compute:"
            f" {reason}. Full size is short_side 256, and crop 224 below."
        )
    student = "rgb-person" if people.far else STUDENT_STREAM
    settings = f"short_side: {256 if large or around else 128}"
    if rate > _FAST:
        why += f" The videos have {rate:g} frames/s, the encoder was trained on 25."
        rate, settings = 25.0, f"{settings}, frame_rate: 25"
    yield _part(why, f"frames: {{{settings}}}")

    lengths = found.lengths
    shortest = lengths[len(lengths) // 10]
    length, stride = snippet_of(shortest, rate)
    rows = shortest * rate / stride
    yield _part(
        f"Each row of features sees `length` frames, {length / rate:.2g} s, and rows are `stride`"
        f" frames apart, {stride / rate:.2g} s. Half of the actions last"
        f" {statistics.median(lengths):.3g} s or more and nine of ten at least {shortest:.3g} s, "
        + (
            f"which is {int(rows)} rows. A smaller stride finds borders better and costs more."
            if rows >= 2
            else "so that short ones have no more than a row or two: take videos with more frames"
            " per second if you can."
        ),
        f"snippet: {{length: {length}, stride: {stride}}}",
    )

    crop = 224 if large else 112
    encoder = machine.int8 if machine.int8 and not machine.gpu else BEST_ENCODER
    encoders = [f"  {student}: {{name: {encoder}, crop: {crop}}}"]
    for stream in (STREAMS[name] for name in teachers):
        size = f", crop: {crop}" if stream.crops else ""
        encoders.append(f"  {stream.name}: {{name: {stream.first_encoder()}{size}}}")
    yield _part(
        f"For this machine: {machine.description}. `vidkd models list` names other encoders, and"
        " `vidkd models quantise` makes one for processors, half as fast again.",
        "encoders:",
        *encoders,
    )
    yield _part(
        f"{people.described} "
        + (
            "So students see RGB around that person, which found far more on such videos"
            " (docs/experiments.md)."
            if people.far
            else "Students see the middle of the frame. Where videos show one person from afar,"
            " `rgb-person`, here and under `encoders`, cuts RGB around that person."
        ),
        f"student: {student}",
    )
    yield from _teachers(teachers, bool(machine.gpu))


def _teachers(teachers: Sequence[str], gpu: bool) -> Iterator[str]:
    if not teachers:
        yield _part(
            "RGB alone. Teachers of optical flow or pose make training several times as long, and"
            " on small sets gained nothing (docs/experiments.md); `vidkd init --teachers"
            " flow,pose` writes a recipe with them.",
            "teachers: []",
        )
        return
    yield _part(
        "Learnt from while training; the student runs on RGB alone.",
        f"teachers: [{', '.join(teachers)}]",
    )
    for name in teachers:
        for section in STREAMS[name].first_sections(gpu):
            yield _part(*section)


def _training(videos: int) -> Iterator[str]:
    """Yield the sections on the network over time and its training."""
    small = videos <= _SMALL
    size = (
        "a quarter of the paper's channels, as good on so few and five times as fast"
        if small
        else "the paper's size"
    )
    yield _part(
        f"The network over time, which learns from {videos} training videos: {size}.",
        f"filter: {{kind: local-attention, channels: {64 if small else 256}}}",
    )
    epochs, batch = 100 if small else 300, max(2, min(8 if small else 16, videos))
    yield _part(
        "The epoch that is best on the validation videos is kept. Several seeds, such as"
        " [0, 1, 2], show how much of a result is chance.",
        f"optimiser: {{epochs: {epochs}, batch_size: {batch}, learning_rate: 0.001}}",
        "seeds: [0]",
    )
