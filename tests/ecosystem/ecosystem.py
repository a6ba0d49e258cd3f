#!/usr/bin/env python3
"""Real programs of Kafka's world on a fresh broker each; scripts/ecosystem.sh brings what they need.

  words        Kafka Streams' word count: state, changelog and repartition topics; closed, its state removed, started again
  sums         two instances of a stateful topology of Streams with exactly_once_v2, killed and stopped, and so is the broker
  standalone   a standalone worker of Connect: a file into a topic into a file, across its restart
  distributed  two distributed workers of Connect, source exactly once, killed, and so is the broker
  copy         kafka-clients' loop of consume, transform, produce and commit in transactions (tests/copy), killed likewise

streams.py and connect.py say what each checks. None of it shares code with the broker. Prints the seed first, a line every
ten seconds on standard error, and a table at the end; exits 1 if something was wrong."""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import connect
import streams
from harness import HERE, Trial, arguments, say

PROGRAMS = {"words": streams.words, "sums": streams.sums, "standalone": connect.standalone,
            "distributed": connect.distributed, "copy": None}
COLUMNS = ("program", "records", "kills", "broker kills", "seconds", "verdict")

ap = arguments(__doc__)
ap.add_argument("--java", required=True, help="the command of Java, up to the name of a class")
ap.add_argument("--only", action="append", choices=PROGRAMS, metavar="NAME", help="this program; may be given several times")
ap.add_argument("--seconds", type=float, default=60, help="how long each is under load; it takes longer until all is done")
a = ap.parse_args()


def copy(trial):
    """tests/copy/copy.py in a process of its own, every worker one of Java."""
    command = [sys.executable, HERE / "copy" / "copy.py", "--ottla", a.ottla, "--java", f"{a.java} -Xmx128m Worker",
               "--only-java", "--minutes", a.seconds / 60, "--seed", trial.seed, "--shards", a.shards, "--kill-every", 20,
               "--dir", trial.work, "--json", *(word for pair in a.set for word in ("--set", pair))]
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, timeout=a.seconds + 900)
    if not done.stdout:
        raise RuntimeError(f"copy.py ended with code {done.returncode}")
    found = json.loads(done.stdout)
    trial.violations += found["violations"]
    return {"records": found["input"], "kills": found["killed"] + found["stopped"] + found["replaced"],
            "broker kills": found["broker_kills"], "transactions": found["transactions"], "aborts": found["aborts"]}


def tried(name, seed):
    trial = Trial(name, a, work / name)
    trial.seed = seed
    trial.rng.seed(f"{seed} {name}")
    say(f"== {name}")
    found = {}
    try:
        found = (PROGRAMS[name] or copy)(trial)
    except Exception:
        trial.wrong("trial", traceback.format_exc())
    finally:
        trial.tear_down()
    return {"program": name, "records": 0, "kills": 0, "broker kills": 0, **found, "seconds": round(trial.elapsed()),
            "verdict": "ok" if not trial.violations else f"{len(trial.violations)} wrong", "violations": trial.violations}


work = a.dir or pathlib.Path(tempfile.mkdtemp(prefix="ecosystem-"))
first = Trial("ecosystem", a, work)
say(f"seed {first.seed}; {a.seconds:g} seconds each; data and logs in {work}")
results = [tried(name, first.seed) for name in dict.fromkeys(a.only or PROGRAMS)]
first.violations = [wrong for result in results for wrong in result["violations"]]
first.tear_down()
say("\n" + "\n".join("".join(f"{row[column]:<{13 if column == 'program' else 15}}" for column in COLUMNS).rstrip()
                     for row in [dict(zip(COLUMNS, COLUMNS)), *results]))
if a.json:
    print(json.dumps({"seed": first.seed, "seconds": round(first.elapsed()), "programs": results}))
if first.violations:
    say(f"{len(first.violations)} violations; see {work}")
sys.exit(1 if first.violations else 0)
