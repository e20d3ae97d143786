"""The readers by the name of their format, and ``load_annotations``, which uses one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vidkd.annotations.activitynet import ACTIVITYNET
from vidkd.annotations.audacity import AUDACITY
from vidkd.annotations.boris import BORIS, BORIS_TABLE
from vidkd.annotations.chapters import CHAPTERS
from vidkd.annotations.charades import CHARADES, CHARADES_CSV
from vidkd.annotations.edl import EDL
from vidkd.annotations.elan import ELAN, ELAN_TIERS, ELAN_VALUES
from vidkd.annotations.fiftyone import FIFTYONE
from vidkd.annotations.label_studio import LABEL_STUDIO
from vidkd.annotations.losslesscut import LOSSLESSCUT
from vidkd.annotations.model import Annotations
from vidkd.annotations.multithumos import MULTITHUMOS
from vidkd.annotations.otio import OTIO
from vidkd.annotations.parse import Context, Reader, Source
from vidkd.annotations.pku_mmd import PKU_MMD, PKU_MMD_CROSS_SUBJECT, PKU_MMD_CROSS_VIEW
from vidkd.annotations.plain_csv import PLAIN_CSV
from vidkd.annotations.subtitles import SRT, WEBVTT
from vidkd.annotations.textgrid import TEXTGRID, TEXTGRID_TIERS
from vidkd.annotations.thumos14 import THUMOS14
from vidkd.annotations.tsu import TSU, TSU_CROSS_SUBJECT, TSU_CROSS_VIEW
from vidkd.annotations.via import VIA
from vidkd.errors import UsageError
from vidkd.extensions import Table
from vidkd.storage import as_path

READERS = Table[Reader](
    "vidkd.datasets",
    "annotation format",
    {
        "activitynet": ACTIVITYNET,
        "charades": CHARADES,
        "multithumos": MULTITHUMOS,
        "tsu": TSU,
        "tsu-cross-subject": TSU_CROSS_SUBJECT,
        "tsu-cross-view": TSU_CROSS_VIEW,
        "charades-csv": CHARADES_CSV,
        "csv": PLAIN_CSV,
        "pku-mmd": PKU_MMD,
        "pku-mmd-cross-subject": PKU_MMD_CROSS_SUBJECT,
        "pku-mmd-cross-view": PKU_MMD_CROSS_VIEW,
        "thumos14": THUMOS14,
        "elan": ELAN,
        "elan-tiers": ELAN_TIERS,
        "elan-values": ELAN_VALUES,
        "label-studio": LABEL_STUDIO,
        "boris": BORIS,
        "boris-table": BORIS_TABLE,
        "via": VIA,
        "fiftyone": FIFTYONE,
        "textgrid": TEXTGRID,
        "textgrid-tiers": TEXTGRID_TIERS,
        "webvtt": WEBVTT,
        "srt": SRT,
        "edl": EDL,
        "otio": OTIO,
        "losslesscut": LOSSLESSCUT,
        "chapters": CHAPTERS,
        "audacity": AUDACITY,
    },
)


def load_annotations(
    path: str | Path,
    format: str = "auto",
    *,
    frame_rate: float | None = None,
    rate_of: Callable[[str], float | None] | None = None,
) -> Annotations:
    """Read an annotation file, or a folder of them.

    Args:
        path: the file; for ``pku-mmd`` and ``thumos14`` the folder.
        format: one of ``READERS``, or ``auto``, which tells the format from the content where
            one format alone fits. The JSON of Charades, MultiTHUMOS and TSU look the same but
            count differently, so those have to be named.
        frame_rate: frames per second, for formats that count in frames.
        rate_of: frames per second of a video by its id, from the videos themselves; asked where
            a format counts in frames, its files do not say the rate, and ``frame_rate`` is None.

    Raises:
        AnnotationError: the file cannot be read or contradicts itself.
        UsageError: there is no such format, or it does not count in frames.
    """
    place = as_path(path)
    source = Source(place) if rate_of is None else Source(place, rate_of)
    if frame_rate is not None and not 0 < frame_rate < 10_000:
        raise UsageError(
            f"a frame rate of {frame_rate:g} makes no sense", remedy="give frames per second"
        )
    if format == "auto":
        format = recognise(source)
    reader = READERS[format]
    if frame_rate is not None and reader.frame_rate is None and not reader.frames:
        raise UsageError(
            f"the format {format} counts in seconds", remedy="leave out the annotations' frame rate"
        )
    return reader.read(source, reader.frame_rate if frame_rate is None else frame_rate)


def recognise(source: Source | str | Path) -> str:
    """Return the name of the format of a file or folder, told from its content.

    Raises:
        AnnotationError: it is of none, or of several that count differently.
    """
    if not isinstance(source, Source):
        source = Source(as_path(source))
    found = [name for name, reader in READERS.items() if reader.recognises(source)]
    if len(found) == 1:
        return found[0]
    if found:
        problem = "is of several formats at once, which count classes or times differently"
    elif source.path.is_dir():
        problem = "is a folder of no format that can be told from its content"
    else:
        problem = "is of no format that can be told from its content"
    raise Context(source.path).error(
        problem, f"name the format: one of {', '.join(found or READERS)}"
    )
