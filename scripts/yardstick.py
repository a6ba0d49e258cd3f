#!/usr/bin/env python3
"""Compare producing to ottla with a bare ring: interleaved in one run, as ratios.

ottla: one shard, one partition, acks=all, ack.after=sync, into segments that were written before and are reused.
Bare ring: `ottla bench sink --log --sync`, which checks batches, writes them to one file that goes round, and keeps
nothing else of a broker. Server on CPU 0, client on CPU 1.

  scripts/yardstick.py [--rounds 5] [--only 64K,4K,256B] [--dir WORKDIR] [--ms 2500] [--json OUT]
      [--ottla BINARY] [--serve-flag=--ring-fixed-files ...]
WORKDIR must be on the disk to be measured. Needs a quiet machine. YARDSTICK_DIR=... takes an append server and client
with a framing of their own instead, whose Cargo.toml is there. Exit code 1: a target is missed (0.8 of the throughput
at 64K, 1.5 times the CPU per request everywhere).
"""
import argparse, json, os, pathlib, signal, statistics, subprocess, sys, time

CASES = {"64K": (4, 4, 65536), "4K": (16, 4, 4096), "256B": (32, 8, 256)}  # connections, in flight, bytes
FILE_BYTES, WARM_MS = 4 << 30, 700
THROUGHPUT_MIN, CPU_MAX = 0.8, 1.5

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--only", default="64K,4K,256B")
ap.add_argument("--dir", default="yardstick-data", type=pathlib.Path)
ap.add_argument("--segment-mib", type=int, default=2000, help="so large that one is freed in time to be reused: retention looks once a second")
ap.add_argument("--ms", type=int, default=2500)
ap.add_argument("--json", type=pathlib.Path)
ap.add_argument("--ottla", type=pathlib.Path, help="default: build this repository's release binary")
ap.add_argument("--serve-flag", action="append", default=[])
a = ap.parse_args()
SEGMENT_BYTES = a.segment_mib << 20
repository = pathlib.Path(__file__).resolve().parent.parent
a.dir.mkdir(parents=True, exist_ok=True)


def cargo(manifest, target):
    env = {**os.environ, **({"CARGO_TARGET_DIR": str(target)} if target else {})}
    subprocess.run(["cargo", "build", "--release", "--quiet", "--manifest-path", str(manifest)], check=True, env=env)
    return pathlib.Path(env.get("CARGO_TARGET_DIR", manifest.parent / "target")) / "release"


foreign = os.environ.get("YARDSTICK_DIR")
bare = cargo(pathlib.Path(foreign) / "Cargo.toml", (a.dir / "target").resolve()) if foreign else None
ottla = a.ottla.resolve() if a.ottla else cargo(repository / "Cargo.toml", None) / "ottla"
written = a.dir / "written.log"
if not written.exists() or written.stat().st_size < FILE_BYTES:
    command = ["dd", "if=/dev/zero", f"of={written}", "bs=4M", f"count={FILE_BYTES >> 22}", "oflag=direct", "conv=fsync"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
ports = iter(range(20000 + os.getpid() % 10000, 65000))


def load(address, pid, case, ms, *flags):
    connections, in_flight, size = CASES[case]
    command = [ottla, "bench", "produce", "--bootstrap", address, "--topic", "yardstick", "--partitions", "1", *flags,
               "--connections", connections, "--in-flight", in_flight, "--batch-bytes", size, "--acks", "all", "--cpu", 1,
               "--warm-up-ms", WARM_MS, "--duration-ms", ms, "--broker-pid", pid, "--json"]
    return json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout)


def figures(d):
    return {"k/s": d["requests_per_second"] / 1e3, "MiB/s": d["mib_per_second"], "p50": d["p50_us"], "p99": d["p99_us"],
            "cpu": d["broker_cpu_seconds_per_million_requests"], "sys": d["machine_less_client_cpu_seconds_per_million_requests"]}


def stop(server):
    server.kill()
    server.wait()


def sink(case):
    address = f"127.0.0.1:{next(ports)}"
    server = subprocess.Popen([ottla, "bench", "sink", "--listen", address, "--log", written, "--log-bytes", str(FILE_BYTES),
                               "--sync", "--cpu", "0"], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        return figures(load(address, server.pid, case, a.ms))
    finally:
        stop(server)


def yardstick(case):
    connections, in_flight, size = CASES[case]
    port = next(ports)
    server = subprocess.Popen([bare / "append", "ms=0", "fixed=0", f"port={port}", f"file={written}", f"size={FILE_BYTES}",
                               "sync=dsync"], stderr=subprocess.DEVNULL)
    try:
        out = subprocess.run([bare / "client", f"c={connections}", f"w={in_flight}", f"p={size}", f"port={port}",
                              f"pid={server.pid}", f"ms={a.ms}", f"warm_ms={WARM_MS}"], capture_output=True, text=True, timeout=120)
    finally:
        stop(server)
    d = json.loads(out.stdout.strip().splitlines()[-1])
    return {"k/s": d["kreq_s"], "MiB/s": d["mib_s"], "p50": d["p50_us"], "p99": d["p99_us"], "cpu": d["cpu_mreq"], "sys": d["sys_mreq"]}


class Broker:
    """ottla serve, and the topic whose segments go round."""

    def __init__(self):
        self.data = a.dir / f"ottla-{os.getpid()}"
        self.address = f"127.0.0.1:{next(ports)}"
        flags = ["--shards", "1", "--listen", self.address, "--data-dir", self.data, "--log-level", "warn",
                 "--set", "log.retention.check.interval.ms=1000", *a.serve_flag]
        self.process = subprocess.Popen(["taskset", "-c", "0", ottla, "serve", *flags])
        time.sleep(1.5)

    def load(self, case, ms):
        return load(self.address, self.process.pid, case, ms, "--config", f"segment.bytes={SEGMENT_BYTES}",
                    "--config", "retention.bytes=1", "--config", "ottla.ack.after=sync")

    def files(self):
        """The segments' and spares' inodes: none that is new means that every segment was a reused one."""
        return {f.stat().st_ino for f in (self.data / "topics" / "yardstick-0").iterdir() if f.suffix in (".log", ".spare")}

    def fill(self):
        for _ in range(60):
            before, bytes_ = self.files() if self.data.joinpath("topics/yardstick-0").exists() else set(), 0
            while bytes_ < 2 * SEGMENT_BYTES:
                bytes_ += self.load("64K", 3000)["requests_total"] * CASES["64K"][2]
            if not self.files() - before:
                return
        sys.exit("the segments are never reused")

    def measure(self, case):
        before = self.files()
        return {**figures(self.load(case, a.ms)), "new_files": len(self.files() - before)}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        subprocess.run(["rm", "-rf", self.data], check=True)


cases, rows = [c for c in CASES if c in a.only.split(",")], []
broker = Broker()
try:
    print("filling the segments that are to be reused", file=sys.stderr)
    broker.fill()
    for r in range(a.rounds):
        for case in cases:
            pair = [("bare", yardstick if foreign else sink), ("ottla", broker.measure)]
            for who, run in pair if r % 2 == 0 else pair[::-1]:
                rows.append({"who": who, "case": case, "round": r, **run(case)})
                print(f"round {r + 1}/{a.rounds} {case} {who}: " + " ".join(f"{k}={v:.6g}" for k, v in rows[-1].items() if k not in ("who", "case", "round")), file=sys.stderr)
finally:
    broker.stop()


def of(who, case, figure):
    return [row[figure] for row in rows if row["who"] == who and row["case"] == case]


missed = []
print("| case | who | k requests/s | MiB/s | p50 us | p99 us | CPU s/M requests | machine CPU s/M |\n|---|---|---|---|---|---|---|---|")
for case in cases:
    for who in ("bare", "ottla"):
        m = {f: statistics.median(of(who, case, f)) for f in ("k/s", "MiB/s", "p50", "p99", "cpu", "sys")}
        print(f"| {case} | {who} | {m['k/s']:.1f} | {m['MiB/s']:.0f} | {m['p50']:.0f} | {m['p99']:.0f} | {m['cpu']:.2f} | {m['sys']:.2f} |")
print("\n| case | throughput ratio (each round) | CPU per request ratio (each round) | new files |\n|---|---|---|---|")
for case in cases:
    speed, cpu = ([o / y for o, y in zip(of("ottla", case, f), of("bare", case, f))] for f in ("k/s", "cpu"))
    each = lambda v: f"**{statistics.median(v):.2f}** ({' '.join(f'{x:.2f}' for x in v)})"
    print(f"| {case} | {each(speed)} | {each(cpu)} | {sum(of('ottla', case, 'new_files'))} |")
    missed += [f"{case}: throughput"] if case == "64K" and statistics.median(speed) < THROUGHPUT_MIN else []
    missed += [f"{case}: CPU per request"] if statistics.median(cpu) > CPU_MAX else []
if a.json:
    a.json.write_text(json.dumps(rows, indent=1))
print("\n" + ("targets missed: " + ", ".join(missed) if missed else "all targets met"))
sys.exit(bool(missed))
