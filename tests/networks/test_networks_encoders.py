"""The encoders of other libraries against the libraries' own forward pass, with random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vidkd.errors import UsageError, VidkdError, WeightsError
from vidkd.networks import cards, fetching, load_encoder, load_network, zoo
from vidkd.recipe import ModelCard
from vidkd.streams.encode import network_input

pytorchvideo = pytest.importorskip("pytorchvideo.models.hub")
video = pytest.importorskip("torchvision.models.video")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDKD_MODELS", str(tmp_path / "models"))
    torch.manual_seed(0)
    return tmp_path / "models"


def randomise(network: nn.Module) -> nn.Module:
    """Give every layer weights that matter: libraries begin some of them with zero."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.weight.uniform_(0.5, 1.0)
                module.running_mean.normal_(0, 0.1)
    return network.eval()


def fetched(name: str, network: nn.Module, folder: Path, *, checkpoint: bool) -> ModelCard:
    """Fetch a file as the library publishes them, with these weights."""
    path = folder / "weights.pyth"
    state = network.state_dict()
    torch.save({"model_state": state, "epoch": 3} if checkpoint else state, path)
    card = cards.find_card(name)
    assert fetching.fetch(card, path).is_file()
    return card


def clip(card: ModelCard, side: int) -> torch.Tensor:
    shape = 1, 3, card.snippet.length, side, side
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["x3d_xs", "x3d_s", "slowfast_r50"])
def test_pytorchvideo(name: str, tmp_path: Path) -> None:
    network = randomise(getattr(pytorchvideo, name)())
    card = fetched(name, network, tmp_path, checkpoint=True)
    x = clip(card, card.crops[0])
    pathways = x
    if card.slow_every > 1:
        # As the library's PackPathway takes them.
        slow = torch.linspace(0, x.shape[2] - 1, x.shape[2] // 4).long()
        pathways = [torch.index_select(x, 2, slow), x]
    encoder = load_encoder(name, "cpu")
    features, logits = encoder(x)
    assert features.shape == (1, card.feature_dim)
    assert encoder.classes is not None
    assert len(encoder.classes) == logits.shape[1] == 400
    with torch.no_grad():
        expected = network(pathways)
    found = logits.softmax(1) if name.startswith("x3d") else logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t"])
def test_torchvision(name: str, tmp_path: Path) -> None:
    network = randomise(getattr(video, name)())
    card = fetched(name, network, tmp_path, checkpoint=False)
    length = 16 if name != "mvit_v2_s" else card.snippet.length
    side = max(card.crops[0], 64)
    x = torch.randn(1, 3, length, side, side)
    features, logits = load_encoder(name, "cpu")(x)
    assert features.shape == (1, card.feature_dim)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(x), rtol=1e-4, atol=1e-4)


def test_every_card_is_that_of_the_librarys_network() -> None:
    for family in (zoo.ENCODERS["pytorchvideo"], zoo.ENCODERS["torchvision"]):
        for name in family.names:
            card = family.card(name)
            network, projection = family.network(card, 400)
            assert network.get_parameter(f"{projection}.weight").shape[:2] == (
                400,
                card.feature_dim,
            )
            assert cards.class_names(card)[0] == "abseiling"
            assert card.lengths[0] <= card.snippet.length <= card.lengths[1]
            assert card.crops[0] <= card.crop <= card.crops[1]


def test_normalisation_is_that_of_torchvisions_weights() -> None:
    weights = video.MViT_V2_S_Weights.DEFAULT
    frames = torch.randint(0, 256, (1, 16, 256, 256, 3), dtype=torch.uint8)
    expected = weights.transforms()(frames.permute(0, 1, 4, 2, 3))
    cut = frames[:, :, 16:240, 16:240]
    found = network_input(cut, cards.find_card("mvit_v2_s"), torch.device("cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    categories = weights.meta["categories"]
    assert cards.class_names(cards.find_card("mvit_v2_s")) == tuple(categories)


def test_weights_of_another_network_are_refused(tmp_path: Path, models: Path) -> None:
    path = tmp_path / "x.pyth"
    torch.save({"model_state": pytorchvideo.x3d_l().state_dict()}, path)
    with pytest.raises(WeightsError, match="x3d_xs"):
        fetching.fetch(cards.find_card("x3d_xs"), path)
    assert not list(models.glob("*"))


def test_they_can_be_trained(tmp_path: Path) -> None:
    fetched("x3d_xs", randomise(pytorchvideo.x3d_xs()), tmp_path, checkpoint=True)
    network, card = load_network("x3d_xs")
    network.replace_classifier(nn.Linear(network.width, 3), 0.5)
    assert list(network.stages()) == [f"blocks.{number}" for number in range(6)]
    network.train().logits(clip(card, 160).expand(2, -1, -1, -1, -1)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


class TestTransformers:
    transformers = pytest.importorskip("transformers")

    def tiny(self, kind: str) -> nn.Module:
        library = self.transformers
        sizes = {"image_size": 32, "patch_size": 8, **SMALL}
        configurations = {
            "videomae": lambda: library.VideoMAEConfig(num_frames=8, **sizes),
            "timesformer": lambda: library.TimesformerConfig(num_frames=4, **sizes),
            "vivit": lambda: library.VivitConfig(
                image_size=32, num_frames=8, tubelet_size=[2, 8, 8], **SMALL
            ),
            "vjepa2": lambda: library.VJEPA2Config(
                crop_size=32,
                patch_size=8,
                frames_per_clip=8,
                mlp_ratio=2,
                pred_hidden_size=32,
                pred_num_hidden_layers=1,
                pred_num_attention_heads=4,
                **{k: v for k, v in SMALL.items() if k != "intermediate_size"},
            ),
            "clip": lambda: library.CLIPConfig(
                vision_config=sizes,
                text_config={"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, **SMALL},
            ),
            "siglip": lambda: library.SiglipConfig(
                vision_config=sizes,
                text_config={"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, **SMALL},
            ),
            "dinov3_vit": lambda: library.DINOv3ViTConfig(num_register_tokens=2, **sizes),
        }
        return library.AutoModel.from_config(configurations[kind]()).eval()

    @pytest.mark.parametrize(
        "kind", ["videomae", "vjepa2", "timesformer", "vivit", "clip", "siglip", "dinov3_vit"]
    )
    def test_features_are_the_librarys_tokens_pooled(self, kind: str, tmp_path: Path) -> None:
        model = self.tiny(kind)
        folder = tmp_path / f"tiny-{kind}"
        model.save_pretrained(folder)
        mean, deviation = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
        preprocessor = {"image_mean": mean, "image_std": deviation, "size": {"shortest_edge": 36}}
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        path = fetching.adopt(str(folder))
        assert path.name == f"tiny-{kind}.safetensors"
        encoder = load_encoder(f"tiny-{kind}", "cpu")
        card = encoder.card
        assert (card.mean, card.deviation) == (tuple(mean), tuple(deviation))
        assert (card.frames.short_side, card.crop, card.feature_dim) == (36, 32, 32)
        x = torch.randn(2, 3, card.snippet.length, 32, 32)
        with torch.no_grad():
            expected = self.pooled(model, kind, x)
        torch.testing.assert_close(encoder.features(x), expected, rtol=1e-4, atol=1e-5)
        assert encoder.classes is None
        network, _ = load_network(f"tiny-{kind}")
        network.replace_classifier(nn.Linear(32, 3), 0.1)
        network.train().logits(x).sum().backward()
        assert network.stages()

    def pooled(self, model: nn.Module, kind: str, x: torch.Tensor) -> torch.Tensor:
        frames = x.transpose(1, 2)
        if kind == "vjepa2":
            return model(pixel_values_videos=frames, skip_predictor=True).last_hidden_state.mean(1)
        if kind == "videomae":
            return model(frames).last_hidden_state.mean(1)
        if kind in {"timesformer", "vivit"}:
            return model(frames).last_hidden_state[:, 0]
        tower = model if kind == "dinov3_vit" else model.vision_model
        each = [tower(pixel_values=image) for image in frames.unbind(1)]
        if kind == "dinov3_vit":
            return torch.stack([output.last_hidden_state[:, 0] for output in each]).mean(0)
        return torch.stack([output.pooler_output for output in each]).mean(0)

    def test_licences_and_names(self, tmp_path: Path) -> None:
        folder = tmp_path / "mae"
        self.tiny("videomae").save_pretrained(folder)
        fetching.adopt(str(folder), "my-mae")
        assert "not for commercial use" in cards.find_card("my-mae").licence
        (folder / "README.md").write_text("---\nlicense: mit\n---\n")
        fetching.adopt(str(folder), "my-mae")
        assert cards.find_card("my-mae").licence == "mit"
        with pytest.raises(UsageError, match="has a card"):
            fetching.adopt(str(folder), "x3d_s")
        with pytest.raises(UsageError, match="there is no model"):
            fetching.adopt(str(tmp_path / "nothing"))

    def test_pickled_weights_are_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "pickled"
        model = self.tiny("videomae")
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="safetensors"):
            fetching.adopt(str(folder))

    def test_without_the_extra_one_line_says_how(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.tiny("videomae").save_pretrained(tmp_path / "mae")
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(VidkdError, match=r"pip install 'vidkd\[transformers\]'"):
            fetching.adopt(str(tmp_path / "mae"))
