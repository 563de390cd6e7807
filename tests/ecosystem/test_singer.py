"""singer-tools and singer-python accept what the tap prints."""

import decimal
import json
import re

from processes import TAP, run
from rows import OBJECTS, SCALARS, assert_loaded, parse_lines, write_json
from sandbox import Sandbox, run_tap

PARSE = """
import collections, json, sys, singer
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
list(catalog.get_selected_streams({}))
entry = catalog.get_stream("records")
metadata = singer.metadata.to_map(entry.metadata)
print(json.dumps({
    "keys": entry.key_properties,
    "table-keys": singer.metadata.get(metadata, (), "table-key-properties"),
    "inclusion": {path[1]: about["inclusion"] for path, about in metadata.items() if len(path) == 2},
}))
"""


def test_singer_check_tap_accepts_a_first_run_and_one_with_its_state(singer_programs, tmp_path):
    def check_tap(output):
        """Returns the number of records that it counts. (With `--tap` it would start the tap itself, but it looks at the result
        before it has read everything.)"""
        # It makes a folder where it runs.
        said = run([singer_programs / "singer-check-tap"], input=output, cwd=tmp_path).stdout
        return int(re.search(r"^ *(\d+) record messages", said, re.MULTILINE)[1])

    sandbox = Sandbox(250)
    sandbox.write(OBJECTS + SCALARS)
    output = run_tap(sandbox, tmp_path, acknowledge="commit")
    assert check_tap(output) == 250 + len(OBJECTS + SCALARS)

    state = write_json(tmp_path / "state.json", json.loads(output.splitlines()[-1])["value"])
    sandbox.write(OBJECTS)
    assert check_tap(run([TAP, "--config", tmp_path / "config.json", "--state", state]).stdout) == len(OBJECTS)


def test_singer_python_parses_every_message(singer_programs, tmp_path):
    sandbox = Sandbox(250)
    sandbox.write(OBJECTS + SCALARS)
    written = sandbox.records()
    parsed = run([singer_programs / "python", "-c", PARSE], input=run_tap(sandbox, tmp_path))
    kinds = json.loads(parsed.stderr)
    assert kinds.pop("StateMessage") > 0
    assert kinds == {"SchemaMessage": 1, "RecordMessage": len(written)}
    assert_loaded(restore_decimals(parse_lines(parsed.stdout)), written)


def restore_decimals(value):
    """Turns the texts that PARSE prints for decimals back into numbers."""
    match value:
        case str() if value.startswith("decimal:"):
            return decimal.Decimal(value.removeprefix("decimal:"))
        case list():
            return [restore_decimals(item) for item in value]
        case dict():
            return {key: restore_decimals(item) for key, item in value.items()}
    return value


def test_singer_python_reads_the_catalog(singer_programs, tmp_path):
    catalog = tmp_path / "catalog.json"
    catalog.write_text(run([TAP, "--discover"]).stdout)
    found = json.loads(run([singer_programs / "python", "-c", CATALOG, catalog]).stdout)
    automatic = [name for name, inclusion in found["inclusion"].items() if inclusion == "automatic"]
    assert found["keys"] == found["table-keys"] == automatic == ["recordId", "recordTimeStampISO"]
    assert len(found["inclusion"]) == 5
