"""Saving, as a method of every estimator that can be fitted."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Saved"]


class Saved:
    """Offers :meth:`save`; what is written is what ``_get_state`` returns."""

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to a folder of JSON and safetensors files; see :func:`diabolo.load`.

        The folder is whole or as it was before: a crash never leaves a half-written one over a good one.

        Parameters
        ----------
        path : str or Path
            The folder; made where it is missing.
        """
        from diabolo.persistence import save

        save(self, path)
