"""Subcommands of `mad` that talk to Label Studio and to nothing else."""

import typer
from rich.console import Console

app = typer.Typer()
console = Console()
