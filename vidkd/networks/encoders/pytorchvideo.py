"""The classifiers of ``pytorchvideo.models.hub``, under the library's own names.

Numbers of frames and steps are those of the library's model zoo ("frame length x sample rate"),
sizes and normalisation those of its TorchHub tutorial. Its ``transforms`` are not imported: they
do not work with current torchvision.
"""

from __future__ import annotations

import torch
from torch import nn

from vidkd.networks.encoders.classifiers import KINETICS_400, ClassifierFamily
from vidkd.recipe import FrameSettings, ModelCard, SnippetSettings, WeightsSource

ZOO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
# frames, step, short side, crop, the smallest crop, width, name of the projection, file
_NETWORKS: dict[str, tuple[int, int, int, int, int, int, str, str]] = {
    "x3d_xs": (4, 12, 182, 182, 160, 2048, "blocks.5.proj", "X3D_XS"),
    "x3d_s": (13, 6, 182, 182, 160, 2048, "blocks.5.proj", "X3D_S"),
    "x3d_m": (16, 5, 256, 256, 224, 2048, "blocks.5.proj", "X3D_M"),
    "x3d_l": (16, 5, 356, 356, 312, 2048, "blocks.5.proj", "X3D_L"),
    "slow_r50": (8, 8, 256, 256, 224, 2048, "blocks.5.proj", "SLOW_8x8_R50"),
    "slowfast_r50": (32, 2, 256, 256, 224, 2304, "blocks.6.proj", "SLOWFAST_8x8_R50"),
    "slowfast_r101": (32, 2, 256, 256, 224, 2304, "blocks.6.proj", "SLOWFAST_8x8_R101"),
    "i3d_r50": (8, 8, 256, 256, 224, 2048, "blocks.6.proj", "I3D_8x8_R50"),
    "c2d_r50": (8, 8, 256, 256, 224, 2048, "blocks.6.proj", "C2D_8x8_R50"),
    "csn_r101": (32, 2, 256, 256, 224, 2048, "blocks.5.proj", "CSN_32x2_R101"),
    "mvit_base_16x4": (16, 4, 256, 224, 224, 768, "head.proj", "MVIT_B_16x4"),
    "mvit_base_32x3": (32, 3, 256, 224, 224, 768, "head.proj", "MVIT_B_32x3_f294077834"),
}


class PytorchVideo(ClassifierFamily):
    """See the module."""

    names = tuple(_NETWORKS)

    def card(self, name: str) -> ModelCard:
        """Return the card of a network trained on Kinetics-400."""
        length, step, side, crop, smallest, width, projection, file = _NETWORKS[name]
        fixed = projection == "head.proj"  # MViT's positions are learned for one size
        two = "slowfast" in name
        return ModelCard(
            name=name,
            network="pytorchvideo",
            architecture=name,
            modality="rgb",
            description=f"{name} of PyTorchVideo, trained on Kinetics-400 ({length} frames, every"
            f" {step} at 30 frames/s)",
            feature_dim=width,
            classes=KINETICS_400,
            in_channels=3,
            frames=FrameSettings(short_side=side, frame_rate=30),
            snippet=SnippetSettings(length=length, step=step, stride=16, window=16),
            crop=crop,
            lengths=(length, length if fixed or two else 256),
            crops=(smallest, smallest if fixed else 2160),
            mean=(0.45,),
            deviation=(0.225,),
            slow_every=4 if two else 1,
            weights=(WeightsSource(kind="url", url=f"{ZOO}/{file}.pyth", layout="pytorch"),),
            licence="Apache-2.0 (PyTorchVideo); videos of Kinetics are under their owners' terms",
            source="https://github.com/facebookresearch/pytorchvideo",
        )

    def network(self, card: ModelCard, classes: int) -> tuple[nn.Module, str]:
        from pytorchvideo.models import hub

        name = card.architecture or ""
        make, projection = getattr(hub, name), _NETWORKS[name][6]
        # Without the softmax that X3D ends with: logits are wanted.
        if projection == "head.proj":  # reads numbers out of tensors while it is built
            return make(head_num_classes=classes, head_activation=None), projection
        with torch.device("meta"):
            return make(model_num_class=classes, head_activation=None), projection


FAMILY = PytorchVideo()
