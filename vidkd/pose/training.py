"""Training of the pose detector on rendered people and on labelled pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidkd.console import log
from vidkd.errors import UsageError
from vidkd.networks import DEFAULT_ENCODER, ensure_weights
from vidkd.networks import load_network as load_encoder_network
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
from vidkd.pose.losses import losses
from vidkd.pose.metrics import PoseEvaluation
from vidkd.pose.pictures import Batches, PoseData
from vidkd.recipe.jobs import PoseTrainingJob
from vidkd.training.loop import RunFolder, RunResult, Training, train_in
from vidkd.training.optimisation import go_on, half_cosine, working_type
from vidkd.training.processes import Processes, join
from vidkd.training.whole_batch import Rows, join_norms, sum_gradients

ASPECT = 4 / 3
"""Width / height of training pictures."""
_WARM_UP = 0.03
"""Share of the steps in which the learning rate rises."""
_LARGEST_GRADIENT = 5.0
_PRETRAINED_SHARE = 0.25
"""Pretrained layers learn at this share of the learning rate."""
_BATCH = 8
"""Pictures validated on at once."""


@dataclass(frozen=True, kw_only=True)
class PoseTrainingResult(RunResult):
    """What a finished run found.

    Attributes:
        name: of the detector.
        weights_sha256: hash of its weights, as the provenance of poses has it.
        validation: the scores (:class:`vidkd.pose.metrics.PoseScores`) of the best epoch.
        training_pictures: pictures to draw from.
        validation_pictures: pictures validated on.
    """

    name: str
    weights_sha256: str
    validation: dict[str, float]
    training_pictures: int
    validation_pictures: int


def train_pose(job: PoseTrainingJob) -> PoseTrainingResult:
    """Train a pose detector and leave a finished run folder.

    A finished run with the same settings on the same data is left alone, an unfinished one goes on
    after its last whole epoch. The processes of ``torchrun`` share every batch.

    Raises:
        UsageError: the settings do not fit each other, or the run in the folder.
        AnnotationError: labels cannot be read, or label nobody.
        VideoError: a picture or video cannot be read.
        WeightsError: the detector to start from is missing or damaged.
        VidkdError: the training diverged, or the run folder cannot be written.
    """
    with join(job.device) as processes:
        if job.batch_size < processes.size:
            raise UsageError(
                f"a batch of {job.batch_size} cannot be shared by {processes.size} processes",
                remedy="choose a larger --batch-size, or fewer processes",
            )
        start = None if job.start is None else load_network(detector_file(job.start))[0]
        data = PoseData.load(job.data, job.validation, job.short_side, job.validation_pictures)
        recipe = {**job.recipe(), "data_sha256": data.identity}
        if start is not None:
            recipe["start_sha256"] = state_sha256(start.state_dict())
        folder = RunFolder(job.output, DETECTOR_FILE)
        return train_in(
            folder,
            recipe,
            lambda: DetectorTraining(job, data, start, folder, processes),
            PoseTrainingResult,
            processes=processes,
            seed=job.seed,
            overwrite=job.overwrite,
        )


class DetectorTraining(Training[PoseTrainingResult]):
    """One run."""

    measure = "score"
    least = -math.inf
    later_wins = True

    def __init__(
        self,
        job: PoseTrainingJob,
        data: PoseData,
        start: LCRNet | None,
        folder: RunFolder,
        processes: Processes,
    ) -> None:
        device = processes.device
        self.steps = job.pictures_per_epoch // job.batch_size
        super().__init__(
            folder,
            processes,
            stage="train-pose",
            epochs=job.epochs,
            seed=job.seed,
            unit="pictures",
            per_epoch=self.steps * job.batch_size,
        )
        torch.manual_seed(job.seed)
        self.job, self.data, self.device = job, data, device
        self.dtype = working_type(job.precision, device)
        size = job.short_side, round(job.short_side * ASPECT / 32) * 32
        self.network = (start or _new_network(job, data)).to(
            device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        if processes.size > 1:
            join_norms(self.network)
        anchors = AnchorPoses(
            self.network.anchors_2d.cpu().numpy(),
            self.network.anchors_3d.cpu().numpy(),
            self.network.settings.full,
        )
        self.rows = Rows(processes, job.batch_size).computed
        self.batches = Batches(
            data, anchors, size, job.batch_size, job.seed, job.workers, self.rows
        )
        if job.pretrained and isinstance(self.network.backbone, InceptionPyramid):
            self.network.backbone.freeze()
        self.optimiser = torch.optim.AdamW(
            _groups(self.network, job.learning_rate, job.pretrained), weight_decay=job.weight_decay
        )
        total = job.epochs * self.steps
        self.schedule = half_cosine(self.optimiser, total, max(1, round(_WARM_UP * total)))
        self.keep_state(network=self.network, optimiser=self.optimiser)
        go_on(self.schedule, self.number * self.steps)

    def train(self, rng: np.random.Generator) -> dict[str, float]:
        self.network.train()
        sums: dict[str, float] = {}
        size, together = self.job.batch_size, self.processes.total
        for step, (images, targets) in enumerate(self.batches.epoch(self.number, self.steps)):
            places = range(step * size, (step + 1) * size)[self.rows]
            parts = losses(
                self.network,
                images.to(self.device),
                targets,
                [self._generator(place) for place in places],
                self.dtype,
                together,
            )
            loss = torch.stack(list(parts.values())).sum()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if self.processes.size > 1:
                sum_gradients(self.network.parameters())
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
            rate = self.optimiser.param_groups[-1]["lr"]
            self.optimiser.step()
            self.schedule.step()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.item() / self.steps
            self.advance(size)
        shares = self.processes.gather(sums)
        sums = {name: sum(share[name] for share in shares) for name in sums}
        self.loss = sum(sums.values())
        return {"learning_rate": rate} | {f"loss_{name}": value for name, value in sums.items()}

    def _generator(self, place: int) -> torch.Generator:
        """Return what draws of the picture at a place of the epoch, in whichever process."""
        seed = np.random.SeedSequence([self.job.seed, self.number, place])
        return torch.Generator().manual_seed(int(seed.generate_state(1)[0]))

    def validate(self) -> tuple[float, dict[str, float]]:
        """See :meth:`Training.validate`; the score is the PCK in units of the head."""
        detector = PoseDetector(self.network, self.job.detector_name, "", self.device)
        rank, size = self.processes.rank, self.processes.size
        own, found = self.data.validation[rank::size], []
        for start in range(0, len(own), _BATCH):
            found += detector([picture.decode() for picture in own[start : start + _BATCH]])
        shares = self.processes.gather(found)
        evaluation = PoseEvaluation()
        for number, picture in enumerate(self.data.validation):
            evaluation.add(picture.people, shares[number % size][number // size], picture.size)
        self.scores = scores = evaluation.result()
        log(
            f"epoch {self.number}: loss {self.loss:.3f}, recall {scores.recall:.3f}, "
            f"precision {scores.precision:.3f}, MPJPE {scores.mpjpe:.0f} mm, "
            f"PCK {scores.pck_head:.3f} (head) {scores.pck_torso:.3f} (torso)"
        )
        columns = {f"validation_{name}": value for name, value in scores.to_json().items()}
        # Wrong joints of people who were missed count as well, so that this sees both.
        return float(np.nan_to_num(scores.pck_head)), columns

    def keep(self, score: float) -> dict[str, Any]:
        """Write the weights."""
        known = {k: v for k, v in self.scores.to_json().items() if not math.isnan(v)}
        about = {
            "data_sha256": self.data.identity,
            "pictures": [len(source) for source in self.data.sources],
            "start": None if self.job.start is None else Path(self.job.start).name,
            "epoch": self.number,
            "validation": known,
        }
        name = self.job.detector_name
        digest = save_network(self.folder.weights, self.network, name, {"training_data": about})
        return {"sha256": digest, "scores": known}

    def result(self) -> PoseTrainingResult:
        return PoseTrainingResult(
            output=self.folder.path,
            name=self.job.detector_name,
            weights_sha256=self.best["sha256"],
            best_epoch=self.best["epoch"],
            epochs=self.total,
            validation=self.best["scores"],
            training_pictures=sum(map(len, self.data.sources)),
            validation_pictures=len(self.data.validation),
            seconds=round(self.seconds, 2),
        )


def _new_network(job: PoseTrainingJob, data: PoseData) -> LCRNet:
    """Return a network with anchor poses from the training data, on I3D's weights if wanted."""
    settings = PoseNetSettings(
        backbone=job.backbone,
        full=job.full,
        upper=job.upper,
        short_side=job.short_side,
        long_side=2 * job.short_side,
    )
    anchors = data.anchors((job.full, job.upper), job.seed)
    network = LCRNet(settings)
    if job.pretrained and isinstance(network.backbone, InceptionPyramid):
        ensure_weights(DEFAULT_ENCODER)
        i3d, _ = load_encoder_network(DEFAULT_ENCODER)
        assert isinstance(i3d, I3D)
        network.backbone.load_i3d(i3d)
    network.anchors_2d.copy_(torch.from_numpy(anchors.poses_2d))
    network.anchors_3d.copy_(torch.from_numpy(anchors.poses_3d))
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
            own_rate = rate * (_PRETRAINED_SHARE if slow else 1.0)
            group: dict[str, Any] = {"params": own, "lr": own_rate}
            groups.append(group if decays else {**group, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
