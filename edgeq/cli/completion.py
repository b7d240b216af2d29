"""`edgeq completion`: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from edgeq.cli.command import Command

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_EDGEQ_COMPLETE"

_EXAMPLES = (
    ('eval "$(edgeq completion bash)"', "In ~/.bashrc; for zsh in ~/.zshrc."),
    ("edgeq completion fish > ~/.config/fish/completions/edgeq.fish", "For fish, once."),
)


@click.command(
    cls=Command, examples=_EXAMPLES, json_option=False, short_help="Print a shell's completion script."
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, device names, profiles and run ids."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three shells"
    click.echo(kind(ctx.find_root().command, {}, "edgeq", VARIABLE).source())
