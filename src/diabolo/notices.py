"""Warnings that point at the line of the user's own."""

from __future__ import annotations

import sys
import warnings
from itertools import count

OURS = ("diabolo", "sklearn")  # an estimator is often called through a pipeline or a search


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line outside this library, however deep the call came from.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("half of the code is not in use")
    >>> str(caught[0].message)
    'half of the code is not in use'
    """
    for level in count(1):
        try:
            name = sys._getframe(level).f_globals.get("__name__", "")
        except ValueError:  # nobody else is there: a command line
            break
        if name.partition(".")[0] not in OURS:
            break
    warnings.warn(message, category, stacklevel=level + 1)
