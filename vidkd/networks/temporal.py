"""Temporal filters: snippet features (B, T, D) to a feature map (B, T, C) and logits (B, T, K).

Every filter takes a mask of the valid snippets, and its output at valid snippets does not depend
on how much padding follows them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from vidkd.errors import UsageError
from vidkd.extensions import Table
from vidkd.networks.segment_head import ChannelNorm, Level, SegmentHead
from vidkd.recipe import FilterSettings


class TemporalOutput(NamedTuple):
    """What a temporal filter returns; both are zero at padding."""

    features: Tensor
    """(B, T, C): the feature map on which knowledge is distilled."""
    logits: Tensor
    """(B, T, K)."""


LIVE_REMEDY = "train one with --filter causal-ss-tcn --levels 0"
# Channels that hardly vary are not blown up beyond this share of the mean deviation.
_LEAST_DEVIATION = 0.01


class TemporalFilter(nn.Module, ABC):
    """Base of the filters: standardises and masks the input, classifies the feature map 1x1.

    A fresh filter takes its input as it is, until `standardise` has seen the training features.

    Args:
        settings: kind, channels C, layers, dropout, noise and levels of the segment head.
        in_features: D, the width of a snippet's features.
        classes: K.

    Attributes:
        head: finds segments on the feature map; None without one.
    """

    causal = False
    """Whether no snippet sees a later one."""

    def __init__(self, settings: FilterSettings, in_features: int, classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.in_features = in_features
        self.classes = classes
        self.classifier = nn.Conv1d(settings.channels, classes, 1)
        self.head: SegmentHead | None = None
        self.input_mean: Tensor
        self.input_deviation: Tensor
        self.register_buffer("input_mean", torch.zeros(in_features))
        self.register_buffer("input_deviation", torch.ones(in_features))

    def standardise(self, videos: Iterable[Tensor]) -> None:
        """Bring every input channel to mean 0 and standard deviation 1 from now on.

        Args:
            videos: the training features, (T, D) each; read one after the other.
        """
        count = 0
        mean = torch.zeros(self.in_features, dtype=torch.float64)
        squares = torch.zeros(self.in_features, dtype=torch.float64)
        for rows in videos:
            if not len(rows):
                continue
            values = rows.detach().cpu().double()
            # Sums of squares around the means are added without cancellation (Chan et al. 1979).
            own = values.mean(dim=0)
            squares += (values - own).square().sum(dim=0)
            squares += (own - mean).square() * (count * len(values) / (count + len(values)))
            count += len(values)
            mean += (own - mean) * (len(values) / count)
        deviation = (squares / max(count, 1)).sqrt()
        least = float(deviation.mean()) * _LEAST_DEVIATION
        deviation = deviation.clamp(min=least) if least > 0 else torch.ones_like(deviation)
        self.input_mean.copy_(mean)
        self.input_deviation.copy_(deviation)

    @abstractmethod
    def feature_map(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (B, D, T), zero at padding, with mask (B, 1, T) to (B, C, T)."""

    def fresh_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return what `step` carries from snippet to snippet, before the first one.

        A causal filter that can run on live video defines this and `step`. What carries is of
        fixed shape, (batch, ...) each, and on the device of the weights.

        Raises:
            UsageError: the filter has not said how it runs snippet by snippet.
        """
        raise UsageError(
            f"the filter {self.settings.kind} does not run snippet by snippet, as live video needs",
            remedy=LIVE_REMEDY,
        )

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map the next snippet to its column of the feature map.

        Args:
            x: (B, D), standardised.
            state: of the snippets before it.

        Returns:
            (B, C) and the next state: with what `feature_map` gives for the whole video.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, mask: Tensor) -> TemporalOutput:
        """Filter a batch.

        Args:
            x: (B, T, D) float32; the values at padding do not matter, even if not finite.
            mask: (B, T) bool, True at valid snippets, which come first.
        """
        if x.ndim != 3 or x.shape[2] != self.in_features or mask.shape != x.shape[:2]:
            raise ValueError(
                f"expected x (B, T, {self.in_features}) and mask (B, T), "
                f"got {tuple(x.shape)} and {tuple(mask.shape)}"
            )
        valid = mask.bool().unsqueeze(1)
        inputs = (x - self.input_mean) / self.input_deviation
        if self.training and self.settings.noise:
            inputs = inputs + self.settings.noise * torch.randn_like(inputs)
        inputs = inputs.transpose(1, 2).masked_fill(~valid, 0.0)
        features = self.feature_map(inputs, valid).masked_fill(~valid, 0.0)
        logits = self.classifier(features).masked_fill(~valid, 0.0)
        return TemporalOutput(features.transpose(1, 2), logits.transpose(1, 2))

    def segments(self, output: TemporalOutput, mask: Tensor) -> list[Level]:
        """Return what the segment head finds on the feature map; nothing without a head.

        Args:
            output: of `forward`.
            mask: (B, T) bool, as given there.
        """
        return [] if self.head is None else self.head(output.features, mask)


class DilatedLayer(nn.Module):
    """Dilated convolution of kernel 3, ReLU, 1x1 convolution, dropout, residual.

    Args:
        channels: C, in and out.
        dilation: distance in snippets between the three taps.
        dropout: probability.
        causal: look at the present and the past only.
    """

    def __init__(self, channels: int, dilation: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.padding = (2 * dilation, 0) if causal else (dilation, dilation)
        self.dilated = nn.Conv1d(channels, channels, 3, dilation=dilation)
        self.pointwise = nn.Conv1d(channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C, T)."""
        return self._mapped(nn.functional.pad(x, self.padding), x)

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Map the next snippet (B, C, 1) of a causal layer, after (B, C, 2 dilation) before it."""
        window = torch.cat((past, x), dim=2)
        return self._mapped(window, x), window[:, :, 1:]

    def _mapped(self, window: Tensor, x: Tensor) -> Tensor:
        hidden = torch.relu(self.dilated(window))
        return x + self.dropout(self.pointwise(hidden))


class SSTCN(TemporalFilter):
    """Single-stage temporal convolutional network (Farha and Gall 2019; used by Dai et al. 2021).

    A 1x1 projection and layers of dilation 1, 2, 4, ...; masked after each. With five layers a
    snippet sees 63 snippets.
    """

    def __init__(self, settings: FilterSettings, in_features: int, classes: int) -> None:
        super().__init__(settings, in_features, classes)
        self.projection = nn.Conv1d(in_features, settings.channels, 1)
        self.layers = nn.ModuleList(
            DilatedLayer(settings.channels, 2**number, settings.dropout, self.causal)
            for number in range(settings.layers or 5)
        )

    def feature_map(self, x: Tensor, mask: Tensor) -> Tensor:
        # The bias makes padding non-zero, and the next layer would smear it over valid snippets.
        hidden = self.projection(x).masked_fill(~mask, 0.0)
        for layer in self.layers:
            hidden = layer(hidden).masked_fill(~mask, 0.0)
        return hidden


class CausalSSTCN(SSTCN):
    """The SS-TCN for live use: with five layers a snippet sees itself and 62 before it."""

    causal = True

    def fresh_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return the zeros that stand before the first snippet, (B, C, 2 dilation) a layer."""
        weight = self.projection.weight
        return tuple(
            weight.new_zeros(batch, self.settings.channels, layer.padding[0])
            for layer in cast("Iterable[DilatedLayer]", self.layers)
        )

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :meth:`TemporalFilter.step`; the state is the last inputs of every layer."""
        hidden = self.projection(x.unsqueeze(2))
        following = []
        layers = cast("Iterable[DilatedLayer]", self.layers)
        for layer, past in zip(layers, state, strict=True):
            hidden, kept = layer.step(hidden, past)
            following.append(kept)
        return hidden.squeeze(2), tuple(following)


class LocalAttentionLayer(nn.Module):
    """A transformer's layer in which a snippet attends to those near it (Vaswani et al. 2017).

    Normalisation comes first; a depthwise convolution of kernel 3 before the attention tells
    neighbours apart, which makes position encodings needless (Zhang et al. 2022, ActionFormer).

    Args:
        channels: C, in and out; a multiple of the number of heads.
        dropout: probability.
    """

    HEADS = 4
    REACH = 4

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.before = ChannelNorm(channels)
        self.neighbours = nn.Conv1d(channels, channels, 3, padding=1, groups=channels)
        self.project = nn.Conv1d(channels, 3 * channels, 1)
        self.output = nn.Conv1d(channels, channels, 1)
        self.between = ChannelNorm(channels)
        self.feed_forward = nn.Sequential(
            nn.Conv1d(channels, 4 * channels, 1),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv1d(4 * channels, channels, 1),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (B, C, T), zero at padding, with mask (B, 1, T) to (B, C, T)."""
        hidden = self.neighbours(self.before(x).masked_fill(~mask, 0.0)).masked_fill(~mask, 0.0)
        query, key, value = self.project(hidden).unflatten(1, (3, self.HEADS, -1)).unbind(1)
        # Only the neighbours' keys are looked at: memory grows with T, not with its square.
        key, value = self._windows(key), self._windows(value)
        near = self._windows(mask.unsqueeze(1).to(x.dtype)) > 0
        weight = torch.einsum("bhct,bhctw->bhtw", query, key) / key.shape[2] ** 0.5
        weight = weight.masked_fill(~near[:, :, 0], -1e9).softmax(-1)
        attended = torch.einsum("bhtw,bhctw->bhct", weight, value).flatten(1, 2)
        x = x + self.dropout(self.output(attended))
        x = x + self.dropout(self.feed_forward(self.between(x)))
        return x.masked_fill(~mask, 0.0)

    def _windows(self, x: Tensor) -> Tensor:
        """Return (..., T, 2 REACH + 1) neighbours of (..., T), zero beyond the ends."""
        return nn.functional.pad(x, (self.REACH, self.REACH)).unfold(-1, 2 * self.REACH + 1, 1)


class LocalAttention(TemporalFilter):
    """A convolution of kernel 3 and layers of local attention over nine snippets each."""

    def __init__(self, settings: FilterSettings, in_features: int, classes: int) -> None:
        super().__init__(settings, in_features, classes)
        if settings.channels % LocalAttentionLayer.HEADS:
            raise UsageError(
                f"local attention cannot have {settings.channels} channels",
                remedy=f"give a multiple of {LocalAttentionLayer.HEADS}",
            )
        self.projection = nn.Conv1d(in_features, settings.channels, 3, padding=1)
        self.layers = nn.ModuleList(
            LocalAttentionLayer(settings.channels, settings.dropout)
            for _ in range(settings.layers or 2)
        )

    def feature_map(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = self.projection(x).masked_fill(~mask, 0.0)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden


class GaussianMixtureConv(nn.Module):
    """Temporal Gaussian mixture layer (Piergiovanni and Ryoo 2019, section 3.1).

    Each temporal kernel is a mixture, by softmax, of a few Gaussians whose centres and widths are
    learned; the same kernels run over every feature dimension. With several input channels
    each output channel has one kernel per input channel, and the results are combined with
    learned weights (the 1x1 convolution of the paper).

    Args:
        in_channels: channels of the input, not to be confused with its feature dimensions.
        out_channels: channels of the output.
        gaussians: number of Gaussians to mix.
        length: of the kernels in snippets, odd.
    """

    def __init__(
        self, in_channels: int, out_channels: int, gaussians: int = 16, length: int = 5
    ) -> None:
        super().__init__()
        self.length = length
        self.centres = nn.Parameter(torch.randn(gaussians))
        self.widths = nn.Parameter(0.1 * torch.randn(gaussians))
        self.mixture = nn.Parameter(torch.randn(out_channels, in_channels, gaussians))
        bound = in_channels**-0.5
        self.combination = nn.Parameter(torch.empty(out_channels, in_channels))
        nn.init.uniform_(self.combination, 0.5 * bound, 1.5 * bound)

    def gaussians(self) -> Tensor:
        """Return the Gaussians (M, L): rows of positive weights that sum to one."""
        centres = (self.length - 1) * (torch.tanh(self.centres) + 1) / 2
        positions = torch.arange(self.length, device=centres.device, dtype=centres.dtype)
        distance = positions - centres.unsqueeze(1)
        # The softmax of the exponents is the normalised Gaussian, without underflow.
        return torch.softmax(-(distance**2) / (2 * torch.exp(self.widths).unsqueeze(1)), dim=1)

    def kernels(self) -> Tensor:
        """Return the mixed kernels (out, in, L): rows of positive weights that sum to one."""
        return torch.softmax(self.mixture, dim=2) @ self.gaussians()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, D, T) to (B, out, D, T)."""
        batch, channels, dims, time = x.shape
        # Convolving per input channel and combining is one convolution with weighted kernels.
        weight = self.kernels() * self.combination.unsqueeze(2)
        rows = x.transpose(1, 2).reshape(batch * dims, channels, time)
        mixed = nn.functional.conv1d(rows, weight, padding=self.length // 2)
        return mixed.reshape(batch, dims, -1, time).transpose(1, 2)


class TGM(TemporalFilter):
    """Three temporal Gaussian mixture layers beside the features (Piergiovanni and Ryoo 2019).

    The features are projected to C dimensions first, so that memory does not depend on the
    encoder. The layers keep 8 channels each; their maximum over channels joins the projected
    features, and a 1x1 convolution with ReLU gives the feature map.
    """

    CHANNELS = 8

    def __init__(self, settings: FilterSettings, in_features: int, classes: int) -> None:
        super().__init__(settings, in_features, classes)
        depth = settings.layers or 3
        self.projection = nn.Conv1d(in_features, settings.channels, 1)
        self.layers = nn.ModuleList(
            GaussianMixtureConv(1 if number == 0 else self.CHANNELS, self.CHANNELS)
            for number in range(depth)
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.hidden = nn.Conv1d(2 * settings.channels, settings.channels, 1)

    def feature_map(self, x: Tensor, mask: Tensor) -> Tensor:
        projected = self.projection(x).masked_fill(~mask, 0.0)
        events = projected.unsqueeze(1)
        for layer in self.layers:
            events = layer(events).masked_fill(~mask.unsqueeze(1), 0.0)
        joined = torch.cat((projected, events.amax(dim=1)), dim=1)
        return torch.relu(self.hidden(self.dropout(joined)))


class LSTM(TemporalFilter):
    """Bidirectional LSTM with C / 2 units in each direction.

    Sequences are packed, so that the backward direction starts at the last valid snippet.
    """

    def __init__(self, settings: FilterSettings, in_features: int, classes: int) -> None:
        super().__init__(settings, in_features, classes)
        if settings.channels % 2:
            raise UsageError(
                f"the bidirectional LSTM cannot have {settings.channels} channels",
                remedy="give an even number",
            )
        depth = settings.layers or 1
        self.dropout = nn.Dropout(settings.dropout)
        self.lstm = nn.LSTM(
            in_features,
            settings.channels // 2,
            num_layers=depth,
            batch_first=True,
            bidirectional=True,
            dropout=settings.dropout if depth > 1 else 0.0,
        )

    def feature_map(self, x: Tensor, mask: Tensor) -> Tensor:
        valid = mask.squeeze(1)
        lengths = valid.sum(dim=1)
        if bool((valid[:, 1:] & ~valid[:, :-1]).any()):
            raise ValueError("valid snippets must come first in every row of the mask")
        # A row without a valid snippet cannot be packed; what it gives is masked afterwards.
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(x.transpose(1, 2)),
            lengths.clamp(min=1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        output, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=x.shape[2]
        )
        return output.transpose(1, 2)


FILTERS: Table[type[TemporalFilter]] = Table(
    "vidkd.filters",
    "temporal filter",
    {
        "ss-tcn": SSTCN,
        "causal-ss-tcn": CausalSSTCN,
        "local-attention": LocalAttention,
        "tgm": TGM,
        "lstm": LSTM,
    },
)
"""Temporal filters by kind (:attr:`vidkd.recipe.FilterSettings.kind`)."""


def build_temporal_filter(
    settings: FilterSettings, in_features: int, classes: int
) -> TemporalFilter:
    """Build a filter with fresh weights, in training mode.

    Args:
        settings: kind, channels C, layers, dropout, noise and levels of the segment head.
        in_features: D, the width of a snippet's features.
        classes: K.

    Raises:
        UsageError: there is no such kind, or the settings do not fit it.
    """
    module = FILTERS[settings.kind](settings, in_features, classes)
    if settings.levels:
        if module.causal:
            raise UsageError(
                f"the filter {settings.kind} sees no future, and a segment head would",
                remedy="train it with --levels 0",
            )
        # After the filter, whose first random weights are then the same with and without a head.
        module.head = SegmentHead(settings.channels, classes, settings.levels, settings.dropout)
    return module
