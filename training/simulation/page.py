"""The results of a simulation as one HTML page, with its learning curves."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from training.evaluate import T0
from training.finetuning.files import write_bytes
from training.pages import bullets, page, plot, section, table
from training.plots import Curve, curves_svg
from training.report_files import as_json
from training.simulation.duels import SimulatedDuel
from training.simulation.records import OPEN
from training.simulation.results import Results
from training.simulation.tables import TextTable, confusion_lines

MEANING = (
    f"{OPEN}: images drawn from the pool at random and never chosen: what the open world gains.",
    "T(i): images on which the target before round i and the competing models disagreed most, never learnt.",
    "T(0): the reported half of the original test set. S: the images whose label maps were drawn and learnt.",
    "Intervals are those of Student's t over seeds, which change the drawn images, answers and training, but not data.",
    "Intervals over images are for other images under the same seeds; an image that several seeds show is one image.",
    "Bands or bars in plots are the interval of the gain over f(0), which is the same model under every strategy.",
)


def write_results(
    root: Path, title: str, results: Results, duels: Sequence[SimulatedDuel], tables: Sequence[TextTable]
) -> Path:
    """Writes results.json, results.md and results.html into `root`; returns the page."""
    told = as_json({**asdict(results), "duels": [asdict(d) for d in duels]})
    write_bytes(root / "results.json", told.encode())
    text = "\n\n".join(f"**{t.title}**\n\n{t.markdown()}" for t in tables)
    lines = "\n".join(f"- {line}" for line in confusion_lines(results))
    write_bytes(root / "results.md", f"{text}\n\n{lines}\n".encode())
    body = Markup("\n").join(
        [
            bullets(MEANING),
            section("Learning curves", *(plot(svg) for svg in curves(results))),
            *(section(t.title, table(t.headers, t.rows)) for t in tables),
            section("Confusions that each strategy found", bullets(confusion_lines(results))),
        ]
    )
    path = root / "results.html"
    write_bytes(path, page(title, body).encode())
    return path


def curves(results: Results) -> list[str]:
    """Learning curves as SVG: mIoU on W and T(1) by labels, on T(0) by labels, and on W by hours of people."""
    plots = [
        (OPEN, "label maps of S", False, f"{OPEN}: the open world"),
        ("T(1)", "label maps of S", False, "T(1): where f(0) and its rivals disagreed most"),
        (T0, "label maps of S", False, "T(0): what must not be forgotten"),
        (OPEN, "hours of raters and annotators (simulated)", True, f"{OPEN} by what it cost"),
    ]
    return [
        curves_svg(
            [_curve(results, strategy, name, by_hours=by_hours) for strategy in results.strategies],
            title=title,
            x_label=label,
            y_label="dataset mIoU",
        )
        for name, label, by_hours, title in plots
    ]


def _curve(results: Results, strategy: str, image_set: str, *, by_hours: bool) -> Curve:
    """The band is the gain's interval: f(0) is the same under every strategy, and differs by seed's images only."""
    own = [p for p in results.points if (p.strategy, p.image_set) == (strategy, image_set)]
    start = own[0].miou.mean
    return Curve(
        strategy,
        [p.hours if by_hours else p.labels for p in own],
        [p.miou.mean for p in own],
        [start + p.gain.low for p in own],
        [start + p.gain.high for p in own],
    )
