"""What a stream is: what snippets are made of, and everything that depends on that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidkd.cache import Source, cache_files, cache_path, present
from vidkd.errors import CacheError, UsageError
from vidkd.keys import KeyIndex
from vidkd.recipe import (
    FlowSettings,
    FrameSettings,
    ModelCard,
    Pipeline,
    Precision,
    SnippetSettings,
    given_or,
)
from vidkd.recipe.choices import STUDENT_STREAM, FeatureType
from vidkd.video import Frame, Snippet, VideoFile, cut_snippets, read_frames
from vidkd.workers import Report

if TYPE_CHECKING:
    import numpy as np
    import torch

    from vidkd.networks.cards import Described
    from vidkd.streams.encode import Encoder

    Batches = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class FeatureSettings:
    """How features are made, alike for all videos that belong together.

    Attributes:
        stream: what the encoder sees.
        encoder: a name of ``vidkd models list``, or the path of a trained one.
        frames: resize and sampling; for cached flow and poses, those they were made with.
        snippet: length and stride in frames.
        crop: side in pixels of the square cut from the middle of every picture; None for that of
            the encoder's card, and so it is with fields of ``frames`` and ``snippet`` that were
            not given.
        batch_size: snippets encoded at once; None for what suits stream and device.
        dtype: type of the features on disk.
        precision: of the encoder's arithmetic.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    stream: Stream
    encoder: str
    frames: FrameSettings = field(default_factory=FrameSettings)
    snippet: SnippetSettings = field(default_factory=SnippetSettings)
    crop: int | None = None
    batch_size: int | None = None
    dtype: FeatureType = "float16"
    precision: Precision = "auto"
    device: str = "auto"

    def completed(self, card: ModelCard) -> FeatureSettings:
        """Return the settings with all that was not given, from the card of the encoder."""
        return replace(
            self,
            frames=given_or(self.frames, card.frames),
            snippet=given_or(self.snippet, card.snippet),
            crop=self.crop or card.crop,
        )


def ignore(amount: float) -> None:
    """Take a report of progress and do nothing."""


@dataclass(frozen=True)
class VideoJob:
    """One video on its way to features.

    Attributes:
        video: the video and its key.
        cache: the cache folder.
        settings: how features are made.
        card: of the encoder.
        made: settings of this video's provenance, with what its stream added to them.
        device: where the encoder runs.
        threads: of the processor, for what is computed besides.
        report: to be called with the number of frames done since the last call.
        source: the video's frames, where something else decodes them for several streams.
    """

    video: VideoFile
    cache: Path
    settings: FeatureSettings
    card: ModelCard
    made: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    threads: int = 1
    report: Report = ignore
    source: Iterable[Frame] | None = None

    @property
    def path(self) -> Path:
        """The cache file of the features."""
        folder = self.settings.stream.folder(self.card.name)
        return cache_path(self.cache, "features", self.video.key, folder)

    def decoded(self) -> Iterator[Frame]:
        """Yield the video's RGB frames, resized and sampled, and report each."""
        if self.source is not None:
            return iter(self.source)
        return decode(self.video.path, self.settings.frames, self.report)


def decode(path: Path, frames: FrameSettings, report: Report = ignore) -> Iterator[Frame]:
    """Yield the RGB frames of a video, resized and sampled, and report each.

    Raises:
        VideoError: the video cannot be decoded.
    """
    for frame in read_frames(path, short_side=frames.short_side, frame_rate=frames.frame_rate):
        report(1)
        yield frame


class Stream:
    """What an encoder sees of a video, such as RGB frames, optical flow or poses.

    A class of its own for each stream; the table ``vidkd.streams.STREAMS`` holds one object of
    each. On the command line and in files a stream is called by its name, as the ``modality``.
    A stream that has pictures of some kind defines ``frames`` and, where they are not RGB,
    ``prepare``; all else has defaults. Objects are picklable: worker processes get them.

    Attributes:
        name: of the stream, as ``--modality`` and files call it.
        label: in tables and figures.
        artefact: folder of the cache that must hold something of the video first, such as
            ``flow``; None for streams that are made of the video itself.
        command: which writes that folder, such as ``extract-flow``.
        from_rgb: whether RGB frames alone, as they are decoded, give its rows (see ``rows``) to an
            encoder of RGB.
        trained_by_recipe: whether a recipe trains the encoder on its training videos, since none
            comes trained.
        crops: whether ``--short-side`` and ``--crop`` say how large its pictures are.
        enlarges: whether it resizes what it cuts, so that frames may be smaller than the crop.
        encoder_modality: modality on the cards of the encoders that it takes.
        batch_sizes: snippets encoded at once on a processor and on a GPU.
    """

    name: str
    label: str
    artefact: str | None = None
    command: str | None = None
    from_rgb: bool = False
    trained_by_recipe: bool = False
    crops: bool = True
    enlarges: bool = False
    encoder_modality: str = STUDENT_STREAM
    # Larger batches were not faster on a processor; a GPU needs more of them to be busy.
    batch_sizes: tuple[int, int] = (4, 32)

    @property
    def contents(self) -> str:
        """What it is made of, in a sentence."""
        return self.name

    # Its encoder.

    def default_encoder(self) -> str:
        """Return the name of the encoder that is taken where none is given.

        Raises:
            UsageError: there is none to begin with.
        """
        from vidkd.networks.cards import DEFAULT_ENCODER

        return DEFAULT_ENCODER

    def first_encoder(self) -> str:
        """Return the encoder that a new recipe and ``train-encoder`` begin with."""
        return self.default_encoder()

    def load_encoder(self, name: str, device: str, precision: Precision) -> Encoder:
        """Load an encoder; see ``vidkd.networks.load_encoder``."""
        from vidkd.networks import load_encoder

        return load_encoder(name, device, precision)

    def describe_encoder(self, name: str, precision: Precision) -> Encoder | Described:
        """Return what is known of an encoder, without its network where that can be done without.

        Raises:
            VidkdError: it could not be loaded.
        """
        from vidkd.networks.cards import described_in

        # A stream may have encoders of its own, and only loading others, or quantised ones, tells
        # whether their library is installed.
        if type(self).load_encoder is Stream.load_encoder:
            found, _ = described_in(name, precision)
            if found.needs_no_library:
                return found
        return self.load_encoder(name, "cpu", precision)

    def fetch_encoder(self, name: str) -> None:
        """Fetch the weights of an encoder where they are not there yet.

        Raises:
            UsageError: there is no such encoder.
            WeightsError: they cannot be fetched; the message says how to give them by hand.
        """
        from vidkd.networks import ensure_weights

        ensure_weights(name)

    def encoder_settings(self, encoder: Encoder | Described) -> dict[str, Any]:
        """Return what the provenance of features says of the encoder besides name and weights."""
        return {}

    def check(
        self, card: ModelCard, frames: FrameSettings, crop: int, snippet: SnippetSettings
    ) -> None:
        """Refuse what cannot work for any video.

        Raises:
            UsageError: the encoder is for another stream or other clips, or frames are smaller
                than the crop.
        """
        if card.modality not in {self.name, self.encoder_modality}:
            raise UsageError(
                f"the encoder {card.name} is for {card.modality}, not for {self.name}",
                remedy="choose another --encoder or --modality",
            )
        if not self.crops:
            return
        for what, value, (low, high) in (
            ("frames", snippet.length, card.lengths),
            ("pixels", crop, card.crops),
        ):
            if not low <= value <= high:
                allowed = str(low) if low == high else f"{low} to {high}"
                raise UsageError(
                    f"{card.name} takes clips of {allowed} {what}, not {value}",
                    remedy="leave the length and --crop to the model's card",
                )
        if frames.short_side < crop and not self.enlarges:
            raise UsageError(
                f"frames of short side {frames.short_side} are smaller than the crop of {crop}",
                remedy="choose a larger --short-side or a smaller --crop",
            )

    # Its place in the cache.

    def folder(self, encoder: str) -> str:
        """Return the folder below ``CACHE/features`` of the features an encoder makes of it.

        An encoder that was made for this stream names the folder; of one that it shares with
        another stream, the folder is called ``ENCODER.STREAM``.
        """
        return encoder if self.encoder_modality == self.name else f"{encoder}.{self.name}"

    def files(self, cache: Path, encoder: str) -> KeyIndex[Path]:
        """Return the features that an encoder made of it, by the key of their video."""
        return cache_files(cache, "features", self.folder(encoder))

    def encoder(self, folder: str) -> str:
        """Return the encoder whose features of this stream lie in a folder; undoes ``folder``."""
        own = self.encoder_modality == self.name
        return folder if own else folder.removesuffix(f".{self.name}")

    def check_inputs(self, video: VideoFile, cache: Path) -> None:
        """Raise CacheError when what the video needs beside itself is missing."""
        if self.artefact is None:
            return
        path = cache_path(cache, self.artefact, video.key)
        if not present(path):
            raise CacheError(
                f"the {self.artefact} of this video is needed and missing",
                path=path,
                remedy=f"run `{self.extraction(video, cache)}` first",
            )

    def extraction(self, video: VideoFile, cache: Path) -> str:
        """Return the command line that extracts what features of one video are computed from."""
        root = str(video.path.with_suffix("")).removesuffix(video.key) or "."
        return f"vidkd {self.command} {video.path} --root {root} --cache {cache}"

    def provenance(self, job: VideoJob, source: Source) -> dict[str, Any]:
        """Return what determines the rows besides the video and the settings, as JSON values.

        What belongs to one video alone, such as the hash of a further file, goes below
        ``inputs``. A setting of the same name is replaced.

        Args:
            job: ``made`` is still empty.
            source: the video.

        Raises:
            CacheError: what the stream is made of is missing, damaged or of other settings.
        """
        return {}

    def packages(self) -> tuple[str, ...]:
        """Return the packages whose versions are recorded with its features."""
        return ("av", "h5py", "numpy", "torch")

    @property
    def on_processor(self) -> bool:
        """Whether its batches are computed on a processor, also where the encoder has a GPU."""
        return True

    # Its settings.

    def configured(self, flow: FlowSettings | None = None, flow_cache: bool = True) -> Stream:
        """Return the stream with settings of flow, if it has to do with flow.

        Raises:
            UsageError: it has nothing to do with flow, and ``flow_cache`` is off.
        """
        if not flow_cache:
            raise UsageError(
                f"features of {self.name} need no flow", remedy="leave out --no-flow-cache"
            )
        return self

    def uncached(self, made: Mapping[str, Any], device: str) -> Stream:
        """Return the stream as it is computed from a new video alone, at run time.

        Its ``batches`` need nothing but ``VideoJob.decoded``. Where they have to see more of the
        video first, they may yield batches of no snippet.

        Args:
            made: what the features of training were made with (``FilterHeader.stream_settings``).
            device: where it computes: ``cpu``, ``cuda`` or ``cuda:N``.

        Raises:
            UsageError: a new video does not give it.
        """
        if self.artefact is None:
            return self
        raise UsageError(
            f"features of {self.name} need the {self.artefact} of a video, which is not computed "
            "at run time",
            remedy="give a model of another stream, or run it on features with --features",
        )

    def on(self, device: str) -> Stream:
        """Return the stream with everything settled that depends on the device."""
        return self

    def first_sections(self, gpu: bool) -> list[tuple[str, ...]]:
        """Return further sections of a new recipe with this teacher: why, and the lines of each."""
        return []

    def asked(self, recipe: Pipeline) -> dict[str, Any]:
        """Return what a recipe wants features of this stream to be made with, by name.

        The names are those that people are told when features were made with something else.
        """
        return {"crop": recipe.encoders[self.name].crop} if self.crops else {}

    def found(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same of features that were made, from the settings of their provenance."""
        return {"crop": made.get("crop")}

    # Its rows, snippets and inputs.

    def rows(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Turn RGB frames into rows of this stream, as many and with the same times."""
        return iter(frames)

    def frames(self, job: VideoJob) -> Iterable[Frame]:
        """Yield the rows of a video, one for each frame, as the image of a ``Frame``."""
        return self.rows(job.decoded())

    def batches(self, job: VideoJob, size: int) -> Batches:
        """Yield snippets (B, T, ...) of a video, and their start and end seconds (B, 2)."""
        from vidkd.streams.encode import batched

        settings = job.settings
        return batched(self.snippets(self.frames(job), settings.snippet, settings.crop), size)

    def snippets(
        self, rows: Iterable[Frame], snippet: SnippetSettings, crop: int | None
    ) -> Iterator[Snippet]:
        """Cut rows into snippets, and out of their pictures what the encoder sees.

        Args:
            rows: of this stream, in order of time.
            snippet: length and stride.
            crop: side of the square in pixels, where the stream ``crops``.

        Raises:
            VidkdError: the pictures are smaller than the crop.
        """
        cut = cut_snippets(rows, snippet)
        return (replace(item, frames=self.seen(item.frames, crop)) for item in cut)

    def seen(self, images: np.ndarray, crop: int | None) -> np.ndarray:
        """Return what the encoder sees of a snippet's rows: all, or a part where it ``crops``."""
        return images if crop is None or not self.crops else self.crop(images, crop)

    def crop(
        self, images: np.ndarray, size: int, place: tuple[float, float] | None = None
    ) -> np.ndarray:
        """Cut what the encoder sees out of the pictures of a snippet.

        Args:
            images: (T, H, W, C) rows.
            size: side S of the result in pixels.
            place: where, from left (0) to right (1) and from top to bottom, as training varies it;
                None for the place at run time, for most streams the middle.

        Returns:
            (T, S, S, C).

        Raises:
            VidkdError: the pictures are smaller than that.
        """
        from vidkd.streams.encode import square_crop

        return square_crop(images, size, place)

    def mirrored(self, images: np.ndarray) -> np.ndarray:
        """Return pictures (..., W, C) with left and right exchanged."""
        return images[..., ::-1, :]

    def prepare(
        self, card: ModelCard, device: torch.device, made: Mapping[str, Any]
    ) -> Callable[[np.ndarray | torch.Tensor], torch.Tensor]:
        """Return the function that turns a batch of snippets into what the encoder takes.

        Args:
            card: of the encoder.
            device: where the input is wanted.
            made: settings of the features' provenance.
        """
        from vidkd.streams.encode import network_input

        return lambda images: network_input(images, card, device)
