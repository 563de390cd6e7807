"""Targets, each into something real, with every row that arrives compared to what the service holds."""

import datetime
import functools
import json
import re

from bench import TAP, Folder, Sandbox, compare, environment, expect, lines, run, shared, tap, venv, write_json
from postgres import Postgres

# Payloads of every shape that JSON has, as text.
OBJECTS = [
    '{"price": 10.00, "big": 123456789012345678901234567890, "tiny": 1e-7, "third": 0.1, "ok": true, "none": null}',
    '{"nested": [1, [2, {"a": [], "b": {}}]], "text": "\\"quoted\\", back \\\\ slash, na\\u00efve \U0001f697\\n\\ttab"}',
    "{}",
    '{"": "no name", "A": 1, "a": 2, "select": "*", "with space": "a,b;c\'d"}',
    "[]",
    '[1, "two", null, [true]]',
]
SCALARS = ['"text"', '"123"', '"null"', '"[1]"', '""', "42", "-0.5", "true", "null"]

# Cars as a partner might register them; some leave fields out, and one has a field that the schema does not know.
CAR_SCHEMA = {
    "type": "object",
    "required": ["make"],
    "properties": {
        "make": {"type": "string"},
        "price": {"type": "number"},
        "doors": {"type": "integer"},
        "sold": {"type": "boolean"},
        "extras": {"type": "array", "items": {"type": "string"}},
        "seller": {"type": "object", "properties": {"name": {"type": "string"}, "cars": {"type": "integer"}}},
    },
}
CARS = [
    '{"make": "Toyota", "price": 6250.00, "doors": 4, "sold": false, "extras": ["radio", "roof"],'
    ' "seller": {"name": "Ann", "cars": 3}}',
    '{"make": "Škoda", "price": 4700.5, "doors": 2, "sold": true, "extras": [], "seller": {"name": "Bob", "cars": 12}}',
    '{"make": "BMW", "price": 22000, "doors": 4}',
    '{"make": "Volvo", "seller": {"name": "Cy \\"the van\\" O\'Neill"}}',
    '{"make": "Ford", "price": 0.1, "colour": "red"}',
]


def instant(stamp):
    """The moment of a record's time stamp, whose zone is also named in brackets (RFC 9557)."""
    return datetime.datetime.fromisoformat(stamp.partition("[")[0]).astimezone(datetime.timezone.utc)


def in_utc(row):
    """The row with the time stamp that a column of a database holds, which has no zone and is meant in UTC."""
    moment = datetime.datetime.fromisoformat(row["recordTimeStampISO"])
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
    return row | {"recordTimeStampISO": moment.isoformat()}


# --- singer-python and singer-tools ----------------------------------------------------------------------------------

PARSE = """
import collections, json, sys, singer
from decimal import Decimal
kinds = collections.Counter()
for line in sys.stdin:
    message = singer.parse_message(line)
    kinds[type(message).__name__] += 1
    if isinstance(message, singer.RecordMessage):
        print(json.dumps(message.record, default=lambda number: "decimal:" + str(number)))
print(json.dumps(kinds), file=sys.stderr)
"""

CATALOG = """
import json, sys, singer
catalog = singer.Catalog.load(sys.argv[1])
chosen = [entry.stream for entry in catalog.get_selected_streams({})]
entry = catalog.get_stream("records")
known = singer.metadata.to_map(entry.metadata)
print(json.dumps({
    "selected": chosen,
    "keys": entry.key_properties,
    "table-keys": singer.metadata.get(known, (), "table-key-properties"),
    "inclusion": {path[1]: about["inclusion"] for path, about in known.items() if len(path) == 2},
}))
"""


def singer_check_tap_accepts_the_output():
    """Of a first run, and of one with the state that it has printed. (With `--tap` it would run the tap itself, but it looks at
    the result without waiting for its own reader.)"""
    with Sandbox(250) as sandbox, Folder() as folder:
        sandbox.write(OBJECTS + SCALARS)
        count = 250 + len(OBJECTS + SCALARS)
        first = tap(sandbox, folder, acknowledge="commit")
        check_tap(first, count)
        state = write_json(folder / "state.json", lines(first)[-1]["value"])
        sandbox.write(OBJECTS)
        check_tap(run([TAP, "--config", folder / "config.json", "--state", state]).stdout, len(OBJECTS))
        return f"{count} records, with the state {len(OBJECTS)} new ones"


def check_tap(output, count):
    said = run([venv("singer") / "singer-check-tap"], input=output).stdout
    found = re.search(r"^ *(\d+) record messages", said, re.MULTILINE)
    expect(found and int(found[1]) == count, f"it did not count {count} records:\n{said}")


def singer_python_parses_every_message():
    with Sandbox(250) as sandbox, Folder() as folder:
        sandbox.write(OBJECTS + SCALARS)
        written = sandbox.records()
        parsed = run([venv("singer") / "python", "-c", PARSE], input=tap(sandbox, folder))
        kinds = json.loads(parsed.stderr)
        expected = {"SchemaMessage": 1, "RecordMessage": len(written), "StateMessage": kinds.get("StateMessage")}
        expect(kinds == expected and kinds["StateMessage"], f"it found {kinds}")
        return f"{compare(written, numbers(lines(parsed.stdout)))} records"


def numbers(value):
    """Puts the numbers back that singer-python has as decimals."""
    from decimal import Decimal

    match value:
        case str() if value.startswith("decimal:"):
            return Decimal(value.removeprefix("decimal:"))
        case list():
            return [numbers(item) for item in value]
        case dict():
            return {key: numbers(item) for key, item in value.items()}
    return value


def singer_python_reads_the_catalog():
    with Folder() as folder:
        catalog = folder / "catalog.json"
        catalog.write_text(run([TAP, "--discover"]).stdout)
        found = json.loads(run([venv("singer") / "python", "-c", CATALOG, catalog]).stdout)
        keys = ["recordId", "recordTimeStampISO"]
        expect(found["keys"] == keys and found["table-keys"] == keys, f"key properties: {found}")
        automatic = [name for name, inclusion in found["inclusion"].items() if inclusion == "automatic"]
        expect(automatic == keys, f"automatic fields: {automatic}")
        expect(len(found["inclusion"]) == 5, f"fields: {found}")


# --- target-jsonl ----------------------------------------------------------------------------------------------------


def jsonl(output, folder):
    """Loads into target-jsonl with its default settings: files in the folder it runs in."""
    run([venv("jsonl") / "target-jsonl"], input=output, cwd=folder)
    return [row for path in sorted(folder.glob("records-*.jsonl")) for row in lines(path.read_text(encoding="utf-8"))]


def jsonl_at_default_settings():
    with Sandbox(1200) as sandbox, Folder() as folder:
        sandbox.write(OBJECTS + SCALARS)
        first = compare(sandbox.records(), jsonl(tap(sandbox, folder), folder))
        sandbox.write(OBJECTS)
        both = compare(sandbox.records(), jsonl(tap(sandbox, folder), folder))
        expect(sandbox.unread() == 0, "records are left unread")
        return f"{first} rows, after a second run {both}"


def jsonl_with_rfc3339():
    with Sandbox(250) as sandbox, Folder() as folder:
        rows = jsonl(tap(sandbox, folder, timestampFormat="rfc3339"), folder)
        for row in rows:
            stamp = row["recordTimeStampISO"]
            expect(stamp.endswith("Z") and "[" not in stamp, f"no RFC 3339 in UTC: {stamp}")
        return f"{compare(by_instant(sandbox.records()), by_instant(rows))} rows"


def by_instant(rows):
    return [row | {"recordTimeStampISO": instant(row["recordTimeStampISO"]).isoformat()} for row in rows]


# --- target-duckdb ---------------------------------------------------------------------------------------------------

DUCKDB_ROWS = """
import duckdb, json, sys
database = duckdb.connect(sys.argv[1], read_only=True)
rows = database.execute("select * from main.records")
names = [column[0] for column in rows.description]
for row in rows.fetchall():
    print(json.dumps(dict(zip(names, row)), default=str))
types = database.execute("select column_name, data_type from duckdb_columns() where table_name = 'records'").fetchall()
print(json.dumps(dict(types)), file=sys.stderr)
"""

# It writes names in small letters.
NAMES = {name.lower(): name for name in ["recordId", "streamId", "recordTimeStampISO", "readStatus", "dataPayload"]}


def duckdb(output, folder):
    """Loads into target-duckdb and returns the rows and the columns' types. It reads `false` as a boolean, and JSON back as
    text."""
    database = folder / "records.duckdb"
    # Small batches, so that a row lost at the border of one is seen.
    settings = {"filepath": str(database), "default_target_schema": "main", "batch_size_rows": 50}
    config = write_json(folder / "duckdb.json", settings)
    run([venv("duckdb") / "target-duckdb", "--config", config], input=output)
    found = run([venv("duckdb") / "python", "-c", DUCKDB_ROWS, database])
    types = {NAMES.get(name, name): kind for name, kind in json.loads(found.stderr).items()}
    rows = []
    for row in lines(found.stdout):
        row = {NAMES.get(name, name): value for name, value in row.items()}
        expect(row["readStatus"] is False, f"readStatus is {row['readStatus']!r}")
        row["readStatus"] = "false"
        [row["dataPayload"]] = [None] if row["dataPayload"] is None else lines(row["dataPayload"])
        rows.append(row)
    return rows, types


def duckdb_at_default_settings():
    # A payload that is a bare string or boolean does not go into its JSON column, whoever sends it, since it writes Python's
    # text of it into a CSV file. `payloadFormat: string` is for those.
    payloads = OBJECTS + ["42", "-0.5", "null"]
    with Sandbox(1200) as sandbox, Folder() as folder:
        sandbox.write(payloads)
        output = tap(sandbox, folder)
        first = compare(sandbox.records(), duckdb(output, folder)[0])
        again = compare(sandbox.records(), duckdb(output, folder)[0])
        sandbox.write(OBJECTS)
        more = compare(sandbox.records(), duckdb(tap(sandbox, folder), folder)[0])
        return f"{first} rows, the same output again {again}, after a second run {more}"


def duckdb_with_payload_format_string():
    with Sandbox(250) as sandbox, Folder() as folder:
        sandbox.write(OBJECTS + SCALARS)
        rows, types = duckdb(tap(sandbox, folder, payloadFormat="string"), folder)
        expect(types["dataPayload"] == "VARCHAR", f"dataPayload is {types['dataPayload']}")
        return f"{compare(sandbox.records(), rows)} rows"


def duckdb_with_rfc3339():
    with Sandbox(250) as sandbox, Folder() as folder:
        rows, types = duckdb(tap(sandbox, folder, timestampFormat="rfc3339"), folder)
        kind = types["recordTimeStampISO"]
        expect(kind.startswith("TIMESTAMP"), f"recordTimeStampISO is {kind}")
        return f"{compare(by_instant(sandbox.records()), by_instant(map(in_utc, rows)))} rows, {kind}"


def duckdb_with_a_payload_schema(source):
    with Sandbox() as sandbox, Folder() as folder:
        sandbox.register(CAR_SCHEMA)
        sandbox.write(CARS)
        rows, _ = duckdb(tap(sandbox, folder, payloadSchema=source), folder)
        return f"{compare(sandbox.records(), rows)} rows"


# --- target-postgres -------------------------------------------------------------------------------------------------

@functools.cache
def server():
    """The one server for all checks, started by the first."""
    return shared.enter_context(Postgres())


class Loaded:
    """A schema of its own in the server, and the target that loads into it."""

    def __init__(self, name, folder, **settings):
        self.target = venv("postgres") / "target-postgres"
        self.server = server()
        self.table = f"{name}.records"
        settings = self.server.target_config() | {"default_target_schema": name} | settings
        self.config = write_json(folder / f"{name}.json", settings)

    def load(self, output, **variables):
        """Loads, and returns the rows without the target's own columns."""
        run([self.target, "--config", self.config], input=output, env=environment(**variables))
        rows = self.server.query(f"select * from {self.table}")
        return [{name: value for name, value in row.items() if not name.startswith("_sdc_")} for row in rows]

    def moments(self):
        """The instant of each record, taking the column for one in the zone of the connection."""
        moment = '"recordTimeStampISO" at time zone current_setting(\'TimeZone\')'
        return self.server.query(f'select "recordId", {moment} as moment from {self.table}')

    def columns(self):
        return self.server.columns(self.table)


def postgres_at_default_settings():
    with Sandbox(1200) as sandbox, Folder() as folder:
        loaded = Loaded("defaults", folder)
        sandbox.write(OBJECTS + SCALARS)
        output = tap(sandbox, folder)
        first = compare(sandbox.records(), loaded.load(output))
        again = compare(sandbox.records(), loaded.load(output))
        sandbox.write(OBJECTS)
        more = compare(sandbox.records(), loaded.load(tap(sandbox, folder)))
        types = loaded.columns()
        expect(types["dataPayload"] == "jsonb" and types["recordId"] == "text", f"columns: {types}")
        return f"{first} rows, the same output again {again}, after a second run {more}"


def postgres_with_rfc3339():
    """The target makes a column without a zone, and fills it in the zone of its connection: the server's, or what PGTZ says."""
    with Sandbox(250) as sandbox, Folder() as folder:
        output = tap(sandbox, folder, timestampFormat="rfc3339")
        written = by_instant(sandbox.records())

        utc = Loaded("rfc3339_utc", folder)
        utc.load(output, PGTZ="UTC")
        rows = utc.load(output, PGTZ="UTC")
        kind = utc.columns()["recordTimeStampISO"]
        expect(kind.startswith("timestamp"), f"recordTimeStampISO is {kind}")
        count = compare(written, by_instant(map(in_utc, rows)))

        local = Loaded("rfc3339_local", folder)
        rows = local.load(output)
        moments = {row["recordId"]: row["moment"] for row in local.moments()}
        rows = [row | {"recordTimeStampISO": moments[row["recordId"]]} for row in rows]
        compare(written, by_instant(rows))
        return f"{count} rows, {kind}; in the zone of the server {len(rows)}"


def postgres_with_payload_format_string():
    with Sandbox(250) as sandbox, Folder() as folder:
        loaded = Loaded("text", folder)
        sandbox.write(OBJECTS + SCALARS)
        rows = loaded.load(tap(sandbox, folder, payloadFormat="string"))
        expect(loaded.columns()["dataPayload"] == "text", f"columns: {loaded.columns()}")
        for row in rows:
            [row["dataPayload"]] = [None] if row["dataPayload"] is None else lines(row["dataPayload"])
        return f"{compare(sandbox.records(), rows)} rows"


def postgres_with_a_payload_schema(source):
    """A typed payload: as it is, and flattened into a column for each field."""
    with Sandbox() as sandbox, Folder() as folder:
        sandbox.register(CAR_SCHEMA)
        sandbox.write(CARS)
        output = tap(sandbox, folder, payloadSchema=source)
        written = sandbox.records()
        count = compare(written, Loaded(source, folder).load(output))
        flat = Loaded(f"{source}_flat", folder, flattening_enabled=True, flattening_max_depth=2)
        rows = flat.load(output)
        types = {name: kind for name, kind in flat.columns().items() if name.startswith("dataPayload__")}
        for name, kind in {"make": "text", "price": "numeric", "doors": "bigint", "sold": "boolean"}.items():
            found = types.get(f"dataPayload__{name}")
            expect(found == kind, f"the column for {name} is {found}, not {kind}; all: {types}")
        compare([flattened(record, types) for record in written], rows)
        return f"{count} rows, flattened into {len(types)} columns"


def flattened(record, types):
    """A record as the target flattens it: a column for each field that the schema knows; an array as its JSON text."""
    row = {name: value for name, value in record.items() if name != "dataPayload"}
    for column in types:
        value = record["dataPayload"]
        for name in column.split("__")[1:]:
            value = value.get(name) if isinstance(value, dict) else None
        row[column] = json.dumps(value, separators=(",", ":")) if isinstance(value, list) else value
    return row


CHECKS = [
    ("singer-check-tap accepts the output", singer_check_tap_accepts_the_output),
    ("singer-python parses every message", singer_python_parses_every_message),
    ("singer-python reads the catalog", singer_python_reads_the_catalog),
    ("target-jsonl, default settings", jsonl_at_default_settings),
    ("target-jsonl, timestampFormat rfc3339", jsonl_with_rfc3339),
    ("target-duckdb, default settings", duckdb_at_default_settings),
    ("target-duckdb, payloadFormat string", duckdb_with_payload_format_string),
    ("target-duckdb, timestampFormat rfc3339", duckdb_with_rfc3339),
    ("target-duckdb, payloadSchema registered", functools.partial(duckdb_with_a_payload_schema, "registered")),
    ("target-duckdb, payloadSchema sampled", functools.partial(duckdb_with_a_payload_schema, "sampled")),
    ("target-postgres, default settings", postgres_at_default_settings),
    ("target-postgres, payloadFormat string", postgres_with_payload_format_string),
    ("target-postgres, timestampFormat rfc3339", postgres_with_rfc3339),
    ("target-postgres, payloadSchema registered", functools.partial(postgres_with_a_payload_schema, "registered")),
    ("target-postgres, payloadSchema sampled", functools.partial(postgres_with_a_payload_schema, "sampled")),
]
