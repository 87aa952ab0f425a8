"""A registry on loopback that serves a few images, honours Range, and knows which bytes of a blob it has sent.

It is read-only and small: `GET` and `HEAD` of manifests and blobs, no authorization. Besides, `GET /step/N` tells it,
and through it the caller, that the guest begins step N; the guest waits for the answer, so what is sent afterwards is
sent for that step.
"""
import fcntl
import re
import socket
import struct
import termios
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK_BYTES = 16 << 10
# Small, so that little counts as sent that the guest never got.
SEND_BUFFER_BYTES = 32 << 10
REPOSITORY = "app"


class Transfer:
    """One answer with bytes of a blob, sent during the guest's step `step`: those from `start` up to `end`."""

    def __init__(self, step, digest, start, connection):
        self.step, self.digest, self.start, self.end, self.connection = step, digest, start, start, connection

    def settle(self):
        """Takes off what is still on this host, here or in qemu's socket: the guest has not got that."""
        try:
            self.end = max(self.start, self.end - unsent(self.connection) - unread(self.connection))
        except (OSError, ValueError):
            pass  # closed: the guest had what it wanted


def unsent(connection):
    """Bytes that the other end's kernel has not acknowledged (tcp(7), SIOCOUTQ)."""
    waiting = bytearray(4)
    fcntl.ioctl(connection, termios.TIOCOUTQ, waiting)
    return struct.unpack("i", waiting)[0]


def unread(connection):
    """Bytes that wait in the socket at the other end, which is on this host too (proc(5), /proc/net/tcp)."""
    ends = ["%08X:%04X" % (struct.unpack("=I", socket.inet_aton(host))[0], port)
            for host, port in (connection.getpeername(), connection.getsockname())]
    with open("/proc/net/tcp") as file:
        for fields in map(str.split, file):
            if fields[1:3] == ends:
                return int(fields[4].partition(":")[2], 16)
    return 0


class Registry:
    """`tags` maps a tag to the digest of a manifest, `documents` a digest to (media type, bytes), `blobs` a digest to
    bytes. `on_step(number)` is called when the guest begins a step."""

    def __init__(self, on_step):
        self.tags, self.documents, self.blobs = {}, {}, {}
        self.on_step = on_step
        self.lock = threading.Lock()
        self.forget_boot()
        server = type("Server", (ThreadingHTTPServer,), {"daemon_threads": True, "registry": self})
        self.server = server(("127.0.0.1", 0), Handler)
        self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forget_boot(self):
        with self.lock:
            self.transfers, self.sent, self.stop_at, self.on_stop = [], 0, None, None
            self.step, self.settled = None, False

    def begin(self, step):
        self.on_step(step)
        with self.lock:
            self.step = step

    def stop_after(self, count, on_stop):
        """When `count` more bytes of blobs have been sent, calls `on_stop`, once."""
        with self.lock:
            self.stop_at, self.on_stop = self.sent + count, on_stop

    def settled_transfers(self):
        """What was sent so far. Called once, while the guest still holds its connections, before it is killed."""
        with self.lock:
            self.settled = True
            last = {transfer.connection: transfer for transfer in self.transfers}
            for transfer in last.values():
                transfer.settle()
            return list(self.transfers)

    def start(self, digest, offset, connection):
        with self.lock:
            self.transfers.append(Transfer(self.step, digest, offset, connection))
            return self.transfers[-1]

    def count(self, transfer, length):
        with self.lock:
            if self.settled:
                return
            transfer.end += length
            self.sent += length
            if self.stop_at is not None and self.sent >= self.stop_at:
                self.stop_at = None
                self.on_stop()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass  # the machine was killed

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        kind, _, key = self.path[1:].partition("/")
        resource = re.fullmatch("v2/%s/(manifests|blobs)/([a-z0-9:._-]+)" % REPOSITORY, self.path[1:])
        if kind == "step":
            self.server.registry.begin(int(key))
            self.send(200, "text/plain", b"")
        elif self.path == "/v2/":
            self.send(200, "application/json", b"{}")
        elif resource and resource[1] == "manifests":
            self.manifest(resource[2])
        elif resource:
            self.blob(resource[2])
        else:
            self.send(404, "application/json", b'{"errors":[{"code":"NAME_UNKNOWN"}]}')

    def manifest(self, key):
        registry = self.server.registry
        digest = registry.tags.get(key, key)
        media_type, data = registry.documents.get(digest, (None, None))
        if data is None:
            return self.send(404, "application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        return self.send(200, media_type, data, {"Docker-Content-Digest": digest})

    def blob(self, digest):
        data = self.server.registry.blobs.get(digest)
        if data is None:
            return self.send(404, "application/json", b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        start, end, fields = 0, len(data), {"Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        asked = re.fullmatch("bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            end = min(end, int(asked[2]) + 1) if asked[2] else end
            fields["Content-Range"] = "bytes %d-%d/%d" % (start, end - 1, len(data))
            if start >= end:
                fields["Content-Range"] = "bytes */%d" % len(data)
                return self.send(416, "text/plain", b"", fields)
        self.head(206 if asked else 200, "application/octet-stream", end - start, fields)
        if self.command == "GET":
            self.stream(digest, data, start, end)

    def stream(self, digest, data, start, end):
        registry = self.server.registry
        transfer = registry.start(digest, start, self.connection)
        try:
            for at in range(start, end, CHUNK_BYTES):
                chunk = data[at:min(end, at + CHUNK_BYTES)]
                self.wfile.write(chunk)
                registry.count(transfer, len(chunk))
        except ConnectionError:
            self.close_connection = True  # the guest had enough of it

    def send(self, status, media_type, data, fields=None):
        self.head(status, media_type, len(data), fields or {})
        if self.command == "GET":
            self.wfile.write(data)

    def head(self, status, media_type, length, fields):
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
