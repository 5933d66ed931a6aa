#!/usr/bin/env python3
"""Cluster cases: tests/cluster/run.py --bin BUILD/bin [NAME...]; called by tests/run."""

import argparse
import fnmatch
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness  # noqa: E402
from lab.cluster import LabError, end_on_signals  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True, help="folder of the built programs")
    parser.add_argument("--results", help="append 'status seconds part name' lines to this file")
    parser.add_argument("--logs", default="/tmp/dragent-cluster-logs", help="where logs of failures go")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*", help="cases, also with * and ?")
    args = parser.parse_args()
    for module in ("cases_basic", "cases_agent", "cases_net", "cases_ops", "cases_hostile"):
        __import__(module)
    if args.list:
        for c in harness.CASES:
            print(f"{c.name:26} {c.budget:3} s  {c.function.__doc__.splitlines()[0]}")
        return 0
    chosen = [c for c in harness.CASES
              if not args.names or any(fnmatch.fnmatch(c.name, n) for n in args.names)]
    if not chosen:
        print(f"no case is named {' '.join(args.names)}", file=sys.stderr)
        return 2
    os.makedirs(args.logs, exist_ok=True)
    end_on_signals()
    try:
        return 1 if harness.Runner(args.bin, args.logs, args.results).run(chosen) else 0
    except LabError as e:
        print(f"FAIL: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
