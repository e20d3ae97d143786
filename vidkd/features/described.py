"""What flow and features are computed from: the provenance that their cache files must have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vidkd.cache import (
    CacheFile,
    Provenance,
    Source,
    cache_path,
    describe_source,
    differences,
    library_versions,
)
from vidkd.errors import CacheError
from vidkd.recipe import FlowSettings, FrameSettings, ModelCard, SnippetSettings
from vidkd.video import VideoFile, probe

FeatureType = Literal["float16", "float32"]
_FLOW_PACKAGES = ("numba", "opencv-contrib-python-headless", "torch")


def flow_provenance(
    video: VideoFile, frames: FrameSettings, flow: FlowSettings, device: str = "cpu"
) -> Provenance:
    """Describe the flow of one video; reads the whole file for its hash.

    Raises:
        VideoError: the video cannot be opened.
    """
    from vidkd.flow import flow_settings

    return Provenance(
        artefact="flow",
        source=describe_source(video.path, probe(video.path)),
        settings={"frames": frames.model_dump(), "flow": flow_settings(flow, device)},
        versions=library_versions("av", "h5py", "numpy", *_FLOW_PACKAGES),
    )


def feature_provenance(
    video: VideoFile,
    cache: Path,
    card: ModelCard,
    weights_sha256: str,
    frames: FrameSettings,
    snippet: SnippetSettings,
    crop: int,
    dtype: FeatureType,
    flow: FlowSettings | None,
    *,
    half: bool = False,
    flow_cache: bool = True,
    device: str = "cpu",
) -> Provenance:
    """Describe the features of one video; for flow, the cached flow must be what is asked for.

    ``half`` says that they are computed in float16. Those of int8 have weights of their own.
    Without ``flow_cache`` the flow is computed on ``device``, and described as if it was cached.

    Raises:
        VideoError: the video cannot be opened.
        CacheError: the flow is missing, damaged, or was computed with other settings.
    """
    source = describe_source(video.path, probe(video.path))
    settings: dict[str, Any] = {
        "modality": card.modality,
        "frames": frames.model_dump(),
        "snippet": snippet.model_dump(),
        "crop": crop,
        "dtype": dtype,
    }
    if half:
        settings["precision"] = "float16"
    if preprocessing := card.preprocessing():
        settings["input"] = preprocessing
    packages: tuple[str, ...] = ()
    if card.modality == "flow" and not flow_cache:
        from vidkd.flow import flow_settings

        flow = flow or FlowSettings()
        settings["flow"] = flow_settings(flow, device)
        packages = _FLOW_PACKAGES
    elif card.modality == "flow":
        path = cache_path(cache, "features", video.key, card.name)
        settings["flow"] = _flow_settings(video, cache, path, source, frames, flow)
    return Provenance(
        artefact="features",
        source=source,
        settings=settings,
        encoder=card.name,
        weights_sha256=weights_sha256,
        versions=library_versions("av", "h5py", "numpy", "torch", *packages),
    )


def _flow_settings(
    video: VideoFile,
    cache: Path,
    features: Path,
    source: Source,
    frames: FrameSettings,
    flow: FlowSettings | None,
) -> dict[str, Any]:
    """Return the settings of the flow that features are, or are to be, computed from."""
    from vidkd.flow import flow_settings

    asked = None if flow is None else flow_settings(flow)
    path = cache_path(cache, "flow", video.key)
    if not path.exists():
        # The flow may be deleted once features are made of it; they remember its settings.
        recorded = _recorded_flow(features)
        if recorded is None:
            raise missing_flow(video, cache)
        return asked or recorded
    with CacheFile(path) as file:
        found = file.provenance
    settings = asked or found.settings.get("flow")
    if not isinstance(settings, dict) or "bound" not in settings:
        raise CacheError("does not say how its flow was computed", path=path, remedy="delete it")
    expected = Provenance("flow", source, {"frames": frames.model_dump(), "flow": settings})
    if different := differences(found, expected):
        raise CacheError(
            f"this flow is stale: {', '.join(different)}",
            path=path,
            remedy=f"run `{extraction_command('extract-flow', video, cache)} --overwrite` "
            "with the same frame settings",
        )
    return dict(found.settings["flow"])


def missing_flow(video: VideoFile, cache: Path) -> CacheError:
    """Return the error that says how to compute the flow of a video."""
    return CacheError(
        "this flow is needed and missing",
        path=cache_path(cache, "flow", video.key),
        remedy=f"run `{extraction_command('extract-flow', video, cache)}` first",
    )


def extraction_command(command: str, video: VideoFile, cache: Path) -> str:
    """Return the command line that extracts what features of one video are computed from."""
    root = str(video.path.with_suffix("")).removesuffix(video.key) or "."
    return f"vidkd {command} {video.path} --root {root} --cache {cache}"


def _recorded_flow(features: Path) -> dict[str, Any] | None:
    if not features.exists():
        return None
    try:
        with CacheFile(features) as file:
            recorded = file.provenance.settings.get("flow")
    except CacheError:
        return None
    return dict(recorded) if isinstance(recorded, dict) else None
