r"""``python -m deepinv_lvtino``."""

from __future__ import annotations

import sys

from deepinv_lvtino.cli import main

if __name__ == "__main__":
    sys.exit(main())
