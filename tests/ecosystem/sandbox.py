"""The stand-in for the service, as the tap, a producer and an owner of streams use it."""

import json
import subprocess
import urllib.parse
import urllib.request

from processes import SANDBOX, TAP, run, start
from rows import identity, parse, write_json

READ_RECORDS = "https://api.streamduo.com/read:records"
MANAGE_STREAMS = "https://api.streamduo.com/manage:streams"

# Without the proxy that the environment may name.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def open_json(url, body, headers={}):
    with OPENER.open(urllib.request.Request(url, body, headers)) as answer:
        return parse(answer.read())


class Sandbox:
    """A sandbox that serves until the check ends. `config` holds the tap's settings for its stream."""

    def __init__(self, records=0):
        process = start([SANDBOX, "serve", "--records", records], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        text = ""
        # Once it listens, it prints one JSON object over several lines.
        for line in process.stdout:
            text += line
            if line == "}\n":
                break
        self.config = json.loads(text)
        self.stream = self.config["streamId"]

    @property
    def variables(self):
        """`config` as environment variables of the tap."""
        return {f"TAP_STREAMDUO_{name.upper()}": value for name, value in self.config.items()}

    def call(self, path, body=None, scope=READ_RECORDS):
        """Calls the API with a body of JSON text."""
        secrets = {"client_id": self.config["clientId"], "client_secret": self.config["clientSecret"]}
        form = urllib.parse.urlencode({"grant_type": "client_credentials", "scope": scope} | secrets)
        token = open_json(self.config["authUrl"], form.encode())["access_token"]
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return open_json(self.config["apiUrl"] + path, body and body.encode(), headers)

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
        """All records of the stream, as unread as the tap saw them."""
        return [record | {"readStatus": "false"} for record in self._records("LAST_N", stream)]

    def marked(self, stream=None):
        """The records that are marked as read, as unread as the tap saw them."""
        unread = set(map(identity, self._records("UNREAD", stream)))
        return [record for record in self.records(stream) if identity(record) not in unread]

    def unread(self, stream=None):
        """The number of unread records."""
        return len(self._records("UNREAD", stream))

    def create_stream(self, name):
        return self.call("/stream", json.dumps({"displayName": name}), MANAGE_STREAMS)["streamId"]

    def register(self, schema):
        """Makes this JSON schema the stream's active one."""
        body = json.dumps({"schema": schema, "schemaType": "JSON"})
        schema_id = self.call(f"/streams/{self.stream}/schemas", body)["schemaId"]
        self.call(f"/stream/{self.stream}/schemas/active", json.dumps({"schemaId": schema_id}))


def run_tap(sandbox, folder, **settings):
    """Runs the tap to its end and returns its output."""
    config = write_json(folder / "config.json", sandbox.config | settings)
    return run([TAP, "--config", config]).stdout
