"""How `mad doctor` shows what it found: a line per check, what is wrong, and the setting to change."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mad_backend.settings import Secrets, Settings
from sync.doctor.examination import examine
from sync.doctor.findings import Line, Verdict
from sync.doctor.findings import as_json as to_json

_STYLES = {
    Verdict.OK: "green",
    Verdict.WARNING: "yellow",
    Verdict.WRONG: "bold red",
    Verdict.NOT_CHECKED: "dim",
}
_VERDICT_WIDTH = 11
_NAME_WIDTH = 19


def diagnose(settings: Settings, secrets: Secrets, console: Console, *, as_json: bool) -> bool:
    """Runs every check and shows each line as it is known, or all as JSON on stdout; False if something is wrong."""
    lines: list[Line] = []
    progress = Console(stderr=True)
    with progress.status("") as status, closing(examine(settings, secrets, status.update)) as found:
        for line in found:
            lines.append(line)
            if not as_json:
                show_line(line, console)
    if as_json:
        sys.stdout.write(json.dumps(to_json(lines), indent=2) + "\n")
    else:
        console.print(f"\n{summary(lines)}", highlight=False)
    return not any(line.finding.verdict is Verdict.WRONG for line in lines)


def show_line(line: Line, console: Console) -> None:
    """One finding, wrapped to the console's width; what to do stands below it, after an arrow."""
    finding = line.finding
    table = Table.grid(padding=(0, 1))
    table.add_column(width=_VERDICT_WIDTH)
    table.add_column(width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    text = Text(finding.told)
    if finding.cure:
        text.append(f"\n→ {finding.cure}", style="bold")
    table.add_row(Text(finding.verdict, style=_STYLES[finding.verdict]), Text(line.name), text)
    console.print(table)


def summary(lines: Iterable[Line]) -> str:
    """E.g. "2 wrong, 1 warning, 12 ok"."""
    counts = Counter(line.finding.verdict for line in lines)
    order: Sequence[Verdict] = (Verdict.WRONG, Verdict.WARNING, Verdict.OK, Verdict.NOT_CHECKED)
    named = {Verdict.WARNING: "warnings" if counts[Verdict.WARNING] > 1 else "warning"}
    return ", ".join(f"{counts[v]} {named.get(v, v)}" for v in order if counts[v])
