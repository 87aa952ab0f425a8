"""Serves a Disk to qemu over a Unix socket: as much of the NBD protocol as qemu's client uses.

One connection at a time, one request after the other, in the order of arrival. Source: the protocol document of the
NetworkBlockDevice project (fixed newstyle handshake, simple replies). All numbers are big-endian.

A server can be told to stop in front of the Nth write or flush, or of the Nth flush: it then answers no more, which is
how a cut hits an exact place in the guest's stream of writes, whatever the speed of the host.
"""
import os
import socket
import struct
import threading

OPTION_MAGIC, REPLY_MAGIC = 0x49484156454F5054, 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
EXPORT_NAME, ABORT, INFO, GO = 1, 2, 6, 7
ACK, INFO_REPLY, UNSUPPORTED = 1, 3, 0x80000001
INFO_EXPORT = 0
HAS_FLAGS, SEND_FLUSH, SEND_FUA = 1, 4, 8
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1
EINVAL = 22
LONGEST_OPTION_BYTES = 65536
LONGEST_REQUEST_BYTES = 64 << 20


class Server:
    """Listens at `path` from the moment it is made. `changes` and `flushes` count those of the current boot; a flush is a
    change as well."""

    def __init__(self, disk, path):
        self.disk, self.path = disk, path
        self.lock = threading.Lock()
        self.power_on()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        threading.Thread(target=self.accept, daemon=True).start()

    def power_on(self):
        """A boot begins; the last one's machine is dead."""
        with self.lock:
            self.disk.power_on()
            self.changes = self.flushes = 0
            self.last_change = self.last_flush = self.on_stop = None
            self.silent = False

    def stop_after(self, on_stop, changes=None, flushes=None):
        """In front of the change that follows so many of them from now, or of the flush, falls silent and calls `on_stop`."""
        with self.lock:
            self.on_stop = on_stop
            self.last_change = None if changes is None else self.changes + changes
            self.last_flush = None if flushes is None else self.flushes + flushes

    def power_off(self):
        """Answers no more from now on; no request is half done when this returns."""
        with self.lock:
            self.silent = True

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which a close does not
        self.listener.close()
        os.unlink(self.path)

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # closed
            try:
                self.serve(connection, connection.makefile("rb", 1 << 20))
            except (ConnectionError, EOFError, BrokenPipeError):
                pass  # the machine was killed
            finally:
                connection.close()

    def serve(self, connection, stream):
        connection.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTION_MAGIC, FIXED_NEWSTYLE | NO_ZEROES))
        (flags,) = unpack(stream, ">I")
        if self.negotiate(connection, stream, flags & NO_ZEROES):
            while self.answer(connection, stream):
                pass

    def negotiate(self, connection, stream, no_zeroes):
        """The option phase; true when transmission follows."""
        export = struct.pack(">QH", len(self.disk.image), HAS_FLAGS | SEND_FLUSH | SEND_FUA)
        while True:
            magic, option, length = unpack(stream, ">QII")
            if magic != OPTION_MAGIC or length > LONGEST_OPTION_BYTES:
                raise ConnectionError("not an NBD client")
            exact(stream, length)
            if option == EXPORT_NAME:
                connection.sendall(export + (b"" if no_zeroes else bytes(124)))
                return True
            if option in (INFO, GO):
                reply(connection, option, INFO_REPLY, struct.pack(">H", INFO_EXPORT) + export)
            reply(connection, option, ACK if option in (INFO, GO, ABORT) else UNSUPPORTED)
            if option in (GO, ABORT):
                return option == GO

    def answer(self, connection, stream):
        """One request; false when the client wants no more."""
        magic, flags, kind, handle, offset, length = unpack(stream, ">IHHQQI")
        if magic != REQUEST_MAGIC or length > LONGEST_REQUEST_BYTES:
            raise ConnectionError("not an NBD request")
        data = exact(stream, length) if kind == WRITE else b""
        if kind == DISCONNECT:
            return False
        with self.lock:
            if self.silent or self.stops_before(kind):
                return True  # a closed connection would be an error to the guest, and this is silence
            error, result = self.execute(kind, flags, offset, length, data)
            connection.sendall(struct.pack(">IIQ", SIMPLE_REPLY_MAGIC, error, handle) + result)
        return True

    def stops_before(self, kind):
        if kind not in (WRITE, FLUSH):
            return False
        if self.changes == self.last_change or kind == FLUSH and self.flushes == self.last_flush:
            self.silent = True
            self.on_stop()
            return True
        self.changes += 1
        self.flushes += kind == FLUSH
        return False

    def execute(self, kind, flags, offset, length, data):
        if offset + length > len(self.disk.image):
            return EINVAL, b""
        if kind == READ:
            return 0, self.disk.read(offset, length)
        if kind == WRITE:
            self.disk.write(offset, data, bool(flags & FUA))
        elif kind == FLUSH:
            self.disk.flush()
        else:
            return EINVAL, b""
        return 0, b""


def reply(connection, option, kind, data=b""):
    connection.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)


def exact(stream, length):
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def unpack(stream, form):
    return struct.unpack(form, exact(stream, struct.calcsize(form)))
