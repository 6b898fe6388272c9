"""The ``convert`` command: what would become of the matrices of a model of a user's own."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import nn

from ..algorithms import rule_named
from ..configs import Mapping
from ..errors import ConfigError
from ..nn import to_analog
from ..nn.report import ConversionReport, conversion
from .arguments import seed_number, whole, writing
from .parser import add_algorithm, add_command
from .settings import rule_changes

__all__ = ["add_parser", "model_of", "run"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "convert",
        "put a model on crossbars, or say what would become of each matrix",
        """pulseline convert mine.py:Net --dry-run
        pulseline convert mine.py:Net --device reram_es --exclude head --out analog.pt
        pulseline convert mine.py:Net --dry-run --algorithm agad""",
    )
    one.set_defaults(run=run)
    one.add_argument("model", metavar="FILE.py:NAME", help="class, function or module in a file")
    one.add_argument("--dry-run", action="store_true", help="the table alone, without memory")
    one.add_argument(
        "--device", default="soft_bounds", metavar="NAME", help="model, preset or device file"
    )
    add_algorithm(one)
    one.add_argument(
        "--fast-device",
        metavar="NAME",
        help="of the array that takes gradients (default: as --device)",
    )
    one.add_argument(
        "--omega", default="auto", choices=("auto", "none"), help="scale weights that do not fit"
    )
    one.add_argument(
        "--tile",
        type=whole(1),
        default=512,
        metavar="N",
        help="crosspoints along the largest side of a physical tile",
    )
    for option, what in (
        ("--include", "nothing else becomes analog (default: all)"),
        ("--exclude", "stays digital (default: nothing)"),
    ):
        one.add_argument(
            option, action="append", metavar="PATTERN", help=f"layers by name, repeatable; {what}"
        )
    one.add_argument("--seed", type=seed_number, default=0, metavar="S", help="of weights, devices")
    one.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file of the analog state_dict (default: not written)",
    )


def run(args: argparse.Namespace) -> None:
    """Print the table of the conversion; with ``--out`` also save the model's state.

    Args:
        args: of the command line.

    Raises:
        ConfigError: there is no such model, or it cannot be converted.
    """
    if args.dry_run and args.out is not None:
        raise ConfigError(f"--out is {args.out} with --dry-run, which makes nothing; use one")
    make = model_of(args.model)
    omega = "auto" if args.omega == "auto" else 0.0
    options = {
        "include": args.include,
        "exclude": args.exclude,
        "seed": args.seed,
        "mapping": Mapping(omega=omega, tile_in=args.tile, tile_out=args.tile),
        "algorithm": rule_named(args.algorithm, **rule_changes(args.algorithm, args.rule)),
        "fast_device": args.fast_device,
    }
    torch.manual_seed(args.seed)
    if args.dry_run:
        with torch.device("meta"):
            model = _made(args.model, make)
        report = to_analog(model, args.device, dry_run=True, **options)
        _print(model, report)
        return
    model = _made(args.model, make)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table says so
        analog = to_analog(model, args.device, inplace=True, **options)
    _print(analog, conversion(analog))
    if args.out is not None:
        with writing(args.out):
            torch.save(analog.state_dict(), args.out)
        print(f"wrote {args.out}")


def _print(model: nn.Module, report: ConversionReport) -> None:
    print(report)
    for sentence in report.warnings():
        print(f"warning: {sentence}")


def model_of(text: str) -> Callable[[], Any]:
    """What makes the model that the command line names.

    Args:
        text: FILE.py:NAME, of a class of modules, a function that returns one, or a module.

    Returns:
        A function of no arguments.

    Raises:
        ConfigError: there is no such file or name, or the file cannot be run.
    """
    file, colon, name = text.rpartition(":")
    path = Path(file)
    if not (colon and name.isidentifier() and path.suffix == ".py"):
        raise ConfigError(f"model is {text!r}; use FILE.py:NAME, a class or a function in a file")
    if not path.is_file():
        raise ConfigError(f"model is {text!r}, but there is no file {file}; name one")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where dataclasses and pickle look
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{file} cannot be run ({what:.200}); mend it") from error
    finally:
        sys.path.remove(str(path.parent))
    if not hasattr(module, name):
        known = [
            n for n, v in vars(module).items() if isinstance(v, type | FunctionType | nn.Module)
        ]
        raise ConfigError(f"{file} has no {name}; it has {', '.join(known) or 'nothing to name'}")
    found = getattr(module, name)
    return (lambda: found) if isinstance(found, nn.Module) else found


def _made(text: str, make: Callable[[], Any]) -> nn.Module:
    try:
        model = make()
    except ConfigError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{text} cannot be made without arguments ({what:.200}); name a function in the file "
            "that returns the model"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{text} makes a {type(model).__name__}; name what makes a torch module")
    return model
