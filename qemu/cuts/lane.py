"""One machine with one file system, and power that is cut again and again.

A boot checks what the last cut left, takes up the step that was cut, and works on until the next cut. Where that falls
is decided before: in front of a certain write, or of a flush, after so many bytes of layers, or at a time. A lane ends with a
boot that nothing cuts: it checks, and takes up the last step.
"""
import os
import queue
import random
import re
import subprocess
import threading
import time

import images
from disk import Disk
from ledger import MOVING, Ledger
from machine import TRIPLES, Machine
from nbd import Server
from registry import Registry

MIB = 1 << 20
# mkfs, size, and what a write may be torn into. xfs wants 300 MB. All count on whole blocks of 4 KiB, as pages of flash are. With
# sectors, ext4 finds a commit block of its journal corrupt (2 of 14 cuts) and xfs a directory block (1 of 211): the sector with its
# header is new, so recovery does not write the block again. Neither mounts then, whatever the engine did.
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q"], 256 * MIB, 4096),
    "xfs": (["mkfs.xfs", "-q"], 320 * MIB, 4096),
    "btrfs": (["mkfs.btrfs", "-q"], 256 * MIB, 4096),
    "f2fs": (["mkfs.f2fs", "-q"], 256 * MIB, 4096),
}
# Of each kind of instant how often it is chosen and the end of the range that it is drawn from.
KINDS = {"changes": (5, 1000), "flushes": (6, 150), "bytes": (5, 24 * MIB), "seconds": (3, 15), "early": (2, 30)}
# How likely an unsafe piece survives; 1 is a cut that the disk's cache outlives.
KEEPS = (0, 0.1, 0.5, 0.9, 1)
MOST_SECONDS = 300  # for the check, and for the work; a machine that is slower hangs
COMPLAINT = re.compile("(ext4-fs|xfs|btrfs|f2fs|jbd2).*(error|corrupt|fail)|i/o error|kernel panic|oops|kernel bug", re.I)


class Cut:
    """What is decided about a boot before it begins: its work, where it ends, and what the disk's cache keeps then."""

    def __init__(self, seed, ledger):
        self.coin = chance = random.Random(seed)
        self.kind = chance.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
        self.after = chance.random() * KINDS[self.kind][1]
        if self.kind != "seconds":
            self.after = int(self.after)
        self.keep = chance.choice(KEEPS)
        self.work = ledger.plan(chance)


class Boot:
    """What is known of a boot so far."""

    def __init__(self, cut):
        self.cut, self.started = cut, time.monotonic()
        self.wrong, self.found, self.seconds = [], {}, {}
        self.number, self.step = -1, None  # of the step that was begun last; None when it has ended
        self.early = None  # a step that was begun before the console told of the last one's end
        self.over = False


class Lane:
    """`options` has machine, file_system, seed, lies (the disk), without (commands that the engine lacks), again_limit
    (bytes of a layer that may be fetched again, or None), keep (a directory for what failed), scratch (another), and
    say, a function that is given a row, a dict, when a cut is judged."""

    def __init__(self, options):
        self.options, self.scratch = options, options.scratch
        self.name = "%s-%s" % (options.machine, options.file_system)
        self.registry, self.begun = Registry(self.begin), threading.Event()
        built = os.path.join(self.scratch, "images")
        os.mkdir(built)
        self.layers = images.publish(images.build(TRIPLES[options.machine], built), self.registry)
        self.path, self.socket = (os.path.join(self.scratch, name) for name in ("disk", "disk.socket"))
        settings = {"registry": "10.0.2.2:%d" % self.registry.port, "file_system": options.file_system,
                    "without": "/".join(options.without) or "nothing"}
        self.machine = Machine(options.machine, options.file_system, self.socket, settings, self.scratch)
        self.disk = None

    def new_disk(self):
        if self.disk:
            self.server.close()
            self.disk.close()
            os.unlink(self.path)
        command, size, piece_bytes = FILE_SYSTEMS[self.options.file_system]
        with open(self.path, "wb") as file:
            file.truncate(size)
        subprocess.run(command + [self.path], check=True, stdout=subprocess.DEVNULL)
        self.disk, self.ledger = Disk(self.path, piece_bytes, self.options.lies), Ledger()
        self.server = Server(self.disk, self.socket)

    def close(self):
        self.machine.close()
        self.registry.close()

    def run(self, first, cuts):
        """Cuts, from number `first`, until `cuts` of them are judged. A cut is judged by the boot after it; when that
        finds something wrong, a new disk takes over."""
        self.new_disk()
        row, number, judged = None, first, 0
        while judged < cuts:
            seed = "%s/%s/%d" % (self.options.seed, self.name, number)
            boot = self.boot(Cut(seed, self.ledger), uncut=judged == cuts - 1 and row is not None)
            if row or boot.wrong:
                row = row or {"cut": None, "machine": self.options.machine, "file_system": self.options.file_system,
                              "piece": self.disk.piece_bytes, "engine": self.machine.engine}
                row.update(boot.seconds, again=boot.again, wrong=boot.wrong)
                if boot.wrong:
                    row["kept"] = self.keep_evidence(seed, row)
                self.options.say(row)
                judged += 1
            row = self.row_of(seed, number, boot)
            if boot.wrong:
                self.new_disk()
                row = None
            number += 1

    def row_of(self, seed, number, boot):
        cut, step = boot.cut, boot.step
        return {"machine": self.options.machine, "file_system": self.options.file_system, "seed": seed, "cut": number,
                "piece": self.disk.piece_bytes, "engine": self.machine.engine, "kind": cut.kind, "after": round(cut.after, 3),
                "keep": cut.keep, "unsafe": boot.pieces[0],
                "survived": boot.pieces[1], "changes": boot.changes, "flushes": boot.flushes, "steps": max(0, boot.number + (step is None)),
                "during": " ".join(filter(None, (step.verb, step.tag))) if step else ""}

    def boot(self, cut, uncut):
        """One boot to its end. With `uncut` that is the end of its first step, and only what is fetched counts."""
        self.server.power_on()
        self.registry.forget_boot()
        if cut.kind == "early" and not uncut:
            self.server.stop_after(self.machine.stop, changes=cut.after)
        boot = self.current = Boot(cut)
        self.machine.boot(work=",".join("%s:%s" % (step.verb, step.tag) for step in cut.work))
        self.watch(boot, uncut)
        self.server.power_off()
        transfers = self.registry.settled_transfers()
        for event in self.machine.kill():
            self.hear(boot, event)
        self.begun.set()
        boot.changes, boot.flushes = self.server.changes, self.server.flushes
        boot.pieces = self.disk.cut(cut.coin, cut.keep)
        again = self.ledger.cut(boot.number, boot.step, transfers)
        boot.again = {digest: count for digest, count in again.items() if digest in self.layers}
        boot.wrong += [line for line in self.machine.said().splitlines() if COMPLAINT.search(line)]
        limit = self.options.again_limit
        boot.wrong += ["layer %s: %d bytes were fetched again" % (digest, count)
                       for digest, count in boot.again.items() if limit is not None and count > limit]
        boot.seconds["boot_s"] = round(time.monotonic() - boot.started, 2)
        return boot

    def watch(self, boot, uncut):
        """Follows the console until it is time to cut."""
        deadline, late = boot.started + MOST_SECONDS, "hung: not checked after %d s" % MOST_SECONDS
        while not boot.wrong and not boot.over:
            try:
                event = self.machine.events.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                boot.wrong += [late] if late else []
                return
            if event in (None, ["stop"]):
                boot.wrong += [] if event else ["ended by itself"]
                return
            self.hear(boot, event)
            if event == ["checked"]:
                deadline, late = time.monotonic() + MOST_SECONDS, "hung: no cut after %d s" % MOST_SECONDS
                if boot.cut.kind == "seconds" and not uncut:
                    deadline, late = time.monotonic() + boot.cut.after, None
                self.arm(boot.cut, uncut)
            if uncut and event == ["done", "0"]:
                return

    def arm(self, cut, uncut):
        if uncut:
            return
        if cut.kind in ("changes", "flushes"):
            self.server.stop_after(self.machine.stop, **{cut.kind: cut.after})
        if cut.kind == "bytes":
            self.registry.stop_after(cut.after, self.machine.stop)

    def begin(self, number):
        """The guest waits for the answer to its `GET /step/N` while the lane's own thread takes note."""
        self.begun.clear()
        self.machine.events.put(["begin", str(number)])
        self.begun.wait(MOST_SECONDS)

    def hear(self, boot, event):
        """Takes note of one line of the console, or of what `begin` put between them."""
        kind, words = event[0], event[1:]
        if kind in ("mounted", "checked"):
            boot.seconds[kind + "_s"] = round(time.monotonic() - boot.started, 2)
        if kind == "checked":
            boot.wrong += self.ledger.observe(boot.found)
        elif kind == "image":
            boot.found[words[0]] = words[1]
        elif kind in ("check", "damaged", "quarantine", "stuck", "unmountable"):
            boot.wrong.append(" ".join(event))
        elif kind == "begin":
            if boot.step:
                boot.early = int(words[0])
            else:
                self.take_up(boot, int(words[0]))
        elif kind in ("done", "failed"):
            self.end_step(boot, kind)
        elif kind == "idle":
            boot.over = True

    def take_up(self, boot, number):
        boot.number, boot.step, boot.early = number, boot.cut.work[number], None
        self.ledger.begin(boot.step)
        if boot.step.tag == MOVING and boot.step.version:
            self.registry.tags[MOVING] = self.registry.tags[boot.step.version]
        self.begun.set()

    def end_step(self, boot, kind):
        if kind == "done":
            self.ledger.done(boot.step)
        else:
            boot.wrong.append("failed: %s %s" % (boot.step.verb, boot.step.tag))
        boot.step = None
        if boot.early is not None:
            self.take_up(boot, boot.early)

    def keep_evidence(self, seed, row):
        """The disk as the boot that failed found it, and what its console said; returns where they are."""
        folder = os.path.join(self.options.keep, seed.replace("/", "-"))
        os.makedirs(folder, exist_ok=True)
        self.disk.rewind()
        subprocess.run(["cp", "--sparse=always", self.path, os.path.join(folder, "disk")], check=True)
        with open(os.path.join(folder, "console"), "w") as file:
            file.write(self.machine.said())
        with open(os.path.join(folder, "row"), "w") as file:
            file.write(repr(row) + "\n")
        return folder
