"""An S3 server for the tests: moto's, on a port of its own choice, which is printed.

moto looks for an object and writes it in two steps. With its threads let loose, two of sixteen
concurrent creations with If-None-Match succeed now and then. A real store does not do that, so
one request is served at a time here, once all of it has come: a client that stops or dies
within a request is in nobody's way. `--loose` leaves it out.
"""

import http.client
import io
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class OneAtATime:
    def __init__(self, app):
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            start_response("400 Bad Request", [("Content-Length", "0")])
            return [b""]
        environ["wsgi.input"] = io.BytesIO(body)
        with self.lock:
            return list(self.app(environ, start_response))


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


app = DomainDispatcherApplication(create_backend_app)
if "--loose" not in sys.argv:
    app = OneAtATime(app)
server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
create = http.client.HTTPConnection("127.0.0.1", server.port)
create.request("PUT", "/backups", headers={"Host": "s3.amazonaws.com"})
assert create.getresponse().status == 200, "the bucket cannot be made"
print(server.port, flush=True)
# Whoever started this holds the other end; when that is gone, so is this.
sys.stdin.read()
