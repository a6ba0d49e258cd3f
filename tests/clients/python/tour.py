"""What every client of the tour writes and must read back, and how it reports.

A tour is the same for each client, as far as the client has it:

  create       a topic: judged, created, refused a second time
  produce      records with each codec
  consume      them all by assigned partitions, field by field
  seek         by timestamp
  describe     cluster, topic, configs of topic and brokers
  offsets      first, last, greatest timestamp, by timestamp
  group        three members share the topic, one leaves, one is killed (../group.sh)
  commit       offsets with a note from within a group; the next member goes on from there
  groups       listed, described, their offsets read and moved, deleted
  alter        configs of the topic, both ways of the protocol
  partitions   are added and take records
  records      are deleted
  delete       the topic

The records are a function of their number alone, so that a program needs no memory of what it wrote. The programs in
the other languages follow the same rules.

A program prints `client NAME VERSION` and one line `step NAME ok|failed DETAIL` a step, separated by
tabs; `scripts/clients.sh` makes the table. Started with `member` as its first argument it is one member of a group, as
../group.sh wants it. It knows nothing of ottla."""

import os
import signal
import subprocess
import sys
import traceback

PARTITIONS = 6
PER_CODEC = 300
BASE_MS = 1_700_000_000_000
RETENTION_MS = 9_000_000_000_000  # The records are old: the default retention would delete them.
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
TOTAL = len(CODECS) * PER_CODEC
NOTE = "a note \u2713"  # The metadata of committed offsets.
PARTITIONS_MORE = 8
SESSION_MS = 6000


def partition(n):
    return n % PARTITIONS


def key(n):
    """None for every 7th record."""
    return None if n % 7 == 0 else b"key-%d" % (n % 97)


def value(n):
    """None (a tombstone) for every 5th that has a key, empty for some, else text whose length varies."""
    if n % 5 == 0 and n % 7:
        return None
    return b"" if n % 11 == 0 else b"value %d " % n + b"abcdefgh" * (n % 50)


def headers(n):
    """None to two headers; the second is empty."""
    return [("number", b"%d" % n), ("nothing", b"")][: n % 3]


def timestamp(n):
    return BASE_MS + n * 1000


def numbers(codec):
    """The numbers of the records that the codec of this index writes."""
    return range(codec * PER_CODEC, (codec + 1) * PER_CODEC)


def expected(total):
    """Per partition, in order: (offset, timestamp, key, value, headers)."""
    logs = {p: [] for p in range(PARTITIONS)}
    for n in range(total):
        log = logs[partition(n)]
        log.append((len(log), timestamp(n), key(n), value(n), headers(n)))
    return logs


def committed(p):
    """What the step `commit` commits in each partition."""
    return 10 * (p + 1)


def group_of_three(*member):
    """Runs ../group.sh with this program as the member; `member` are its arguments. GROUP_SH: where it is."""
    command = [os.environ["GROUP_SH"], str(TOTAL), sys.executable, os.path.abspath(sys.argv[0]), "member", *member]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check((done.returncode, done.stdout), (0, ""), "group.sh")


def check_group_of_three(offsets):
    """What that group has committed: no more than there is, and somewhere all (a killed member may have read what it had
    not committed)."""
    end = TOTAL // PARTITIONS
    check((max(offsets), min(offsets) >= 0), (end, True), f"committed {offsets}")


class Member:
    """What a member of ../group.sh prints, and whether it was told to leave."""

    def __init__(self):
        self.leaves = False
        self.assigned = set()
        signal.signal(signal.SIGTERM, self._leave)

    def _leave(self, *_):
        self.leaves = True

    def has(self, partitions):
        """All that it has now."""
        self.assigned = set(partitions)
        print("assigned", ",".join(map(str, sorted(self.assigned))), sep="\t", flush=True)

    def read(self, partition, offset):
        print("read", partition, offset, sep="\t", flush=True)


def check(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: got {got!r:.300}, want {want!r:.300}")


def compare(got, total):
    """`got` as `expected` returns it."""
    for p, log in expected(total).items():
        check(len(got[p]), len(log), f"records of partition {p}")
        for have, want in zip(got[p], log):
            check(have, want, f"partition {p} offset {want[0]}")


def first_at(total, timestamp_ms):
    """Per partition the offset of the first record that is not older than `timestamp_ms`; -1 for none."""
    return {
        p: next((offset for offset, at, *_ in log if at >= timestamp_ms), -1)
        for p, log in expected(total).items()
    }


class Tour:
    """Runs the steps in order and prints one line each; a failed step does not stop the later ones."""

    def __init__(self, name, version):
        self.failed = 0
        print("client", name, version, sep="\t", flush=True)

    def _report(self, step, error):
        if error is None:
            print("step", step, "ok", sep="\t", flush=True)
        else:
            self.failed += 1
            traceback.print_exception(error, file=sys.stderr)
            detail = f"{type(error).__name__}: {error}".replace("\n", " ")
            print("step", step, "failed", detail, sep="\t", flush=True)

    def step(self, name, run):
        try:
            run()
            self._report(name, None)
        except Exception as error:  # Any failure is a failed step, whatever the client raises.
            self._report(name, error)

    async def step_async(self, name, run):
        try:
            await run()
            self._report(name, None)
        except Exception as error:
            self._report(name, error)

    def exit(self):
        sys.exit(1 if self.failed else 0)
