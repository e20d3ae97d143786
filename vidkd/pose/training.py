"""Training of the pose detector on rendered people and on labelled pictures.

A run that is killed and started again ends with the same weights as an undisturbed one on the same
processor: what is random in an epoch follows from the seed and the number of the epoch, and the
state is saved after every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidkd.console import log, progress
from vidkd.distillation.epochs import Epochs
from vidkd.distillation.run_folder import RunFolder
from vidkd.errors import VidkdError
from vidkd.finetuning.network import working_type
from vidkd.networks import DEFAULT_ENCODER, ensure_weights
from vidkd.networks import load_network as load_encoder_network
from vidkd.networks.device import select_device
from vidkd.networks.i3d import I3D
from vidkd.networks.lcrnet import LCRNet, PoseNetSettings
from vidkd.networks.lcrnet_backbones import InceptionPyramid
from vidkd.networks.weights import state_sha256
from vidkd.pose.anchors import AnchorPoses
from vidkd.pose.detector import (
    DETECTOR_FILE,
    PoseDetector,
    detector_file,
    load_network,
    save_network,
)
from vidkd.pose.job import PoseTrainingResult
from vidkd.pose.losses import losses
from vidkd.pose.metrics import PoseScores, evaluate_detector
from vidkd.pose.pictures import Batches, PoseData
from vidkd.recipe.jobs import PoseTrainingJob

ASPECT = 4 / 3
"""Width / height of training pictures."""
_WARM_UP = 0.03
"""Share of the steps in which the learning rate rises."""
_LARGEST_GRADIENT = 5.0
_BATCH = 8
"""Pictures validated on at once."""
_PRETRAINED_SHARE = 0.25
"""Pretrained layers learn at this share of the learning rate."""


def train_pose(job: PoseTrainingJob) -> PoseTrainingResult:
    """Train a pose detector and leave a finished run folder.

    A finished run with the same settings on the same data is left alone, an unfinished one goes on
    after its last whole epoch.

    Raises:
        UsageError: the settings do not fit each other, or the run in the folder.
        AnnotationError: labels cannot be read, or label nobody.
        VideoError: a picture or video cannot be read.
        WeightsError: the detector to start from is missing or damaged.
        VidkdError: the training diverged, or the run folder cannot be written.
    """
    device = select_device(job.device)
    start = None if job.start is None else load_network(detector_file(job.start))[0]
    data = PoseData.load(job.data, job.validation, job.short_side, job.validation_pictures)
    recipe = {**job.recipe(), "data_sha256": data.identity}
    if start is not None:
        recipe["start_sha256"] = state_sha256(start.state_dict())
    folder = RunFolder(job.output, DETECTOR_FILE)
    with folder.lock():
        folder.remove_leftovers()
        if folder.begin(recipe, overwrite=job.overwrite):
            log(f"{job.output}: done before")
            return folder.read_result(PoseTrainingResult)
        folder.write_environment(device, job.seed)
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(job.seed)
            return _Run(job, data, start, folder, device).run()


class _Run:
    """One run."""

    def __init__(
        self,
        job: PoseTrainingJob,
        data: PoseData,
        start: LCRNet | None,
        folder: RunFolder,
        device: torch.device,
    ) -> None:
        self.job, self.data, self.folder, self.device = job, data, folder, device
        self.dtype = working_type(job.precision, device)
        size = job.short_side, round(job.short_side * ASPECT / 32) * 32
        if start is None:
            counts = job.full, job.upper
            settings = PoseNetSettings(
                backbone=job.backbone,
                full=job.full,
                upper=job.upper,
                short_side=job.short_side,
                long_side=2 * job.short_side,
            )
            anchors = data.anchors(counts, job.seed)
            start = _new_network(settings, job.pretrained)
            start.anchors_2d.copy_(torch.from_numpy(anchors.poses_2d))
            start.anchors_3d.copy_(torch.from_numpy(anchors.poses_3d))
        self.network = start.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        anchors = AnchorPoses(
            start.anchors_2d.cpu().numpy(), start.anchors_3d.cpu().numpy(), start.settings.full
        )
        self.batches = Batches(data, anchors, size, job.batch_size, job.seed, job.workers)
        self.steps = job.pictures_per_epoch // job.batch_size
        if job.pretrained and isinstance(self.network.backbone, InceptionPyramid):
            self.network.backbone.freeze()
        self.optimiser = torch.optim.AdamW(
            _groups(self.network, job.learning_rate, job.pretrained), weight_decay=job.weight_decay
        )
        first = {"epoch": 0, "score": -math.inf, "sha256": "", "scores": {}}
        self.epochs = Epochs(folder, first)
        self.epochs.keep(network=self.network, optimiser=self.optimiser)

    def run(self) -> PoseTrainingResult:
        """Train to the end."""
        job, epochs = self.job, self.epochs
        left = (job.epochs - epochs.number) * self.steps * job.batch_size
        with progress("train-pose", left, "pictures") as advance, epochs.recorded():
            while epochs.number < job.epochs:
                epochs.number += 1
                row, scores = self._epoch(advance)
                epochs.add(row)
                self._save(scores)
        result = PoseTrainingResult(
            output=job.output,
            name=job.detector_name,
            weights_sha256=epochs.best["sha256"],
            best_epoch=epochs.best["epoch"],
            epochs=job.epochs,
            validation=epochs.best["scores"],
            training_pictures=sum(map(len, self.data.sources)),
            validation_pictures=len(self.data.validation),
            seconds=round(epochs.seconds, 2),
        )
        self.folder.finish(result)
        return result

    def _epoch(self, advance: Callable[[float], None]) -> tuple[dict[str, float], PoseScores]:
        number = self.epochs.number
        torch.manual_seed(self.job.seed * 1_000_003 + number)
        generator = torch.Generator().manual_seed(self.job.seed * 1_000_003 + number)
        self.network.train()
        sums: dict[str, float] = {}
        for step, (images, targets) in enumerate(self.batches.epoch(number, self.steps)):
            rate = self._rate((number - 1) * self.steps + step)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["share"]
            terms = losses(self.network, images.to(self.device), targets, generator, self.dtype)
            loss = torch.stack(list(terms.values())).sum()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
            self.optimiser.step()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.item() / self.steps
            advance(len(images))
        if not all(map(math.isfinite, sums.values())):
            raise VidkdError(
                f"the training diverged in epoch {number}",
                path=self.folder.path,
                remedy="use a smaller --learning-rate, in another --output",
            )
        pictures = ((picture.people, picture.decode()) for picture in self.data.validation)
        scores = evaluate_detector(self._detector(), pictures, batch_size=_BATCH)
        row = {"epoch": number, "learning_rate": rate}
        row |= {f"loss_{name}": value for name, value in sums.items()}
        row |= {f"validation_{name}": value for name, value in scores.to_json().items()}
        log(
            f"epoch {number}: loss {sum(sums.values()):.3f}, recall {scores.recall:.3f}, "
            f"precision {scores.precision:.3f}, MPJPE {scores.mpjpe:.0f} mm, "
            f"PCK {scores.pck_head:.3f} (head) {scores.pck_torso:.3f} (torso)"
        )
        return row, scores

    def _rate(self, step: int) -> float:
        total = self.job.epochs * self.steps
        warm = max(1, round(_WARM_UP * total))
        if step < warm:
            return self.job.learning_rate * (step + 1) / warm
        return (
            self.job.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        )

    def _detector(self) -> PoseDetector:
        return PoseDetector(self.network, self.job.detector_name, "", self.device)

    def _save(self, scores: PoseScores) -> None:
        """Write the weights if none were better, and the state."""
        # Wrong joints of people who were missed count as well, so that this sees both.
        score = float(np.nan_to_num(scores.pck_head))
        if score >= self.epochs.best["score"]:
            known = {k: v for k, v in scores.to_json().items() if not math.isnan(v)}
            about = {
                "training_data": {
                    "data_sha256": self.data.identity,
                    "pictures": [len(source) for source in self.data.sources],
                    "start": None if self.job.start is None else Path(self.job.start).name,
                    "epoch": self.epochs.number,
                    "validation": known,
                }
            }
            digest = save_network(self.folder.weights, self.network, self.job.detector_name, about)
            self.epochs.best = {
                "epoch": self.epochs.number,
                "score": score,
                "sha256": digest,
                "scores": known,
            }
        self.epochs.save()


def _new_network(settings: PoseNetSettings, pretrained: bool) -> LCRNet:
    network = LCRNet(settings)
    if pretrained and isinstance(network.backbone, InceptionPyramid):
        ensure_weights(DEFAULT_ENCODER)
        i3d, _ = load_encoder_network(DEFAULT_ENCODER)
        assert isinstance(i3d, I3D)
        network.backbone.load_i3d(i3d)
    return network


def _groups(network: LCRNet, rate: float, pretrained: bool) -> list[dict[str, Any]]:
    """Group what is trained: pretrained layers learn slower, and only weights decay."""
    groups: list[dict[str, Any]] = []
    for slow in (True, False):
        for decays in (True, False):
            own = [
                value
                for name, value in network.named_parameters()
                if value.requires_grad
                and (value.ndim > 1) == decays
                and (pretrained and name.startswith("backbone.layers.")) == slow
            ]
            share = _PRETRAINED_SHARE if slow else 1.0
            group: dict[str, Any] = {"params": own, "lr": rate * share, "share": share}
            groups.append(group if decays else {**group, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
