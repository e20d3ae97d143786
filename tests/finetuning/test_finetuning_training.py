"""Fine-tuning runs: learning, resuming, dividing a batch, and using the result."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from vidkd.errors import UsageError, VidkdError, WeightsError
from vidkd.finetuning import train_encoder
from vidkd.finetuning.frames import FrameEncoder
from vidkd.finetuning.network import recalibrate
from vidkd.finetuning.training import EncoderTraining, snippet_map
from vidkd.networks import load_encoder, load_network, load_weights
from vidkd.training.loop import RunFolder
from vidkd.training.processes import Processes


def begin(job):
    """Return a training before its first step, of which nothing has been written."""
    alone = Processes(0, 1, torch.device("cpu"))
    training = EncoderTraining(FrameEncoder(job), RunFolder(job.output), alone)
    training.model.train()
    return training


def test_snippet_map_is_that_of_a_ranking_by_hand():
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.7, 0.3, 0], [0.6, 0.4, 0]])
    targets = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]])
    # Ranks 1 and 3 of the first class, rank 1 of the second; the third does not occur.
    assert snippet_map(scores, targets) == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert snippet_map(scores, np.zeros_like(targets)) == 0


def test_parts_of_a_batch_have_the_gradient_of_the_whole(make_job):
    torch.manual_seed(0)
    inputs, targets = torch.rand(4, 2, 16, 32, 32), torch.rand(4, 2).round()
    gradients = []
    for accumulate in (1, 2):
        job = make_job(accumulate=accumulate, dropout=0.0)
        run = begin(job)
        size = 4 // accumulate
        parts = zip(inputs.split(size), targets.split(size), strict=True)
        loss = run.backward(parts)
        expected = functional.binary_cross_entropy_with_logits(run.model(inputs)[:, 0], targets)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
        gradients.append({n: p.grad for n, p in run.model.named_parameters()})
    for name, value in gradients[0].items():
        frozen = "Mixed_5" not in name and "classifier" not in name
        assert (value is None) == frozen, name
        if value is not None:
            torch.testing.assert_close(value, gradients[1][name], rtol=1e-3, atol=1e-5)


def test_frozen_layers_and_statistics_stand_still(make_job):
    job = make_job(batch_norm="train", epochs=1)
    before, _ = load_network(job.encoder)
    old = {name: value.clone() for name, value in before.state_dict().items()}
    train_encoder(job)
    state, _ = load_weights(job.output / "encoder.safetensors")
    changed = {name for name, value in state.items() if not torch.equal(value, old[name])}
    assert all("Mixed_5" in name or "classifier" in name for name in changed)
    assert "layers.Mixed_5c.b0.conv.weight" in changed
    assert "layers.Mixed_5c.b0.norm.running_mean" in changed


def test_recalibration_gives_the_statistics_of_the_snippets(make_job):
    network, _ = load_network(make_job().encoder)
    torch.manual_seed(0)
    x = torch.randn(3, 2, 16, 32, 32)
    recalibrate(network, [x])
    unit = network.layers["Conv3d_1a_7x7"]
    first = functional.conv3d(functional.pad(x, (2, 3) * 3), unit.conv.weight, stride=2)
    torch.testing.assert_close(unit.norm.running_mean, first.mean((0, 2, 3, 4)), rtol=0, atol=1e-4)
    torch.testing.assert_close(unit.norm.running_var, first.var((0, 2, 3, 4)), rtol=1e-3, atol=1e-4)
    assert not network.training


def test_bf16_is_close_to_float32(make_job):
    losses = []
    inputs, targets = torch.rand(2, 2, 16, 32, 32) - 0.5, torch.tensor([[1.0, 0], [0, 1]])
    for precision in ("float32", "bf16"):
        run = begin(make_job(precision=precision, dropout=0.0))
        losses.append(float(run.backward(iter([(inputs, targets)]))))
        run.optimiser.step()
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        begin(make_job(precision="fp16"))


@pytest.mark.slow
def test_it_learns_and_the_result_works_as_an_encoder(make_job):
    job = make_job("my-flow", epochs=4, batch_norm="recalibrate", dropout=0.0)
    result = train_encoder(job)
    rows = list(csv.DictReader((job.output / "metrics.csv").open()))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert all(float(a["learning_rate"]) > float(b["learning_rate"]) for a, b in pairwise(rows))
    assert result.validation_map == pytest.approx(
        max(float(row["validation_map"]) for row in rows), abs=1e-6
    )
    assert list((job.output / "tensorboard").iterdir())
    again = train_encoder(job)
    assert again.skipped
    assert again.weights_sha256 == result.weights_sha256

    for name in (job.output, job.output / "encoder.safetensors"):
        encoder = load_encoder(str(name), "cpu")
        assert encoder.weights_sha256 == result.weights_sha256
        assert encoder.card.name == "my-flow"
        assert encoder.classes == ("up", "down")
    assert encoder.features(torch.zeros(1, 2, 16, 32, 32)).shape == (1, 1024)
    assert not [p for p in job.output.iterdir() if "partial" in p.name]


def test_other_settings_data_or_names_are_refused(make_job, own_flow_data):
    job = make_job(epochs=1, folder=own_flow_data)
    train_encoder(job)
    with pytest.raises(UsageError, match=r"learning_rate is 0\.0001 \(asked for: 0\.1\)"):
        train_encoder(job.model_copy(update={"learning_rate": 0.1}))
    path = own_flow_data / "annotations.json"
    path.write_text(path.read_text().replace('"up"', '"rise"'))
    with pytest.raises(UsageError, match="annotations_sha256"):
        train_encoder(job)
    assert not train_encoder(job.model_copy(update={"overwrite": True})).skipped
    with pytest.raises(UsageError, match="comes with vidkd"):
        train_encoder(job.model_copy(update={"name": "i3d-flow-imagenet"}))
    with pytest.raises(UsageError, match="cannot be divided"):
        train_encoder(make_job("uneven", accumulate=3))
    (own_flow_data / "cache" / "flow" / "v1.h5").unlink()
    with pytest.raises(UsageError, match="flow of video 'v1' was not found"):
        train_encoder(make_job("gone", folder=own_flow_data))
    with pytest.raises(UsageError, match="give --freeze-until one of Conv3d_1a_7x7"):
        train_encoder(make_job(freeze_until="Mixed_9z"))
    with pytest.raises(UsageError, match="larger --short-side"):
        train_encoder(make_job("large", crop=64))


def test_divergence_and_damage_are_reported(make_job):
    with pytest.raises(VidkdError, match="diverged in epoch"):
        train_encoder(make_job(learning_rate=1e30, epochs=3))
    job = make_job("cut", epochs=1)
    train_encoder(job)
    path = job.output / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"encoder\.safetensors: was damaged.*copy it again"):
        load_encoder(str(job.output), "cpu")


SCRIPT = """
import sys, time, torch
torch.set_num_threads(1)
from vidkd.finetuning import frames, train_encoder, training
from vidkd.recipe.jobs import FinetuneJob
frames._CALIBRATION_SNIPPETS = 16
validate = training.EncoderTraining.validate

def validate_or_wait(run):
    while len(sys.argv) > 2 and run.number > int(sys.argv[2]):
        time.sleep(1)
    return validate(run)

training.EncoderTraining.validate = validate_or_wait
train_encoder(FinetuneJob.model_validate_json(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_run_ends_like_an_undisturbed_one(make_job, monkeypatch):
    monkeypatch.setattr("vidkd.finetuning.frames._CALIBRATION_SNIPPETS", 16)
    fields = {"epochs": 2, "name": "same", "batch_norm": "recalibrate"}
    undisturbed = make_job("undisturbed", **fields)
    train_encoder(undisturbed)
    killed = make_job("killed", **fields)
    # It never ends the second epoch, however late it is killed.
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, killed.model_dump_json(), "1"], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (killed.output / "last.pt").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed.output / "result.json").exists()
    train_encoder(killed)
    for name in ("encoder.safetensors", "metrics.csv", "card.yaml"):
        assert (killed.output / name).read_bytes() == (undisturbed.output / name).read_bytes()
    ends = [torch.load(j.output / "last.pt", weights_only=True) for j in (undisturbed, killed)]
    for name, value in ends[0]["network"].items():
        assert torch.equal(value, ends[1]["network"][name])


@pytest.mark.slow
def test_two_processes_train_like_one(make_job, tmp_path):
    fields = {"epochs": 1, "dropout": 0.0, "name": "same"}
    alone = make_job("alone", **fields)
    train_encoder(alone)
    both = make_job("both", **fields)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", "2", str(script), both.model_dump_json()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    rows = [next(csv.DictReader((j.output / "metrics.csv").open())) for j in (alone, both)]
    for name in rows[0]:
        assert float(rows[0][name]) == pytest.approx(float(rows[1][name]), rel=1e-3), name
    states = [load_weights(j.output / "encoder.safetensors")[0] for j in (alone, both)]
    for name, value in states[0].items():
        # AdamW turns the sign of a gradient near zero into a whole step of the learning rate.
        far = (value - states[1][name]).abs() > 1e-5
        assert far.float().mean() < 0.02, name
    assert json.loads((both.output / "result.json").read_text())["encoder"] == "same"
