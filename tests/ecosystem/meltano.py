"""Meltano with the project at the root of the repository, against the sandbox."""

import contextlib
import functools
import json
import re
import shutil

from bench import HERE, KEPT, ROOT, TAP, Folder, Sandbox, compare, environment, expect, lines, run, shared, venv
from installed import clone
from targets import DUCKDB_ROWS, NAMES

SEVERAL = "deploy/meltano/several-streams.meltano.yml"


class Project:
    """A Meltano project in a folder of its own: the repository's meltano.yml as it stands, and deploy's streams."""

    def __init__(self):
        for loader in ["jsonl", "duckdb"]:
            # Not to find out from Meltano's install that a package cannot be had.
            venv(loader)
        self.meltano = venv("meltano") / "meltano"
        self.root = shared.enter_context(Folder())
        text = (ROOT / "meltano.yml").read_text(encoding="utf-8")
        (self.root / "meltano.yml").write_text(f"{text}include_paths:\n- {SEVERAL}\n", encoding="utf-8")
        (self.root / SEVERAL).parent.mkdir(parents=True)
        shutil.copy(ROOT / SEVERAL, self.root / SEVERAL)
        self("install", "--clean")

    def __call__(self, *words, sandbox=None, code=0, **more):
        """Runs Meltano with the sandbox's settings in the environment, as secrets come in."""
        path = f"{TAP.parent}:/usr/local/bin:/usr/bin:/bin"
        settings = {f"TAP_STREAMDUO_{name.upper()}": value for name, value in (sandbox.config if sandbox else {}).items()}
        env = environment(PATH=path, MELTANO_CLI_LOG_COLORS="false", NO_COLOR="1", **(settings | more))
        return run([self.meltano, *words], cwd=self.root, env=env, code=code)


@functools.cache
def project():
    """The one project for all checks. They keep apart by the state's id and by where the rows go."""
    return Project()


class Load:
    """Runs the tap into a loader, time after time, with a state of its own."""

    def __init__(self, name, sandbox, folder):
        self.sandbox = sandbox
        self.words = ["run", f"--state-id-suffix={name}"]
        self.database = folder / "records.duckdb"
        self.folder = folder
        self.settings = {
            "TARGET_JSONL_DESTINATION_PATH": folder,
            "TARGET_DUCKDB_FILEPATH": self.database,
            "TARGET_DUCKDB_BATCH_SIZE_ROWS": 100,
        }

    def into(self, loader, code=0, **more):
        words = [*self.words, "tap-streamduo", loader]
        return project()(*words, sandbox=self.sandbox, code=code, **(self.settings | more))

    def jsonl(self):
        return lines((self.folder / "records.jsonl").read_text(encoding="utf-8"))

    def duckdb(self):
        rows = []
        for row in lines(run([venv("duckdb") / "python", "-c", DUCKDB_ROWS, self.database]).stdout):
            row = {NAMES.get(name, name): value for name, value in row.items()}
            rows.append(row | {"readStatus": "false", "dataPayload": json.loads(row["dataPayload"])})
        return rows


def config_test_marks_nothing():
    with Sandbox(250) as sandbox:
        ended = project()("config", "test", "tap-streamduo", sandbox=sandbox)
        expect("is valid" in ended.stdout + ended.stderr, f"Meltano said:\n{ended.stdout}{ended.stderr}")
        expect(sandbox.unread() == 250, f"{sandbox.unread()} of 250 are unread")
        ended = project()("config", "test", "tap-streamduo", sandbox=sandbox, code=None, TAP_STREAMDUO_CLIENTSECRET="no")
        expect(ended.code != 0, "a wrong secret passes the test")


def select_lists_every_field():
    with Sandbox(3) as sandbox:
        listed = project()("select", "tap-streamduo", "--list", "--all", sandbox=sandbox).stdout
        found = dict(reversed(pair) for pair in re.findall(r"\[(\w+)\s*\] records\.(\S+)", listed))
        expected = {
            "recordId": "automatic",
            "recordTimeStampISO": "automatic",
            "streamId": "selected",
            "readStatus": "selected",
            "dataPayload": "selected",
        }
        expect(found == expected, f"Meltano lists {found}:\n{listed}")
        expect(sandbox.unread() == 3, "records are marked as read")


def what_is_deselected_is_not_loaded():
    with Sandbox(120) as sandbox, Folder() as folder:
        load = Load("select", sandbox, folder)
        load.into("target-jsonl", TAP_STREAMDUO__SELECT='["*.*", "!*.readStatus", "!*.streamId"]')
        written = sandbox.records()
        for record in written:
            del record["readStatus"], record["streamId"]
        return f"{compare(written, load.jsonl())} rows"


def run_twice_into_target_jsonl():
    return run_thrice("target-jsonl", Load.jsonl)


def run_twice_into_target_duckdb():
    return run_thrice("target-duckdb", Load.duckdb)


def run_thrice(loader, rows):
    """Every run loads what is new, once, and marks what the one before it has loaded. (target-duckdb keeps a STATE back that
    comes after its last batch, so the count is no multiple of a batch.)"""
    with Sandbox(310) as sandbox, Folder() as folder:
        load = Load(loader, sandbox, folder)
        load.into(loader)
        compare(sandbox.records(), rows(load))
        expect(sandbox.unread() == 310, f"after a first run {sandbox.unread()} of 310 are unread")
        sandbox.write(f'{{"new": {number}}}' for number in range(20))
        load.into(loader)
        compare(sandbox.records(), rows(load))
        expect(sandbox.unread() == 20, f"after a second run {sandbox.unread()} are unread, not the 20 new ones")
        load.into(loader)
        count = compare(sandbox.records(), rows(load))
        expect(sandbox.unread() == 0, f"after a third run {sandbox.unread()} are unread")
        return f"{count} rows"


@contextlib.contextmanager
def killed_loader():
    """Within it, target-duckdb is one that is killed in the middle."""
    program = project().root / ".meltano/loaders/target-duckdb/venv/bin/target-duckdb"
    real = program.with_name("real-loader")
    program.rename(real)
    shutil.copy(HERE / "killed_target.py", program)
    try:
        yield
    finally:
        real.replace(program)
    killed = project().root / "killed"
    expect(killed.exists(), "the loader was not killed")
    killed.unlink()


def a_loader_killed_before_it_commits_loses_nothing():
    return a_killed_loader("after-150-lines", covered=0)


def a_loader_killed_after_a_commit_loses_nothing():
    return a_killed_loader("after-a-state", covered=100)


def a_killed_loader(when, covered):
    """`covered`: how many records the STATE tells of that the loader prints before it dies."""
    with Sandbox(730) as sandbox, Folder() as folder:
        load = Load(when, sandbox, folder)
        with killed_loader():
            ended = load.into("target-duckdb", code=None, KILL=when)
        expect(ended.code != 0, "Meltano takes a run whose loader was killed for a good one")
        expect(sandbox.unread() == 730, f"a run whose loader was killed has marked {730 - sandbox.unread()} records")
        load.into("target-duckdb")
        compare(sandbox.records(), load.duckdb())
        marked = 730 - sandbox.unread()
        expect(marked == covered, f"the next run has marked {marked} records, not the {covered} that were committed")
        load.into("target-duckdb")
        count = compare(sandbox.records(), load.duckdb())
        expect(sandbox.unread() == 0, f"{sandbox.unread()} are unread in the end")
        return f"{count} rows, {covered} of them committed by the killed loader"


def log_lines_keep_their_level_and_metrics():
    with Sandbox(12) as sandbox, Folder() as folder:
        load = Load("logs", sandbox, folder)
        load.words.insert(0, "--log-format=json")
        metrics = [line["metric_info"] for line in from_tap(load.into("target-jsonl")) if "metric_info" in line]
        counted = [metric["value"] for metric in metrics if metric["metric"] == "record_count"]
        expect(sum(counted) == 12, f"metrics: {metrics}")
        said = from_tap(load.into("target-jsonl", code=None, TAP_STREAMDUO_STREAMID="nowhere"))
        critical = [line["event"] for line in said if line["level"] == "critical"]
        expect(len(critical) == 1 and "nowhere" in critical[0], f"critical lines: {critical}")


def from_tap(ended):
    """The tap's log lines, as Meltano logs them."""
    every = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    return [line for line in every if line.get("string_id") == "tap-streamduo" and line.get("stdio") == "stderr"]


def several_streams_side_by_side():
    with Sandbox() as sandbox, Folder() as folder:
        streams = {name: sandbox.create_stream(name) for name in ["orders", "prices"]}
        for number, (name, stream) in enumerate(streams.items()):
            sandbox.write((f'{{"{name}": {n}}}' for n in range(12 + number)), stream)
        ids = {f"TAP_STREAMDUO_{name.upper()}_STREAMID": stream for name, stream in streams.items()}
        settings = ids | {"TARGET_JSONL_DESTINATION_PATH": folder}
        for name, stream in streams.items():
            project()("run", f"load-{name}", sandbox=sandbox, **settings)
            rows = lines((folder / f"{name}.jsonl").read_text(encoding="utf-8"))
            compare(sandbox.records(stream), rows)
        listed = json.loads(project()("schedule", "list", "--format=json").stdout)
        names = [schedule["name"] for schedule in listed["schedules"]["job"]]
        expect(names == ["orders-every-ten-minutes", "prices-every-hour"], f"schedules: {listed}")
        project()("schedule", "run", "orders-every-ten-minutes", sandbox=sandbox, **settings)
        unread = {name: sandbox.unread(stream) for name, stream in streams.items()}
        expect(unread == {"orders": 0, "prices": 13}, f"unread: {unread}")


def meltano_builds_it_from_pip_url():
    """With the `pip_url` line of meltano.yml in place of the `executable` line."""
    with Sandbox(12) as sandbox, Folder() as folder:
        repository = clone(folder / "clone")
        file = repository / "meltano.yml"
        text = file.read_text(encoding="utf-8")
        changed = text.replace("    # pip_url: .\n", "    pip_url: .\n").replace("    executable: tap-streamduo\n", "")
        expect(len(changed) == len(text) - 2 - len("    executable: tap-streamduo\n"), "meltano.yml has no such lines")
        file.write_text(changed, encoding="utf-8")
        meltano = venv("meltano") / "meltano"
        env = environment(CARGO_TARGET_DIR=KEPT / "build")
        run([meltano, "install", "extractor", "tap-streamduo"], cwd=repository, env=env)
        ended = run([meltano, "invoke", "tap-streamduo", "--version"], cwd=repository, env=env)
        expect("tap-streamduo " in ended.stdout, f"it said {ended.stdout!r}")
        settings = {f"TAP_STREAMDUO_{name.upper()}": value for name, value in sandbox.config.items()}
        run([meltano, "config", "test", "tap-streamduo"], cwd=repository, env=env | settings)
        return ended.stdout.strip()


CHECKS = [
    ("Meltano: config test marks nothing", config_test_marks_nothing),
    ("Meltano: select lists every field", select_lists_every_field),
    ("Meltano: what is deselected is not loaded", what_is_deselected_is_not_loaded),
    ("Meltano: run into target-jsonl", run_twice_into_target_jsonl),
    ("Meltano: run into target-duckdb", run_twice_into_target_duckdb),
    ("Meltano: a loader killed before it commits loses nothing", a_loader_killed_before_it_commits_loses_nothing),
    ("Meltano: a loader killed after a commit loses nothing", a_loader_killed_after_a_commit_loses_nothing),
    ("Meltano: log lines keep their level and metrics", log_lines_keep_their_level_and_metrics),
    ("Meltano: several streams side by side", several_streams_side_by_side),
    ("Meltano: pip_url in place of executable", meltano_builds_it_from_pip_url),
]
