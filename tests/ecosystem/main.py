"""Runs the checks, says what came of each, and ends with one line that counts them."""

import os
import signal
import sys
import time
import traceback

import bench
import deployed
import documents
import installed
import meltano
import targets

CHECKS = documents.CHECKS + targets.CHECKS + meltano.CHECKS + deployed.CHECKS + installed.CHECKS


def main(words):
    if words == ["-l"]:
        print("\n".join(name for name, _ in CHECKS))
        return 0
    # So that what a check has started ends with it, however it ends.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    chosen = [(name, check) for name, check in CHECKS if not words or any(word in name for word in words)]
    outcomes = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    try:
        for name, check in chosen:
            started = time.monotonic()
            outcome, detail = attempt(check)
            outcomes[outcome] += 1
            print(f"{outcome} {name} ({time.monotonic() - started:.1f} s){detail and ': '}{detail}", flush=True)
    finally:
        bench.end_all()
        bench.shared.close()
    passed, failed, skipped = outcomes.values()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    # What proved nothing did not pass.
    wrong = failed or not passed or (skipped and os.environ.get("ECOSYSTEM_ALL", "0") != "0")
    return 1 if wrong else 0


def attempt(check):
    try:
        return "PASS", check() or ""
    except bench.Skip as reason:
        return "SKIP", str(reason)
    except bench.Wrong as problem:
        return "FAIL", str(problem)
    except Exception:
        return "FAIL", traceback.format_exc().strip()
    finally:
        bench.end_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
