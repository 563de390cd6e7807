"""Rows as they are written and as they are loaded, and an exact comparison of the two."""

import collections
import datetime
import decimal
import json
import sys

# Payloads of every JSON type, as text.
OBJECTS = [
    '{"price": 10.00, "big": 123456789012345678901234567890, "tiny": 1e-7, "third": 0.1, "ok": true, "none": null}',
    '{"nested": [1, [2, {"a": [], "b": {}}]], "text": "\\"quoted\\", back \\\\ slash, na\\u00efve \U0001f697\\n\\ttab"}',
    "{}",
    '{"": "no name", "A": 1, "a": 2, "select": "*", "with space": "a,b;c\'d"}',
    "[]",
    '[1, "two", null, [true]]',
]
SCALARS = ['"text"', '"123"', '"null"', '"[1]"', '""', "42", "-0.5", "true", "null"]

# A schema as a partner might register it. Some cars leave fields out, and one has a field that the schema does not know.
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


# Payloads for runs one after the other, whose columns no target can take as they come.
ODD_RUNS = [
    ['{"price": 1, "seller": {"name": "Ann"}, "km (old)": "6", "sold": null}', '{"seller": "gone", "price": "N/A"}'],
    ['{"price": 1.5, "sold": true, "id": 18446744073709551616, "text": "a\\u0000b"}', '{"Price": 1, "seller": {"cars": 2.50}}'],
    ['{"price": 2, "it\'s": 1, "sold": "yes", "text": "\\ud800", "seller": {"name": 7}}', '{"text": "ok", "new": {"er": -0.5}}'],
    ['"text"', "[1, 2.50]", '{"price": 123456789012345678901234567890, "text": "x", "new": {"er": 1e400}}'],
]

# Names and values that a target might not take as they are.
ODD_KEYS = (
    '{"": 1, "%s": 2, "{x}": 3, "a:b": 4, "ключ": 5, "a.b": 6, "a__b": 7, "$": 8, "x-y": 9, "/": 10, "a\\u0000": 11,'
    ' "dataPayload": 12, "records": {"recordId": 13}, "' + "long" * 20 + '": 14, "\\ud800": 15, "a\\"b": 16}'
)
ODD_VALUES = [
    '{"text": "", "line": "one\\r\\ntwo", "empty": [], "deep": {"a": {"b": {"c": {"d": [1.50, {"e": null}]}}}}}',
    '{"text": "\\\\.", "line": "a\\\\nb", "empty": {}, "deep": {"a": "no object"}}',
    '{"text": "NULL", "line": " \\u2028\\u007f ", "most": 9223372036854775807, "more": 9223372036854775808}',
    '{"text": "=1+1", "line": "\\u001f", "most": -9007199254740993, "more": 1.0, "exact": 0.123456789012345}',
    '{"text": "false", "line": "{}", "most": "7", "more": 7, "exact": 0.12345678901234567}',
]

# More digits and levels than most parsers take, and than Python takes without the next two lines.
HUGE = ['{"price": ' + "7" * 5000 + "}", "[" * 1200 + "]" * 1200]
sys.set_int_max_str_digits(0)
sys.setrecursionlimit(10_000)

# Records of every kind, for runs one after the other.
EVERY_KIND = [OBJECTS + ODD_RUNS[0], ODD_VALUES + ODD_RUNS[1] + HUGE, [ODD_KEYS] + ODD_RUNS[2] + CARS, SCALARS + ODD_RUNS[3]]


def whole(row):
    """A row whose payload is put together again from its columns, nested or flattened, and the rest. Fields that are null are gone."""
    row = dict(row)
    columns, rest = row.pop("dataPayload", {}), row.pop("dataPayloadRest")
    for name in [name for name in row if name.startswith("dataPayload__")]:
        *path, leaf = name.split("__")[1:]
        inner = columns
        for step in path:
            inner = inner.setdefault(step, {})
        inner[leaf] = row.pop(name)
    if columns.get("extras") is not None:
        columns["extras"] = parse(columns["extras"])
    rest = parse(rest) if rest else {}
    return row | {"dataPayload": joined(columns, rest) if isinstance(rest, dict) else rest}


def joined(columns, rest):
    """Two nested objects in one, without what is null."""
    both = {}
    for name in columns | rest:
        one, other = columns.get(name), rest.get(name)
        value = joined(one or {}, other or {}) if isinstance(one, dict) or isinstance(other, dict) else one if other is None else other
        if value not in (None, {}):
            both[name] = value
    return both


def parse(text):
    """The value of a JSON text, without rounding its numbers."""
    return json.loads(text, parse_float=decimal.Decimal)


def parse_lines(text):
    # A text may hold what Python takes for the end of a line, such as U+2028.
    return [parse(line) for line in text.split("\n") if line]


def read_lines(path):
    return parse_lines(path.read_text(encoding="utf-8"))


def write_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def assert_loaded(loaded, written):
    """The loaded rows are the written ones, each once, in any order."""
    count = collections.Counter(map(identity, loaded))
    wanted = {identity(row): row for row in written}
    assert len(wanted) == len(written) > 0, "the written rows are not distinct, or there are none"
    assert [row for row in count if count[row] > 1] == [], "rows loaded more than once"
    assert [row for row in wanted if row not in count] == [], "rows missing"
    assert [row for row in count if row not in wanted] == [], "rows never written"
    for row in loaded:
        assert canonical(row) == canonical(wanted[identity(row)])


def identity(row):
    return row["recordId"], row["recordTimeStampISO"]


def canonical(value):
    """A JSON value as text with numbers by their value: 10.00 equals 10, but true does not equal 1."""
    match value:
        case bool() | None | str():
            return json.dumps(value)
        case int() | decimal.Decimal():
            return format(decimal.Decimal(value).normalize(decimal.Context(prec=5000)), "f")
        case list():
            return f"[{','.join([canonical(each) for each in value])}]"
        case dict():
            return f"{{{','.join([f'{json.dumps(key)}:{canonical(value[key])}' for key in sorted(value)])}}}"
    raise TypeError(type(value))


def at_instants(rows):
    """The rows with each time stamp as its instant in UTC. A time stamp without a zone is taken as UTC."""
    return [row | {"recordTimeStampISO": instant(row["recordTimeStampISO"]).isoformat()} for row in rows]


def extracted(output):
    """When each record of the tap's output was read from the service, by its id."""
    messages = [message for message in parse_lines(output) if message["type"] == "RECORD"]
    return {message["record"]["recordId"]: instant(message["time_extracted"]) for message in messages}


def instant(stamp):
    """The instant of a time stamp, which may also name its zone in brackets (RFC 9557)."""
    moment = datetime.datetime.fromisoformat(stamp.partition("[")[0])
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).astimezone(datetime.timezone.utc)
