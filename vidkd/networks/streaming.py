"""A causal temporal filter, one snippet at a time: what live video needs, and what is exported."""

from __future__ import annotations

from torch import Tensor, nn

from vidkd.errors import UsageError
from vidkd.networks.temporal import LIVE_REMEDY, TemporalFilter


class StreamingFilter(nn.Module):
    """A trained causal filter that carries its state from snippet to snippet.

    Its logits are those of the whole video at once, with the same work and memory for every
    snippet. Tensors in and out have fixed shapes, and nothing depends on their values, so that it
    can be traced and exported. Rows of a batch are streams of their own.

    Args:
        module: the filter, in evaluation mode; its weights are used, not copied.

    Raises:
        UsageError: the filter sees later snippets, has a segment head, or does not say how it runs
            snippet by snippet.
    """

    def __init__(self, module: TemporalFilter) -> None:
        super().__init__()
        kind = module.settings.kind
        if not module.causal:
            raise UsageError(
                f"the filter {kind} looks at later snippets, which live video does not have yet",
                remedy=LIVE_REMEDY,
            )
        if module.head is not None:
            raise UsageError(
                "a segment head looks at later snippets, which live video does not have yet",
                remedy=LIVE_REMEDY,
            )
        module.fresh_state(1)
        self.filter = module

    def start(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Return the state before the first snippet of ``batch`` streams, (batch, ...) each."""
        return self.filter.fresh_state(batch)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Filter the next snippet of every stream.

        Args:
            x: (B, D) features, not standardised.
            state: what `start` or the call before returned.

        Returns:
            logits (B, K), and the next state.
        """
        own = self.filter
        rows = (x - own.input_mean) / own.input_deviation
        features, following = own.step(rows, state)
        return own.classifier(features.unsqueeze(2)).squeeze(2), *following
