#!/usr/bin/env python3
"""`perf script -F comm,ip,sym` on stdin to a flamegraph (SVG) on stdout; --top prints the frames with most time instead.

Width is time, callers below what they call; hovering shows a frame's whole name and its share. Kernel frames are blue,
the broker's own orange, libraries yellow. Frames below a thousandth are left out, and said so at the foot.
"""
import collections, html, re, sys

LEAST, ROW, WIDTH, CHARACTER = 0.001, 15, 1180, 5.9
HASH = re.compile(r"(::h[0-9a-f]{16}|\.llvm\.\d+|\.constprop\.\d+|\.isra\.\d+|\.part\.\d+)+$")


def name_of(symbol):
    symbol = HASH.sub("", symbol)
    for escaped, plain in (("$LT$", "<"), ("$GT$", ">"), ("$u20$", " "), ("$u7b$", "{"), ("$u7d$", "}"), ("$RF$", "&"),
                           ("$C$", ","), ("$BP$", "*"), ("$LP$", "("), ("$RP$", ")"), ("$u5b$", "["), ("$u5d$", "]"),
                           ("$u3b$", ";"), ("$u27$", "'"), ("..", "::")):
        symbol = symbol.replace(escaped, plain)
    return symbol.removeprefix("_")


def stacks(lines):
    """Yields each sample as thread and frames, outermost first; a frame is its name and whether it is the kernel's."""
    thread, frames = None, []
    for line in lines:
        line = line.rstrip("\n")
        if not line:
            if thread is not None:
                yield thread, frames[::-1]
            thread, frames = None, []
        elif thread is None:
            thread = re.sub(r"[-0-9:]+$", "", line.strip()) or line.strip()
        else:
            address, _, symbol = line.strip().partition(" ")
            frames.append((name_of(symbol), len(address) == 16 and address.startswith("ffff")))
    if thread is not None:
        yield thread, frames[::-1]


class Node:
    def __init__(self):
        self.count, self.below = 0, {}

    def add(self, path):
        self.count += 1
        if path:
            self.below.setdefault(path[0], Node()).add(path[1:])


def colour(frame, depth):
    name, kernel = frame
    base = (120, 170, 220) if kernel else (238, 150, 80) if "ottla" in name else (240, 205, 100) if depth else (200, 200, 200)
    shade = (sum(map(ord, name)) % 25) - 12
    return "#%02x%02x%02x" % tuple(max(0, min(255, c + shade)) for c in base)


def draw(out, node, frame, x, depth, total, state):
    share = node.count / total
    if share < LEAST:
        state["left out"] += node.count
        return
    state["depth"] = max(state["depth"], depth)
    width = share * WIDTH
    label = frame[0] if len(frame[0]) * CHARACTER < width - 4 else frame[0][-int((width - 4) / CHARACTER):] if width > 40 else ""
    out.append((depth, f'x="{10 + x * WIDTH:.1f}" width="{max(width - 0.3, 0.3):.1f}" fill="{colour(frame, depth)}"',
                f"{frame[0]} {share:.1%}", label, 12 + x * WIDTH))
    for below, child in sorted(node.below.items()):
        draw(out, child, below, x, depth + 1, total, state)
        x += child.count / total


def main():
    root, own, whole = Node(), collections.Counter(), collections.Counter()
    for thread, frames in stacks(sys.stdin):
        root.add([(thread, False), *frames])
        own[frames[-1] if frames else (thread, False)] += 1
        whole.update(set(frames))
    total = root.count
    if not total:
        sys.exit("no samples: is the process idle, or perf not allowed?")
    if sys.argv[1:] == ["--top"]:
        for title, counter in (("itself", own), ("with what it calls", whole)):
            print(f"-- {title} ({total} samples)")
            for (name, kernel), count in counter.most_common(45):
                print(f"{count / total:7.1%}  {'kernel ' if kernel else ''}{name}")
        return
    out, state = [], {"left out": 0, "depth": 0}
    draw(out, root, ("all", False), 0, 0, total, state)
    height = (state["depth"] + 4) * ROW + 20
    esc = html.escape
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 20} {height}" font-family="monospace" font-size="10">'
          f'<style>rect{{height:{ROW - 1}px}}</style><rect width="{WIDTH + 20}" style="height:{height}px" fill="#fff"/>'
          f'<text x="10" y="16" font-size="13">{esc(sys.argv[1] if len(sys.argv) > 1 else "")}: {total} samples of CPU time</text>')
    for depth, attributes, title, label, x in out:
        y = height - 22 - (depth + 1) * ROW
        text = f'<text x="{x:.1f}" y="{y + 10.5}">{esc(label)}</text>' if label else ""
        print(f'<g><title>{esc(title)}</title><rect y="{y}" {attributes}/>{text}</g>')
    print(f'<text x="10" y="{height - 6}" fill="#666">frames below {LEAST:.1%} are left out, in {state["left out"] / total:.1%} of the samples; '
          'blue: kernel</text></svg>')


main()
