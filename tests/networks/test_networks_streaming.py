"""Filters run snippet by snippet against the same filters on whole videos."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.errors import UsageError
from vidkd.networks import build_temporal_filter
from vidkd.networks.streaming import StreamingFilter
from vidkd.recipe import FilterSettings


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 90),
    layers=st.integers(1, 6),
    channels=st.integers(4, 9),
    width=st.integers(1, 7),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_carried_state_gives_what_the_whole_video_gives(
    length: int, layers: int, channels: int, width: int, batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    chosen = FilterSettings(kind="causal-ss-tcn", channels=channels, layers=layers, levels=0)
    module = build_temporal_filter(chosen, width, 4).eval()
    rows = 3 + 2 * torch.randn(batch, length, width)
    module.standardise(rows)
    streaming = StreamingFilter(module)
    state, found = streaming.start(batch), []
    shapes = [part.shape for part in state]
    with torch.inference_mode():
        whole = module(rows, torch.ones(batch, length, dtype=torch.bool)).logits
        for snippet in rows.unbind(1):
            logits, *state = streaming(snippet, *state)
            found.append(logits)
            assert [part.shape for part in state] == shapes
    torch.testing.assert_close(torch.stack(found, 1), whole, atol=1e-5, rtol=1e-5)


def test_streams_of_a_batch_do_not_see_each_other() -> None:
    chosen = FilterSettings(kind="causal-ss-tcn", channels=8, layers=3, levels=0)
    streaming = StreamingFilter(build_temporal_filter(chosen, 5, 2).eval())
    one, two = torch.randn(2, 12, 5)
    together, alone = streaming.start(2), streaming.start()
    with torch.inference_mode():
        for left, right in zip(one, two, strict=True):
            both, *together = streaming(torch.stack((left, right)), *together)
            own, *alone = streaming(left[None], *alone)
            torch.testing.assert_close(both[:1], own)


@pytest.mark.parametrize("kind", ["ss-tcn", "tgm", "lstm", "local-attention"])
def test_filters_that_see_the_future_are_refused(kind: str) -> None:
    module = build_temporal_filter(FilterSettings(kind=kind, channels=8, levels=0), 5, 2)
    with pytest.raises(UsageError, match=r"later snippets.*causal-ss-tcn"):
        StreamingFilter(module)


def test_a_causal_filter_that_does_not_say_how_it_steps_is_refused() -> None:
    module = build_temporal_filter(FilterSettings(kind="ss-tcn", channels=8, levels=0), 5, 2)
    module.causal = True
    with pytest.raises(UsageError, match="snippet by snippet"):
        StreamingFilter(module)
