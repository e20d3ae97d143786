"""Streams: what snippets are made of. Installed packages add theirs (docs/extending.md)."""

from vidkd.extensions import Table
from vidkd.streams.base import FeatureSettings, Stream, VideoJob, decode
from vidkd.streams.direct import DirectStream
from vidkd.streams.flow import Flow
from vidkd.streams.person import RgbPerson
from vidkd.streams.pose import Pose
from vidkd.streams.rgb import Rgb
from vidkd.streams.rgb_difference import RgbDifference

RGB = Rgb()
"""The stream of students, the only one that a video is sure to have at run time."""

STREAMS: Table[Stream] = Table(
    "vidkd.streams",
    "stream",
    {stream.name: stream for stream in (RGB, Flow(), Pose(), RgbDifference(), RgbPerson())},
)
"""Every stream by its name, which is what ``--modality`` takes."""

__all__ = [
    "RGB",
    "STREAMS",
    "DirectStream",
    "FeatureSettings",
    "Flow",
    "Stream",
    "VideoJob",
    "decode",
]
