"""Rows of an experiment as a table of medians and ratios, and as a plot.

A ratio is taken within a round, against the first variant; then its median is taken. The plot shows median, least and
greatest ratio of each variant, for the rate and for the broker's CPU time.
"""
import html, statistics

FIGURES = [  # key, heading, decimals
    ("requests_per_second", "requests/s", 0), ("mib_per_second", "MiB/s", 0), ("p50_us", "p50 us", 0),
    ("p99_us", "p99 us", 0), ("p999_us", "p99.9 us", 0), ("cpu_seconds_per_million_requests", "CPU s/M requests", 2),
    ("cpu_seconds_per_gib", "CPU s/GiB", 3), ("machine_cpu_seconds_per_million_requests", "machine CPU s/M", 2),
    ("disk_writes_per_request", "disk writes/request", 3), ("new_files", "new files", 0),
    ("reader_mib_per_second", "readers' MiB/s", 0)]
RATE, CPU = ("requests_per_second", "mib_per_second"), ("cpu_seconds_per_million_requests", "cpu_seconds_per_gib")
P99 = ("p99_us",)


def names(rows, key):
    return list(dict.fromkeys(row[key] for row in rows))


def values(rows, workload, variant, figure):
    """Of each round."""
    return {r["round"]: r[figure] for r in rows
            if r["workload"] == workload and r["variant"] == variant and r.get(figure) is not None}


def ratios(rows, workload, variant, base, keys):
    for key in keys:
        mine, theirs = values(rows, workload, variant, key), values(rows, workload, base, key)
        found = [mine[r] / theirs[r] for r in sorted(mine) if theirs.get(r)]
        if found:
            return found
    return []


def ratio_text(found):
    if not found:
        return ""
    return f"{statistics.median(found):.2f} ({' '.join(f'{x:.2f}' for x in found)})" if len(found) > 1 else f"{found[0]:.2f}"


def markdown(d):
    rows = d["rows"]
    out = [f"# {d['experiment']}", "", d["question"], ""]
    out += [d["note"], ""] if d["note"] else []
    out += [f"{d['date']}, commit {d['commit']}, medians of {d['rounds']} interleaved rounds of {d['milliseconds']} ms: "
            f"`{d['command']}`", "", "; ".join(f"{k}: {v}" for k, v in d["machine"].items()), ""]
    for workload in names(rows, "workload"):
        of = [r for r in rows if r["workload"] == workload]
        shown = [f for f in FIGURES if any(r.get(f[0]) is not None for r in of)]
        variants = names(of, "variant")
        out += [f"## {workload}", "", "| variant | " + " | ".join(f[1] for f in shown) + " | rate ratio | CPU ratio | p99 ratio |",
                "|---" * (len(shown) + 4) + "|"]
        for variant in variants:
            cells = []
            for key, _, decimals in shown:
                found = list(values(of, workload, variant, key).values())
                cells.append(f"{statistics.median(found):,.{decimals}f}" if found else "")
            cells += [ratio_text(ratios(of, workload, variant, variants[0], keys)) for keys in (RATE, CPU, P99)]
            out.append(f"| {variant} | " + " | ".join(cells) + " |")
        out.append("")
    for variant, why in d["skipped"].items():
        out.append(f"Not measured: {variant}: {why}")
    if d["skipped"]:
        out.append("")
    return "\n".join(out)


def svg(d):
    """Two panels side by side, rate and CPU; a row for each variant of each workload."""
    rows, lines = d["rows"], []
    for workload in names(rows, "workload"):
        variants = names([r for r in rows if r["workload"] == workload], "variant")
        lines.append((workload, None, [], []))
        lines += [(workload, v, *(ratios(rows, workload, v, variants[0], k) for k in (RATE, CPU))) for v in variants]
    left, panel, gap, row, top = 250, 300, 40, 20, 64
    width, height = left + 2 * panel + gap + 30, top + row * len(lines) + 24
    greatest = max([x for line in lines for found in line[2:] for x in found] + [1.2]) * 1.05
    text = lambda x, y, t, more="": f'<text x="{x:.0f}" y="{y:.0f}" {more}>{html.escape(t)}</text>'
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
           f'font-size="11" fill="#222"><rect width="{width}" height="{height}" fill="#fff"/>',
           text(10, 20, f"{d['experiment']}: {d['question']}", 'font-size="13" font-weight="bold"'),
           text(10, 36, f"{d['date']}, commit {d['commit']}, {d['rounds']} rounds; ratio to the first variant of the same round",
                'fill="#666"')]
    for i, title in enumerate(["rate (more is better)", "broker CPU a request or GiB (less is better)"]):
        x0 = left + i * (panel + gap)
        at = lambda v: x0 + v / greatest * panel
        out.append(text(x0, top - 8, title, 'font-weight="bold"'))
        step = next(s for s in (0.1, 0.25, 0.5, 1, 2, 5, 10, 50, 1e9) if greatest / s <= 8)
        for n in range(int(greatest / step) + 1):
            x, strong = at(n * step), abs(n * step - 1) < 1e-9
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - 22}" stroke="{"#888" if strong else "#e4e4e4"}"/>')
            out.append(text(x, height - 8, f"{n * step:g}", 'text-anchor="middle" fill="#666"'))
        for n, (workload, variant, *both) in enumerate(lines):
            y, found = top + row * n, both[i]
            if found:
                middle = statistics.median(found)
                out.append(f'<rect x="{x0}" y="{y + 4}" width="{middle / greatest * panel:.1f}" height="{row - 8}" '
                           f'fill="{"#4878a8" if i == 0 else "#c07840"}"/>')
                out.append(f'<line x1="{at(min(found)):.1f}" x2="{at(max(found)):.1f}" y1="{y + row / 2}" y2="{y + row / 2}" '
                           f'stroke="#222"/>')
                out.append(text(at(max(found)) + 4, y + 14, f"{middle:.2f}"))
    for n, (workload, variant, *_) in enumerate(lines):
        y = top + row * n + 14
        out.append(text(10, y, workload, 'font-weight="bold"') if variant is None else text(24, y, variant))
    return "\n".join(out) + "\n</svg>\n"
