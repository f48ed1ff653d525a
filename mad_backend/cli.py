"""Subcommands that need nothing but the store and the web process: serve, status, and ops' controls."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mad_backend.core.rounds import NEXT, Round, RoundState
from mad_backend.errors import SettingsError
from mad_backend.settings import Secrets
from mad_backend.settings_file import load_settings

app = typer.Typer()
console = Console()

Config = Annotated[Path, typer.Option("--config", "-c", help="Settings file.", envvar="MAD_CONFIG")]
Number = Annotated[int | None, typer.Argument(help="Round; the latest one if left out.")]
DEFAULT_CONFIG = Path("mad.yaml")


@app.command(epilog="Example: mad serve --config mad.yaml")
def serve(config: Config = DEFAULT_CONFIG) -> None:
    """Serves the promoted target model to Label Studio as an ML backend."""
    from mad_backend.web.server import serve as serve_forever

    serve_forever(load_settings(config), Secrets())


@app.command(epilog="Example: mad status --config mad.yaml")
def status(config: Config = DEFAULT_CONFIG) -> None:
    """Which round is in which state, and what it waits for."""
    from mad_backend.store.store import Store

    store = Store(load_settings(config).database_url)
    print_status(store.rounds.all())
    served = store.versions.promoted()
    if served:
        console.print(f"served target: {served.version}, promoted {served.promoted_at:%Y-%m-%d %H:%M} UTC")


@app.command(epilog="Example: mad pause 3")
def pause(number: Number = None, config: Config = DEFAULT_CONFIG) -> None:
    """Stops a round where it stands, a running step included; `mad resume` goes on."""
    _move(config, number, lambda _: RoundState.PAUSED)


@app.command(epilog="Example: mad resume 3")
def resume(number: Number = None, config: Config = DEFAULT_CONFIG) -> None:
    """Lets a paused round go on from where it stood."""
    _move(config, number, lambda found: _came_from(found, RoundState.PAUSED))


@app.command(epilog="Example: mad retry 3")
def retry(number: Number = None, config: Config = DEFAULT_CONFIG) -> None:
    """Lets a failed round try its step again; what was finished before is kept."""
    _move(config, number, lambda found: _came_from(found, RoundState.FAILED))


@app.command(epilog="Example: mad cancel 3")
def cancel(number: Number = None, config: Config = DEFAULT_CONFIG) -> None:
    """Ends a round for good; its images return to the pool's later rounds unless they were in S or T."""
    _move(config, number, lambda _: RoundState.CANCELLED)


@app.command(epilog="Example: mad promote scenes@1 --reason 'checked by hand'")
def promote(
    version: Annotated[str, typer.Argument(help="A version that `mad status` or /versions lists.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "by hand",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Serves a version whatever the gate said; `mad report` tells what it said last."""
    from mad_backend.store.store import Store

    Store(load_settings(config).database_url).versions.promote(version, datetime.now(UTC), reason)
    console.print(f"{version} is served from now on")


@app.command(epilog="Example: mad rollback --reason 'raters complain about trees'")
def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "rolled back",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Serves the version that was served before the present one; once more goes one further back."""
    from mad_backend.store.store import Store

    versions = Store(load_settings(config).database_url).versions
    served, earlier = versions.promoted(), versions.served_before()
    if served is None or earlier is None:
        now = f"{served.version} is the first that was ever served" if served else "nothing is served yet"
        raise SettingsError(f"there is no version to go back to: {now}; `mad status` tells what there is")
    versions.promote(earlier.version, datetime.now(UTC), reason)
    console.print(f"{earlier.version} is served from now on, in the place of {served.version}")


@app.command("vetoes", epilog="Example: mad vetoes --lift pool/kitchen-07")
def list_vetoes(
    lift: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Image that later rounds may choose again.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Images that a rater called out-of-domain when S and T were drawn: no later round chooses them."""
    from mad_backend.store.store import Store

    choices = Store(load_settings(config).database_url).choices
    if lift is not None:
        if not choices.lift_veto(lift):
            raise SettingsError(f'nobody vetoed "{lift}"; `mad vetoes` lists what was')
        console.print(f"{lift}: later rounds may choose it again", markup=False, highlight=False)
        return
    found = choices.vetoes()
    if not found:
        console.print("no image was called out-of-domain")
        return
    table = Table("image", "round", "by", "")
    for veto in found:
        lifted = "lifted" if veto.is_lifted else ""
        table.add_row(escape(veto.image_id), str(veto.round_number), escape(veto.rater), lifted)
    console.print(table)


def _came_from(found: Round, wanted: RoundState) -> RoundState:
    if found.state is not wanted or found.came_from is None:
        raise SettingsError(f"round {found.number} is {found.state}, not {wanted}")
    return found.came_from


def _move(config: Path, number: int | None, after: Callable[[Round], RoundState]) -> None:
    from mad_backend.store.store import Store

    rounds = Store(load_settings(config).database_url).rounds
    found = rounds.get(number) if number else rounds.latest()
    if found is None:
        raise SettingsError("there is no round yet; start one with `mad new-round`")
    state = after(found)
    if not rounds.advance(found.number, found.state, state, datetime.now(UTC)):
        raise SettingsError(f"round {found.number} moved on at this very moment; look with `mad status`")
    console.print(f"round {found.number}: {found.state} -> {state}")


def print_status(rounds: list[Round]) -> None:
    """One row per round: where it is, and what it does, waits for or decided."""
    if not rounds:
        console.print("no round yet; `mad new-round` starts one")
        return
    table = Table("round", "state", "done", "what it does, waits for or decided")
    for found in rounds:
        counts = f"{found.done} of {found.total}" if found.total else ""
        note = found.error or found.outcome or found.note or _next(found)
        table.add_row(str(found.number), found.state, counts, escape(note))
    console.print(table)
    latest = rounds[-1]
    if latest.stop:
        told = f"stop rule, when round {latest.number} ended: {latest.stop}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)


def _next(found: Round) -> str:
    return f"next: {NEXT[found.state]}" if found.state.is_working else ""
