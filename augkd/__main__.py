"""The command `augkd` as `python -m augkd`, for launchers that start a module, like torchrun."""

from __future__ import annotations

from augkd.cli.app import main

if __name__ == "__main__":
    main()
