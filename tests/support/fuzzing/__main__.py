"""make fuzz: the long form."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

from support.fuzzing.cases import Tally, run
from support.fuzzing.targets import targets
from support.fuzzing.world import make_world
from support.tiny import save_tiny_bert


def main() -> int:
    """Runs all targets; status 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="the name of a target (repeatable)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    tally, started = Tally(), time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "world").mkdir()
        world = make_world(folder / "world", save_tiny_bert(folder / "tiny-bert"))
        chosen = {name: one for name, one in targets(world, folder).items() if not options.only or name in options.only}
        shares = sum(share for _, share in chosen.values())
        for name, (case, share) in chosen.items():
            begun = time.perf_counter()
            run(name, case, -(-options.cases * share // shares), tally, options.seed)
            seconds = time.perf_counter() - begun
            failed = sum(place.startswith(f"{name}: ") for place in tally.failures)
            print(
                f"{name}: {tally.cases[name]:,} cases in {seconds:.0f} s, {failed} failures",
                file=sys.stderr,
                flush=True,
            )
    print("\n".join(tally.report()))
    print(f"{time.perf_counter() - started:.0f} s")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
