"""What M would be, as a table for people: a row per class and competing model, both roles side by side."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from mad_backend.core.records import Role
from mad_backend.core.selection import Cell, Window
from training.selecting import Preview, window_origin

LEGEND = (
    "area: share of the image, in %, that a class must have to count. S(0): training images behind it (*: too few, so "
    "it is wider; set: by settings). f: chosen/eligible images by the target's map, g: by the competing model's. d: "
    "largest to smallest chosen, +n where n more images have the smallest and were left out by their id alone."
)


def selection_table(preview: Preview) -> Table:
    """At most 100 columns wide with class names of 14 letters."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("class", overflow="fold")
    table.add_column("area", justify="right", no_wrap=True)
    table.add_column("S(0)", justify="right", no_wrap=True)
    table.add_column("against", overflow="fold")
    for role in "fg":
        table.add_column(role, justify="right", no_wrap=True)
        table.add_column(f"d ({role})", no_wrap=True)
    cells = {(c.class_id, c.competitor, c.role): c for c in preview.selection.cells}
    competitors = list(preview.selection.images)
    for class_id, window in preview.windows.items():
        head = (preview.class_names[class_id], _area(window), _images(window))
        for competitor in competitors:
            found = [cells[class_id, competitor, role] for role in (Role.TARGET, Role.COMPETITOR)]
            parts = [part for cell in found for part in (_counts(cell, preview.selection.n3), _range(cell))]
            table.add_row(*head, competitor, *parts, end_section=competitor == competitors[-1])
            head = ("", "", "")
    return table


def summary_lines(preview: Preview) -> Iterator[str]:
    """Size, short cells, near-duplicates, who is left out, and who has no scores."""
    selection, left_out = preview.selection, preview.left_out
    short = len(selection.short_cells)
    yield (
        f"|M| would be {len(selection.candidates)} images of {max(selection.images.values())} scanned with "
        f"{preview.target}, from {len(selection.cells)} cells"
        + (f"; {short} of them have fewer than {selection.n3}" if short else "")
    )
    tied = [cell.tied for cell in selection.cells if cell.tied]
    if tied:
        yield f"ties at the cut: {len(tied)} cells, up to {max(tied)} images left out by their id alone"
    replaced = sum(cell.near_duplicates for cell in selection.cells)
    if replaced:
        yield f"near-duplicates: {replaced} images left their place to the next"
    yield (
        f"left out: {left_out.spent} images of earlier S and T, {left_out.vetoed} vetoed, "
        f"{left_out.absent} no longer in the pool"
        + (f", {left_out.quarantined} like a test image" if left_out.quarantined else "")
    )
    if selection.candidates and preview.little_choice:
        yield preview.little_choice
    for competitor, images in selection.images.items():
        if not images:
            yield f"{competitor} has no scores against {preview.target}; run `mad scan`"


def _area(window: Window) -> str:
    return f"{100 * window.low:.3g}-{100 * window.high:.3g}"


def _images(window: Window) -> str:
    match window_origin(window):
        case "settings":
            return "set"
        case "widened":
            return f"{window.images}*"
        case _:
            return str(window.images)


def _counts(cell: Cell, n3: int) -> Text:
    return Text(f"{cell.chosen}/{cell.eligible}", style="yellow" if cell.chosen < n3 else "")


def _range(cell: Cell) -> str:
    if cell.largest is None or cell.smallest is None:
        return ""
    return f"{cell.largest:.3f}-{cell.smallest:.3f}" + (f" +{cell.tied}" if cell.tied else "")
