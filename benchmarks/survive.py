"""Compare a small run, killed at twenty random moments, with one that is left alone.

``python benchmarks/survive.py [--kills 20] [--seed 0]`` checks that both end the same.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from runs import finish, record, settings, start, write_data


def main() -> int:
    """Print one line a kill; 0 if the end is the same to the bit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_data(folder / "data")
        length = (
            f"train.epoch_size={3 * options.kills}",
            "train.save_every=1",
            "train.validate_every=5",
        )
        runs = {
            kind: settings(data, folder / kind / "run", *length) for kind in ("whole", "killed")
        }
        for kind in runs:
            (folder / kind).mkdir()
        begun = time.perf_counter()
        code, text = finish(start(runs["whole"], folder / "whole"))
        assert code == 0, text
        longest = time.perf_counter() - begun
        for number in range(options.kills):
            process = start(runs["killed"], folder / "killed")
            moment = rng.uniform(0, longest / 2)
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            finish(process)
            torn = [path.name for path in (folder / "killed" / "run").glob("*.part*")]
            print(
                f"kill {number + 1:2}: after {moment:5.2f} s, "
                f"files half written: {', '.join(torn) or 'none'}",
                flush=True,
            )
        code, text = finish(start(runs["killed"], folder / "killed"))
        same = code == 0 and record(folder / "whole" / "run") == record(folder / "killed" / "run")
    print("weights, history and validation are the same to the bit" if same else "NOT the same")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
