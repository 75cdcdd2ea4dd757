"""``python -m diabolo`` is ``diabolo``."""

from __future__ import annotations

from diabolo.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
