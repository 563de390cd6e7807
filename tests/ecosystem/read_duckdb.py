"""Prints what target-duckdb has loaded into a file, as JSON. Needs that target's virtual environment."""

import json
import sys

import duckdb

# The target writes names in lower case.
NAMES = ["recordId", "streamId", "recordTimeStampISO", "readStatus", "dataPayload", "dataPayloadRest"]
FIELDS = {name.lower(): name for name in NAMES}


def original(name):
    """The name of a column as the tap writes it. Below the payload, the checks have names in lower case alone."""
    field, *path = name.split("__")
    return "__".join([FIELDS.get(field, field), *path])


database = duckdb.connect(sys.argv[1], read_only=True)
columns = database.execute("select name, type from pragma_table_info('main.records')").fetchall()
types = {original(name): kind for name, kind in columns}
rows = [dict(zip(types, row)) for row in database.execute("select * from main.records").fetchall()]
print(json.dumps({"rows": rows, "types": types}, default=str))
