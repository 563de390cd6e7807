"""The tap runs real targets, with records of every kind: each value is read where it is stored."""

import csv
import io
import json
import re
import time

import pytest

import postgres
import s3
from processes import HERE, TAP, environment, run
from rows import EVERY_KIND, assert_loaded, at_instants, joined, parse, read_lines, write_json
from sandbox import Sandbox
from test_closed_loop import tap_with, wait_until


class Target:
    def __init__(self, command, rows, fold=str, stored=str, is_text=False, seconds=False):
        self.command = command
        # Reads the rows as they are stored.
        self.rows = rows
        # What becomes of a name.
        self.fold = fold
        # What becomes of a text in a column of its own.
        self.stored = stored
        # Whether every value is stored as text.
        self.is_text = is_text
        # Whether a run in the same second as the one before overwrites what that one has stored.
        self.seconds = seconds


def csv_target(command, texts, **more):
    """A target that writes CSV files, in which null and the empty text are the same."""

    def rows():
        found = [row for text in texts() for row in csv.DictReader(io.StringIO(text, newline=""))]
        return [{name: cell or None for name, cell in row.items()} for row in found]

    return Target(command, rows, stored=lambda text: text or None, is_text=True, **more)


def stored_by_pipelinewise_target_postgres(text):
    """Flattened, it stores an empty text as NULL, and a control character as JSON escapes it."""
    return re.sub(r"[\x00-\x1f]", lambda match: json.dumps(match[0])[1:-1], text) or None


def with_status_as_text(row, name):
    return row | {name: "false"} if row.get(name) is False else row


@pytest.fixture
def new_duckdb_target(duckdb_programs, tmp_path):
    """It writes names in lower case, and `readStatus` as a boolean. Flattened, an empty text is NULL."""

    def new(stored=str, **settings):
        file = tmp_path / "records.duckdb"
        config = write_json(tmp_path / "duckdb.json", {"filepath": str(file), "default_target_schema": "main"} | settings)

        def rows():
            found = parse(run([duckdb_programs / "python", HERE / "read_duckdb.py", file]).stdout)["rows"]
            return [with_status_as_text(row, "readStatus") for row in found]

        # The name of a field is put right when it is read.
        fold = lambda name: re.sub("__.*", lambda path: path[0].lower(), name)
        return Target([duckdb_programs / "target-duckdb", "--config", config], rows, fold, stored)

    return new


@pytest.fixture
def new_pipelinewise_target(pipelinewise_postgres_programs, postgres_server, tmp_path):
    """It writes names in lower case, and `readStatus` as a boolean."""

    def new(schema, stored=str, **settings):
        settings = {"dbname": postgres_server.database} | settings
        table = postgres.Table(pipelinewise_postgres_programs, postgres_server, tmp_path, schema, **settings)
        rows = lambda: [with_status_as_text(row, "readstatus") for row in table.rows()]
        return Target(table.target, rows, fold=str.lower, stored=stored)

    return new


TARGETS = [
    "target-jsonl",
    "target-duckdb",
    "target-postgres",
    "pipelinewise-target-postgres",
    "target-csv",
    "pipelinewise-target-s3-csv",
]
FLATTENING = ["target-duckdb-flattening", "target-postgres-flattening", "pipelinewise-target-postgres-flattening"]


@pytest.fixture
def target(request, tmp_path):
    schema = f"kinds_{tmp_path.name}".lower().replace("-", "_")
    match request.param:
        case "target-jsonl":
            config = write_json(tmp_path / "jsonl.json", {"destination_path": str(tmp_path), "do_timestamp_file": False})
            command = [request.getfixturevalue("jsonl_programs") / "target-jsonl", "--config", config]
            return Target(command, lambda: read_lines(tmp_path / "records.jsonl"))
        case "target-duckdb":
            return request.getfixturevalue("new_duckdb_target")()
        case "target-duckdb-flattening":
            new = request.getfixturevalue("new_duckdb_target")
            return new(lambda text: text or None, data_flattening_max_level=4)
        case "pipelinewise-target-postgres":
            return request.getfixturevalue("new_pipelinewise_target")(schema)
        case "pipelinewise-target-postgres-flattening":
            new = request.getfixturevalue("new_pipelinewise_target")
            return new(schema, stored_by_pipelinewise_target_postgres, data_flattening_max_level=4)
        case "target-postgres":
            table = request.getfixturevalue("new_table")(schema)
            return Target(table.target, table.rows)
        case "target-postgres-flattening":
            table = request.getfixturevalue("new_table")(schema, flattening_enabled=True, flattening_max_depth=4)
            return Target(table.target, table.rows)
        case "target-csv":
            # Without a time in its name, each start writes the same file anew. Without flattening,
            # an object is Python's text of it.
            settings = {"output_path": str(tmp_path), "file_naming_scheme": "{stream_name}-{timestamp}.csv"}
            settings |= {"timestamp_format": "%Y%m%dT%H%M%S.%f"}
            settings |= {"flattening_enabled": True, "flattening_max_depth": 4}
            config = write_json(tmp_path / "csv.json", settings)
            command = [request.getfixturevalue("csv_programs") / "target-csv", "--config", config]
            return csv_target(command, lambda: [path.read_bytes().decode() for path in tmp_path.glob("records-*.csv")])
        case "pipelinewise-target-s3-csv":
            bucket = request.getfixturevalue("bucket")
            settings = {"s3_bucket": "bucket", "aws_endpoint_url": f"http://127.0.0.1:{bucket.server_port}"}
            settings |= {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "temp_dir": str(tmp_path)}
            config = write_json(tmp_path / "s3-csv.json", settings)
            command = [request.getfixturevalue("s3_csv_programs") / "target-s3-csv", "--config", config]
            return csv_target(command, lambda: dict(bucket.objects).values(), seconds=True)


@pytest.fixture
def bucket():
    with s3.serve() as server:
        yield server
        paths = [path for path, _ in server.objects]
        assert len(set(paths)) == len(paths), "an object was overwritten"


def load(sandbox, target, folder, **settings):
    """Runs the tap with the target until the stream is drained."""
    command = tap_with(sandbox, folder, target.command, **settings)
    ended = run(command, cwd=folder, env=environment(PGTZ="UTC", NO_PROXY="127.0.0.1"))
    ended_at = int(time.time())
    assert "trying again" not in ended.stderr
    assert sandbox.unread() == 0
    if target.seconds:
        wait_until(lambda: int(time.time()) > ended_at)
    return ended.stderr


@pytest.mark.parametrize("target", TARGETS, indirect=True)
def test_every_kind_of_record_as_text(target, tmp_path):
    sandbox = Sandbox(250)
    for payloads in EVERY_KIND:
        sandbox.write(payloads)
    for starts in [2, 1]:
        log = load(sandbox, target, tmp_path, payloadFormat="string", maxPending=200)
        assert log.count(" is started\n") == starts
        found = [from_text(row, target.fold) for row in target.rows()]
        assert_loaded(found, sandbox.records())
        sandbox.write(EVERY_KIND[0])


# What is lost whatever the tap does: the target prints its last STATE, and ends with exit code 0.


@pytest.mark.parametrize("target", ["target-duckdb-flattening", "pipelinewise-target-postgres-flattening"], indirect=True)
def test_an_object_without_columns_is_null_in_a_target_that_flattens(target, tmp_path):
    sandbox = Sandbox(2)
    load(sandbox, target, tmp_path)
    assert [row[target.fold("dataPayload")] for row in target.rows()] == [None, None]


@pytest.mark.parametrize("target", ["pipelinewise-target-s3-csv"], indirect=True)
def test_objects_without_columns_are_mixed_up_by_pipelinewise_target_s3_csv(target, tmp_path):
    """It takes the names of the first record for all of them."""
    sandbox = Sandbox()
    sandbox.write(['{"one": 1}', '{"three": 3, "two": 2}', '{"four": 4}'])
    load(sandbox, target, tmp_path)
    assert [row["dataPayload__one"] for row in target.rows()] == ["1", "3", "4"]
    assert [row["readStatus"] for row in target.rows()] == ["false", "2", "false"]


def test_a_row_of_a_batch_whose_columns_are_all_text_is_lost_by_target_duckdb(new_duckdb_target, tmp_path):
    """DuckDB takes it for a header. A column of booleans, as `readStatus` is, keeps it from that."""
    sandbox, target = Sandbox(10), new_duckdb_target()
    settings = write_json(tmp_path / "settings.json", sandbox.config | {"payloadFormat": "string"})
    catalog = parse(run([TAP, "--config", settings, "--discover"]).stdout)
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"]["selected"] = entry["breadcrumb"][-1:] != ["readStatus"]
    selected = ["--catalog", write_json(tmp_path / "catalog.json", catalog)]
    run(tap_with(sandbox, tmp_path, target.command, *selected, payloadFormat="string"), cwd=tmp_path)
    assert sandbox.unread() == 0
    assert len(target.rows()) == 9


def from_text(row, fold):
    """A record whose payload was written as its JSON text."""
    record = {name: row.pop(fold(name)) for name in ["recordId", "streamId", "recordTimeStampISO", "readStatus", "dataPayload"]}
    assert row == {}
    return record | {"dataPayload": record["dataPayload"] and parse(record["dataPayload"])}


@pytest.mark.parametrize("target", TARGETS + FLATTENING, indirect=True)
def test_every_kind_of_record_as_columns(target, tmp_path):
    """Whatever types come in whatever run, every value is in its column or in the rest."""
    sandbox = Sandbox(3)
    columns_file = tmp_path / "columns.json"
    for payloads in EVERY_KIND:
        sandbox.write(payloads)
        settings = {"payloadSchema": "sampled", "columnsFile": str(columns_file), "timestampFormat": "rfc3339"}
        load(sandbox, target, tmp_path, **settings)
        columns = json.loads(columns_file.read_text(encoding="utf-8"))
        found = [from_columns(row, columns, target) for row in target.rows()]
        written = [record | {"dataPayload": as_stored(record["dataPayload"], columns, target)} for record in sandbox.records()]
        assert_loaded(at_instants(found), at_instants(written))


def from_columns(row, columns, target):
    """A record that was written as columns, nested or flattened. What is null in it is gone."""
    names = ["recordId", "streamId", "recordTimeStampISO", "readStatus", "dataPayloadRest"]
    record = {name: row.pop(target.fold(name)) for name in names}
    rest = parse(record.pop("dataPayloadRest") or "{}")
    nested = row.pop(target.fold("dataPayload"), None)
    nested = parse(nested) if isinstance(nested, str) else nested
    payload = {}
    for path, column in leaves(columns):
        cell = at(nested, path) if nested else row.pop(target.fold("__".join(["dataPayload", *path])), None)
        put(payload, path, value(cell, column, target))
    assert row == {}, "columns that the tap has not made"
    return record | {"dataPayload": joined(payload, rest) if isinstance(rest, dict) else rest}


def value(cell, column, target):
    if cell is None:
        return None
    if "contentMediaType" in column:
        return parse(cell)
    if "string" in column["type"]:
        return cell
    # Python's text of a number is JSON, and that of a boolean but for its capital letter.
    return parse(cell.lower()) if target.is_text else cell


def as_stored(payload, columns, target):
    """A payload as the target stores it in columns. What is null is gone."""
    if not isinstance(payload, dict):
        return {} if payload is None else payload
    for path, column in leaves(columns):
        text = at(payload, path)
        if "string" in column["type"] and isinstance(text, str) and FITS_A_COLUMN.fullmatch(text):
            put(payload, path, target.stored(text))
    return joined(payload, {})


FITS_A_COLUMN = re.compile(r"[^\0\ud800-\udfff]*")


def leaves(columns, path=()):
    """The path of each column, and what the file of columns says about it."""
    for name, column in columns["properties"].items():
        if "properties" in column:
            yield from leaves(column, (*path, name))
        else:
            yield (*path, name), column


def at(value, path):
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def put(value, path, leaf):
    for name in path[:-1]:
        value = value.setdefault(name, {})
    value[path[-1]] = leaf
