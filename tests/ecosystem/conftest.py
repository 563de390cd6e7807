"""What the checks share: virtual environments, a clone of the repository, and an end of everything that a check starts."""

import functools
import hashlib
import json
import re
import signal
import sys

import pytest

pytest.register_assert_rewrite("rows")

import postgres
from processes import HERE, KEPT, ROOT, end, is_set, run, running
from rows import parse


def pytest_sessionstart():
    # pytest.exit tears down all fixtures. Otherwise a signal would leave programs running.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _: pytest.exit(signal.Signals(number).name, 128 + number))


def pytest_sessionfinish(session, exitstatus):
    """With ECOSYSTEM_ALL=1 a skip fails the run."""
    outcomes = session.config.pluginmanager.get_plugin("terminalreporter").stats
    if exitstatus == pytest.ExitCode.OK and "skipped" in outcomes and is_set("ECOSYSTEM_ALL"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def end_running_programs(tmp_path):
    """Needs `tmp_path` only to end the programs before that folder is removed."""
    yield
    for process in list(running):
        end(process)


def venv_programs(name, *options):
    """A session fixture: the folder of programs of a virtual environment. It is kept between runs.

    pip installs requirements-NAME.txt, with these options.
    """

    def programs():
        requirements = HERE / f"requirements-{name}.txt"
        key = hashlib.sha256(requirements.read_bytes() + sys.version.encode() + str(KEPT).encode()).hexdigest()[:12]
        venv = KEPT / f"venv-{name}-{key}"
        if not (venv / "complete").exists():
            run([sys.executable, "-m", "venv", "--clear", venv])
            pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            ended = run([*pip, *options, "--requirement", requirements], code=None)
            if ended.returncode != 0:
                errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ["pip gives no reason"]
                pytest.skip(f"pip cannot install {requirements.name}: {errors[-1]}")
            (venv / "complete").touch()
        return venv / "bin"

    return pytest.fixture(programs, scope="session")


airflow_programs = venv_programs("airflow")
csv_programs = venv_programs("csv")
duckdb_programs = venv_programs("duckdb")
jsonl_programs = venv_programs("jsonl")
kubernetes_programs = venv_programs("kubernetes")
meltano_programs = venv_programs("meltano")
pipelinewise_postgres_programs = venv_programs("pipelinewise-postgres", "--no-deps")
postgres_programs = venv_programs("postgres")
s3_csv_programs = venv_programs("s3-csv", "--no-deps", "--ignore-requires-python")
singer_programs = venv_programs("singer")


@pytest.fixture(scope="session")
def read_duckdb(duckdb_programs):
    """Reads the rows that target-duckdb has loaded into a file, and the types of their columns."""

    def read(file):
        found = parse(run([duckdb_programs / "python", HERE / "read_duckdb.py", file]).stdout)
        for row in found["rows"]:
            # It loads the text `false` as a boolean, and JSON reads back as text.
            assert row["readStatus"] is False
            row["readStatus"] = "false"
            if row.get("dataPayload") is not None:
                row["dataPayload"] = parse(row["dataPayload"])
        return found["rows"], found["types"]

    return read


@pytest.fixture(scope="session")
def postgres_server():
    with postgres.serve() as server:
        yield server


@pytest.fixture
def new_table(postgres_programs, postgres_server, tmp_path):
    """Makes a table, given the name of its schema and settings of the target."""
    return functools.partial(postgres.Table, postgres_programs, postgres_server, tmp_path)


@pytest.fixture
def manifests(kubernetes_programs):
    """The manifests by their kind, each valid."""
    read = "import json, sys, yaml; print(json.dumps([yaml.safe_load(open(path)) for path in sys.argv[1:]]))"
    files = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
    for file in files:
        run([kubernetes_programs / "kubernetes-validate", "--strict", file])
    found = json.loads(run([kubernetes_programs / "python", "-c", read, *files]).stdout)
    return {manifest["kind"]: manifest for manifest in found}


@pytest.fixture
def clone(tmp_path):
    """A copy of the repository with what git holds or would add, as a user's clone has it."""
    listed = run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], code=None)
    if listed.returncode != 0:
        pytest.skip(f"there is nothing to clone: {listed.stderr.strip()}")
    for name in filter(None, listed.stdout.split("\0")):
        source, copy = ROOT / name, tmp_path / "clone" / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            # With a new modification time: cargo does not build a file that is older than its last build.
            copy.write_bytes(source.read_bytes())
            copy.chmod(source.stat().st_mode)
    return tmp_path / "clone"


@pytest.fixture(scope="session")
def page_settings():
    """The settings in the table of docs/settings.md, each with its default."""
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    section = text.partition("\n## All settings\n")[2].partition("\n## ")[0]
    settings = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`|required|no default) \|", section, re.MULTILINE))
    assert len(settings) > 10
    return settings
