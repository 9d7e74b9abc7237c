"""`augkd` with a fault in its third training step, for tests that launch several processes.

    python -m support.broken_rank fail|sleep RANK MARKER augkd-arguments…

The process RANK fails there, or makes the file MARKER and sleeps while the others wait for it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    fault, rank, marker = sys.argv[1:4]
    sys.argv = ["augkd", *sys.argv[4:]]
    from augkd.cli.app import main as augkd
    from augkd.distill.trainer import DistillationTrainer
    from augkd.errors import TrainingError

    step = DistillationTrainer.training_step

    def faulty(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if os.environ["RANK"] == rank and trainer.state.global_step == 2:
            if fault == "fail":
                raise TrainingError("no luck with this step")
            Path(marker).touch()
            time.sleep(120)
        return step(trainer, *args, **kwargs)

    DistillationTrainer.training_step = faulty
    augkd()


if __name__ == "__main__":
    main()
