"""The bench that checks stand on: a sandbox, the tap, virtual environments, and a comparison that forgives nothing."""

import collections
import contextlib
import decimal
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "ecosystem"
TARGET = (ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).resolve()
TAP = TARGET / "debug" / "tap-streamduo"
SANDBOX = TARGET / "debug" / "streamduo-sandbox"

# What pip and Meltano build stays between runs here; everything else is gone afterwards.
KEPT = TARGET / "ecosystem"

# The longest that any one program may take, in seconds. Never waited for unless something hangs.
PATIENCE = 900

READ_RECORDS = "https://api.streamduo.com/read:records"
MANAGE_STREAMS = "https://api.streamduo.com/manage:streams"


class Skip(Exception):
    """A check that cannot run here, and why."""


class Wrong(Exception):
    """A check that ran and found something wrong."""


def expect(condition, problem):
    if not condition:
        raise Wrong(problem)


def environment(**more):
    """The environment without settings of a tap or of Meltano that happen to be there, and with these."""
    prefixes = ("TAP_STREAMDUO", "MELTANO_", "PG", "SINGER_SDK_", "VIRTUAL_ENV", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | {name: str(value) for name, value in more.items()}


running = set()


def start(command, **options):
    """Starts a program in a process group of its own, which ends with this one."""
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("env", environment())
    process = subprocess.Popen([str(word) for word in command], start_new_session=True, **options)
    running.add(process)
    return process


def end(process, how=signal.SIGKILL):
    """Ends a program and what it has started."""
    try:
        os.killpg(process.pid, how)
    except ProcessLookupError:
        pass
    process.wait()
    running.discard(process)


def end_all():
    for process in list(running):
        end(process)


def run(command, input=None, code=0, **options):
    """Runs a program to its end and returns what it wrote to stdout; wrong unless it ends with this code (None: any)."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    process = start(command, **(pipes | options))
    try:
        stdout, stderr = process.communicate(input, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Wrong(f"{shown(command)} did not end within {PATIENCE} s") from None
    finally:
        end(process)
    if code is not None and process.returncode != code:
        said = "\n".join(f"{stdout}\n{stderr or ''}".strip().splitlines()[-25:])
        raise Wrong(f"{shown(command)} ended with {process.returncode} instead of {code}:\n{said}")
    return Ended(process.returncode, stdout, stderr)


Ended = collections.namedtuple("Ended", "code stdout stderr")


def shown(command):
    return " ".join(pathlib.Path(word).name if i == 0 else str(word) for i, word in enumerate(command))


# What the first check that needs it makes for all: it is gone when the last one has ended.
shared = contextlib.ExitStack()


class Folder:
    """A temporary folder, gone at the end of the `with`. `public` lets other users look into it."""

    def __init__(self, public=False):
        self.public = public

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="tap-streamduo-"))
        if self.public:
            self.path.chmod(0o755)
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def write_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


# Why an environment cannot be made, so that it is tried once.
missing = {}


def venv(name):
    """The folder of programs of a virtual environment with the requirements of this name; made once and kept."""
    if name in missing:
        raise Skip(missing[name])
    requirements = HERE / f"requirements-{name}.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode() + str(KEPT).encode()).hexdigest()[:12]
    place = KEPT / f"venv-{name}-{key}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        make_venv(place)
        pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        ended = run([*pip, "--requirement", requirements], code=None)
        if ended.code != 0:
            last = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ["pip said nothing"]
            missing[name] = f"pip cannot install {requirements.name}: {last[-1]}"
            raise Skip(missing[name])
        (place / "complete").touch()
    return place / "bin"


def make_venv(place):
    run([sys.executable, "-m", "venv", place])


class Sandbox:
    """A sandbox that serves until the end of the `with`. `config` holds the tap's settings for its stream."""

    def __init__(self, records=0):
        self.records_to_begin_with = records

    def __enter__(self):
        command = [SANDBOX, "serve", "--records", self.records_to_begin_with]
        self.process = start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        text = ""
        # It prints an object over several lines, once it listens, and nothing after it.
        for line in self.process.stdout:
            text += line
            if line.rstrip() == "}":
                break
        self.config = json.loads(text)
        self.stream = self.config["streamId"]
        return self

    def __exit__(self, *_):
        end(self.process)
        self.process.stdout.close()

    def token(self, scope):
        names = {"client_id": "clientId", "client_secret": "clientSecret"}
        form = {"grant_type": "client_credentials", "scope": scope}
        form |= {name: self.config[setting] for name, setting in names.items()}
        body = urllib.parse.urlencode(form).encode()
        with OPENER.open(urllib.request.Request(self.config["authUrl"], body)) as answer:
            return json.load(answer)["access_token"]

    def call(self, path, body=None, scope=READ_RECORDS):
        """Calls the API as a producer or an owner would. The body is JSON text."""
        headers = {"authorization": f"Bearer {self.token(scope)}", "content-type": "application/json"}
        body = None if body is None else body.encode()
        with OPENER.open(urllib.request.Request(self.config["apiUrl"] + path, body, headers)) as answer:
            return json.load(answer, parse_float=decimal.Decimal)

    def write(self, payloads, stream=None):
        """Writes a record for each payload, which is JSON text."""
        for payload in payloads:
            self.call(f"/stream/{stream or self.stream}/record", f'{{"recordId": null, "dataPayload": {payload}}}')

    def _records(self, kind, stream):
        request = {
            "readRecordRequestType": kind,
            "recordCount": 100_000,
            "recordId": None,
            "markAsRead": False,
            "recordTimeStampISO": None,
        }
        return self.call(f"/stream/{stream or self.stream}/record-request", json.dumps(request))

    def records(self, stream=None):
        """All records of the stream as the service has them. They show as unread, which is how a tap sees them."""
        return [record | {"readStatus": "false"} for record in self._records("LAST_N", stream)]

    def unread(self, stream=None):
        return len(self._records("UNREAD", stream))

    def create_stream(self, name):
        return self.call("/stream", json.dumps({"displayName": name}), MANAGE_STREAMS)["streamId"]

    def register(self, schema):
        """Makes this JSON schema the stream's active one."""
        body = json.dumps({"schema": schema, "schemaType": "JSON"})
        schema_id = self.call(f"/streams/{self.stream}/schemas", body)["schemaId"]
        self.call(f"/stream/{self.stream}/schemas/active", json.dumps({"schemaId": schema_id}))


# Past whatever proxy the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def tap(sandbox, folder, **settings):
    """Runs the tap to its end and returns its output."""
    config = write_json(folder / "config.json", sandbox.config | settings)
    return run([TAP, "--config", config]).stdout


def plain(value):
    """A JSON value as text, numbers by their value: 10.00 and 10 are one, true and 1 are two."""
    match value:
        case bool() | None | str():
            return json.dumps(value)
        case int() | float() | decimal.Decimal():
            return format(decimal.Decimal(str(value)).normalize(EXACT), "f")
        case list():
            return f"[{','.join(map(plain, value))}]"
        case dict():
            return f"{{{','.join(f'{json.dumps(key)}:{plain(value[key])}' for key in sorted(value))}}}"
    raise TypeError(type(value))


EXACT = decimal.Context(prec=100)


def compare(expected, loaded, key=("recordId", "recordTimeStampISO")):
    """Wrong unless the two hold the same rows, each once, in whatever order. Returns how many."""
    identity = lambda row: tuple(row[name] for name in key)
    counted = collections.Counter(map(identity, loaded))
    twice = [row for row, count in counted.items() if count > 1]
    expect(not twice, f"{len(twice)} rows are there more than once, for example {twice[:1]}")
    wanted = {identity(row): row for row in expected}
    expect(len(wanted) == len(expected), "the records to compare with are not distinct")
    missing = [row for row in wanted if row not in counted]
    expect(not missing, f"{len(missing)} of {len(wanted)} rows are missing, for example {missing[:1]}")
    strange = [row for row in counted if row not in wanted]
    expect(not strange, f"{len(strange)} rows nobody wrote, for example {strange[:1]}")
    for row in loaded:
        want = wanted[identity(row)]
        expect(plain(row) == plain(want), f"a row differs:\n  loaded  {plain(row)}\n  written {plain(want)}")
    return len(loaded)


def lines(text):
    return [json.loads(line, parse_float=decimal.Decimal) for line in text.splitlines()]
