"""Three versions of a small application image, as a device would update it: most files stay, a few change.

    /            a static busybox with its links; the same layer in all versions
    /data        BLOCKS files of one MiB that do not compress, of which each version changes one; behind each of them comes
                 again what has come before, as something else: a resumed pull has to take that back
    /app         many small files (empty ones, hard links, a removed file of the base); each version changes a few
    /sums        the SHA-256 of every regular file above; a guest checks the whole image with it
    /version     v1, v2 or v3
"""
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/fixtures"))
import archive

VERSIONS = ("v1", "v2", "v3")
REMOVED = "etc/group"  # a file of the base that a later layer takes away
BLOCKS, BLOCK_BYTES = 10, 1 << 20
SMALL_FILES, FILES_IN_FOLDER = 240, 40
LONGEST_SMALL_BYTES = 8192
TIME = 1700000000


def noise(*seed):
    return random.Random("/".join(str(part) for part in seed))


def build(triple, scratch):
    """{version: archive.Image} for the target `triple`; layers are files under `scratch`."""
    binary, base_tar = os.path.join(scratch, "busybox"), os.path.join(scratch, "base.tar")
    platform = output("targets/show", triple, "docker_platform")
    output("targets/busybox", triple, binary)
    output("tests/fixtures/busybox", base_tar, binary, platform)
    layers = os.path.join(scratch, "layers")
    os.mkdir(layers)
    base = archive.load(base_tar, layers)
    return {version: image_of(number, version, base, layers) for number, version in enumerate(VERSIONS)}


def output(command, *arguments):
    run = subprocess.run([os.path.join(ROOT, command), *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return run.stdout.strip()


def image_of(number, version, base, scratch):
    with tempfile.TemporaryDirectory() as root:
        data, app = os.path.join(root, "data.tar"), os.path.join(root, "app-layer")
        write_data(data, number)
        write_app(app, number)
        sums = file_sums(base.layers[0].tar)
        sums.update(file_sums(data), **tree_sums(app))
        sums.pop(REMOVED)
        with open(os.path.join(app, "sums"), "w") as file:
            file.writelines("%s  /%s\n" % (value, name) for name, value in sorted(sums.items()))
        with open(os.path.join(app, "version"), "w") as file:
            file.write(version + "\n")
        layers = base.layers + [archive.Layer.of(source, scratch, TIME) for source in (data, app)]
    config = json.loads(base.config)
    config["rootfs"]["diff_ids"] = [layer.diff_id for layer in layers]
    config.pop("history", None)
    return archive.Image(archive.to_json(config), layers)


def write_data(path, version):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "data", tarfile.DIRTYPE, mode=0o755)
        for block in range(BLOCKS):
            changed = version if block == 1 + 3 * version else -1
            add(tar, "data/block-%d" % block, data=noise("block", block, changed).randbytes(BLOCK_BYTES))
            add(tar, "data/last", data=b"%d\n" % block)
            kinds = ((tarfile.DIRTYPE, ""), (tarfile.SYMTYPE, "last"), (tarfile.FIFOTYPE, ""))
            add(tar, "data/kind", *kinds[block % len(kinds)])
            add(tar, "data", tarfile.DIRTYPE, mode=0o700 + 8 * (block % 8) + 5)


def add(tar, name, kind=tarfile.REGTYPE, link="", data=b"", mode=0o644):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.size, member.mtime = kind, link, mode, len(data), TIME
    tar.addfile(member, io.BytesIO(data))


def write_app(root, version):
    for number in range(SMALL_FILES):
        folder = os.path.join(root, "app", "part-%d" % (number // FILES_IN_FOLDER))
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "file-%d" % number)
        if number % 20 == 9:
            os.link(os.path.join(folder, "file-%d" % (number - 1)), path)
        elif number % 20 == 19:
            os.symlink("file-%d" % (number - 1), path)
        else:
            changed = version if number % 24 == version else -1
            chance = noise("file", number, changed)
            length = 0 if number % 20 == 10 else chance.randrange(LONGEST_SMALL_BYTES)
            with open(path, "w") as file:
                file.write("".join(chance.choices("abcdefgh \n", k=length)))
    removed = os.path.join(root, os.path.dirname(REMOVED), ".wh." + os.path.basename(REMOVED))
    os.makedirs(os.path.dirname(removed))
    open(removed, "w").close()


def tree_sums(root):
    """{path: SHA-256} of the regular files under `root`, whiteouts aside."""
    sums = {}
    for path, status in archive.walk(root):
        if os.path.isfile(path) and not os.path.islink(path) and not os.path.basename(path).startswith(".wh."):
            with open(path, "rb") as file:
                sums[os.path.relpath(path, root)] = hashlib.sha256(file.read()).hexdigest()
    return sums


def file_sums(path):
    """The same of a tar; of a file that comes again the last."""
    with tarfile.open(path) as tar:
        return {os.path.normpath(member.name): hashlib.sha256(tar.extractfile(member).read()).hexdigest()
                for member in tar if member.isreg()}


def publish(images, registry):
    """Puts the images into a registry under the tags of their versions; returns the digests of their layers."""
    for version, image in images.items():
        manifest = image.manifest(archive.DOCKER)
        digest = archive.digest_of(manifest)
        registry.tags[version] = digest
        registry.documents[digest] = archive.DOCKER["manifest"], manifest
        registry.blobs[archive.digest_of(image.config)] = image.config
        for layer in image.layers:
            with open(layer.gz, "rb") as file:
                registry.blobs[layer.digest] = file.read()
    return {layer.digest for image in images.values() for layer in image.layers}
