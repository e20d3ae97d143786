"""Putting models on the Hugging Face hub, each with a page that says what it is."""

from __future__ import annotations

from vidkd.sharing.card import model_card
from vidkd.sharing.model import SharedModel, read_model
from vidkd.sharing.push import push

__all__ = ["SharedModel", "model_card", "push", "read_model"]
