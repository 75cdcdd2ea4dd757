"""How text says that a cell is missing."""

from __future__ import annotations

__all__ = ["MISSING"]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-", "<na>"})
