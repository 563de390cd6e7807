"""A stand-in for S3 on loopback: it keeps what is put, and knows nothing else."""

import contextlib
import http.server
import threading


@contextlib.contextmanager
def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # The path and text of each object, as they have come. One that is put again is there twice.
    server.objects = []
    threading.Thread(target=server.serve_forever).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    # A client waits for `100 Continue` before it sends an object.
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects.append((self.path, body.decode()))
        self.send_response(200)
        self.send_header("ETag", '"etag"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass
