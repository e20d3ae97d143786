"""How video becomes what the encoders see: frames, snippets, flow and poses."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from vidkd.recipe.choices import FeatureType, Modality
from vidkd.recipe.settings import Option, Settings

Given = TypeVar("Given", bound=Settings)


def given_or(given: Given, default: Given) -> Given:
    """Return ``default`` with the fields that ``given`` was made with."""
    return default.model_copy(update={n: getattr(given, n) for n in given.model_fields_set})


class FrameSettings(Settings):
    """How video becomes frames."""

    model_config = ConfigDict(title="Frames")

    short_side: Annotated[int, Field(ge=32, le=2160), Option(unit="PIXELS", common=True)] = 256
    """Pixels of the shorter side after the resize, which happens before flow is computed."""
    frame_rate: Annotated[float | None, Field(gt=0, le=1000), Option(unit="FPS", common=True)] = (
        None
    )
    """Frames per second, sampled by time, instead of all frames of the video."""
    resize: Literal["swscale-bilinear"] = "swscale-bilinear"
    """What defines the resize; other bilinear resizes differ by about a grey level."""


class SnippetSettings(Settings):
    """How frames become snippets: rows of features, and the clip that each is computed from.

    Row i stands for ``window`` frames from frame ``i * stride`` on; these are its times, by which
    it is labelled. Its clip is ``length`` frames, ``step`` apart, with the same centre; where it
    reaches beyond the video, the first or last frame is repeated. So rows do not move when the
    clip gets longer, and those of several encoders with the same window and stride agree.
    """

    model_config = ConfigDict(title="Input")

    length: Annotated[int, Field(ge=1, le=256), Option(unit="FRAMES")] = 16
    """Frames of a clip."""
    stride: Annotated[int, Field(ge=1, le=256), Option(unit="FRAMES")] = 16
    """Frames from one snippet to the next."""
    step: Annotated[int, Field(ge=1, le=64), Option(unit="FRAMES")] = 1
    """Frames from one frame of a clip to the next."""
    window: Annotated[int | None, Field(ge=1, le=256), Option(unit="FRAMES")] = None
    """Frames that a snippet stands for and is labelled by, if not those of its clip."""

    @property
    def row_length(self) -> int:
        """Frames that a row stands for."""
        return self.window or self.length

    @property
    def span(self) -> int:
        """Frames from the first to the last one of a clip, both counted."""
        return (self.length - 1) * self.step + 1

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what files from before these fields do not have."""
        fields: dict[str, Any] = serialise(self)
        return {k: v for k, v in fields.items() if (k, v) not in {("step", 1), ("window", None)}}


class ImportSettings(Settings):
    """What is declared of imported features, since the files do not say it."""

    model_config = ConfigDict(title="Features")

    encoder: Annotated[str, Field(min_length=1), Option(unit="NAME", common=True)]
    """Name for the encoder that made them, such as my-i3d."""
    modality: Annotated[Modality, Option(unit="STREAM", common=True, table="vidkd.streams")]
    """What it saw."""
    stride: Annotated[int, Field(ge=1, le=256), Option(unit="FRAMES", common=True)]
    """Frames from one snippet to the next."""
    frame_rate: Annotated[float, Field(gt=0, le=1000), Option(unit="FPS", common=True)]
    """Frames per second of the frames it saw."""
    length: Annotated[int, Field(ge=1, le=256), Option(unit="FRAMES", common=True)] = 16
    """Frames of a snippet."""
    transposed: Annotated[bool, Option(common=True)] = False
    """The files hold (D, T), as those of MS-TCN."""
    dtype: Annotated[FeatureType, Option(common=True)] = "float32"
    """Type on disk."""

    @property
    def rate(self) -> Fraction:
        """The frame rate as a fraction; 23.976 becomes 24000/1001."""
        for nominal in (24, 30, 60):
            if abs(self.frame_rate - nominal / 1.001) < 5e-3:
                return Fraction(nominal * 1000, 1001)
        return Fraction(self.frame_rate).limit_denominator(1000)

    @property
    def weights_sha256(self) -> str:
        """A stand-in for the hash of the unknown weights, which no real weights can have.

        It keeps imported features together in training, and a model trained on them away from
        video: no encoder on any machine has this hash.
        """
        return hashlib.sha256(f"imported features of {self.encoder}".encode()).hexdigest()

    def recorded(self) -> dict[str, Any]:
        """Return the settings as they are written into the provenance."""
        return {
            "modality": self.modality,
            "frames": {"frame_rate": self.frame_rate},
            "snippet": {"length": self.length, "stride": self.stride},
            "dtype": self.dtype,
            "imported": True,
        }


class FlowSettings(Settings):
    """TV-L1 optical flow; the defaults are those of OpenCV's DualTVL1."""

    model_config = ConfigDict(title="Flow")

    backend: Annotated[Literal["auto", "numba", "opencv", "torch"], Option(common=True)] = "auto"
    """Implementation of TV-L1. ``auto`` is torch where flow is computed on a GPU, else numba."""
    bound: Annotated[float, Field(gt=0, le=200), Option(unit="PIXELS", common=True)] = 20.0
    """Pixels at which flow is clipped before it is stored in 8 bits."""
    codec: Literal["zstd"] = "zstd"
    """How the cache compresses it, without loss."""


class TrackSettings(Settings):
    """Poses of single frames linked over time; times are in seconds, whatever the frame rate."""

    model_config = ConfigDict(title="Tracks")

    max_people: Annotated[int, Field(ge=1, le=32), Option(common=True)] = 4
    """People kept per frame; the first is the main person."""
    max_gap: Annotated[float, Field(ge=0, le=10), Option(unit="SECONDS")] = 0.5
    """Longest gap in a track, which is filled; after a longer one a new track begins."""
    min_length: Annotated[float, Field(ge=0, le=60), Option(unit="SECONDS")] = 0.5
    """Shorter tracks are dropped."""
    smoothing: Annotated[float, Field(ge=0, le=2), Option(unit="SECONDS")] = 0.0
    """Standard deviation of a Gaussian that smooths joints over time; 0 for none."""


class PoseSettings(Settings):
    """People's poses in video (``vidkd extract-pose``)."""

    model_config = ConfigDict(title="Poses")

    backend: Annotated[Literal["lcrnet", "files"], Option(common=True)] = "lcrnet"
    """Pose detector; ``files`` takes poses that another program has computed."""
    every: Annotated[int, Field(ge=1, le=250), Option(unit="N", common=True)] = 1
    """Detect people in every N-th frame; joints between are interpolated."""
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    """People with a lower score are ignored; by default 0.5 for a detector, 0 for files."""
    tracks: TrackSettings = TrackSettings()


class SynthSettings(Settings):
    """The rendered data set (``vidkd synth``)."""

    model_config = ConfigDict(title="Data set")

    videos: Annotated[int, Field(ge=1), Option(unit="VIDEOS", common=True)] = 60
    """Number of videos."""
    seconds: Annotated[float, Field(ge=4), Option(unit="SECONDS", common=True)] = 24.0
    """Length of each video."""
    width: Annotated[int, Field(ge=64), Option(unit="PIXELS")] = 320
    """Width of the frames."""
    height: Annotated[int, Field(ge=64), Option(unit="PIXELS")] = 240
    """Height of the frames."""
    frame_rate: Annotated[float, Field(gt=0), Option(unit="FPS", common=True)] = 12.5
    """Frames per second."""
    seed: Annotated[int, Option(common=True)] = 0
    """Seed of everything random; another seed gives another data set."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the videos that are for validation."""
    testing_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the videos that are for testing."""
    unlabelled_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the videos that have poses and no labels, in a subset `unlabelled`."""
    actions: Annotated[tuple[str, ...], Option(unit="CLASS,...")] = ()
    """What people do. Default: all 15 classes."""
    pairs: Annotated[float, Field(ge=0, le=1), Option(unit="SHARE")] = 0.3
    """Share of the videos with two people."""
    closeness: Annotated[float, Field(ge=0.5, le=1.5), Option(unit="FACTOR")] = 1.0
    """Factor on the height of people, which is 52 to 72 per cent of the picture's."""
