"""How every command is parsed: help with defaults and examples, errors in one line."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from ..algorithms import NAMES as ALGORITHMS
from .runfile import OPTION, file_of, words

__all__ = ["Parser", "add_algorithm", "add_command", "add_set"]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Says the default of every option that takes a value, unless its text does."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        if not text or not action.option_strings or action.nargs == 0 or "default" in text:
            return text
        return f"{text} (required)" if action.required else f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage text.

    Args:
        options: of ``argparse.ArgumentParser``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Help} | options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; what a run file says comes first, where the command takes one.

        Raises:
            ConfigError: the file cannot be read, or has a key that is no option.
        """
        if OPTION in self._option_string_actions and (path := file_of(args or ())):
            args = [*words(path, self._actions, args), *args]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized"):
            message += "; --help lists the options, --set takes settings"
        self.exit(2, f"pulseline: error: {message}\n")


def add_command(commands: Any, name: str, what: str, examples: str, more: str = "") -> Any:
    """Add a command.

    Args:
        commands: of the parser. name: of the command. what: it does, in a line.
        examples: command lines, one a line. more: what its help says besides.

    Returns:
        Its parser.
    """
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    about = f"{what[0].upper()}{what[1:]}." + (f"\n{more}" if more else "")
    return commands.add_parser(name, help=what, description=about, epilog=f"examples:\n{lines}")


def add_set(parser: Any, of: str, option: str = "--set") -> None:
    """Add an option that takes settings; ``settings.changes`` reads what it was given.

    Args:
        parser: of the command. of: whose settings, with an example. option: its name.
    """
    parser.add_argument(
        option,
        action="extend",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help=f"settings of {of}; a wrong FIELD lists all (default: none changed)",
    )


def add_algorithm(parser: Any) -> None:
    """Add the options that choose an algorithm; ``settings.rule_changes`` reads its settings.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--algorithm",
        default="sgd",
        metavar="NAME",
        help=f"that trains the crossbars: sgd (one array a matrix), {', '.join(ALGORITHMS)}",
    )
    add_set(parser, "the algorithm, such as lr_fast=0.1 every=2", "--rule")
