"""The command line ``diabolo``: every job over files, with flags generated from the models' parameters."""

from __future__ import annotations

from diabolo.cli.app import main

__all__ = ["main"]
