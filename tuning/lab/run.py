#!/usr/bin/env python3
"""Runs one experiment: variants of the broker, each under the same workloads, in interleaved rounds.

Every round goes through all variants, in turn forwards and backwards, so that what changes on the machine meanwhile
meets them all. Ratios are taken within a round, against the first variant, before their median is taken. Called by
scripts/experiment.sh; tuning/README.md says what the files in tuning/experiments may contain.
"""
import argparse
import contextlib, datetime, json, os, pathlib, shutil, signal, subprocess, sys, time, tomllib

import report

HERE = pathlib.Path(__file__).resolve().parent
TUNING = HERE.parent
WARM_MS = 700
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
KEYS = {"question", "note", "broker_cpus", "client_cpu", "serve", "set", "topic", "workload", "variant"}
KINDS = ("produce", "consume", "tail", "beside")
WORKLOAD_KEYS = {"name", "kind", "connections", "in_flight", "batch", "partitions", "acks", "rate", "segments",
                 "segment_mib", "consumers", "fill_mib", "chunk", "cold", "warm_ms", "bare", "refill"}
VARIANT_KEYS = {"name", "serve", "set", "topic", "broker_cpus", "write_iops_max", "workload", "bare"}


def size(text):
    for unit, factor in UNITS.items():
        if str(text).endswith(unit):
            return int(float(str(text)[: -len(unit)]) * factor)
    return int(text)


def load(name):
    path = pathlib.Path(name)
    if path.suffix != ".toml":
        path = TUNING / "experiments" / f"{name}.toml"
    if not path.exists():
        sys.exit(f"no experiment {name}; --list shows them")
    e = tomllib.loads(path.read_text())
    for what, given, known in [(path.name, e, KEYS), *((f"{path.name}: workload", w, WORKLOAD_KEYS) for w in e["workload"]),
                               *((f"{path.name}: variant", v, VARIANT_KEYS) for v in e["variant"])]:
        if set(given) - known:
            sys.exit(f"{what}: unknown {', '.join(sorted(set(given) - known))}")
    for w in e["workload"]:
        if w.get("kind") not in KINDS:
            sys.exit(f"{path.name}: workload {w.get('name')}: kind must be one of {', '.join(KINDS)}")
    return {"name": path.stem, "broker_cpus": "0", "client_cpu": 1, "serve": {}, "set": {}, "topic": {}, **e}


def flags(settings):
    """A table of `ottla serve` settings as flags; false leaves a switch out."""
    out = []
    for key, value in settings.items():
        out += [f"--{key}"] if value is True else [] if value is False else [f"--{key}={value}"]
    return out


class DiskMeter:
    """What the disk below a directory did; the machine's other work counts too."""

    def __init__(self, directory):
        device = os.stat(directory).st_dev
        self.number = f"{os.major(device)}:{os.minor(device)}"
        self.path = pathlib.Path(f"/sys/dev/block/{self.number}")

    def whole(self):
        return (self.path / "..").resolve() if (self.path / "partition").exists() else self.path.resolve()

    def writes(self):
        try:
            fields = (self.whole() / "stat").read_text().split()
            return int(fields[4]) + (int(fields[15]) if len(fields) > 15 else 0)
        except OSError:
            return None


class IopsLimit:
    """A control group that lets so many writes a second through; needs root."""

    def __init__(self, count, disk):
        number = (disk.whole() / "dev").read_text().strip()
        old, new = pathlib.Path("/sys/fs/cgroup/blkio"), pathlib.Path("/sys/fs/cgroup")
        self.directory = (old if old.exists() else new) / f"ottla-lab-{os.getpid()}"
        try:
            if not old.exists():
                (new / "cgroup.subtree_control").write_text("+io")
            self.directory.mkdir()
            if old.exists():
                (self.directory / "blkio.throttle.write_iops_device").write_text(f"{number} {count}")
            else:
                (self.directory / "io.max").write_text(f"{number} wiops={count}")
        except OSError as error:
            raise Skip(f"no control group with a limit: {error}")

    def hold(self, pid):
        (self.directory / "cgroup.procs").write_text(str(pid))

    def end(self):
        for _ in range(50):
            try:
                return self.directory.rmdir()
            except OSError:
                time.sleep(0.1)


class Skip(Exception):
    """This variant cannot be run on this host: why."""


class Broker:
    """One variant's broker, running on a directory that variants with the same files share."""

    def __init__(self, lab, variant):
        self.lab, self.variant = lab, variant
        e = lab.experiment
        settings = {"shards": 1, "log-level": "error", **e["serve"], **variant.get("serve", {})}
        self.set = {"log.retention.check.interval.ms": 1000, **e["set"], **variant.get("set", {})}
        self.topic = {**e["topic"], **variant.get("topic", {})}
        self.shards = int(settings["shards"])
        key = json.dumps([self.shards, self.set, self.topic], sort_keys=True)
        self.data = lab.directory_of(key)
        base = lab.next_port(self.shards)
        self.address = f"127.0.0.1:{base}"
        command = [lab.ottla, "serve", "--data-dir", self.data, "--listen", self.address, *flags(settings)]
        for key, value in self.set.items():
            command += ["--set", f"{key}={value}"]
        self.command = [str(c) for c in command]
        self.limit = IopsLimit(variant["write_iops_max"], DiskMeter(lab.dir)) if "write_iops_max" in variant else None
        cpus = str(variant.get("broker_cpus", e["broker_cpus"]))
        self.process = subprocess.Popen(["taskset", "-c", cpus, *self.command], stdin=subprocess.DEVNULL)
        if self.limit:
            self.limit.hold(self.process.pid)
        self.wait_until_ready()

    def wait_until_ready(self):
        for _ in range(300):
            if self.process.poll() is not None:
                raise Skip(f"the broker ended with exit code {self.process.returncode}")
            ready = subprocess.run([self.lab.ottla, "topic", "list", "--bootstrap", self.address, "--timeout", "1"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if ready.returncode == 0:
                return
            time.sleep(0.1)
        raise Skip("the broker did not start within 30 s")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.limit:
            self.limit.end()

    def begin_bench(self, arguments):
        command = [self.lab.ottla, "bench", *arguments, "--bootstrap", self.address,
                   "--cpu", self.lab.experiment["client_cpu"], "--pid", self.process.pid, "--json"]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end_bench(self, process):
        out, error = process.communicate(timeout=600)
        if process.returncode:
            raise Skip(f"ottla bench {process.args[2]} failed: {error.strip().splitlines()[-1:]}")
        return json.loads(out)

    def bench(self, arguments):
        process = self.begin_bench(arguments)
        try:
            return self.end_bench(process)
        finally:
            process.kill()

    def produce(self, topic, w, ms, configs):
        command = ["produce", "--topic", topic, "--partitions", w.get("partitions", 1),
                   "--connections", w.get("connections", 4), "--in-flight", w.get("in_flight", 4),
                   "--batch-bytes", size(w.get("batch", "64KiB")), "--acks", w.get("acks", "all"),
                   "--warm-up-ms", self.lab.warm_up_ms(w), "--duration-ms", ms]
        command += ["--rate", w["rate"]] if "rate" in w else []
        for key, value in configs.items():
            command += ["--config", f"{key}={value}"]
        return self.bench(command)

    def files(self, topic):
        paths = [p for d in (self.data / "topics").glob(f"{topic}-*") for p in d.iterdir() if p.suffix in (".log", ".spare")]
        inodes = set()
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # retention goes on
                inodes.add(path.stat().st_ino)
        return inodes

    def measure(self, w, round_number):
        w = {**w, **self.variant.get("workload", {})}
        match w["kind"]:
            case "consume":
                return self.measure_consume(w)
            case "tail":
                return self.measure_tail(w, round_number)
            case "beside":
                return self.measure_beside(w, round_number)
        return self.measure_produce(w, round_number)

    def measure_produce(self, w, round_number):
        kind, partitions = w.get("segments", "reused"), w.get("partitions", 1)
        segment = self.lab.segment_bytes(w)
        # The names of topics tell what they are filled for, so that workloads of one kind share them.
        topic = f"{kind}-{partitions}-{segment >> 20}"
        configs = {**self.topic, "segment.bytes": segment}
        if kind == "reused":
            configs["retention.bytes"] = 1
            self.fill_reused(topic, partitions, segment, configs)
        else:
            topic += f"-{round_number}-" + "".join(c for c in w["name"] if c.isalnum())
        disk = DiskMeter(self.data)
        files, writes = self.files(topic), disk.writes()
        d = self.produce(topic, w, self.lab.ms, configs)
        writes = (disk.writes() - writes) / max(d["requests_total"], 1) if writes is not None else None
        new_files = len(self.files(topic) - files)
        if kind != "reused":
            subprocess.run([self.lab.ottla, "topic", "delete", topic, "--bootstrap", self.address],
                           check=True, stdout=subprocess.DEVNULL)
        return {"requests_per_second": d["requests_per_second"], "mib_per_second": d["mib_per_second"],
                "p50_us": d["p50_us"], "p99_us": d["p99_us"], "p999_us": d["p999_us"],
                "cpu_seconds_per_million_requests": d["broker_cpu_seconds_per_million_requests"],
                "machine_cpu_seconds_per_million_requests": d["machine_less_client_cpu_seconds_per_million_requests"],
                "disk_writes_per_request": writes, "new_files": new_files}

    def fill_reused(self, topic, partitions, segment, configs):
        """Until a turn through all segments makes no new file."""
        if self.lab.filled(self.data, topic):
            return
        w = {"partitions": partitions, "connections": 4, "in_flight": 4, "batch": "64KiB"}
        for _ in range(60):
            before, written = self.files(topic), 0
            while written < 2 * segment * partitions:
                written += self.produce(topic, w, self.lab.fill_ms, configs)["requests_total"] * (64 << 10)
                if self.lab.smoke:
                    return self.lab.set_filled(self.data, topic)
            if before and not self.files(topic) - before:
                return self.lab.set_filled(self.data, topic)
        raise Skip("the segments are never reused")

    def fill_sealed(self, w):
        """A topic to be read from its start."""
        partitions, fill = w.get("partitions", 2), self.lab.fill_mib(w) << 20
        segment = min(256 << 20, max(fill // partitions // 4, 1 << 20))
        segment = w["segment_mib"] << 20 if "segment_mib" in w and not self.lab.smoke else segment
        topic = f"sealed-{partitions}-{fill >> 20}-{segment >> 20}" + (f"-{self.process.pid}" if w.get("refill") else "")
        if not self.lab.filled(self.data, topic):
            # A little at a time, so that it is not much more than what is wanted.
            filler, written = {"partitions": partitions, "connections": 4, "in_flight": 4, "batch": "64KiB", "warm_ms": 0}, 0
            while written < fill:
                ms = min(self.lab.fill_ms, max(50, (fill - written) // (1 << 20)))
                d = self.produce(topic, filler, ms, {**self.topic, "segment.bytes": segment})
                written += d["requests_total"] * (64 << 10)
            if not w.get("cold"):
                # What was written past the page cache is brought into it.
                self.bench([*self.consume(w, topic), "--max-wait-ms", 0, "--warm-up-ms", 0, "--duration-ms", 120_000])
            self.lab.set_filled(self.data, topic)
        if w.get("cold"):
            self.evict(topic)
        return topic

    def consume(self, w, topic):
        chunk, partitions = size(w.get("chunk", "1MiB")), w.get("partitions", 2)
        return ["consume", "--topic", topic, "--from", "start", "--consumers", w.get("consumers", partitions),
                "--partition-max-bytes", chunk, "--max-bytes", chunk]

    def measure_consume(self, w):
        """From the start to the end, once if the page cache is to be cold, else again and again."""
        command = self.consume(w, self.fill_sealed(w))
        if w.get("cold"):
            d = self.bench([*command, "--max-wait-ms", 0, "--warm-up-ms", 0, "--duration-ms", 120_000])
        else:
            d = self.bench([*command, "--repeat", "--warm-up-ms", self.lab.warm_ms, "--duration-ms", self.lab.ms])
        return {"mib_per_second": d["mib_per_second"], "p50_us": d["p50_us"], "p99_us": d["p99_us"],
                "p999_us": d["p999_us"], "cpu_seconds_per_gib": d["broker_cpu_seconds_per_gib"]}

    def measure_beside(self, w, round_number):
        """A producer with a fixed rate, or none, beside readers from the start of another topic, or none: latencies and
        CPU are the producer's (CPU with what the readers take), the readers have a rate of their own."""
        found, reader = {}, None
        if w.get("consumers", 0):
            ms = self.lab.ms + self.lab.warm_ms
            reader = self.begin_bench([*self.consume(w, self.fill_sealed(w)), "--max-wait-ms", 0, "--warm-up-ms", 0,
                                       "--duration-ms", ms, *([] if w.get("cold") else ["--repeat"])])
        try:
            if w.get("rate", 0):
                topic = f"beside-{round_number}"
                d = self.produce(topic, {**w, "partitions": 4}, self.lab.ms, {**self.topic, "segment.bytes": 256 << 20})
                found = {"requests_per_second": d["requests_per_second"], "p50_us": d["p50_us"], "p99_us": d["p99_us"],
                         "p999_us": d["p999_us"],
                         "cpu_seconds_per_million_requests": d["broker_cpu_seconds_per_million_requests"]}
                subprocess.run([self.lab.ottla, "topic", "delete", topic, "--bootstrap", self.address], check=True,
                               stdout=subprocess.DEVNULL)
            if reader:
                found["reader_mib_per_second"] = self.end_bench(reader)["mib_per_second"]
        finally:
            if reader:
                reader.kill()
        return found

    def measure_tail(self, w, round_number):
        """Readers at the end behind a producer with a fixed rate: the figures are the readers', CPU counts the bytes of
        both."""
        topic = f"tail-{round_number}-" + "".join(c for c in w["name"] if c.isalnum())
        command = ["mixed", "--topic", topic, "--partitions", w.get("partitions", 4), "--tail", w.get("consumers", 4),
                   "--catch-up", 0, "--rate", w["rate"], "--batch-bytes", size(w.get("batch", "64KiB")),
                   "--connections", w.get("connections", 4), "--in-flight", w.get("in_flight", 4),
                   "--warm-up-ms", self.lab.warm_ms, "--duration-ms", self.lab.ms]
        for key, value in {**self.topic, "segment.bytes": 256 << 20}.items():
            command += ["--config", f"{key}={value}"]
        d = self.bench(command)
        subprocess.run([self.lab.ottla, "topic", "delete", topic, "--bootstrap", self.address], check=True,
                       stdout=subprocess.DEVNULL)
        tail = d["streams"]["tail"]
        return {"mib_per_second": tail["mib_per_second"], "p50_us": tail["p50_us"], "p99_us": tail["p99_us"],
                "p999_us": tail["p999_us"], "cpu_seconds_per_gib": d["broker_cpu_seconds_per_gib"]}

    def evict(self, topic):
        for path in (self.data / "topics").glob(f"{topic}-*/*.log"):
            evict(path)


def evict(path):
    """Drops its page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


class Bare(Broker):
    """A server that does next to nothing, `ottla bench sink`, in the broker's place: one for each workload, with the
    flags that it names for it."""

    def __init__(self, lab, variant):
        self.lab, self.variant, self.limit, self.topic, self.process = lab, variant, None, {}, None
        self.data = lab.directory_of("bare")
        self.data.mkdir(exist_ok=True)
        self.command = ["ottla", "bench", *(["-"] * 4), "sink"]

    def measure(self, w, round_number):
        self.address, self.file = f"127.0.0.1:{self.lab.next_port(1)}", self.data / "fetched"
        command = [self.lab.ottla, "bench", "sink", "--listen", self.address, "--partitions", w.get("partitions", 2),
                   "--cpu", self.lab.experiment["broker_cpus"], "--fetch-bytes", self.lab.fill_mib(w) << 20,
                   *(self.file if flag == "FILE" else flag for flag in w["bare"])]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            self.wait_until_ready()
            return super().measure(w, round_number)
        finally:
            self.stop()

    def fill_sealed(self, w):
        if w.get("cold"):
            evict(self.file)
        return "any"

    def fill_reused(self, *_):
        """Its file is written before it listens."""

    def stop(self):
        if self.process:
            super().stop()


class Lab:
    """What all variants share: the binary, the directory, ports, and which logs have been filled."""

    def __init__(self, experiment, a):
        self.experiment, self.smoke, self.ottla = experiment, a.smoke, pathlib.Path(os.environ["OTTLA"]).resolve()
        self.ms = 200 if a.smoke else a.ms
        self.warm_ms = 100 if a.smoke else WARM_MS
        self.fill_ms = 300 if a.smoke else 3000
        self.dir = a.dir / f"lab-{os.getpid()}"
        self.dir.mkdir(parents=True)
        self.ports = iter(range(20000 + os.getpid() % 10000, 65000))
        self.directories, self.full = {}, set()

    def directory_of(self, key):
        return self.directories.setdefault(key, self.dir.resolve() / f"data-{len(self.directories)}")

    def next_port(self, shards):
        return [next(self.ports) for _ in range(shards)][0]

    def warm_up_ms(self, w):
        return self.warm_ms if self.smoke else w.get("warm_ms", self.warm_ms)

    def segment_bytes(self, w):
        return (1 if self.smoke else w.get("segment_mib", 1000)) << 20

    def fill_mib(self, w):
        return 8 if self.smoke else w.get("fill_mib", 2048)

    def filled(self, data, topic):
        return (data, topic) in self.full

    def set_filled(self, data, topic):
        self.full.add((data, topic))


def machine(ottla, directory):
    host = json.loads(subprocess.run([ottla, "tune", "--json", "--data-dir", directory], check=True, stdout=subprocess.PIPE, text=True).stdout)
    found = {f["name"]: f["current"] for f in host["findings"]}
    chosen = {k: v for k, v in found.items() if k in ("file system", "clock source") or k.endswith(("scheduler", "write cache"))}
    return {"processor": host["host"]["processor"], "kernel": host["host"]["kernel"], "memory": host["host"]["memory"], **chosen}


def commit():
    text = lambda *c: subprocess.run(["git", *c], cwd=TUNING, stdout=subprocess.PIPE, text=True).stdout.strip()
    return text("rev-parse", "--short=10", "HEAD") + ("-changed" if text("status", "--porcelain", "--", "../src") else "")


def listing():
    for path in sorted((TUNING / "experiments").glob("*.toml")):
        e = tomllib.loads(path.read_text())
        print(f"{path.stem:<22} {len(e['variant'])} variants x {len(e['workload'])} workloads  {e['question']}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("name", nargs="?")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--ms", type=int, default=2500)
    ap.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("."), help="on the disk to be measured; some 10 GiB")
    ap.add_argument("--out", type=pathlib.Path, default=TUNING / "results")
    ap.add_argument("--only", help="variants, separated by commas, by name")
    ap.add_argument("--smoke", action="store_true")
    a = ap.parse_args()
    if a.list:
        return listing()
    if not a.name or "OTTLA" not in os.environ:
        ap.error("which experiment? (scripts/experiment.sh NAME)")
    e = load(a.name)
    names = a.only.split(",") if a.only else [v["name"] for v in e["variant"]]
    variants = [v for v in e["variant"] if v["name"] in names]
    rounds = 1 if a.smoke else a.rounds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the broker is stopped and the data removed
    lab, rows, skipped, commands, live = Lab(e, a), [], {}, {}, None
    begun = datetime.datetime.now(datetime.timezone.utc)
    try:
        for r in range(rounds):
            for variant in variants if r % 2 == 0 else variants[::-1]:
                if variant["name"] in skipped:
                    continue
                try:
                    live = None
                    live = (Bare if variant.get("bare") else Broker)(lab, variant)
                    commands[variant["name"]] = " ".join(["ottla", *live.command[1:2], *live.command[6:]])
                    for w in e["workload"]:
                        row = {"variant": variant["name"], "workload": w["name"], "round": r, **live.measure(w, r)}
                        rows.append(row)
                        shown = " ".join(f"{k}={v:.5g}" for k, v in row.items() if isinstance(v, float))
                        print(f"round {r + 1}/{rounds} {variant['name']} | {w['name']}: {shown}", file=sys.stderr, flush=True)
                except Skip as why:
                    skipped[variant["name"]] = str(why)
                    print(f"skipped {variant['name']}: {why}", file=sys.stderr)
                finally:
                    if live:
                        live.stop()
    finally:
        shutil.rmtree(lab.dir, ignore_errors=True)
    document = {"experiment": e["name"], "question": e["question"], "note": e.get("note", ""), "commit": commit(),
                "date": begun.strftime("%Y-%m-%d %H:%M UTC"), "machine": machine(lab.ottla, a.dir), "rounds": rounds,
                "milliseconds": lab.ms, "command": f"scripts/experiment.sh {e['name']} --rounds {rounds} --ms {lab.ms}",
                "serve": commands, "skipped": skipped, "rows": rows}
    table = report.markdown(document)
    print(table)
    if not a.smoke:
        out = a.out / e["name"]
        out.mkdir(parents=True, exist_ok=True)
        stem = f"{begun:%Y-%m-%d}-{document['commit']}"
        (out / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n")
        (out / f"{stem}.md").write_text(table)
        (out / f"{stem}.svg").write_text(report.svg(document))
        print(f"kept in {out}/{stem}.md, .json, .svg", file=sys.stderr)
    elif "<svg" not in report.svg(document):
        sys.exit("no plot")
    if not rows:
        sys.exit("nothing was measured")


main()
