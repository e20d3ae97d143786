"""A trained 2s-AGCN from disk, ready to turn poses into features."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from vidkd.errors import UsageError, WeightsError
from vidkd.networks.agcn import TwoStreamAGCN
from vidkd.networks.cards import trained_card, trained_file
from vidkd.networks.device import select_device
from vidkd.networks.weights import checked_sha256, load_state, load_weights
from vidkd.recipe import ModelCard, PoseInputSettings

NETWORK: Final = "2s-agcn"


class PoseEncoder(nn.Module):
    """A frozen 2s-AGCN in evaluation mode.

    ``inputs`` says how poses are to be normalised, ``classes`` are the labels of the logits, in
    order, and ``made_of`` is the hash of the labels and settings that it was trained with; empty if
    unknown.
    """

    precision = "float32"

    def __init__(
        self,
        card: ModelCard,
        network: TwoStreamAGCN,
        weights_sha256: str,
        classes: tuple[str, ...],
        device: torch.device,
        made_of: str = "",
    ) -> None:
        super().__init__()
        self.card = card
        self.weights_sha256 = weights_sha256
        self.classes = classes
        self.device = device
        self.network = network.to(device).eval()
        self.inputs = card.pose_inputs or PoseInputSettings()
        self.made_of = made_of

    @torch.no_grad()
    def features(self, joints: Tensor) -> Tensor:
        """Map normalised poses (N, 3, T, V, M), NaN where missing, to features (N, D)."""
        # As for I3D: TF32 would be off by 1e-3, and features are to be the same everywhere.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features: Tensor = self.network(joints.to(self.device, torch.float32)).features
        return features


def load_pose_encoder(name: str, device: str | torch.device = "auto") -> PoseEncoder:
    """Load a 2s-AGCN that ``vidkd train-encoder --modality pose`` has trained.

    Args:
        name: run folder, file, or name in the models folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: there is none, or it is another kind of encoder.
        WeightsError: the file is damaged.
    """
    target = device if isinstance(device, torch.device) else select_device(device)
    path = trained_file(name)
    remedy = "give a run folder of `vidkd train-encoder --modality pose`"
    if path is None:
        raise UsageError(f"there is no pose encoder {name!r}", remedy=remedy)
    state, header = load_weights(path)
    if header["network"] != NETWORK:
        raise UsageError(
            f"holds {header['network']}, not an encoder of poses", path=path, remedy=remedy
        )
    card = trained_card(path, header)
    if card.network != NETWORK or card.pose_network is None:
        raise WeightsError("does not say what network it holds", path=path, remedy=remedy)
    digest = checked_sha256(state, header, path, "train or copy it again")
    classes = tuple(map(str, header.get("classes") or ()))
    network = TwoStreamAGCN(card.pose_network, len(classes))
    load_state(network, state, path)
    training = header.get("training_data")
    made_of = str(training.get("made_of", "")) if isinstance(training, dict) else ""
    return PoseEncoder(card, network, digest, classes, target, made_of)
