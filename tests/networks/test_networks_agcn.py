"""2s-AGCN against a second implementation, closed forms, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidkd.networks.agcn import (
    Block,
    InputNorm,
    TwoStreamAGCN,
    adjacency,
    bones,
    initialise,
    normalised,
)
from vidkd.recipe.pose import PoseNetworkSettings
from vidkd.skeletons import Skeleton, find_skeleton

SMALL = PoseNetworkSettings(channels=(8, 8, 12), blocks=(2, 1, 1))
CHAIN = Skeleton("chain", (1, 1, 1), (0, 1, 2), (0, 2), (0, 2))
"""Two joints that hang on the one in the middle."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def trained(settings: PoseNetworkSettings = SMALL, classes: int = 3) -> TwoStreamAGCN:
    """Return a network in which nothing is at a value that would hide a mistake."""
    network = TwoStreamAGCN(settings, classes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return network.eval()


def people(count: int = 2, joints: int = 13, frames: int = 16, batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, frames, joints, count)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_graph_of_a_chain_is_that_on_paper() -> None:
    expected = [
        torch.eye(3),
        # The middle takes half of either end.
        torch.tensor([[0, 0.5, 0], [0, 0, 0], [0, 0.5, 0]]),
        # Both ends take all of the middle.
        torch.tensor([[0, 0, 0], [1.0, 0, 1], [0, 0, 0]]),
    ]
    torch.testing.assert_close(adjacency(CHAIN), torch.stack(expected))
    torch.testing.assert_close(
        normalised(torch.tensor([[1.0, 0], [3, 0]])), torch.tensor([[0.25, 0], [0.75, 0]])
    )


@pytest.mark.parametrize("name", ["lcrnet-13", "ntu-25", "coco-17"])
def test_every_joint_takes_from_itself_its_children_and_its_parent(name: str) -> None:
    skeleton = find_skeleton(name)
    graph = adjacency(skeleton)
    for joint in range(skeleton.joints):
        children = [i for i, parent in enumerate(skeleton.parents) if parent == joint != i]
        assert graph[1, :, joint].nonzero().flatten().tolist() == children
        assert graph[1, :, joint].sum() == pytest.approx(1.0 if children else 0.0)
        own = skeleton.parents[joint]
        assert graph[2, :, joint].nonzero().flatten().tolist() == ([own] if own != joint else [])


@pytest.mark.parametrize("name", ["lcrnet-13", "ntu-25", "coco-17"])
def test_skeletons_are_trees_that_a_mirror_maps_to_themselves(name: str) -> None:
    skeleton = find_skeleton(name)
    parents, flip = np.array(skeleton.parents), np.array(skeleton.flip)
    joint = np.arange(skeleton.joints)
    for _ in joint:
        joint = parents[joint]
    assert len(set(joint)) == 1
    assert (flip[flip] == np.arange(len(flip))).all()
    assert (parents[flip] == flip[parents]).all()
    assert flip[skeleton.hips[0]] == skeleton.hips[1]
    assert flip[skeleton.shoulders[0]] == skeleton.shoulders[1]


def naive_norm(x: np.ndarray, norm: nn.BatchNorm2d) -> np.ndarray:
    mean, var, weight, bias = (
        value.detach().numpy()[:, None, None]
        for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(var + norm.eps) * weight + bias


def naive_pointwise(x: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
    bias = 0 if conv.bias is None else conv.bias.detach().numpy()[:, None, None]
    return np.einsum("oi,itv->otv", conv.weight.detach().numpy()[:, :, 0, 0], x) + bias


def naive_block(x: np.ndarray, block: Block, stride: int) -> np.ndarray:
    """Compute a block for one person (C, T, V), joint by joint and frame by frame."""
    graph = block.graph
    _, time, joints = x.shape
    width = graph.embedding
    embedded = naive_pointwise(x, graph.similarity)
    gathered = []
    for subset in range(3):
        theta = embedded[subset * width : (subset + 1) * width]
        phi = embedded[(3 + subset) * width : (4 + subset) * width]
        matrix = np.empty((joints, joints))
        for j in range(joints):
            scores = np.array(
                [(theta[:, :, i] * phi[:, :, j]).sum() / (width * time) for i in range(joints)]
            )
            matrix[:, j] = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        matrix += (graph.fixed[subset] + graph.learned[subset]).detach().numpy()
        gathered.append(np.zeros_like(x))
        for i in range(joints):
            for j in range(joints):
                gathered[-1][:, :, j] += matrix[i, j] * x[:, :, i]
    y = naive_norm(naive_pointwise(np.concatenate(gathered), graph.weights), graph.norm)
    y += naive_shortcut(x, graph.residual)
    y = np.maximum(y, 0)
    kernel = block.time.weight.detach().numpy()[..., 0]
    padded = np.pad(y, ((0, 0), (4, 4), (0, 0)))
    steps = [
        np.einsum("oik,ikv->ov", kernel, padded[:, start : start + 9])
        for start in range(0, time, stride)
    ]
    y = naive_norm(np.stack(steps, axis=1), block.norm)
    if block.residual is not None:
        y = y + naive_shortcut(x, block.residual, stride)
    return np.maximum(y, 0)


def naive_shortcut(x: np.ndarray, shortcut: nn.Module, stride: int = 1) -> np.ndarray:
    if isinstance(shortcut, nn.Identity):
        return x
    assert isinstance(shortcut, nn.Sequential)
    conv, norm = shortcut
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return naive_norm(naive_pointwise(x, conv)[:, ::stride], norm)


@pytest.mark.parametrize(("stage", "stride"), [(0, 1), (1, 1), (2, 2)])
def test_a_block_is_the_one_written_out_in_loops(stage: int, stride: int) -> None:
    block = trained().joints.blocks[stage]
    assert isinstance(block, Block)
    channels = block.graph.similarity.in_channels
    x = torch.randn(2, channels, 7, 13)
    with torch.no_grad():
        found = block(x)
    for number in range(2):
        expected = naive_block(x[number].double().numpy(), block, stride)
        np.testing.assert_allclose(found[number].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "joints"), [("lcrnet-13", 13), ("ntu-25", 25), ("coco-17", 17)])
def test_the_published_size_gives_256_per_stream_on_every_skeleton(name: str, joints: int) -> None:
    settings = PoseNetworkSettings.model_validate({"skeleton": name})
    network = TwoStreamAGCN(settings, 5).eval()
    assert len(network.joints.blocks) == 10
    with torch.no_grad():
        shapes = []
        x = people(1, joints, batch=1)[..., 0]
        for block in network.joints.blocks:
            x = block(x)
            shapes.append(tuple(x.shape[1:3]))
        output = network(people(1, joints, batch=1))
    assert shapes == [(64, 16)] * 4 + [(128, 8)] * 3 + [(256, 4)] * 3
    assert output.features.shape == (1, 512)
    assert output.logits.shape == (1, 5)
    close(output.logits, output.streams.mean(dim=1))


def test_bones_point_from_parents_to_children() -> None:
    skeleton = find_skeleton("lcrnet-13")
    x = people(1)
    found = bones(x, skeleton)
    assert not found[:, :, :, 12].any()
    close(found[:, :, :, 0], x[:, :, :, 0] - x[:, :, :, 2])
    x[0, :, :, 2] = torch.nan
    missing = bones(x, skeleton)[0].isnan().all(dim=(0, 1, 3))
    assert missing.nonzero().flatten().tolist() == [0, 2]


def test_the_order_and_the_number_of_absent_people_do_not_matter() -> None:
    network = trained()
    x = people(2)
    with torch.no_grad():
        features = network(x).features
        close(network(x.flip(-1)).features, features)
        absent = torch.full((*x.shape[:-1], 1), torch.nan)
        close(network(torch.cat([absent, x], dim=-1)).features, features)
        alone = (network(x[..., :1]).features + network(x[..., 1:]).features) / 2
        close(alone, features)


def test_nobody_gives_zero_and_bothers_no_one_else() -> None:
    network = trained()
    x = people(1)
    with torch.no_grad():
        expected = network(x[1:]).features
        x[0] = torch.nan
        found = network(x).features
    assert not found[0].any()
    close(found[1:], expected)
    with torch.no_grad():
        assert not network(torch.full_like(x, torch.nan)).features.any()


def test_a_missing_joint_hides_nothing_but_itself() -> None:
    network = trained()
    x = people(1, batch=1)
    hidden = x.clone()
    hidden[:, :, 3, 6] = torch.nan  # one frame is enough for the joint to count as missing
    other = hidden.clone()
    other[:, :, 4:, 6] = 100
    with torch.no_grad():
        close(network(hidden).features, network(other).features)
        assert not torch.allclose(network(hidden).features, network(x).features)


def test_the_samples_of_a_batch_do_not_touch() -> None:
    network = trained()
    x = people(2)
    with torch.no_grad():
        single = torch.cat([network(item[None]).features for item in x])
        close(network(x).features, single)


def test_the_input_norm_measures_what_is_known() -> None:
    norm = InputNorm(2, 3)
    x = torch.randn(5, 2, 4, 3) * 3 + 1
    known = torch.ones(5, 1, 1, 3)
    known[1:, :, :, 2] = 0
    known[:, :, :, 1] = 0
    norm.train()
    out = norm(torch.where(known > 0, x, 0), known)
    assert not out[:, :, :, 1].any()
    rows = x[:, :, :, 0].transpose(0, 1).flatten(1)
    expected = (rows - rows.mean(1, keepdim=True)) / rows.std(1, correction=0, keepdim=True)
    close(out[:, :, :, 0].transpose(0, 1).flatten(1), expected)
    close(norm.running_mean[0, :, 0, 2], 0.1 * x[0, :, :, 2].mean(1))
    assert not norm.running_mean[0, :, 0, 1].any()
    assert (norm.running_var[0, :, 0, 1] == 1).all()


def test_the_streams_learn_apart() -> None:
    network = TwoStreamAGCN(SMALL, 3)
    initialise(network, torch.Generator().manual_seed(0))
    network(people(1)).streams[:, 0].sum().backward()
    assert all(p.grad is not None for p in network.joints.parameters())
    for part in (network.bones, network.classifiers[1]):
        assert all(p.grad is None or not p.grad.any() for p in part.parameters())
