"""The golden frames of tests/golden, decoded and encoded again, byte for byte, by kafka-python's codec, which is made from
Kafka's own definitions and has nothing in common with ours. What it does not know is left to Kafka's own clients
(../java/Tour.java). No arguments; reports like a tour, a step for each API."""

import importlib
import pathlib
import pkgutil

import kafka
import kafka.protocol
from kafka.protocol.api_message import ApiMessage

import tour

OF_JAVA = {"ConsumerGroupDescribe", "ConsumerGroupHeartbeat"}
GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"


def classes():
    """All messages by name."""
    for module in pkgutil.walk_packages(kafka.protocol.__path__, "kafka.protocol."):
        if ".old" not in module.name:
            importlib.import_module(module.name)
    found, left = {}, [ApiMessage]
    while left:
        for cls in left.pop().__subclasses__():
            left.append(cls)
            if cls._class_version is None:
                found[cls.name] = cls
    return found


def verify(path, known):
    """Every line of a file: `request|response VERSION FRAME`."""
    lines = path.read_text().splitlines()
    assert lines, "no frames"
    for line in lines:
        kind, version, frame = line.split()
        version, frame = int(version), bytes.fromhex(frame)
        what = f"{kind} {version}"
        cls = known[path.stem + kind.capitalize()]
        message = cls.decode(frame, version=version, header=True, framed=True)
        tour.check(message.header.correlation_id, 0x01020300 + version, f"{what}: correlation id")
        if kind == "request":
            got = [getattr(message.header, name) for name in ("request_api_key", "request_api_version", "client_id")]
            tour.check(got, [cls.API_KEY, version, "golden"], f"{what}: header")
        tour.check(message.API_VERSION, version, f"{what}: version")
        tour.check(message.encode(header=True, framed=True).hex(), frame.hex(), what)


known = classes()
run = tour.Tour("golden frames", f"kafka-python {kafka.__version__}")
for path in sorted(GOLDEN.glob("*.hex")):
    if path.stem not in OF_JAVA:
        run.step(path.stem, lambda: verify(path, known))
run.exit()
