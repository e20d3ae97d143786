"""The rendered data set: people who act, with exact annotations and poses."""

from vidkd.synth.dataset import render_dataset
from vidkd.synth.part import CLASSES

__all__ = ["CLASSES", "render_dataset"]
