"""Optical flow, from the cache or computed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidkd.cache import CacheFile, Provenance, Source, cache_path, differences, present
from vidkd.console import log
from vidkd.errors import CacheError
from vidkd.recipe import FlowSettings, ModelCard, Pipeline
from vidkd.streams.base import Stream, VideoJob
from vidkd.video import Frame, VideoFile

if TYPE_CHECKING:
    import numpy as np
    import torch

FLOW_PACKAGES = ("numba", "opencv-contrib-python-headless", "torch")
"""Those that flow is computed with."""


@dataclass(frozen=True)
class Flow(Stream):
    """TV-L1 flow in 8 bits, one row for each frame.

    Attributes:
        settings: those that cached flow must have, None accepts it as it is; without the cache,
            those that flow is computed with.
        cached: off computes flow from the video in the same pass, and keeps none of it. Features
            and provenance are those that the same flow in the cache gives.
    """

    settings: FlowSettings | None = None
    cached: bool = True

    name = "flow"
    label = "OF"
    artefact = "flow"
    command = "extract-flow"
    encoder_modality = "flow"

    def default_encoder(self) -> str:
        """Return the encoder of flow, or the one inflated from RGB where that was not fetched."""
        from vidkd.networks.cards import find_card, weights_path

        if weights_path(find_card("i3d-flow-imagenet")).is_file():
            return "i3d-flow-imagenet"
        log(
            "i3d-flow-imagenet was not fetched; using i3d-flow-inflated, whose weights are "
            "inflated from RGB (see `vidkd models fetch i3d-flow-imagenet`)"
        )
        return self.first_encoder()

    def first_encoder(self) -> str:
        """Return the encoder whose weights every machine can have."""
        return "i3d-flow-inflated"

    def configured(self, flow: FlowSettings | None = None, flow_cache: bool = True) -> Stream:
        """Return the stream with these settings of flow."""
        return Flow(flow if flow_cache else flow or FlowSettings(), flow_cache)

    def uncached(self, made: Mapping[str, Any], device: str) -> Stream:
        """Return the stream that computes flow from the frames, with the bound of training."""
        bound = made.get("flow", {}).get("bound", FlowSettings().bound)
        return Flow(FlowSettings(bound=bound), cached=False).on(device)

    def on(self, device: str) -> Stream:
        """Return the stream with the backend that ``auto`` stands for, if it computes flow."""
        from vidkd.flow import resolve

        if self.cached or self.settings is None:
            return self
        backend = resolve(self.settings.backend, device)
        return Flow(self.settings.model_copy(update={"backend": backend}), False)

    @property
    def on_processor(self) -> bool:
        """Whether flow is read, or computed by a backend of the processor."""
        return self.cached or self.settings is None or self.settings.backend != "torch"

    def check_inputs(self, video: VideoFile, cache: Path) -> None:
        """Raise CacheError when the video's flow is needed and not in the cache."""
        if self.cached:
            super().check_inputs(video, cache)

    def provenance(self, job: VideoJob, source: Source) -> dict[str, Any]:
        """Return the settings of the flow that features are, or are to be, computed from.

        Raises:
            CacheError: the flow is missing, damaged, or was computed with other settings.
        """
        from vidkd.flow import flow_settings

        asked = None if self.settings is None else flow_settings(self.settings)
        if not self.cached:
            return {"flow": asked}
        path = cache_path(job.cache, "flow", job.video.key)
        if not present(path):
            # The flow may be deleted once features are made of it; they remember its settings.
            recorded = self._recorded(job)
            if recorded is None:
                self.check_inputs(job.video, job.cache)
            return {"flow": asked or recorded}
        with CacheFile(path) as file:
            found = file.provenance
        settings = asked or found.settings.get("flow")
        if not isinstance(settings, dict) or "bound" not in settings:
            raise CacheError(
                "does not say how its flow was computed", path=path, remedy="delete it"
            )
        frames = job.settings.frames.model_dump()
        expected = Provenance("flow", source, {"frames": frames, "flow": settings})
        if different := differences(found, expected):
            raise CacheError(
                f"this flow is stale: {', '.join(different)}",
                path=path,
                remedy=f"run `{self.extraction(job.video, job.cache)} --overwrite` "
                "with the same frame settings",
            )
        return {"flow": dict(found.settings["flow"])}

    def _recorded(self, job: VideoJob) -> dict[str, Any] | None:
        try:
            with CacheFile(job.path) as file:
                recorded = file.provenance.settings.get("flow")
        except CacheError:
            return None
        return dict(recorded) if isinstance(recorded, dict) else None

    def packages(self) -> tuple[str, ...]:
        """Return the packages whose versions are recorded with features of flow."""
        return super().packages() + (() if self.cached else FLOW_PACKAGES)

    def asked(self, recipe: Pipeline) -> dict[str, Any]:
        """Return the crop and the bound of a recipe."""
        return {**super().asked(recipe), "flow bound": recipe.flow.bound}

    def found(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Return the crop and the bound of features."""
        # Files of before the bound could be chosen were made with the default.
        bound = made.get("flow", {}).get("bound", FlowSettings().bound)
        return {**super().found(made), "flow bound": bound}

    def frames(self, job: VideoJob) -> Iterable[Frame]:
        """Yield quantised flow (H, W, 2) uint8, one row for each frame."""
        if self.cached:
            return cached_rows(cache_path(job.cache, "flow", job.video.key), job)
        from vidkd.flow import flow_rows

        assert self.settings is not None
        return flow_rows(job.decoded(), self.settings, job.threads, job.device)

    def mirrored(self, images: np.ndarray) -> np.ndarray:
        """Return quantised flow (..., W, 2) mirrored, its horizontal part with the other sign."""
        images = super().mirrored(images).copy()
        # 128 is zero motion and 1..255 lie around it: 256 - q is the opposite motion.
        images[..., 0] = 256 - images[..., 0].astype("int16")
        return images

    def prepare(
        self, card: ModelCard, device: torch.device, made: Mapping[str, Any]
    ) -> Callable[[np.ndarray | torch.Tensor], torch.Tensor]:
        """Return the function from quantised flow to (B, 2, T, S, S) in units of the bound."""
        import numpy as np
        import torch

        from vidkd.flow import dequantise

        bound = float(made.get("flow", {}).get("bound", FlowSettings().bound))
        levels = dequantise(np.arange(256, dtype=np.uint8), bound) / np.float32(bound)
        table = torch.from_numpy(levels).to(device)
        return lambda images: table[torch.as_tensor(images).to(device).int()].permute(0, 4, 1, 2, 3)


def cached_rows(path: Path, job: VideoJob) -> Iterator[Frame]:
    """Read cached flow as frames whose image is the quantised field (H, W, 2) uint8.

    Raises:
        CacheError: the file is missing or damaged.
    """
    with CacheFile(path) as file:
        index = 0
        for block in file.blocks():
            for image in block:
                start, end = file.pts[index]
                job.report(1)
                yield Frame(image=image, start=float(start), end=float(end), index=index)
                index += 1
