"""`python -m tests.mutation retry table`: judge the mutants of these modules (of all); show survivors not explained."""

import argparse
import json
import os
import sys
from collections import Counter

from tests.mutation.court import Verdict, judge, open_court
from tests.mutation.mutants import modules, mutants_of
from tests.mutation.survivors import explained


def main() -> int:
    """Judge what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("module", nargs="*", choices=[[], *modules()], help="of the core; all without one")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many mutants at a time")
    parser.add_argument("--json", action="store_true", help="a line for each mutant: its key, the verdict, the test")
    options = parser.parse_args()
    open_court()
    mutants = [mutant for module in options.module or modules() for mutant in mutants_of(module)]
    known = explained()
    counts: Counter[Verdict] = Counter()
    for judged in judge(mutants, options.workers):
        counts[judged.verdict] += 1
        if options.json:
            print(json.dumps([*judged.mutant.key, judged.verdict.value, judged.by]), flush=True)
        elif judged.verdict is Verdict.SURVIVED and not any(entry.covers(judged.mutant.key) for entry in known):
            print(f"{judged.mutant}\n", flush=True)
    if not options.json:
        print(", ".join(f"{verdict.value}: {count}" for verdict, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
