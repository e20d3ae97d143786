"""Students, encoders and detectors to the hub and back, over HTTP to a hub of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fake_hub import TOKEN, FakeHub, Repo

from vidkd.files import sha256
from vidkd.hub import HubName
from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter
from vidkd.networks.weights import save_weights, state_sha256
from vidkd.networks.zoo import save_encoder
from vidkd.recipe import FilterSettings, ModelCard
from vidkd.sharing import read_model
from vidkd.sharing.push import check_licence

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    server = FakeHub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a command in a process whose hub is ours."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home / "hf"),
        # Uploads go by git-lfs then, whose protocol the hub of the tests speaks.
        "HF_HUB_DISABLE_XET": "1",
        "VIDKD_MODELS": str(home / "models"),
    }
    environment.pop("HF_TOKEN", None)
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("commands.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=home,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(*arguments: object, token: str | None = None) -> dict[str, Any]:
            line = {
                "arguments": [str(item) for item in arguments],
                "environment": {} if token is None else {"HF_TOKEN": token},
            }
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert TOKEN not in answer["out"] + answer["err"]
            assert "Traceback" not in answer["err"]
            return answer

        yield ask
        process.stdin.close()


def student(folder: Path, *, encoder: str = "i3d-rgb-kinetics400", digest: str = "0" * 64) -> Path:
    """Write a run folder with a small student."""
    header = FilterHeader(
        filter=FilterSettings(kind="ss-tcn", channels=8),
        in_features=4,
        classes=("drink", "a|b <i>", "walk"),
        modality="rgb",
        encoder=encoder,
        encoder_sha256=digest,
        teachers=("flow i3d-flow-inflated 0123456789ab",),
        training_data={"annotations_sha256": "ab" * 32, "videos": 7},
    )
    torch.manual_seed(0)
    module = build_temporal_filter(header.filter, 4, 3)
    save_temporal_filter(folder / "weights.safetensors", module, header)
    return folder


def encoder(path: Path, licence: str = "MIT", name: str = "mine") -> str:
    """Write a file that has the card of an encoder."""
    card = ModelCard(
        name=name,
        network="transformers",
        modality="rgb",
        description="a test",
        feature_dim=4,
        in_channels=3,
        weights=(),
        licence=licence,
        source="some-owner/some-model",
    )
    state = {"weight": torch.arange(4.0)}
    return save_encoder(path, state, card, path.with_suffix(".yaml"), classes=[])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:me/x", ("me/x", None, None)),
        ("me/x.y-z_2@v1.0", ("me/x.y-z_2", "v1.0", None)),
        ("hf:me/x@refs/pr/1#sha256=" + "AB" * 32, ("me/x", "refs/pr/1", "ab" * 32)),
    ],
)
def test_names(text: str, expected: tuple[object, ...]) -> None:
    name = HubName.parse(text)
    assert (name.repo, name.revision, name.sha256) == expected
    assert HubName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    ["hf:x", "../x", "hf:a/..", "a/b/c", "a/b@", "a/b#sha256=12", "a/b#md5=1", "hf:", "a/ b"],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(Exception, match=r"no model of the hub|no SHA-256"):
        HubName.parse(text)


def test_a_student_goes_there_and_back(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    folder = student(tmp_path / "run" / "models" / "best-seed0")
    metrics = {"frame": {"protocol": "frame", "map": 0.5, "videos": 2, "segments": 9}}
    there = tmp_path / "run" / "evaluation" / "best-seed0" / "testing" / "metrics.json"
    there.parent.mkdir(parents=True)
    there.write_text(json.dumps(metrics))
    done = run(
        "push", folder, "me/student", "--licence", "mit", "--data", "Seven *films*", "--json",
        token=TOKEN,
    )  # fmt: skip
    assert done["code"] == 0, done["err"]
    files = hub.repos["me/student"].commits[hub.repos["me/student"].branches["main"]]
    weights = folder / "weights.safetensors"
    assert files["weights.safetensors"] == weights.read_bytes()
    assert json.loads(done["out"])["files"]["weights.safetensors"]["sha256"] == sha256(weights)
    page = files["README.md"].decode()
    head = yaml.safe_load(page.split("---")[1])
    assert head["license"] == "mit"
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5
    for text in (
        f"--model 'hf:me/student#sha256={sha256(weights)}'",
        r"drink, a\|b &lt;i&gt;, walk",
        r"Seven \*films\*",
        "flow i3d-flow-inflated 0123456789ab",
        "| frame, testing | frame mAP | 50.0 |",
        "DeepMind",
        f"| weights.safetensors | {weights.stat().st_size} | {sha256(weights)} |",
    ):
        assert text in page
    assert str(tmp_path) not in page

    pulled = run("pull", "me/student", "--sha256", sha256(weights), "--json")
    assert pulled["code"] == 0, pulled["err"]
    assert json.loads(pulled["out"])["classes"] == ["drink", "a|b <i>", "walk"]
    copy = tmp_path / "copy"
    assert run("pull", "me/student", "--output", copy)["code"] == 0
    assert (copy / "weights.safetensors").read_bytes() == weights.read_bytes()
    assert not (copy / "weights.safetensors").is_symlink()


def test_commands_take_models_of_the_hub_where_they_take_runs(
    hub: FakeHub, run: Run, tmp_path: Path
) -> None:
    """The encoder that a student needs travels with it, and its hash is compared."""
    digest = encoder(tmp_path / "encoder.safetensors")
    folder = student(tmp_path / "a", encoder="mine", digest=digest)
    (tmp_path / "encoder.safetensors").rename(folder / "encoder.safetensors")
    assert run("push", folder, "me/whole", "--licence", "mit", token=TOKEN)["code"] == 0
    repo = hub.repos["me/whole"]
    assert {"encoder.safetensors", "weights.safetensors"} <= set(
        repo.commits[repo.branches["main"]]
    )
    told = run("detect", tmp_path, "--model", "hf:me/whole")
    assert told["code"] == 2  # the model is found, and the folder has no video
    told = run("fuse", "hf:me/whole", "hf:me/nothing", "--cache", tmp_path, "--annotations",
               tmp_path / "none.json", "--output", tmp_path / "x.safetensors")  # fmt: skip
    assert told["code"] != 0
    # A push without it removes the encoder of before, which would be taken for that of the new one.
    again = student(tmp_path / "b")
    assert run("push", again, "me/whole", "--licence", "mit", token=TOKEN)["code"] == 0
    assert "encoder.safetensors" not in repo.commits[repo.branches["main"]]


def test_an_encoder_lies_with_the_others_then(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    encoder(tmp_path / "encoder.safetensors", "cc-by-nc-4.0")
    refused = run("push", tmp_path, "me/encoder", "--licence", "mit", token=TOKEN)
    assert refused["code"] == 2
    assert "forbids commercial use" in refused["err"]
    done = run("push", tmp_path, "me/encoder", "--licence", "cc-by-nc-4.0", token=TOKEN)
    assert done["code"] == 0, done["err"]
    assert "not for commercial use" in done["err"]
    pulled = run("pull", "me/encoder")
    assert pulled["code"] == 0, pulled["err"]
    path = Path(pulled["out"].strip())
    assert (path.parent.name, path.name) == ("models", "mine.safetensors")
    path.write_bytes(b"another")
    assert "another encoder" in run("pull", "me/encoder")["err"]
    path.unlink()


@pytest.mark.parametrize("name", ["../../escaped", "i3d-rgb-kinetics400", ".hidden"])
def test_a_card_cannot_choose_another_place(
    hub: FakeHub, run: Run, tmp_path: Path, name: str
) -> None:
    encoder(tmp_path / "encoder.safetensors", name=name)
    repo = hub.repos["me/bad"] = Repo()
    repo.commit({"encoder.safetensors": (tmp_path / "encoder.safetensors").read_bytes()})
    told = run("pull", "me/bad")
    assert told["code"] != 0
    assert "error:" in told["err"]


def test_what_the_hub_refuses_is_said(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    folder = student(tmp_path / "run")
    for name, repo in {
        "gated": Repo(gated=True),
        "pickles": Repo(),
        "private": Repo(private=True),
        "transformers": Repo(),
    }.items():
        files = {"config.json": b"{}"} if name == "transformers" else {"x.bin": b"", "../w": b""}
        repo.commit({"weights.safetensors": b"x"} if name == "gated" else files)
        hub.repos[f"me/{name}"] = repo
    for arguments, token, words in (
        (("pull", "me/gated"), TOKEN, "is gated"),
        (("pull", "me/private"), None, "is not on the hub, or is private"),
        (("pull", "me/missing"), TOKEN, "is not on the hub"),
        (("pull", "me/pickles"), None, "other formats are never read"),
        (("pull", "me/transformers"), None, "vidkd models fetch me/transformers"),
        (("push", folder, "me/new", "--licence", "mit"), None, "not logged in"),
        (("push", folder, "me/new", "--licence", "mit"), "hf_wrong", "refuses the token"),
        (("push", folder, "stranger/new", "--licence", "mit"), TOKEN, "you may not do this"),
        (("push", folder, "me/gated", "--private"), TOKEN, "public; nothing was uploaded"),
        (("push", folder, "me/new", "--licence", "My own"), TOKEN, "is no licence"),
        (("push", tmp_path / "none", "me/new"), TOKEN, "there is no model to share"),
        (("push", "i3d-rgb-kinetics400", "me/new"), TOKEN, ""),
    ):
        told = run(*arguments, token=token)
        assert told["code"] != 0, arguments
        assert words in told["err"]
    assert "me/new" not in hub.repos
    assert run("push", folder, "me/secret", "--private", token=TOKEN)["code"] == 0
    assert hub.repos["me/secret"].private


def test_pins_revisions_new_names_and_no_network(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    folder = student(tmp_path / "run")
    assert run("push", folder, "me/pinned", "--licence", "mit", token=TOKEN)["code"] == 0
    commit = hub.repos["me/pinned"].branches["main"]
    wrong = run("pull", "me/pinned", "--sha256", "0" * 64)
    assert wrong["code"] == 1
    assert f"has SHA-256 {sha256(folder / 'weights.safetensors')}" in wrong["err"]
    assert "has no such revision" in run("pull", "me/pinned@v9")["err"]
    hub.moved["me/former"] = "me/pinned"
    moved = run("pull", "me/former")
    assert moved["code"] == 0, moved["err"]
    assert "is now called me/pinned" in moved["err"]
    # A commit that is here asks nothing of the hub.
    hub.requests.clear()
    assert run("pull", f"me/pinned@{commit}")["code"] == 0
    assert hub.requests == []
    hub.broken = True
    try:
        copy = run("pull", "me/pinned")
        assert copy["code"] == 0
        assert "cannot be reached; using the copy on this machine" in copy["err"]
        assert "answered with 503" in run("pull", "me/pinned@other")["err"]
        assert run("pull", "me/pinned", "--sha256", "0" * 64)["code"] == 1
    finally:
        hub.broken = False


def test_a_machine_without_a_network_says_so(run: Run, hub: FakeHub, tmp_path: Path) -> None:
    """A process of its own, whose hub does not exist."""
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "vidkd", "detect", __file__, "--model", "hf:me/student"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    assert "the hub cannot be reached, and there is no copy on this machine" in done.stderr


def test_detectors_and_damaged_files(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    done = run("push", "lcrnet-small", "me/pose", "--licence", "other", token=TOKEN)
    assert done["code"] == 0, done["err"]
    pulled = json.loads(run("pull", "me/pose", "--json")["out"])
    assert pulled["kind"] == "pose detector"
    state = {"a": torch.zeros(1)}
    save_weights(
        tmp_path / "x.safetensors",
        state,
        {"network": "nothing", "card": "x", "weights_sha256": state_sha256(state)},
    )
    assert run("push", tmp_path / "x.safetensors", "me/new", token=TOKEN)["code"] == 1


def test_the_licence_of_the_encoder_counts_for_what_is_made_of_it(tmp_path: Path) -> None:
    digest = encoder(tmp_path / "encoder.safetensors", "CC-BY-NC-4.0 (not for commercial use)")
    student(tmp_path, encoder="mine", digest=digest)
    model = read_model(tmp_path)
    assert model.non_commercial(held=True) == ["mine"]
    with pytest.raises(Exception, match="forbids commercial use"):
        check_licence(model, "apache-2.0")
    check_licence(model, "cc-by-nc-sa-4.0")
