#!/usr/bin/env python3
"""Turns results into lines and lines into the last line. Used by tests/run.

    report.py junit FILE PART      ctest's JUnit file -> "status TAB seconds TAB part TAB name" lines,
                                   one for each cmocka test where a program printed them
    report.py summary FILE         failures, the ten slowest, and "N passed, N failed, N skipped"
"""

import re
import sys
import xml.etree.ElementTree as ET

MARK = re.compile(r"^\[\s*(OK|FAILED|SKIPPED|ERROR)\s*\]\s+([A-Za-z_]\w*)\b", re.M)
STATUS = {"OK": "pass", "FAILED": "fail", "ERROR": "fail", "SKIPPED": "skip"}


def junit(path, part):
    for program in ET.parse(path).getroot().iter("testcase"):
        name, seconds = program.get("name"), float(program.get("time") or 0)
        text = "".join(e.text or "" for e in program.iter("system-out"))
        failed = program.find("failure") is not None or program.get("status") == "fail"
        cases = {}
        for mark, case in MARK.findall(text):
            cases[case] = max(cases.get(case, "pass"), STATUS[mark], key=["pass", "skip", "fail"].index)
        if failed and "fail" not in cases.values():
            cases["(the program)"] = "fail"  # it crashed, leaked or ran out of time
        skipped = program.find("skipped")
        if skipped is not None and not cases:
            failed = "Unable to find" in (skipped.get("message") or "")
            cases["(the program)"] = "fail" if failed else "skip"
        print(f"{'fail' if failed else 'skip' if set(cases.values()) == {'skip'} else 'time'}"
              f"\t{seconds:.2f}\t{part}\t{name}" if cases else
              f"{'fail' if failed else 'pass'}\t{seconds:.2f}\t{part}\t{name}")
        for case, status in cases.items():
            print(f"{status}\t0\t{part}\t{name}: {case}")


def summary(path):
    with open(path, encoding="utf-8") as f:
        rows = [line.rstrip("\n").split("\t") for line in f]
    # A program whose cases are counted is itself counted only by its time.
    with_cases = {(r[2], r[3].partition(": ")[0]) for r in rows if ": " in r[3]}
    counted = [r for r in rows if r[0] != "time" and (r[2], r[3]) not in with_cases]
    for status, _, part, name in counted:
        if status == "fail":
            print(f"FAILED  {part}: {name}")
    slowest = sorted((r for r in rows if float(r[1]) > 0), key=lambda r: -float(r[1]))[:10]
    if slowest:
        print("Slowest:")
        for _, seconds, part, name in slowest:
            print(f"  {float(seconds):7.1f} s  {part}: {name}")
    n = {s: sum(r[0] == s for r in counted) for s in ("pass", "fail", "skip")}
    print(f"{n['pass']} passed, {n['fail']} failed, {n['skip']} skipped")
    return 0 if n["fail"] == 0 and n["pass"] + n["skip"] > 0 else 1


if __name__ == "__main__":
    if sys.argv[1] == "junit":
        junit(sys.argv[2], sys.argv[3])
    else:
        sys.exit(summary(sys.argv[2]))
