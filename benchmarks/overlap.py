"""How much of I3D two overlapping snippets share to the number, layer by layer.

    python benchmarks/overlap.py [--strides 8 4 2] [--crop 64]

A snippet of 16 frames is padded with zeros at both ends in time ("SAME" padding), so its border
rows differ from those of its neighbour that sees on. Snippets of noise are run through the
network; after each layer, the rows in time that equal the neighbour's row of the same moment are
counted. What is shared is what a shared computation could save at most.
"""

from __future__ import annotations

import argparse

import torch

from vidkd.console import emit_table
from vidkd.networks.i3d import I3D

FRAMES = 16


def activations(network: I3D, clip: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what every layer gives (1, C, T, H, W), by name, in order."""
    found: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
        for name, module in network.layers.named_children()
    ]
    with torch.inference_mode():
        network(clip)
    for hook in hooks:
        hook.remove()
    return {name: value for name, value in found.items() if value.ndim == 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strides", type=int, nargs="+", default=[8, 4, 2])
    parser.add_argument("--crop", type=int, default=64)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = I3D(3, 400).double().eval()
    video = torch.rand(1, 3, FRAMES + max(options.strides), options.crop, options.crop).double()
    first = activations(network, video[:, :, :FRAMES])
    rows = []
    for stride in options.strides:
        second = activations(network, video[:, :, stride : stride + FRAMES])
        for name, own in first.items():
            step = FRAMES // own.shape[2]
            shift = stride // step
            same = 0
            if stride % step == 0:
                pairs = zip(own[0].unbind(1)[shift:], second[name][0].unbind(1), strict=False)
                same = sum(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)
            rows.append((str(stride), name, f"{same} of {own.shape[2]}"))
    emit_table("rows in time that equal the neighbour's", ("stride", "layer", "shared"), rows)


if __name__ == "__main__":
    main()
