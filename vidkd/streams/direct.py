"""Streams whose features are a function of their rows, without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vidkd.recipe import ModelCard, Precision
from vidkd.streams.base import Stream

if TYPE_CHECKING:
    import numpy as np
    import torch

    from vidkd.streams.encode import Encoder


class DirectStream(Stream):
    """A stream that defines ``frames`` and ``features``, and needs no encoder.

    Its features lie in ``CACHE/features/NAME``.

    Attributes:
        version: of what it computes; features of another version are stale.
    """

    version: str = "1"
    crops = False

    def __init_subclass__(cls) -> None:
        # What stands for its encoder is its own, which makes the folder that of its name.
        cls.encoder_modality = cls.name

    def features(self, snippets: torch.Tensor) -> torch.Tensor:
        """Map snippets (B, T, ...), the images of T rows each, to features (B, D)."""
        raise NotImplementedError

    def default_encoder(self) -> str:
        """Return its own name."""
        return self.name

    def fetch_encoder(self, name: str) -> None:
        """Do nothing: there is none to fetch."""

    def load_encoder(self, name: str, device: str, precision: Precision) -> Encoder:
        """Return what stands for its encoder; on the processor."""
        return _Function(self)

    def check(self, *_: Any) -> None:
        """Accept every sampling."""

    def prepare(
        self, card: ModelCard, device: torch.device, made: Mapping[str, Any]
    ) -> Callable[[np.ndarray | torch.Tensor], torch.Tensor]:
        """Return the function that gives ``features`` the rows as they are, as float32."""
        import torch

        return lambda images: torch.as_tensor(images).float()


class _Function:
    """An encoder without weights."""

    precision = "float32"

    def __init__(self, stream: DirectStream) -> None:
        import torch

        self.features = stream.features
        self.device = torch.device("cpu")
        self.card = ModelCard(
            name=stream.name,
            network="function",
            modality=stream.name,
            description=f"features of {stream.name}, computed without a network",
            feature_dim=0,
            in_channels=0,
            weights=(),
            licence="that of the package that adds the stream",
            source=type(stream).__module__,
        )
        # No network has this hash; it keeps features of another version apart.
        text = f"{stream.name} {stream.version}"
        self.weights_sha256 = hashlib.sha256(text.encode()).hexdigest()
