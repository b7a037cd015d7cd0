"""The tables: of every path's time and memory, and of the figures to reach; for the terminal and in Markdown."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

TITLES = {
    "products": "matrix products alone",
    "forward": "forward alone",
    "bptt": "BPTT",
    "whole": "e-prop, whole sequence",
    "streaming": "e-prop, streaming",
    "stepwise": "e-prop, stepwise",
}
"""How paths are shown, in the order of the tables."""

TIMES = ("size", "path", "ms", "min, max", "runs", "MB", "error", "× BPTT")
FIGURES = ("figure", "size", "measured", "at least", "aim", "verdict")
PEERS = ("size", "peer", "ms", "min, max", "× streaming", "gradient", "what it is")


def bench_tables(bench: dict[str, Any]) -> list[Table]:
    """Tables for the terminal."""
    tables = [("times and peak memory", TIMES, time_rows(bench)), ("figures to reach", FIGURES, figure_rows(bench))]
    if any(entry.get("peers") for entry in bench["cases"]):
        # What a peer runs is in bench.md; why there is none stands in the gradient's place.
        rows = ((*row[:-2], row[-2] or row[-1]) for row in peer_rows(bench))
        tables.append(("peers", PEERS[:-1], rows))
    return [_rich(*table) for table in tables]


def markdown(bench: dict[str, Any], command: str) -> str:
    """The same tables in Markdown, with command, machine, date and versions."""
    where = bench["machine"]
    made = ", ".join(f"{name} {number}" for name, number in bench["versions"].items())
    loads = [entry["load_before"] for entry in bench["cases"]]
    head = (
        f"    {command}\n\n{where['date']}, {where['processor']}, {where['cores']} cores, {where['device']}; {made}. "
        f"Load of the machine before each size: {min(loads):.1f} to {max(loads):.1f}. Times are medians over the runs "
        "of one process, all ways in turns. MB: arguments, results and temporaries of the compiled function; for the "
        "stream, of one window's step (K: steps a window, the fastest of a few). Error: of the gradient, against "
        "plain differentiation.\n"
    )
    parts = [head, _markdown(TIMES, time_rows(bench)), _markdown(FIGURES, figure_rows(bench)), memory_lines(bench)]
    if any(entry.get("peers") for entry in bench["cases"]):
        parts.append(_markdown(PEERS, peer_rows(bench)))
    return "\n".join(part for part in parts if part)


def time_rows(bench: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for entry in bench["cases"]:
        bptt = next((row["median_s"] for row in entry["paths"] if row["path"] == "bptt"), None)
        for row in entry["paths"]:
            title = TITLES[row["path"]] + (f", K={row['window']}" if row["window"] else "")
            if row["refused"]:
                yield (size(entry["case"]), title, "refused", "", "", "", f"{row['error']:.1e}", "")
                continue
            times = row["seconds"]
            error = "" if row["error"] is None else f"{row['error']:.0e}"
            relative = f"{row['median_s'] / bptt:.2f}" if bptt else ""
            spread = f"{milliseconds(min(times))}, {milliseconds(max(times))}"
            memory = f"{row['bytes'] / 1e6:.3g}"
            shown = (milliseconds(row["median_s"]), spread, str(len(times)), memory, error, relative)
            yield (size(entry["case"]), title, *shown)


def figure_rows(bench: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    judged = [figure for figure in bench["ratios"] if figure["verdict"]]
    for figure in judged or bench["ratios"]:
        sign = "≤ " if figure["smaller_is_better"] else "≥ "
        asked = (f"{sign}{figure['at_least']:g}", f"{sign}{figure['aim']:g}")
        yield (figure["label"], size(figure["case"]), f"{figure['value']:.2f}", *asked, figure["verdict"])


def peer_rows(bench: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for entry in bench["cases"]:
        streaming = next((row["median_s"] for row in entry["paths"] if row["path"] == "streaming"), None)
        for peer in entry.get("peers", []):
            if not peer.get("median_s"):
                yield (size(entry["case"]), peer["name"], "", "", "", "", peer["why"])
                continue
            times = peer["seconds"]
            spread = f"{milliseconds(min(times))}, {milliseconds(max(times))}"
            relative = f"{peer['median_s'] / streaming:.1f}" if streaming else ""
            name = f"{peer['name']} {peer['version']}"
            shown = (milliseconds(peer["median_s"]), spread, relative, peer["gradient"], peer["what"])
            yield (size(entry["case"]), name, *shown)


def memory_lines(bench: dict[str, Any]) -> str:
    """The peak memory of streaming processes, in words."""
    lines = []
    for entry in bench["cases"]:
        if entry.get("stream_memory"):
            short, long = entry["stream_memory"]
            grown = [f"{s['peak_bytes'] / 1e6:.1f} MB after {s['steps']} steps" for s in (short, long)]
            lines.append(
                f"- {size(entry['case'])}: a process that learns from a stream had grown to {' and '.join(grown)} "
                "(resident, Python and JAX included)."
            )
    return "\n".join(lines) + ("\n" if lines else "")


def size(case: dict[str, Any]) -> str:
    return f"{case['model'].upper()} N={case['neurons']} T={case['steps']} B={case['batch']}"


def milliseconds(seconds: float) -> str:
    """Three figures."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _rich(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    """A table whose sizes are headings of its sections."""
    position = columns.index("size")
    without_size = lambda row: (*row[:position], *row[position + 1 :])  # noqa: E731
    table = Table(title=title)
    for column in without_size(columns):
        words = column in ("path", "figure", "verdict", "peer", "gradient")
        table.add_column(column, justify="left" if words else "right", no_wrap=column != "gradient")
    last = None
    for row in rows:
        if row[position] != last:
            table.add_section()
            table.add_row(f"[bold]{row[position]}[/bold]")
        last = row[position]
        table.add_row(*without_size(row))
    return table


def _markdown(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
