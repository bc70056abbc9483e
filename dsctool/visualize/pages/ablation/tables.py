"""The tables of an ablation: for the terminal and the page, as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict

from dsctool.evaluation.ablation import AblationReport, RowReport
from dsctool.evaluation.huddle.study import T_O, T_P
from dsctool.evaluation.resampling import NUMBERS
from dsctool.evaluation.rows import Table, points
from dsctool.evaluation.seeds import Estimate, spread
from dsctool.terms import KIND_NAMES, Kind

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def means_table(report: AblationReport, kind: Kind) -> Table:
    """Every row's numbers, mean and standard deviation over the seeds, in points of 100; and times, in milliseconds."""
    header = [f"{KIND_NAMES[kind]}", "seeds", *NUMBERS]
    body = []
    for row in report.rows:
        cells = ["-"] * len(NUMBERS)
        if row.estimates is not None:
            cells = [_mean(row, kind, name) for name in NUMBERS]
        body.append([row.title, str(len(row.estimates.seeds) if row.estimates is not None else 0), *cells])
    return (header, body) if not _has_times(report) else _with_times(report, header, body)


def differences_table(report: AblationReport, names: tuple[str, ...] = ("AP", "AP50", "AP75")) -> Table:
    """Every row minus the reference, with intervals."""
    header = ["row", *(f"{KIND_NAMES[kind]} {name}" for kind in report.kinds for name in names)]
    body = [
        [row.title, *(change_text(changes[kind][name]) for kind in report.kinds for name in names)]
        for row, changes in report.compared
    ]
    return header, body


def growth_table(report: AblationReport) -> Table:
    """Every row minus the reference in the most crowded subset, and by how much that is more than on all images."""
    row, column = report.crowded
    header = ["row"]
    for kind in report.kinds:
        header += [f"{KIND_NAMES[kind]} AP", "more than on all"]
    body = []
    for each, _ in report.compared:
        assert each.estimates is not None
        assert each.estimates.cells is not None
        line = [each.title]
        for kind in report.kinds:
            change = each.estimates.cells.estimates[kind][row][column]
            line += ["-" if change is None else change_text(change), change_text(each.estimates.cells.growth[kind])]
        body.append(line)
    return header, body


def crowded_text(report: AblationReport) -> str:
    """What the most crowded subset is."""
    row, column = report.crowded
    return (
        f"the {report.cell_images[row][column]} of {report.images} images of the highest T_O and T_P "
        f"({T_O[row]:g}, {T_P[column]:g})"
    )


def _has_times(report: AblationReport) -> bool:
    return any(row.time is not None for row in report.rows)


def _with_times(report: AblationReport, header: list[str], body: list[list[str]]) -> Table:
    times = [f"{1000 * row.time.median:.0f}" if row.time is not None else "-" for row in report.rows]
    return [*header, "ms"], [[*cells, time] for cells, time in zip(body, times, strict=True)]


def _mean(row: RowReport, kind: Kind, name: str) -> str:
    assert row.estimates is not None
    values = row.estimates.values[kind][name]
    text = points(row.estimates.means[kind][name].value)
    if len(values) < 2 or text == "-":
        return text
    return f"{text} {PLUS_MINUS} {points(spread(values))}"


def change_text(estimate: Estimate) -> str:
    """A difference in points of 100, with its interval."""
    text = points(estimate.value, sign=True)
    if math.isnan(estimate.low):
        return text
    return f"{text} ({points(estimate.low, sign=True)} to {points(estimate.high, sign=True)})"


def as_csv(report: AblationReport) -> str:
    """A line for each row, numbers in full: AP from 0 to 1, seconds."""
    kinds = report.kinds
    header = ["row", "title", "seeds", "learning_rate", "seconds_of_a_training", "seconds_a_picture"]
    header += [f"{kind}_{name}{suffix}" for kind in kinds for name in NUMBERS for suffix in ("", "_sd")]
    header += [
        f"{kind}_{name}_{part}" for kind in kinds for name in NUMBERS for part in ("minus_reference", "low", "high")
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in report.rows:
        found = row.estimates
        line: list[object] = [row.name, row.title, 0 if found is None else len(found.seeds), row.rate]
        line += [_number(row.seconds), _number(None if row.time is None else row.time.median)]
        for kind in kinds:
            for name in NUMBERS:
                values = [] if found is None else found.values[kind][name]
                line += [_number(None if found is None else found.means[kind][name].value)]
                line += [_number(spread(values))]
        for kind in kinds:
            for name in NUMBERS:
                change = None if found is None or found.differences is None else found.differences[kind][name]
                line += (
                    ["", "", ""]
                    if change is None
                    else [_number(each) for each in (change.value, change.low, change.high)]
                )
        writer.writerow(line)
    return stream.getvalue()


def as_json(report: AblationReport) -> object:
    """Everything, as plain values; numbers that nobody knows are null."""
    return _plain(asdict(report))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {f"{key:g}" if isinstance(key, float) else key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


_SPECIAL = {symbol: f"\\{symbol}" for symbol in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def as_latex(report: AblationReport) -> str:
    """A table for ``booktabs``: AP as papers print it, with the difference to the reference below it."""
    kinds = report.kinds
    heads = {"AP50": r"AP$_{50}$", "AP75": r"AP$_{75}$", "APs": "AP$_S$", "APm": "AP$_M$", "APl": "AP$_L$", "AP": "AP"}
    timed = _has_times(report)
    count = len(kinds) * len(NUMBERS)
    lines = [
        f"% {report.grid}: mean and standard deviation over seeds {', '.join(map(str, report.seeds))}; below AP the",
        f"% difference to {_escaped(report.reference)} with its 95 % interval",
        rf"\begin{{tabular}}{{l{'c' * (count + timed)}}}",
        r"\toprule",
        " & ".join(["", *(rf"\multicolumn{{{len(NUMBERS)}}}{{c}}{{{KIND_NAMES[kind]}}}" for kind in kinds)])
        + (" & " if timed else "")
        + r" \\",
        " & ".join(["", *(heads[name] for _ in kinds for name in NUMBERS), *(["ms"] if timed else [])]) + r" \\",
        r"\midrule",
    ]
    for row in report.rows:
        found = row.estimates
        cells = ["--" if found is None else _latex(_mean(row, kind, name)) for kind in kinds for name in NUMBERS]
        time = [] if not timed else [f"{1000 * row.time.median:.0f}" if row.time is not None else "--"]
        lines.append(" & ".join([_escaped(row.title), *cells, *time]) + r" \\")
        if found is not None and found.differences is not None:
            below = [
                rf"{{\scriptsize {_latex(change_text(found.differences[kind][name]))}}}" if name == "AP" else ""
                for kind in kinds
                for name in NUMBERS
            ]
            lines.append(" & ".join(["", *below, *([""] if timed else [])]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex(text: str) -> str:
    if text == "-":
        return "--"
    return text.replace(PLUS_MINUS, r"$\pm$").replace("\N{MINUS SIGN}", "$-$").replace("+", "$+$")


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(symbol, symbol) for symbol in text)
