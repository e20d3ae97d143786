"""A whole I3D with random weights, shared by the tests that need one."""

from __future__ import annotations

import pytest
import torch

from vidkd.networks.i3d import I3D, Unit


def randomise(network: I3D) -> I3D:
    """Give the batch normalisation statistics that are neither zero nor one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Unit):
                # He initialisation keeps the activations' scale over the depth.
                fan_in = module.conv.weight[0].numel()
                module.conv.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                module.norm.bias.normal_(0, 0.1, generator=generator)
                module.norm.running_mean.normal_(0, 0.1, generator=generator)
                module.norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def network() -> I3D:
    torch.manual_seed(0)
    return randomise(I3D())
