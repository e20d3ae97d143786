"""The fixed graph of 2s-AGCN: every joint takes from itself, from outside, and from inside.

The three subsets are those of spatial configuration partitioning (Yan, Xiong and Lin, "Spatial
Temporal Graph Convolutional Networks", AAAI 2018, section 3.3), with the root of the tree as the
centre.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidkd.skeletons import Skeleton


def adjacency(skeleton: Skeleton) -> Tensor:
    """Return the three subsets (3, V, V) float32: itself, its children, its parent.

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
