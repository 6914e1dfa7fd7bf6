"""The check on a GPU: results compared with the CPU's, training, out-of-memory, kill and restart.

    make check-gpu

Everything is left in one folder: `results.json` (figures, machine, driver, versions, commit), a
log for each part, the profiles.
"""

import argparse
import shutil
import sys
from pathlib import Path

from pipeline.experiments.gpu.parts import PARTS
from pipeline.experiments.gpu.runner import as_text, choose_parts, run_parts


def main() -> None:
    """Run the check and print its table; the exit code is 1 if a part is not well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a small rehearsal")
    parser.add_argument("--out", type=Path, default=Path("check-gpu"), help="replaced")
    parser.add_argument("--commit", help="of the code, where git is not at hand")
    parser.add_argument("--parts", help=f"some of {','.join(PARTS)}")
    arguments = parser.parse_args()
    folder = arguments.out.absolute()
    parts = choose_parts(PARTS, arguments.parts)
    shutil.rmtree(folder, ignore_errors=True)
    results = run_parts(parts, arguments.device, folder, commit=arguments.commit)
    sys.stdout.write(as_text(results))
    sys.exit(any(part["status"] != "ok" for part in results["parts"].values()))


if __name__ == "__main__":
    main()
