"""Losses, metrics, training and the trained detector."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from pictures_of_people import SIZE, draw, write_people

from vidkd.cli import app
from vidkd.errors import UsageError, VidkdError, WeightsError
from vidkd.networks.lcrnet import LCRNet, PoseNetSettings, decode, encode
from vidkd.networks.weights import load_weights
from vidkd.pose import training
from vidkd.pose.anchors import AnchorPoses
from vidkd.pose.detector import PersonPose, load_pose_detector
from vidkd.pose.labels import LabelledPerson
from vidkd.pose.losses import Targets, losses, make_targets, region_losses, sample_regions
from vidkd.pose.metrics import PoseEvaluation, match, procrustes
from vidkd.pose.pictures import Batches, PoseData
from vidkd.pose.training import train_pose
from vidkd.recipe.jobs import PoseTrainingJob


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"), 30)


@pytest.fixture(scope="module")
def data(labels: Path) -> PoseData:
    return PoseData.load([labels], [], 64, 10)


def small_network(anchors: AnchorPoses) -> LCRNet:
    torch.manual_seed(0)
    settings = PoseNetSettings(full=2, upper=2, short_side=64, long_side=128, proposals=8)
    network = LCRNet(settings)
    network.anchors_2d.copy_(torch.from_numpy(anchors.poses_2d))
    network.anchors_3d.copy_(torch.from_numpy(anchors.poses_3d))
    return network


def test_a_tenth_is_held_out(data: PoseData) -> None:
    assert [len(source) for source in data.sources] == [27]
    assert len(data.validation) == 3
    assert {picture.size for picture in data.validation} == {SIZE}


def test_losses_fall_on_a_few_pictures(data: PoseData) -> None:
    anchors = data.anchors((2, 2), 0)
    network = small_network(anchors).train()
    # One batch again and again.
    images, targets = next(Batches(data, anchors, (64, 96), 4, 0, 1).epoch(1, 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    history = []
    for _ in range(16):
        generators = [torch.Generator().manual_seed(number) for number in range(4)]
        terms = losses(network, images, targets, generators)
        assert set(terms) == {"objectness", "box", "anchor", "pose"}
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        history.append({name: term.item() for name, term in terms.items()})
    # The joints of a few regions are learnt slowest: 0.46 to 0.95 with other weights to begin with.
    for name, share in (("objectness", 0.7), ("anchor", 0.7), ("pose", 0.95)):
        assert np.mean([row[name] for row in history[-3:]]) < share * history[0][name], name


def test_batches_do_not_depend_on_threads(data: PoseData) -> None:
    anchors = data.anchors((2, 2), 0)
    for one, other in zip(
        Batches(data, anchors, (64, 96), 4, 3, 1).epoch(2, 3),
        Batches(data, anchors, (64, 96), 4, 3, 3).epoch(2, 3),
        strict=True,
    ):
        torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
        for a, b in zip(one[1], other[1], strict=True):
            torch.testing.assert_close(a.joints_2d, b.joints_2d, rtol=0, atol=0)


def targets_of(
    count: int, anchors: AnchorPoses, seed: int = 0
) -> tuple[list[LabelledPerson], Targets]:
    rng = np.random.default_rng(seed)
    people = [draw(rng)[1] for _ in range(count)]
    return people, make_targets(people, (120, 160), anchors)


def test_perfect_regression_has_no_loss(data: PoseData) -> None:
    anchors = data.anchors((2, 2), 0)
    network = small_network(anchors)
    _, targets = targets_of(3, anchors)
    chosen = sample_regions(torch.zeros(0, 4), targets, torch.Generator().manual_seed(0))
    regions, person = chosen
    assert sorted(person.tolist()) == [0, 1, 2]
    raw = encode(
        regions,
        targets.joints_2d[person],
        targets.joints_3d[person],
        network.anchors_2d,
        network.anchors_3d,
    )
    logits = torch.full((3, 5), -20.0)
    logits[torch.arange(3), targets.classes[person]] = 20.0
    anchor, pose = region_losses(network, logits, raw, [chosen], [targets])
    assert anchor.item() == pytest.approx(0, abs=1e-5)
    assert pose.item() == pytest.approx(0, abs=1e-5)
    flat, _ = decode(regions, raw, network.anchors_2d, network.anchors_3d)
    torch.testing.assert_close(flat[:, 0], targets.joints_2d[person], atol=1e-3, rtol=0)
    # An anchor pose that no person teaches costs nothing, however wrong it is.
    untaught = ~targets.taught[person]
    wrong = raw + 5.0 * untaught[:, :, None, None]
    assert region_losses(network, logits, wrong, [chosen], [targets])[1].item() < 1e-5
    taught = raw + 0.5 * targets.taught[person][:, :, None, None]
    # Smooth L1 beyond its bend of 0.1 is the error less half of that, for each of five numbers.
    loss = region_losses(network, logits, taught, [chosen], [targets])[1].item()
    assert loss == pytest.approx(5 * (0.5 - 0.05), rel=1e-4)


def test_unknown_joints_cost_nothing(data: PoseData) -> None:
    anchors = data.anchors((2, 2), 0)
    network = small_network(anchors)
    (person,), _ = targets_of(1, anchors)
    person.joints_2d[6] = np.nan
    person.scores[6] = 0
    flat_only = LabelledPerson(person.joints_2d, person.scores, np.full((13, 3), np.nan))
    targets = make_targets([flat_only], (120, 160), anchors)
    assert targets.weights[0, 6].sum() == 0
    assert targets.weights[0, :, 2:].sum() == 0
    assert targets.taught.sum() == 1
    chosen = sample_regions(torch.zeros(0, 4), targets, torch.Generator())
    raw = torch.zeros(1, 4, 13, 5)
    before = region_losses(network, torch.zeros(1, 5), raw, [chosen], [targets])[1]
    raw[:, :, 6] = 9.0
    raw[..., 2:] = 9.0
    after = region_losses(network, torch.zeros(1, 5), raw, [chosen], [targets])[1]
    assert before.item() == pytest.approx(after.item())


def test_people_hardly_seen_are_ignored(data: PoseData) -> None:
    anchors = data.anchors((2, 2), 0)
    (person,), _ = targets_of(1, anchors)
    person.joints_2d[:, 1] -= person.joints_2d[4, 1] + 1
    targets = make_targets([person], (120, 160), anchors)
    assert len(targets.boxes) == 0
    assert targets.ignored.shape == (1, 4)
    inside = targets.ignored + torch.tensor([[1.0, 0, -1, -1]])
    outside = torch.tensor([[0.0, 60, 20, 119]])
    regions, rows = sample_regions(torch.cat([inside, outside]), targets, torch.Generator())
    torch.testing.assert_close(regions, outside)
    assert rows.tolist() == [-1]


def test_targets_side_by_side(data: PoseData) -> None:
    anchors = data.anchors((2, 2), 0)
    (_, one), (_, two) = targets_of(1, anchors), targets_of(2, anchors, 1)
    both = one.beside(two, 160)
    assert len(both.boxes) == 3
    torch.testing.assert_close(both.boxes[1:, 0::2], two.boxes[:, 0::2] + 160)
    torch.testing.assert_close(both.boxes[1:, 1::2], two.boxes[:, 1::2])
    torch.testing.assert_close(both.joints_2d[1:, :, 0], two.joints_2d[..., 0] + 160)


def as_pose(person: LabelledPerson, shift: float = 0.0) -> PersonPose:
    from vidkd.pose.anchors import person_box

    box, _ = person_box(person.joints_2d, person.scores, (120, 160))  # type: ignore[misc]
    return PersonPose(
        box, person.joints_2d + np.array([shift, 0]), person.joints_3d, person.scores, 0.9
    )


def test_scores_of_known_errors(data: PoseData) -> None:
    people, _ = targets_of(1, data.anchors((2, 2), 0))
    person = people[0]
    shoulders = person.joints_2d[10:12].mean(axis=0)
    head = float(np.linalg.norm(person.joints_2d[12] - shoulders))
    evaluation = PoseEvaluation()
    evaluation.add([person], [as_pose(person, 0.4 * head)], (120, 160))
    evaluation.add([person], [as_pose(person, 0.6 * head)], (120, 160))
    evaluation.add([person], [], (120, 160))
    elsewhere = PersonPose(
        np.array([120.0, 5, 150, 60]), person.joints_2d, person.joints_3d, person.scores, 0.9
    )
    evaluation.add([], [elsewhere], (120, 160))
    scores = evaluation.result()
    assert (scores.people, scores.detections) == (3, 3)
    assert scores.recall == pytest.approx(2 / 3)
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.pck_head == pytest.approx(1 / 3)
    assert scores.mpjpe == pytest.approx(0)
    moved = as_pose(person)
    turn = np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]])
    evaluation = PoseEvaluation()
    turned = PersonPose(
        moved.box, moved.joints_2d, moved.joints_3d @ turn.T * 1.3 + 5, moved.scores, 1.0
    )
    evaluation.add([person], [turned], (120, 160))
    assert evaluation.result().pa_mpjpe == pytest.approx(0, abs=1e-2)
    assert evaluation.result().mpjpe > 100


def test_procrustes_does_not_mirror() -> None:
    points = np.random.default_rng(0).normal(size=(13, 3))
    assert np.abs(procrustes(points * [1, 1, -1], points) - points).max() > 0.1


def test_boxes_are_matched_once() -> None:
    people = np.array([[0.0, 0, 10, 10], [0, 0, 11, 10]])
    found = np.array([[0.0, 0, 10.5, 10], [50, 50, 60, 60]])
    assert len(match(people, found)) == 1
    assert match(people[:0], found) == []


OPTIONS = {
    "pretrained": False,
    "full": 2,
    "upper": 2,
    "short_side": 64,
    "pictures": 24,
    "pictures_per_epoch": 8,
    "batch_size": 4,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def run(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "tiny"
    result = train_pose(PoseTrainingJob(data=(labels,), output=output, **OPTIONS))
    assert result.epochs == 3
    assert result.training_pictures == 27
    return output


def test_run_folder(labels: Path, run: Path) -> None:
    names = {item.name for item in run.iterdir()}
    assert {"detector.safetensors", "metrics.csv", "recipe.yaml", "result.json"} <= names
    assert len((run / "metrics.csv").read_text().splitlines()) == 4
    again = train_pose(PoseTrainingJob(data=(labels,), output=run, **OPTIONS))
    assert again.skipped
    with pytest.raises(UsageError, match=r"seed is 0 \(asked for: 1\)"):
        train_pose(PoseTrainingJob(data=(labels,), output=run, seed=1, **OPTIONS))


def test_killed_and_resumed_run_has_the_same_weights(
    labels: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = PoseTrainingJob(data=(labels,), output=tmp_path / "killed", workers=2, **OPTIONS)
    calls = []
    evaluation = training.PoseEvaluation

    def killed() -> training.PoseEvaluation:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluation()

    monkeypatch.setattr(training, "PoseEvaluation", killed)
    with pytest.raises(KeyboardInterrupt):
        train_pose(job)
    train_pose(job)
    one, other = (
        torch.load(path / "last.pt", weights_only=True)["network"] for path in (run, job.output)
    )
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_processes_end_where_one_does_also_after_a_kill(
    labels: Path, run: Path, tmp_path: Path
) -> None:
    # Normalisation, what is drawn, and the means of losses are those of the whole batch.
    job = PoseTrainingJob(data=(labels,), output=tmp_path / "together", **OPTIONS)
    script = tmp_path / "script.py"
    script.write_text(
        """\
import os, sys
import torch
from vidkd.pose.training import DetectorTraining, train_pose
from vidkd.recipe.jobs import PoseTrainingJob

torch.set_num_threads(1)
save = DetectorTraining._save

def killed(self):
    save(self)
    if self.number == 2:
        os.kill(os.getpid(), 9)

DetectorTraining._save = killed
train_pose(PoseTrainingJob.model_validate_json(sys.argv[1]))
"""
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    arguments = ["2", str(script), job.model_dump_json()]
    done = subprocess.run([*command, *arguments], capture_output=True, check=False)
    assert done.returncode != 0
    assert not (job.output / "result.json").exists()
    assert train_pose(job).epochs == 3
    tables = [list(csv.DictReader((path / "metrics.csv").open())) for path in (run, job.output)]
    assert len(tables[0]) == len(tables[1]) == 3
    # Roundings soon choose other regions to learn from, so that only the first epoch is the same.
    for row, near in zip(range(3), (1e-3, 0.3, 0.3), strict=True):
        one, other = tables[0][row], tables[1][row]
        for name in (name for name in one if name.startswith(("loss", "learning"))):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=near), name


def test_detector_of_a_run(labels: Path, run: Path, tmp_path: Path) -> None:
    detector = load_pose_detector(run, "cpu")
    assert detector.name == "tiny"
    rng = np.random.default_rng(1)
    images = [draw(rng)[0] for _ in range(3)]
    images[1] = np.repeat(images[1], 2, axis=1)
    detector.least_score = 0.0
    together = detector(images)
    assert len(together) == 3
    for image, people in zip(images, together, strict=True):
        assert all(a.score >= b.score for a, b in itertools.pairwise(people))
        alone = detector([image])[0]
        assert len(alone) == len(people)
        for one, other in zip(people, alone, strict=True):
            np.testing.assert_allclose(one.joints_2d, other.joints_2d, atol=0.05)
            np.testing.assert_allclose(one.joints_3d[4:6].mean(axis=0), 0, atol=1e-6)
            assert one.scores.min() >= 0
            assert one.scores.max() <= one.score <= 1
    # Going on from it keeps its anchor poses.
    more = PoseTrainingJob(
        data=(labels,), output=tmp_path / "more", start=str(run), **{**OPTIONS, "pictures": 8}
    )
    train_pose(more)
    first = load_weights(run / "detector.safetensors")[0]
    second = load_weights(tmp_path / "more" / "detector.safetensors")[0]
    torch.testing.assert_close(first["anchors_3d"], second["anchors_3d"])
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    # A changed byte is noticed.
    content = bytearray((run / "detector.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="another hash"):
        load_pose_detector(tmp_path / "changed.safetensors")


def test_no_such_detector(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no pose detector"):
        load_pose_detector("lcrnet-huge")
    with pytest.raises(UsageError, match="no pose detector"):
        load_pose_detector(tmp_path)


def test_labels_of_nobody(tmp_path: Path) -> None:
    path = write_people(tmp_path, 3)
    fields = json.loads(path.read_text())
    for frame in fields["frames"]:
        frame["people"] = []
    path.write_text(json.dumps(fields))
    with pytest.raises(VidkdError, match="labels nobody"):
        PoseData.load([path], [], 64, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", ".", "--batch-size", "1"), "--batch-size 1"),
        (("--data", ".", "--start", "nothing"), "there is no pose detector 'nothing'"),
    ],
)
def test_wrong_options(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    command = ["train-pose", "--output", str(tmp_path / "run"), *options]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_command_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vidkd", "train-pose", "--output", "run", "--data", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere: holds no labelled poses" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
