"""What is in deploy/: the scripts run as a scheduler would run them, the rest held against what knows its form."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time

from bench import PATIENCE, ROOT, TAP, Folder, Sandbox, Skip, Wrong, compare, end, environment, expect, lines, run, start
from bench import venv, write_json
from documents import readme_settings

DEPLOY = ROOT / "deploy"
UNITS = ["streamduo-load@.service", "streamduo-load@.timer", "streamduo-follow@.service"]


def path(**more):
    """The environment of a scheduler's job: the tap on the PATH, and little else."""
    return environment(PATH=f"{TAP.parent}:/usr/local/bin:/usr/bin:/bin", **more)


def target(folder):
    config = write_json(folder / "target.json", {"destination_path": str(folder), "do_timestamp_file": False})
    return [venv("jsonl") / "target-jsonl", "--config", config]


def loaded(folder):
    file = folder / "records.jsonl"
    return lines(file.read_text(encoding="utf-8")) if file.exists() else []


def load_loads_once_and_marks_in_the_next_run():
    with Sandbox(250) as sandbox, Folder() as folder:
        write_json(folder / "config.json", sandbox.config)
        load = [DEPLOY / "load.sh", "config.json", folder, *target(folder)]
        run(load, env=path(), cwd=folder)
        compare(sandbox.records(), loaded(folder))
        expect(sandbox.unread() == 250, f"{sandbox.unread()} of 250 are unread after the first run")

        # A run whose target fails marks what is proved, and leaves the rest for the next one.
        sandbox.write(['{"new": 1}', '{"new": 2}'])
        failing = [DEPLOY / "load.sh", "config.json", folder, "sh", "-c", "cat > /dev/null; exit 3"]
        run(failing, env=path(), cwd=folder, code=3)
        expect(sandbox.unread() == 2, f"{sandbox.unread()} are unread, not the 2 new ones")

        # Settings may come from the environment alone.
        variables = {f"TAP_STREAMDUO_{name.upper()}": value for name, value in sandbox.config.items()}
        run([DEPLOY / "load.sh", "ENV", folder, *target(folder)], env=path(**variables), cwd="/")
        count = compare(sandbox.records(), loaded(folder))
        run(load, env=path(), cwd=folder)
        expect(sandbox.unread() == 0, f"{sandbox.unread()} are unread in the end")
        compare(sandbox.records(), loaded(folder))
        return f"{count} rows"


def load_lets_no_second_run_in():
    with Sandbox(12) as sandbox, Folder() as folder, open(folder / "lock", "w") as lock:
        write_json(folder / "config.json", sandbox.config)
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run([DEPLOY / "load.sh", folder / "config.json", folder, *target(folder)], env=path())
        expect("another run is under way" in ended.stderr, f"it said {ended.stderr!r}")
        expect(not loaded(folder), "it has loaded records nevertheless")


def follow_loses_nothing_when_stopped():
    """Stopped while all that the tap has marked is still in the pipe: the target takes nothing before there is a file `go`."""
    with Sandbox(100) as sandbox, Folder() as folder:
        config = write_json(folder / "config.json", sandbox.config | {"pollIntervalSeconds": 0})
        slow = ["sh", "-c", 'until [ -e go ]; do sleep 0.01; done; exec "$@"', "slow", *target(folder)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        follow = start([DEPLOY / "follow.sh", config, *slow], env=path(), cwd=folder, **quiet)
        wait_for(lambda: sandbox.unread() == 0)
        sandbox.write(f'{{"new": {number}}}' for number in range(30))
        wait_for(lambda: sandbox.unread() == 0)
        expect(not loaded(folder), "the target was to wait")
        # As systemd does it with KillMode=mixed.
        os.kill(follow.pid, signal.SIGTERM)
        (folder / "go").touch()
        code = follow.wait(PATIENCE)
        end(follow)
        expect(code == 143, f"it ended with {code}")
        return f"{compare(sandbox.records(), loaded(folder))} rows"


def wait_for(event):
    deadline = time.monotonic() + 120
    while not event():
        if time.monotonic() > deadline:
            raise Wrong("what was waited for has not happened within 120 s")
        time.sleep(0.01)


def systemd_takes_the_units():
    verify = shutil.which("systemd-analyze")
    if verify is None:
        raise Skip("there is no systemd-analyze")
    with Folder() as folder:
        for name in UNITS:
            # The scripts where they are, so that it finds them.
            text = (DEPLOY / "systemd" / name).read_text().replace("/usr/local/lib/streamduo", str(DEPLOY))
            (folder / name).write_text(text)
        for name in UNITS:
            ended = run([verify, "verify", "--man=no", folder / name.replace("@", "@orders")], code=None)
            expect(ended.code == 0 and not ended.stderr, f"{name}: {ended.stderr}")


def kubernetes_takes_the_manifest():
    manifest = DEPLOY / "kubernetes" / "cronjob.yaml"
    programs = venv("kubernetes")
    run([programs / "kubernetes-validate", "--strict", manifest])
    read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    secret, _, job = json.loads(run([programs / "python", "-c", read, manifest]).stdout)
    known = {f"TAP_STREAMDUO_{name.upper()}" for name in readme_settings()}
    expect(set(secret["stringData"]) <= known, f"no settings: {set(secret['stringData']) - known}")
    expect(job["spec"]["concurrencyPolicy"] == "Forbid", "two jobs of one stream may overlap")


CHECKS = [
    ("deploy/load.sh loads once, and marks in the next run", load_loads_once_and_marks_in_the_next_run),
    ("deploy/load.sh lets no second run in", load_lets_no_second_run_in),
    ("deploy/follow.sh loses nothing when it is stopped", follow_loses_nothing_when_stopped),
    ("deploy/systemd is valid", systemd_takes_the_units),
    ("deploy/kubernetes is valid", kubernetes_takes_the_manifest),
]
