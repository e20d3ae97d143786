"""From frames to what the encoder sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from encoder_double import RGB, TinyEncoder

from vidkd.errors import VidkdError
from vidkd.recipe import SnippetSettings, model_cards
from vidkd.streams import STREAMS
from vidkd.streams.encode import batched, encode, network_input, square_crop
from vidkd.video import Frame

CPU = torch.device("cpu")
CARD = model_cards()["i3d-rgb-kinetics400"]


def frames(count: int, size: tuple[int, int] = (40, 50)) -> list[Frame]:
    return [
        Frame(np.full((*size, 3), number, np.uint8), number / 10, (number + 1) / 10, number)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(32, 32, 0, 0), (34, 40, 1, 4), (33, 37, 0, 2)]
)
def test_centre_crop_is_in_the_middle(height: int, width: int, top: int, left: int) -> None:
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns], axis=2)
    cut = square_crop(image, 32)
    assert cut.shape == (32, 32, 2)
    assert tuple(cut[0, 0]) == (top, left)
    # What is left over is the same on both sides, up to the odd pixel.
    assert 0 <= (height - 32 - top) - top <= 1
    assert 0 <= (width - 32 - left) - left <= 1


def test_a_crop_larger_than_the_frame_is_an_error() -> None:
    with pytest.raises(VidkdError, match="smaller than the crop of 41"):
        square_crop(np.zeros((40, 50, 3)), 41)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_hold_every_snippet_once(batch_size: int) -> None:
    snippets = STREAMS["rgb"].snippets(frames(70), SnippetSettings(stride=16), 32)
    batches = list(batched(snippets, batch_size))
    images = np.concatenate([images for images, _ in batches])
    pts = np.concatenate([pts for _, pts in batches])
    assert all(len(images) <= batch_size for images, _ in batches)
    assert images.shape == (5, 16, 32, 32, 3)
    expected = [[min(16 * t + k, 69) for k in range(16)] for t in range(5)]
    np.testing.assert_array_equal(images[:, :, 0, 0, 0], expected)
    # The last snippet has six real frames, and ends with the last of them.
    np.testing.assert_allclose(pts[:, 0], [0, 1.6, 3.2, 4.8, 6.4])
    np.testing.assert_allclose(pts[:, 1], [1.6, 3.2, 4.8, 6.4, 7.0])


def test_rgb_is_scaled_to_minus_one_and_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 5, 6, 3), dtype=np.uint8)
    images[0, 0, 0, 0] = (0, 255, 51)
    batch = network_input(images, CARD, CPU)
    assert batch.shape == (2, 3, 16, 5, 6)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch[0, :, 0, 0, 0], [-1, 1, -0.6], rtol=1e-6)
    expected = np.moveaxis(images.astype(np.float64), 4, 1) / 255 * 2 - 1
    np.testing.assert_allclose(batch, expected, atol=1e-6)


def test_other_cards_say_how_intensities_are_normalised() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 6, 3), dtype=np.uint8)
    plain = network_input(images, CARD, CPU)
    assert torch.equal(plain, torch.from_numpy(images).permute(0, 4, 1, 2, 3).float() / 127.5 - 1)
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    update = {"mean": mean, "deviation": deviation, "channel_order": "bgr"}
    found = network_input(images, CARD.model_copy(update=update), CPU)
    expected = (images[..., ::-1] / 255 - np.array(mean)) / np.array(deviation)
    np.testing.assert_allclose(found, np.moveaxis(expected, 4, 1), atol=1e-5)


@pytest.mark.parametrize("bound", [5.0, 20.0])
def test_flow_is_scaled_by_its_bound_and_rest_is_exactly_zero(bound: float) -> None:
    images = np.full((1, 16, 4, 4, 2), 128, np.uint8)
    images[0, 3, 1, 2] = (1, 255)
    batch = STREAMS["flow"].prepare(CARD, CPU, {"flow": {"bound": bound}})(images)
    assert batch.shape == (1, 2, 16, 4, 4)
    np.testing.assert_allclose(batch[0, :, 3, 1, 2], [-1, 1], rtol=1e-6)
    batch[0, :, 3, 1, 2] = 0
    assert not batch.any()


def encoded(
    images: Iterable[Frame], encoder: TinyEncoder, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    prepare = STREAMS["rgb"].prepare(encoder.card, CPU, {})
    snippets = STREAMS["rgb"].snippets(images, SnippetSettings(), 32)
    return encode(batched(snippets, size), encoder, prepare)


def test_features_do_not_depend_on_the_batch_size() -> None:
    results = [
        np.concatenate([rows for rows, _ in encoded(frames(50), TinyEncoder(RGB), size)])
        for size in (1, 3, 8)
    ]
    assert results[0].shape == (4, 9)
    means = [np.mean([min(16 * t + k, 49) for k in range(16)]) / 127.5 - 1 for t in range(4)]
    np.testing.assert_allclose(results[0][:, 0], means, rtol=1e-5)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


class Limited(TinyEncoder):
    """An encoder on a device whose memory holds a few snippets only."""

    def __init__(self, limit: int) -> None:
        super().__init__(RGB)
        self.limit = limit
        self.sizes: list[int] = []

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().features(x)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    limit: int, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = Limited(limit)
    images = frames(16 * 13)
    blocks = list(encoded(images, encoder, 8))
    whole = list(encoded(images, TinyEncoder(RGB), 8))
    assert [len(rows) for rows, _ in blocks] == [8, 5]
    for (rows, pts), (expected, times) in zip(blocks, whole, strict=True):
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(pts, times)
    # What did not fit once is not tried again.
    fits = {1: 1, 2: 2, 5: 4}[limit]
    failed = {1: [8, 4, 2], 2: [8, 4], 5: [8]}[limit]
    assert [size for size in encoder.sizes if size > limit] == failed
    assert max(encoder.sizes[len(failed) :]) == fits
    notes = capfd.readouterr().err.strip().splitlines()
    assert len(notes) == len(failed)
    assert f"{fits} snippets at a time" in notes[-1]


def test_a_snippet_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(VidkdError, match=r"a single snippet; .*--crop"):
        list(encoded(frames(40), Limited(0), 4))


def test_a_batch_that_repeats_the_one_before_is_not_computed_again() -> None:
    encoder = Limited(4)
    images = [*frames(32), *[Frame(frames(1)[0].image, n / 10, n / 10, n) for n in range(32, 96)]]
    found = list(encoded(images, encoder, 1))
    alone = [np.concatenate(list(rows)) for rows, _ in found]
    assert encoder.sizes == [1, 1, 1]
    np.testing.assert_array_equal(found[2][0], found[5][0])
    assert found[2][0] is not found[3][0]
    # Equal to what the network makes of the same pictures after another.
    again = TinyEncoder(RGB)
    expected = [next(iter(encoded(images[n : n + 16], again, 1)))[0] for n in range(0, 96, 16)]
    np.testing.assert_array_equal(np.concatenate(alone), np.concatenate(expected).ravel())
