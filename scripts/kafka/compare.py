#!/usr/bin/env python3
"""The measuring part of scripts/compare-kafka.sh, which brings --ottla and --jars."""
import argparse, json, os, pathlib, re, shutil, signal, socket, statistics, subprocess, sys, time, uuid

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--ottla", required=True, type=pathlib.Path)
ap.add_argument("--jars", required=True, type=pathlib.Path)
ap.add_argument("--rounds", type=int, default=3)
ap.add_argument("--seconds", type=float, default=10, help="measured time of each load")
ap.add_argument("--warm-up", type=float, default=15, help="seconds of each load before; a JVM compiles meanwhile")
ap.add_argument("--rate", type=float, default=2000, help="requests/s of the loads at a rate")
ap.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("compare-data"))
ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path("compare-out"))
ap.add_argument("--brokers", default="ottla,ottla-write,kafka,kafka-flush")
ap.add_argument("--only", default="large,small,rate,end-to-end,read-once,consume,perf")
ap.add_argument("--perf-records", type=int, default=2_000_000)
ap.add_argument("--broker-cpus", help="default: all but the last, if there are two or more")
ap.add_argument("--client-cpu", help="default: the last")
a = ap.parse_args()

usable = sorted(os.sched_getaffinity(0))
broker_cpus = a.broker_cpus or ",".join(map(str, usable[:-1] or usable))
client_cpu = a.client_cpu or str(usable[-1])
shards = len(broker_cpus.split(","))
# The figures of the table: heading, name in results, decimals.
FIGURES = [("requests/s", "requests_per_second", 0), ("MiB/s", "mib_per_second", 1), ("p50 ms", "p50_ms", 2), ("p99 ms", "p99_ms", 2),
           ("p99.9 ms", "p999_ms", 2), ("CPU s/GiB", "broker_cpu_seconds_per_gib", 2),
           ("CPU s/M requests", "broker_cpu_seconds_per_million_requests", 1), ("memory MiB", "broker_resident_mib", 0)]
# Loads by `ottla bench`: subcommand, flags, and the stream whose latency counts.
LOADS = {
    "large": ("produce", "--topic large --partitions 8 --batch-bytes 64KiB --record-bytes 1KiB --connections 4 --in-flight 4", "produce"),
    "small": ("produce", "--topic small --partitions 8 --batch-bytes 256 --connections 32 --in-flight 8", "produce"),
    "rate": ("produce", f"--topic rate --partitions 100 --records-per-batch 1 --record-bytes 1KiB --connections 8 --in-flight 64 --rate {a.rate}", "produce"),
    "end-to-end": ("end-to-end", f"--topic e2e --partitions 8 --records-per-batch 1 --record-bytes 1KiB --connections 4 --in-flight 64 --rate {a.rate}", "end-to-end"),
    # From the start to the end, once, without a warm-up: what ottla wrote direct comes from the disk.
    "read-once": ("consume", "--topic large --consumers 2", "consume"),
    # Then round and round.
    "consume": ("consume", "--topic large --repeat --consumers 2", "consume"),
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """One of the brokers on a fresh data directory, started when it answers."""

    def __init__(self, name):
        self.name, self.data = name, (a.dir / name).resolve()
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        self.address = f"127.0.0.1:{free_port()}"
        self.log = open(a.out / f"{name}.log", "w")
        command = self.ottla() if name.startswith("ottla") else self.kafka()
        self.process = subprocess.Popen(["taskset", "-c", broker_cpus, *map(str, command)], stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.time() + 90
        while subprocess.run([a.ottla, "topic", "list", "--bootstrap", self.address, "--timeout", "1"], capture_output=True).returncode:
            if self.process.poll() is not None or time.time() > deadline:
                sys.exit(f"{name} did not start: see {self.log.name}")
            time.sleep(0.3)

    def ottla(self):
        flags = ["--set", "ottla.ack.after=write"] if self.name == "ottla-write" else []
        return [a.ottla, "serve", "--data-dir", self.data, "--listen", self.address, "--shards", shards, "--log-level", "warn", *flags]

    def kafka(self):
        controller, config = free_port(), self.data / "server.properties"
        lines = {"process.roles": "broker,controller", "node.id": 1, "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                 "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}", "advertised.listeners": f"PLAINTEXT://{self.address}",
                 "controller.listener.names": "CONTROLLER", "log.dirs": self.data / "logs", "offsets.topic.replication.factor": 1,
                 "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1}
        if self.name == "kafka-flush":
            lines["log.flush.interval.messages"] = 1
        config.write_text("".join(f"{k}={v}\n" for k, v in lines.items()))
        java = ["java", "-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true", f"-Dkafka.logs.dir={self.data}", "-cp", f"{a.jars}/*"]
        cluster = uuid.uuid4().hex[:22]
        subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", config], check=True, stdout=self.log, stderr=self.log)
        return [*java, "kafka.Kafka", config]

    def bench(self, load, round_):
        what, flags, stream = LOADS[load]
        out = a.out / "runs" / load / f"{self.name}-{round_}"
        warm_up, seconds = (0, 300) if load == "read-once" else (a.warm_up, a.seconds)
        command = ["taskset", "-c", client_cpu, a.ottla, "bench", what, "--bootstrap", self.address, *flags.split(), "--pid", self.process.pid,
                   "--warm-up-ms", int(warm_up * 1000), "--duration-ms", int(seconds * 1000), "--label", self.name, "--out", out, "--json"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60 + 2 * (warm_up + seconds))
        if done.returncode:
            sys.exit(f"{load} on {self.name}: {done.stderr}")
        d = json.loads(done.stdout)
        figures = {**d, **d["streams"][stream], **{k: d[k] for k in ("requests_per_second", "mib_per_second")}}
        figures.update({f"{p}_ms": figures[f"{p}_us"] / 1e3 for p in ("p50", "p99", "p999")})
        return {name: figures.get(name) for _, name, _ in FIGURES}

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def perf(self, _round):
        """Kafka's own ProducerPerformance: records of 1 KiB, its defaults but batches of 64 KiB that wait up to 5 ms. "Requests" are records."""
        topic = ["topic", "create", "perf", "--partitions", "8", "--if-not-exists", "--bootstrap", self.address]
        subprocess.run([a.ottla, *topic], check=True, capture_output=True)
        command = ["taskset", "-c", client_cpu, "java", "-Xmx512M", "-cp", f"{a.jars}/*", "org.apache.kafka.tools.ProducerPerformance", "--topic", "perf",
                   "--record-size", "1024", "--throughput", "-1", "--num-records", str(a.perf_records), "--producer-props",
                   f"bootstrap.servers={self.address}", "acks=all", "batch.size=65536", "linger.ms=5"]
        before = self.cpu_seconds()
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800)
        last = [line for line in done.stdout.splitlines() if "99.9th" in line]
        if done.returncode or not last:
            sys.exit(f"ProducerPerformance on {self.name}: {done.stdout[-500:]}{done.stderr[-500:]}")
        rate, mib = map(float, re.search(r"([\d.]+) records/sec \(([\d.]+) MB/sec\)", last[-1]).groups())
        cpu, of = self.cpu_seconds() - before, lambda name: float(re.search(rf"(\d+) ms {name}", last[-1])[1])
        return {"requests_per_second": rate, "mib_per_second": mib, "p50_ms": of("50th"), "p99_ms": of("99th"), "p999_ms": of("99.9th"),
                "broker_cpu_seconds_per_gib": cpu / (a.perf_records / 2**20), "broker_cpu_seconds_per_million_requests": cpu / (a.perf_records / 1e6),
                "broker_resident_mib": self.memory_mib()}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.data, ignore_errors=True)


brokers, loads = a.brokers.split(","), a.only.split(",")
a.out.mkdir(parents=True, exist_ok=True)
rows = []
for round_ in range(a.rounds):
    for name in brokers if round_ % 2 == 0 else brokers[::-1]:
        broker = Broker(name)
        try:
            for load in loads:
                figures = broker.perf(round_) if load == "perf" else broker.bench(load, round_)
                rows.append({"broker": name, "load": load, "round": round_, **figures})
                print(f"round {round_ + 1}/{a.rounds} {name} {load}: " + " ".join(f"{k}={v:.4g}" for k, v in figures.items() if v is not None), file=sys.stderr)
        finally:
            broker.stop()

host = {"cpus": os.cpu_count(), "kernel": os.uname().release, "broker_cpus": broker_cpus, "client_cpu": client_cpu, "shards": shards,
        "model": (re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text()) or [0, "?"])[1]}
text = [f"{host['model']}, Linux {host['kernel']}; broker on CPUs {broker_cpus}, client on {client_cpu}; medians of {a.rounds} interleaved rounds of {a.seconds:g} s.", ""]
for load in loads:
    text += [f"### {load}", "", "`" + (f"ottla bench {LOADS[load][0]} {LOADS[load][1]}" if load in LOADS else "ProducerPerformance, 1 KiB records, acks=all, batch.size=65536, linger.ms=5") + "`", "",
             "| broker | " + " | ".join(title for title, _, _ in FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for name in brokers:
        same = [r for r in rows if (r["broker"], r["load"]) == (name, load)]
        cells = []
        for _, figure, decimals in FIGURES:
            numbers = sorted(r[figure] for r in same if r.get(figure) is not None)
            cells.append(f"{statistics.median(numbers):.{decimals}f}" + (f" ({numbers[0]:.{decimals}f}–{numbers[-1]:.{decimals}f})" if len(numbers) > 1 else "") if numbers else "")
        text.append(f"| {name} | " + " | ".join(cells) + " |")
    text.append("")
(a.out / "compare.md").write_text("\n".join(text))
(a.out / "compare.json").write_text(json.dumps({"host": host, "arguments": {k: str(v) for k, v in vars(a).items() if k not in ("ottla", "jars")}, "rounds": rows}, indent=1))
print("\n".join(text))
