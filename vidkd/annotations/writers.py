"""The writers by the name of their format, and ``write_as``, which uses one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vidkd.annotations import (
    activitynet,
    audacity,
    boris,
    chapters,
    edl,
    elan,
    fiftyone,
    label_studio,
    losslesscut,
    otio,
    plain_csv,
    subtitles,
    textgrid,
    via,
)
from vidkd.annotations.media import counted
from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.errors import AnnotationError, UsageError
from vidkd.extensions import Table

MILLISECONDS, MICROSECONDS, FRAMES, EXACT = "milliseconds", "microseconds", "frames", "exact"
_PER_SECOND = {MILLISECONDS: 1e3, MICROSECONDS: 1e6}
KINDS = (
    *("scores", "subsets", "durations", "frame rates"),
    *("attributes", "unused classes", "instants"),
)
"""What annotations may hold besides segments, their classes and the names of the videos."""


@dataclass(frozen=True)
class Writer:
    """How annotations are written in one format."""

    tool: str
    """Whose format, as it is called in messages."""
    ending: str
    """Of its files, in lower case, with the dot."""
    write: Callable[[Path, Annotations], None]
    """Writes a file atomically; of a format that has ``one_video``, annotations of one video."""
    unit: str
    """What times are rounded to: one of the names above, or ``exact``."""
    holds: frozenset[str]
    """Those of ``KINDS`` that it has a place for."""
    one_video: bool = True
    """A file holds one video, so that several need a folder."""
    names_files: bool = False
    """It names the video files."""
    default_rate: float | None = None
    """Frames per second that it takes where those of a video are not known."""

    @property
    def needs_rate(self) -> bool:
        """Whether it cannot be written without the frame rates of the videos."""
        return self.unit == FRAMES and self.default_rate is None


def _holds(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


WRITERS = Table[Writer](
    "vidkd.writers",
    "format to write",
    {
        "activitynet": Writer(
            "ActivityNet's JSON",
            ".json",
            activitynet.write_annotations,
            EXACT,
            _holds(*KINDS),
            one_video=False,
        ),
        "csv": Writer(
            "the table",
            ".csv",
            plain_csv.write,
            EXACT,
            _holds("scores", "subsets", "durations", "frame rates", "instants"),
            one_video=False,
        ),
        "elan": Writer("ELAN", ".eaf", elan.write, MILLISECONDS, _holds("unused classes")),
        "via": Writer(
            "VIA",
            ".json",
            via.write,
            EXACT,
            _holds("scores", "unused classes", "instants"),
            one_video=False,
            names_files=True,
        ),
        "label-studio": Writer(
            "Label Studio",
            ".json",
            label_studio.write,
            FRAMES,
            _holds("scores", "subsets", "durations", "frame rates", "attributes"),
            one_video=False,
            names_files=True,
            default_rate=label_studio.FRAME_RATE,
        ),
        "boris": Writer(
            "BORIS",
            ".boris",
            boris.write,
            MILLISECONDS,
            _holds(*KINDS) - {"scores"},
            one_video=False,
            names_files=True,
        ),
        "fiftyone": Writer(
            "FiftyOne",
            ".json",
            fiftyone.write,
            EXACT,
            _holds("scores", "unused classes", "instants"),
            one_video=False,
        ),
        "textgrid": Writer(
            "TextGrid", ".textgrid", textgrid.write, EXACT, _holds("durations", "instants")
        ),
        "webvtt": Writer("WebVTT", ".vtt", subtitles.write_vtt, MILLISECONDS, _holds("instants")),
        "srt": Writer("SRT", ".srt", subtitles.write_srt, MILLISECONDS, _holds("instants")),
        "edl": Writer("EDL", ".edl", edl.write, FRAMES, _holds(), names_files=True),
        "otio": Writer(
            "OpenTimelineIO",
            ".otio",
            otio.write,
            FRAMES,
            _holds("scores"),
            names_files=True,
            default_rate=otio.MILLISECONDS,
        ),
        "losslesscut": Writer(
            "LosslessCut",
            ".llc",
            losslesscut.write,
            EXACT,
            _holds("scores", "instants"),
            names_files=True,
        ),
        "chapters": Writer(
            "ffmpeg", ".ffmetadata", chapters.write, MICROSECONDS, _holds("instants")
        ),
        "audacity": Writer("Audacity", ".txt", audacity.write, MICROSECONDS, _holds("instants")),
    },
)


def write_as(
    path: str | Path, name: str, annotations: Annotations, *, overwrite: bool = False
) -> tuple[list[Path], list[str]]:
    """Write annotations in a format of ``WRITERS``.

    Args:
        path: the file; of a format with one video a file, a folder if there are several, in which
            each file is called as its video.
        name: of the format.
        annotations: what to write; a score of a segment makes it a prediction.
        overwrite: whether files that exist may be replaced.

    Returns:
        The files, and what was left out or changed, one line for each kind.

    Raises:
        UsageError: there is no such format, a file exists, or several videos need a folder.
        AnnotationError: the format needs what the annotations lack, or a video's id is no name.
    """
    writer, path = WRITERS[name], Path(path)
    for video in annotations.videos.values():
        parts = PurePosixPath(video.id).parts
        if PurePosixPath(video.id).is_absolute() or ".." in parts or "\0" in video.id or not parts:
            raise AnnotationError(
                f"the name of video {video.id!r} cannot be that of a file",
                remedy="rename the video",
            )
        if writer.needs_rate and video.frame_rate is None:
            raise AnnotationError(
                f"{writer.tool} counts in frames, and the frame rate of {video.id!r} is not known",
                remedy="give --videos, the folder of the videos",
            )
    targets = {path: annotations}
    if writer.one_video:
        targets = _files(writer, path, annotations)
    existing = [target for target in targets if target.exists()]
    if existing and not overwrite and name != "activitynet":
        raise UsageError(
            "exists already", path=existing[0], remedy="name another, or give --overwrite"
        )
    for target, content in targets.items():
        writer.write(target, content)
    return list(targets), list(left_out(writer, annotations))


def _files(writer: Writer, path: Path, annotations: Annotations) -> dict[Path, Annotations]:
    """Return the files to write and what to write into each."""
    single = path.suffix.lower() == writer.ending and not path.is_dir()
    if single and len(annotations.videos) != 1:
        raise UsageError(
            f"{writer.tool} holds one video a file, and there are {len(annotations.videos)}",
            path=path,
            remedy="give a folder as --output",
        )
    ending = ".TextGrid" if writer.ending == ".textgrid" else writer.ending
    return {
        path if single else path / f"{key}{ending}": replace(annotations, videos={key: video})
        for key, video in annotations.videos.items()
    }


def left_out(writer: Writer, annotations: Annotations) -> Iterator[str]:
    """Yield what a format cannot hold of annotations, one line for each kind.

    Durations and frame rates of videos whose files are known are not lost: the files have them.
    """
    videos = list(annotations.videos.values())
    segments = [(video, item) for video in videos for item in video.segments]
    labels = {item.label for _, item in segments}
    counts = {
        "score": sum(item.score is not None for _, item in segments),
        "subset": sum(bool(video.subset) for video in videos),
        "duration": sum(video.duration is not None for video in videos if not video.file),
        "frame rate": sum(video.frame_rate is not None for video in videos if not video.file),
        "attribute": sum(len(video.attributes) for video in videos),
        "unused class": sum(name not in labels for name in annotations.classes),
    }
    for kind, count in counts.items():
        if count and not {f"{kind}s", f"{kind}es"} & writer.holds:
            yield f"{counted(count, kind)} left out: {writer.tool} has no place for them"
    instants = sum(item.start == item.end for _, item in segments)
    if instants and "instants" not in writer.holds:
        unit = writer.unit[:-1]
        yield f"{counted(instants, 'instant')} made one {unit} long: {writer.tool} has none"
    rounded = sum(_rounded(writer, video, item) for video, item in segments)
    if rounded:
        yield f"times of {counted(rounded, 'segment')} rounded to whole {writer.unit}"
    if writer.default_rate is not None and any(video.frame_rate is None for video in videos):
        yield (
            f"frame rates are not known, and {writer.default_rate:g} per second is taken;"
            " --videos finds them"
        )
    unnamed = sum(video.file is None for video in videos)
    if unnamed and writer.names_files:
        files = counted(unnamed, "video file")
        yield f"names of {files} are not known, and ID.mp4 is written; --videos finds them"


def _rounded(writer: Writer, video: VideoAnnotation, item: Segment) -> bool:
    if writer.unit == EXACT:
        return False
    rate = _PER_SECOND.get(writer.unit) or video.frame_rate or writer.default_rate or 1.0
    return any(abs(round(time * rate) / rate - time) > 1e-9 for time in (item.start, item.end))
