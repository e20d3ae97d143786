"""Detection as a service: videos by HTTP, results as JSON and as a page."""

from __future__ import annotations

from vidkd.serve.server import serve

__all__ = ["serve"]
