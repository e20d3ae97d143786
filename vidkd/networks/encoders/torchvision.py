"""The classifiers of ``torchvision.models.video``, under the library's own names.

Sizes, normalisation and addresses are those of torchvision's weights; numbers of frames and their
rate those of its evaluation. torchvision stretches frames to 128 x 171 pixels for the ResNets and
to 256 x 256 for S3D; here the shape of the picture stays, as for every other encoder.
"""

from __future__ import annotations

import torch
from torch import nn

from vidkd.networks.encoders.classifiers import KINETICS_400, ClassifierFamily
from vidkd.recipe import FrameSettings, ModelCard, SnippetSettings, WeightsSource

# frames, frames per second, width, name of the projection
_NETWORKS: dict[str, tuple[int, float, int, str]] = {
    "r3d_18": (16, 15, 512, "fc"),
    "mc3_18": (16, 15, 512, "fc"),
    "r2plus1d_18": (16, 15, 512, "fc"),
    "s3d": (128, 15, 1024, "classifier.1"),
    "mvit_v2_s": (16, 7.5, 768, "head.1"),
    "swin3d_t": (32, 15, 768, "head"),
    "swin3d_s": (32, 15, 768, "head"),
    "swin3d_b": (32, 15, 1024, "head"),
}
_RATE = 30


class Torchvision(ClassifierFamily):
    """See the module."""

    names = tuple(_NETWORKS)

    def card(self, name: str) -> ModelCard:
        """Return the card of a network with torchvision's default weights, of Kinetics-400."""
        from torchvision.models import get_model_weights

        weights = get_model_weights(name).DEFAULT
        length, rate, width, _ = _NETWORKS[name]
        transform, facts = weights.transforms(), weights.meta
        [side, crop] = transform.resize_size[0], transform.crop_size[0]
        fixed = name.startswith("mvit")  # its positions are learned for one size
        smallest = max(32, facts["min_size"][0])
        step = round(_RATE / rate)
        return ModelCard(
            name=name,
            network="torchvision",
            architecture=name,
            modality="rgb",
            description=f"{name} of torchvision, trained on Kinetics-400 ({length} frames, every"
            f" {step} at {_RATE} frames/s)",
            feature_dim=width,
            classes=KINETICS_400,
            in_channels=3,
            frames=FrameSettings(short_side=side, frame_rate=_RATE),
            snippet=SnippetSettings(length=length, step=step, stride=16, window=16),
            crop=crop,
            lengths=(facts.get("min_temporal_size", 8), length if fixed else 256),
            crops=(smallest, smallest if fixed else 2160),
            mean=tuple(transform.mean),
            deviation=tuple(transform.std),
            weights=(WeightsSource(kind="url", url=weights.url, layout="pytorch"),),
            licence="BSD-3-Clause (torchvision); videos of Kinetics are under their owners' terms",
            source="https://github.com/pytorch/vision",
        )

    def network(self, card: ModelCard, classes: int) -> tuple[nn.Module, str]:
        from torchvision.models import video

        name = card.architecture or ""
        with torch.device("meta"):
            return getattr(video, name)(num_classes=classes), _NETWORKS[name][3]


FAMILY = Torchvision()
