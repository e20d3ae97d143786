"""The page on which people look at results beside their video, and correct them."""

from __future__ import annotations

from vidkd.view.offline import write_page
from vidkd.view.project import Model, Project, load_models
from vidkd.view.server import application, serve

__all__ = ["Model", "Project", "application", "load_models", "serve", "write_page"]
