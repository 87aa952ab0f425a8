"""A guest of qemu/vm that can be killed: prepared once, booted many times, its console a queue of lines."""
import ctypes
import hashlib
import os
import queue
import re
import signal
import subprocess
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRIPLES = {"x86_64": "x86_64-unknown-linux-musl", "arm64": "aarch64-unknown-linux-musl"}
PR_SET_PDEATHSIG = 1
ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\r")
# What is not named in modules' own dependencies: the checksum that a file system asks the kernel for by name.
MODULES = {"ext4": [], "xfs": ["xfs"], "btrfs": ["btrfs"], "f2fs": ["crc32_generic", "f2fs"]}


class Machine:
    """`settings` are the guest's variables that stay the same from boot to boot."""

    def __init__(self, name, file_system, socket, settings, scratch):
        self.scratch, self.process = scratch, None
        command = [os.path.join(ROOT, "qemu/vm"), name, "--prepare", scratch, "--init", os.path.join(ROOT, "qemu/cuts/init")]
        # cache=none: the guest's flushes, and nothing else, become the server's.
        command += ["--drive", "driver=nbd,server.type=unix,server.path=%s,cache=none" % socket]
        for module in MODULES[file_system]:
            command += ["--module", module]
        for key, value in settings.items():
            command += ["--set", "%s=%s" % (key, value)]
        subprocess.run(command, check=True)
        with open(os.path.join(scratch, "command")) as file:
            self.command = file.read().splitlines()
        self.engine = engine_of(name)

    def boot(self, **settings):
        """Starts it with more variables. Its lines that begin with `@` come out of `self.events` as lists of words, None
        when the console has closed. `stop` puts one in as well."""
        command = list(self.command)
        place = command.index("-append") + 1
        command[place] += "".join(" %s=%s" % pair for pair in settings.items())
        self.events, self.console = queue.Queue(), open(os.path.join(self.scratch, "console"), "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
        self.reader = threading.Thread(target=self.read, args=(self.process.stdout, self.events), daemon=True)
        self.reader.start()

    def read(self, stream, events):
        for line in stream:
            line = ESCAPE.sub(b"", line)
            self.console.write(line)
            # A line that power cut short was not said.
            if line.startswith(b"@ ") and line.endswith(b"\n"):
                events.put(line[2:].decode("utf-8", "replace").split())
        events.put(None)

    def stop(self):
        self.events.put(["stop"])

    def kill(self):
        """Power off, without notice; returns what it had still said."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.console.close()
        left = []
        while not self.events.empty():
            left.append(self.events.get())
        return [event for event in left if event and event != ["stop"]]

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()

    def said(self):
        """The whole console of the last boot."""
        with open(os.path.join(self.scratch, "console"), "rb") as file:
            return file.read().decode("utf-8", "replace")


def engine_of(name):
    """What tells the binary that a machine of this name boots from any other: part of its SHA-256."""
    path = os.environ.get("BINARY") or os.path.join(ROOT, "target/dist", TRIPLES[name], "vaquita")
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def die_with_parent():
    """No machine outlives the trial, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
