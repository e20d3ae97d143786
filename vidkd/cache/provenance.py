"""Where the content of a cache file comes from: the video, the algorithm and all its settings."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vidkd.differences import differences as settings_differences
from vidkd.errors import VideoError
from vidkd.files import sha256

if TYPE_CHECKING:
    from vidkd.video import VideoInfo

Artefact = Literal["flow", "features", "pose"]
ARTEFACTS: tuple[str, ...] = get_args(Artefact)


@dataclass(frozen=True)
class Source:
    """The video a cache file was computed from.

    Attributes:
        name: file name without folders, so that a moved data set keeps its cache.
        size: bytes.
        sha256: hash of the file's content.
        frame_rate: frames per second as the container says, exact.
        frame_count: frames actually decoded; 0 until that is known, when writing is finished.
    """

    name: str
    size: int
    sha256: str
    frame_rate: Fraction
    frame_count: int = 0


def describe_source(path: Path, info: VideoInfo) -> Source:
    """Describe a video for the provenance of what is computed from it; reads the whole file once.

    Raises:
        VideoError: the file cannot be read.
    """
    try:
        size = path.stat().st_size
        digest = sha256(path)
    except OSError as error:
        raise VideoError(
            f"cannot be read ({error.strerror or error})",
            path=path,
            remedy="check that the file exists and that you may read it",
        ) from error
    return Source(path.name, size, digest, info.frame_rate)


@dataclass(frozen=True)
class Provenance:
    """Everything that determines the numbers in a cache file, and the versions that made them.

    Attributes:
        artefact: what the rows are.
        source: the video.
        settings: JSON values by name, possibly nested: the algorithm and every setting that
            changes the numbers.
        encoder: name of the network that made the rows, for features.
        weights_sha256: hash of that network's weights.
        versions: library versions by name; recorded, but never compared.
    """

    artefact: Artefact
    source: Source
    settings: Mapping[str, Any]
    encoder: str | None = None
    weights_sha256: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the provenance as JSON values."""
        return {
            "artefact": self.artefact,
            "source": vars(self.source) | {"frame_rate": str(self.source.frame_rate)},
            "settings": normalise(self.settings),
            "encoder": self.encoder,
            "weights_sha256": self.weights_sha256,
            "versions": dict(self.versions),
        }


def differences(found: Provenance, expected: Provenance) -> list[str]:
    """Name everything in which a file differs from what is asked for, one phrase each.

    Compared are the artefact, the size and hash of the video, the settings, the encoder and its
    weights. The library versions are not: a newer library does not make finished work stale.
    """
    phrases = []
    if found.artefact != expected.artefact:
        phrases.append(f"holds {found.artefact}, not {expected.artefact}")
    if (found.source.size, found.source.sha256) != (expected.source.size, expected.source.sha256):
        phrases.append("the video's content has changed")
    phrases += settings_differences(found.settings, expected.settings)
    if found.encoder != expected.encoder:
        phrases.append(f"encoder is {found.encoder} (asked for: {expected.encoder})")
    elif found.weights_sha256 != expected.weights_sha256:
        phrases.append(f"the weights of {found.encoder} were others")
    return phrases


def normalise(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they read back from JSON, so that tuples and lists compare equal."""
    result: dict[str, Any] = json.loads(json.dumps(settings, sort_keys=True, allow_nan=False))
    return result


def library_versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, vidkd and the named installed distributions."""
    versions = {"python": platform.python_version()}
    for package in ("vidkd", *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            # A source checkout on the path has no metadata of its own.
            versions[package] = "unknown"
    return versions
