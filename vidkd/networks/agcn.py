"""2s-AGCN: adaptive graph convolutions over joints and over bones.

Shi, Zhang, Cheng and Lu, "Two-Stream Adaptive Graph Convolutional Networks for Skeleton-Based
Action Recognition", CVPR 2019; equation and figure numbers are theirs. Two differences: missing
joints and absent people are left out of every sum instead of entering as zeros at the root, and the
input's normalisation is shared by all people, so that their order does not matter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vidkd.recipe.pose import PoseNetworkSettings
from vidkd.skeletons import Skeleton, find_skeleton

TEMPORAL_KERNEL = 9
_MOMENTUM, _EPSILON = 0.1, 1e-5  # of batch normalisation
_SUBSETS = 3


def adjacency(skeleton: Skeleton) -> Tensor:
    """Return the fixed graph (3, V, V) float32: every joint takes from itself, children, parent.

    The subsets are those of spatial configuration partitioning (Yan, Xiong and Lin, "Spatial
    Temporal Graph Convolutional Networks", AAAI 2018, section 3.3), the root as the centre.

    Entry (k, i, j) is the weight of joint i in what joint j gathers, so that columns sum to 1, or
    to 0 where there is no such neighbour.
    """
    inward = torch.zeros(skeleton.joints, skeleton.joints)
    for child, parent in skeleton.bones:
        inward[child, parent] = 1
    return torch.stack(
        [torch.eye(skeleton.joints), normalised(inward), normalised(inward.T.contiguous())]
    )


def normalised(graph: Tensor) -> Tensor:
    """Divide every column of (V, V) by its sum; empty columns stay 0."""
    return graph / graph.sum(dim=0, keepdim=True).clamp(min=1)


class InputNorm(nn.Module):
    """Batch normalisation of every coordinate (C) of every joint (V), over what is known."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        shape = (1, channels, 1, joints)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """Normalise (P, C, T, V); ``known`` (P, 1, 1, V) is 1 or 0, and 0 gives 0."""
        mean, var = self.running_mean, self.running_var
        if self.training:
            count = (known.sum(0, keepdim=True) * x.shape[2]).clamp(min=1)
            mean = (x * known).sum((0, 2), keepdim=True) / count
            var = ((x - mean).square() * known).sum((0, 2), keepdim=True) / count
            with torch.no_grad():
                # A joint that nobody in the batch shows keeps its statistics.
                rate = _MOMENTUM * (known.sum(0, keepdim=True) > 0)
                self.running_mean += rate * (mean - self.running_mean)
                self.running_var += rate * (var - self.running_var)
        scaled = (x - mean) * torch.rsqrt(var + _EPSILON)
        return (scaled * self.weight + self.bias) * known


class GraphConv(nn.Module):
    """Adaptive graph convolution (Eq. 3 and 4): ``sum_k W_k f (A_k + B_k + C_k)``.

    ``A`` is fixed by the skeleton, ``B`` is learned, and ``C`` depends on the sample: the softmax,
    over the joints that are summed, of the embedded similarity of two joints over all frames.

    Args:
        inputs: channels of f.
        outputs: of the result; a quarter of them embeds joints.
        fixed: A (3, V, V); column j says how much of every joint goes into joint j.
    """

    fixed: Tensor

    def __init__(self, inputs: int, outputs: int, fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("fixed", fixed, persistent=False)
        self.learned = nn.Parameter(torch.full_like(fixed, 1e-6))
        self.embedding = outputs // 4
        self.similarity = nn.Conv2d(inputs, 2 * _SUBSETS * self.embedding, 1)
        self.weights = nn.Conv2d(_SUBSETS * inputs, outputs, 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.residual: nn.Module = nn.Identity()
        if inputs != outputs:
            self.residual = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def adjacency(self, x: Tensor) -> Tensor:
        """Return A + B + C for the samples (P, C, T, V) as (P, 3, V, V)."""
        people, _, time, joints = x.shape
        pairs = self.similarity(x).reshape(people, 2, _SUBSETS, self.embedding * time, joints)
        scores = pairs[:, 0].transpose(-1, -2) @ pairs[:, 1] / (self.embedding * time)
        return self.fixed + self.learned + scores.softmax(dim=-2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (P, C, T, V) to (P, C', T, V)."""
        people, channels, time, joints = x.shape
        gathered = x.reshape(people, 1, channels * time, joints) @ self.adjacency(x)
        mixed = self.weights(gathered.reshape(people, _SUBSETS * channels, time, joints))
        return torch.relu(self.norm(mixed) + self.residual(x))


class Block(nn.Module):
    """A graph convolution, a convolution over time, and a residual around both (Fig. 4).

    The first block has no residual; ``fixed`` and the channels are those of :class:`GraphConv`.
    """

    def __init__(
        self, inputs: int, outputs: int, fixed: Tensor, stride: int = 1, residual: bool = True
    ) -> None:
        super().__init__()
        self.graph = GraphConv(inputs, outputs, fixed)
        self.time = nn.Conv2d(
            outputs,
            outputs,
            (TEMPORAL_KERNEL, 1),
            stride=(stride, 1),
            padding=(TEMPORAL_KERNEL // 2, 0),
            bias=False,
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.residual: nn.Module | None = None
        if residual:
            self.residual = nn.Identity()
            if inputs != outputs or stride != 1:
                self.residual = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride=(stride, 1), bias=False),
                    nn.BatchNorm2d(outputs),
                )

    def forward(self, x: Tensor) -> Tensor:
        """Map (P, C, T, V) to (P, C', ceil(T / stride), V)."""
        y = self.norm(self.time(self.graph(x)))
        return torch.relu(y if self.residual is None else y + self.residual(x))


class Stream(nn.Module):
    """One stream, of joints or of bones: the blocks, and the mean over time, joints and people."""

    def __init__(self, settings: PoseNetworkSettings, skeleton: Skeleton) -> None:
        super().__init__()
        fixed = adjacency(skeleton)
        width = 3
        self.norm = InputNorm(width, skeleton.joints)
        blocks: list[nn.Module] = []
        for stage, (outputs, count) in enumerate(
            zip(settings.channels, settings.blocks, strict=True)
        ):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Block(width, outputs, fixed, stride, residual=bool(blocks)))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, V, M), NaN where missing, to features (N, width).

        A joint counts as missing unless it is known in all T frames. Whoever has no joint is
        absent; without anybody the feature is 0.
        """
        batch, _, _, _, people = x.shape
        rows = x.permute(0, 4, 1, 2, 3).flatten(0, 1)  # (N M, C, T, V)
        known = rows.isfinite().all(dim=(1, 2))  # (N M, V)
        present = known.any(dim=1)
        where = known[present].to(x.dtype)[:, None, None, :]
        rows = torch.where(where > 0, rows[present], 0).contiguous()
        pooled = x.new_zeros(batch * people, self.width)
        if len(rows):
            y = self.blocks(self.norm(rows, where))
            mean = (y.mean(dim=2, keepdim=True) * where).sum((2, 3)) / where.sum((2, 3))
            pooled = pooled.masked_scatter(present[:, None], mean.to(pooled.dtype))
        count = present.view(batch, people).sum(dim=1, keepdim=True).clamp(min=1)
        return pooled.view(batch, people, -1).sum(dim=1) / count


class PoseOutput(NamedTuple):
    """What the two streams say about (N) snippets."""

    features: Tensor
    """(N, 2 width), joints then bones."""
    logits: Tensor
    """(N, K), the mean of the streams' logits."""
    streams: Tensor
    """(N, 2, K), the logits of either."""


class TwoStreamAGCN(nn.Module):
    """The joint stream and the bone stream, with a classifier each.

    Args:
        settings: skeleton, widths and depths.
        classes: K; 0 for none.
        dropout: before the classifiers.
    """

    def __init__(self, settings: PoseNetworkSettings, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.skeleton = find_skeleton(settings.skeleton)
        self.joints = Stream(settings, self.skeleton)
        self.bones = Stream(settings, self.skeleton)
        self.dropout = nn.Dropout(dropout)
        self.classifiers = nn.ModuleList(nn.Linear(self.joints.width, classes) for _ in range(2))
        self.feature_dim = 2 * self.joints.width

    def forward(self, x: Tensor) -> PoseOutput:
        """Compute everything from joints (N, 3, T, V, M), NaN where missing; T at least 1."""
        parts = (self.joints(x), self.bones(bones(x, self.skeleton)))
        streams = [
            head(self.dropout(part)) for head, part in zip(self.classifiers, parts, strict=True)
        ]
        stacked = torch.stack(streams, dim=1)
        return PoseOutput(torch.cat(parts, dim=1), stacked.mean(dim=1), stacked)


def bones(x: Tensor, skeleton: Skeleton) -> Tensor:
    """Return the vector from the parent to every joint (section 3.3); 0 at the root.

    Args:
        x: (N, 3, T, V, M); a bone is missing (NaN) where one of its ends is.
    """
    return x - x[:, :, :, list(skeleton.parents)]


def initialise(network: TwoStreamAGCN, generator: torch.Generator) -> None:
    """Draw the weights: He's for convolutions, and graph convolutions that begin near 0.

    With the weight of their normalisation at 1e-6 all but the residual of a graph convolution is
    nothing at first, which lets the learned graph grow from the skeleton's.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
                module.weight.normal_(0, (2 / fan_out) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                module.weight.normal_(0, std, generator=generator)
                module.bias.zero_()
        for module in network.modules():
            if isinstance(module, GraphConv):
                module.norm.weight.fill_(1e-6)
                # The three subsets are summed: each gets a third of the variance.
                module.weights.weight /= _SUBSETS**0.5
