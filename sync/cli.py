"""Subcommands of `mad` that talk to Label Studio and to nothing else."""

import logging
from typing import Annotated

import typer
from rich.console import Console

from mad_backend.cli import DEFAULT_CONFIG, Config
from mad_backend.settings import Secrets

app = typer.Typer()
console = Console()


@app.command(epilog="Example: mad pull --project 12 --name theirs --map 'Hund=dog' --map '*=background'")
def pull(
    project: Annotated[int, typer.Option(min=1, help="Id of a project at Label Studio, any but ours.")],
    name: Annotated[
        str | None, typer.Option(help="What the source is to be called; default: project-<id>.")
    ] = None,
    field: Annotated[str | None, typer.Option(help="Field of the image, where tasks have several.")] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", help="Their label=our class, or =ignore; * stands for all other labels."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Takes the masks of any project as extra training data; again for what changed there since."""
    from mad_backend.settings_file import load_label_set, load_settings
    from sync.connection import connect
    from sync.extra_training import pull_for_training, tell

    settings = load_settings(config)
    client, labels = connect(settings), load_label_set(settings.label_set)
    with console.status(f"fetching masks of project {project}"):
        found = pull_for_training(client, settings, labels, project, name, maps or (), field)
    tell(found, settings, config, console)


@app.command(
    "connect", epilog="Example: mad connect --project 12 --title MAD --url http://mad.example.com:9090"
)
def connect_backend(
    project: Annotated[int, typer.Option(min=1, help="Id of a project at Label Studio, ours or any other.")],
    title: Annotated[str, typer.Option(help="What the model is called there.")] = "MAD",
    url: Annotated[
        str | None,
        typer.Option(help="Where Label Studio reaches `mad serve`; default: serve.public_url."),
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="It answers clicks and boxes of annotators, too.")
    ] = False,
    replace: Annotated[
        bool | None,
        typer.Option(
            "--replace/--keep",
            help="Where annotators start from other predictions: from the model's answers from now on, or as before.",
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Takes the connection away again.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Lets a project ask `mad serve`, which must run, for predictions; again to change or mend the connection."""
    from mad_backend.settings_file import load_label_set, load_settings
    from sync.connect_project import connect_and_show, remove_and_show

    settings, secrets = load_settings(config), Secrets()
    if remove:
        remove_and_show(settings, secrets, project, url, title, console)
    else:
        labels = load_label_set(settings.label_set)
        connect_and_show(
            settings,
            secrets,
            labels,
            project,
            url,
            title,
            console,
            is_interactive=interactive,
            replace=replace,
        )


@app.command(epilog="Example: mad raters --config mad.yaml --round 3")
def raters(
    number: Annotated[int | None, typer.Option("--round", help="The latest one if left out.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """How far each rater of a round is, how long an image takes them, and where they go on."""
    from mad_backend.settings_file import load_settings
    from sync.connection import connect
    from sync.rater_table import show_raters

    settings = load_settings(config)
    show_raters(connect(settings), settings, number, console)


@app.command("replace-rater", epilog="Example: mad replace-rater ann@example.com --by eva@example.com")
def replace_rater(
    leaver: Annotated[str, typer.Argument(help="Email of the rater who leaves.")],
    by: Annotated[str, typer.Option(help="Email of who comes in; a user of Label Studio.")],
    discard: Annotated[
        bool, typer.Option("--discard", help="What the leaver answered shall not count; others rate it anew.")
    ] = False,
    number: Annotated[int | None, typer.Option("--round", help="The latest one if left out.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Puts somebody in the place of a rater who leaves, before S and T are drawn; may be repeated."""
    from mad_backend.settings_file import load_settings
    from sync.connection import connect
    from sync.rater_table import change_rater

    settings = load_settings(config)
    change_rater(connect(settings), settings, number, leaver, by, console, discard=discard)


@app.command(epilog="Example: mad doctor --config mad.yaml")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for scripts.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Checks everything about the Label Studio server that can go wrong, and says which setting to change.

    Exit status 1 if something is wrong. What it makes at the server to try things out, it deletes again.
    """
    from mad_backend.settings_file import load_settings
    from sync.doctor.display import diagnose

    logging.getLogger().setLevel(logging.ERROR)  # its own lines tell what is going on
    if not diagnose(load_settings(config), Secrets(), console, as_json=as_json):
        raise typer.Exit(1)


@app.command("disagreements", epilog="Example: mad disagreements --round 3 --json")
def list_disagreements(
    number: Annotated[int | None, typer.Option("--round", help="The latest one if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for scripts.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Label maps that the cross-check corrected or rejected: what was wrong, who says so, and what counts now."""
    from mad_backend.settings_file import load_settings
    from sync.disagreement_table import show_disagreements

    settings = load_settings(config)
    url = Secrets().label_studio_url or settings.label_studio.url
    show_disagreements(settings, url.rstrip("/"), number, console, as_json=as_json)


@app.command("settle", epilog="Example: mad settle pool/kitchen-07 --take author")
def settle(
    image: Annotated[str, typer.Argument(help="Image id, as `mad disagreements` prints it.")],
    take: Annotated[
        str,
        typer.Option(
            help="Whose label map counts: author or checker; drop leaves the image out of the round."
        ),
    ],
    number: Annotated[int | None, typer.Option("--round", help="The latest one if left out.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Ends a dispute about one label map, while its round is checking; no later answer changes it."""
    from mad_backend.settings_file import load_settings
    from sync.disagreement_table import settle_one

    settle_one(load_settings(config), number, image, take, console)
