"""A disk with a write cache of its own, as a card or a cheap drive has one, that forgets at a power cut.

What the guest writes is seen by its own reads at once, but it is safe only after a flush, or when it was written with
FUA. At a cut each piece (a sector, or a page of flash) of each write since the last flush is kept or dropped by a
seeded coin; so any subset survives, which is what reordering and torn writes of several blocks amount to. A piece is
never torn itself: that much a file system may rely on.

The image file always holds what the guest sees; what it replaced is remembered, so a cut takes everything back to the
last flush and then replays what the coins kept. The host itself is trusted not to fail: nothing here is synced.
"""
import mmap
from collections import namedtuple

SECTOR_BYTES = 512
# before: what the image held there until this write; safe: written with FUA, so no coin is tossed for it.
Write = namedtuple("Write", "offset before data safe")


class Disk:
    """The image in the file `path`. `piece_bytes` is what a write is torn into, a multiple of a sector. With `lies` a
    flush is answered and does nothing, as some cards do."""

    def __init__(self, path, piece_bytes=SECTOR_BYTES, lies=False):
        self.path, self.piece_bytes, self.lies = path, piece_bytes, lies
        with open(path, "r+b") as file:
            self.image = mmap.mmap(file.fileno(), 0)
        self.power_on()

    def power_on(self):
        """Starts a boot: what the image holds now is safe, and is what `rewind` goes back to."""
        self.history, self.flushed = [], 0

    def read(self, offset, length):
        return self.image[offset:offset + length]

    def write(self, offset, data, safe=False):
        end = offset + len(data)
        self.history.append(Write(offset, self.image[offset:end], data, safe and not self.lies))
        self.image[offset:end] = data

    def flush(self):
        """Everything written before is safe now."""
        if not self.lies:
            self.flushed = len(self.history)

    def cut(self, coin, keep):
        """Power is gone. Each unsafe piece survives with probability `keep`; `coin` is a random.Random. Returns how many
        pieces were unsafe and how many of these survived."""
        unsafe = self.history[self.flushed:]
        self.take_back(self.flushed)
        tossed = kept = 0
        for write in unsafe:
            for start, end in self.pieces(write):
                survives = write.safe
                if not survives:
                    survives = coin.random() < keep
                    tossed, kept = tossed + 1, kept + survives
                if survives:
                    self.image[write.offset + start:write.offset + end] = write.data[start:end]
        return tossed, kept

    def rewind(self):
        """Back to what the boot began with, for whoever wants to boot it again."""
        self.take_back(0)
        self.power_on()

    def take_back(self, count):
        """Undoes all writes of this boot but the first `count`, in the image alone."""
        for write in reversed(self.history[count:]):
            self.image[write.offset:write.offset + len(write.before)] = write.before

    def pieces(self, write):
        """Where the pieces of a write begin and end within it; pieces are aligned on the disk."""
        start, length = 0, len(write.data)
        while start < length:
            end = min(length, start + self.piece_bytes - (write.offset + start) % self.piece_bytes)
            yield start, end
            start = end

    def close(self):
        self.image.close()
