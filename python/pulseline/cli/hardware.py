"""The ``hardware`` command: every constant of the modelled hardware with its source."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..hardware import PRESETS, find, save
from ..hardware.presets import DEFAULT
from .parser import add_command

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "hardware",
        "print the constants behind modelled time and energy, each with its source",
        """pulseline hardware
        pulseline hardware reram_32nm
        pulseline hardware pcm_14nm --save mine.toml    # edit it, then:
        pulseline train --hardware mine.toml""",
        "Times in ns, energies in pJ and fJ. Kinds of sources: abs: abstract or published table; "
        "file:\nconstants of a public simulator; derived: computed from those; definition; mem: "
        "recalled;\nassumed. The last two, and numbers without a source, are UNVERIFIED.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a preset or a file (.toml, .json); none: a list"
    )
    parser.add_argument(
        "--save",
        type=Path,
        default=None,
        metavar="FILE",
        help="write it as .toml or .json, to be edited and given to train --hardware "
        "(default: not written)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> None:
    """Print one, or what there is."""
    if args.name is None and args.save is None:
        found = {name: len(hardware.unverified) for name, hardware in PRESETS.items()}
        if args.json:
            print(json.dumps([*found]))
            return
        for name, count in found.items():
            kind = PRESETS[name]
            mark = f"{count} of {len(kind.numbers)} numbers unverified"
            default = ", the default" if name == DEFAULT else ""
            print(f"{name:16s} {kind.tile_rows}x{kind.tile_cols} crosspoints, {mark}{default}")
        return
    hardware = find(args.name or DEFAULT)
    if args.save is not None:
        save(hardware, args.save)
    if args.json:
        sources = {name: asdict(source) for name, source in hardware.sources}
        facts = {"name": hardware.name, "numbers": hardware.numbers, "sources": sources}
        print(json.dumps(facts | {"unverified": list(hardware.unverified)}, indent=2))
    else:
        print(hardware.table())
    if args.save is not None and not args.json:
        print(f"wrote {args.save}")
