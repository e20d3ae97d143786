"""One step of several processes that is the step of one: the batch means the same.

Each process computes its own rows of a batch and receives the outputs of the others. The loss is
then that of the whole batch, whatever it averages over, and its gradient with respect to the own
rows is exact; the sum of all processes' gradients is the gradient of one process. (The usual mean
of the processes' own losses would weight a snippet by how many others its process has.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from vidkd.training.processes import Processes


class Rows:
    """The rows of a batch that this process computes.

    Args:
        processes: those that train together.
        total: rows of the batch.

    Attributes:
        computed: rows to give to the network; at least one, so that every process goes through
            the same steps when there are fewer rows than processes.
        count: how many of them are this process's own.
    """

    def __init__(self, processes: Processes, total: int) -> None:
        self.total = total
        first, end = (
            total * number // processes.size for number in (processes.rank, processes.rank + 1)
        )
        self.count = end - first
        first = min(first, total - 1)
        self.computed = slice(first, max(end, first + 1))

    def random(self) -> TorchFunctionMode:
        """Let dropout and noise draw for the whole batch while a block runs, and keep the rows.

        All processes then draw the numbers that one alone would. (The dropout between the layers
        of an LSTM, which is drawn inside it, differs.)
        """
        return _WholeBatchRandom(self)

    def joined(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the whole batch's outputs, with gradients in the own rows.

        Args:
            outputs: each with one row for each row in ``computed``.
        """
        start = self.computed.start
        flat = torch.zeros(
            sum(self.total * item[0].numel() for item in outputs),
            device=outputs[0].device,
            dtype=torch.float32,
        )
        parts = flat.split([self.total * item[0].numel() for item in outputs])
        shaped = [
            part.view(self.total, *item.shape[1:])
            for part, item in zip(parts, outputs, strict=True)
        ]
        for part, item in zip(shaped, outputs, strict=True):
            part[start : start + self.count] = item[: self.count].detach()
        # What others left zero is added to what is there, which changes no bit.
        dist.all_reduce(flat)
        return [
            torch.cat([part[:start], item[: self.count], part[start + self.count :]])
            for part, item in zip(shaped, outputs, strict=True)
        ]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the sum of all processes' gradients."""
    gradients = [item.grad for item in parameters if item.grad is not None]
    flat = torch.cat([item.flatten() for item in gradients])
    dist.all_reduce(flat)
    for item, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        item.copy_(part.view_as(item))


class WholeBatchNorm(_BatchNorm):
    """Batch normalisation over the rows of all processes, on a processor as on a GPU."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...) over all dimensions but the second; N differs by process."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        x, over = input.float(), [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        count = x.new_tensor(float(x.numel() // x.shape[1]))
        dist.all_reduce(count)
        mean = all_reduce(x.sum(over)) / count
        centred = x - mean.view(shape)
        variance = all_reduce(centred.square().sum(over)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1.0), self.momentum)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def join_norms(network: nn.Module) -> None:
    """Let every batch normalisation in a network be over the rows of all processes."""
    for module in list(network.modules()):
        for name, own in list(module.named_children()):
            if isinstance(own, _BatchNorm):
                joined = WholeBatchNorm(own.num_features, own.eps, own.momentum)
                joined.weight, joined.bias = own.weight, own.bias
                joined.load_state_dict(own.state_dict())
                setattr(module, name, joined.to(own.weight.device))


class _WholeBatchRandom(TorchFunctionMode):
    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn_like:
            return self._draw(args[0]).normal_()[self._rows.computed]
        if func is functional.dropout:
            return self._dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _draw(self, like: Tensor) -> Tensor:
        return like.new_empty((self._rows.total, *like.shape[1:]))

    def _dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return x
        # As torch computes it on a processor.
        keep = self._draw(x).bernoulli_(1 - p)
        return x * (keep.div_(1 - p) if p < 1 else keep)[self._rows.computed]
