"""Prints what target-duckdb has loaded into a file, as JSON. Needs that target's virtual environment."""

import json
import sys

import duckdb

# The target writes names in lower case.
FIELDS = {name.lower(): name for name in ["recordId", "streamId", "recordTimeStampISO", "readStatus", "dataPayload"]}

database = duckdb.connect(sys.argv[1], read_only=True)
columns = database.execute("select name, type from pragma_table_info('main.records')").fetchall()
types = {FIELDS.get(name, name): kind for name, kind in columns}
rows = [dict(zip(types, row)) for row in database.execute("select * from main.records").fetchall()]
print(json.dumps({"rows": rows, "types": types}, default=str))
