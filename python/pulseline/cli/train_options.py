"""Options of the ``train`` command, and what they come to."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from .. import hardware
from .. import train as training
from ..algorithms import Rule, rule_named
from ..data import DATA, DataSet, load
from ..errors import ConfigError
from ..hardware import Hardware
from ..hardware.presets import DEFAULT
from ..models import MODELS, Sizes, converters, crosspoint, device_name, digital
from ..models.named import is_file
from ..schedules import NAMES
from ..train import Saving
from .arguments import directory, folder, positive, seed_number, whole
from .parser import add_algorithm, add_set
from .settings import changes, rule_changes

__all__ = ["EXECUTORS", "TrainOptions", "add_options", "loaded"]

EXECUTORS = ("sim", "threads", "dist")


def add_options(train: Any) -> None:
    """Add all options of the command.

    Args:
        train: its parser.
    """
    _add_what(train)
    _add_network(train)
    _add_how(train)
    _add_files(train)
    _add_logs(train)


def _add_what(train: Any) -> None:
    train.add_argument(
        "--data",
        default="digits",
        metavar="NAME",
        help=f"what to train on: {', '.join(DATA)}; a directory with idx or CIFAR-10 binary files, "
        "compressed or not; or any text file, whose bytes are predicted",
    )
    train.add_argument(
        "--root",
        type=folder,
        default=Path("data"),
        metavar="DIR",
        help="directory of the data sets, each in one of its name",
    )
    train.add_argument(
        "--samples",
        type=whole(1),
        default=None,
        metavar="N",
        help="training samples (images, or pieces of text) to use, the first ones (default: all)",
    )
    train.add_argument(
        "--test-samples",
        type=whole(1),
        default=None,
        metavar="N",
        help="test samples to use, the first ones (default: all)",
    )
    train.add_argument(
        "--context",
        type=whole(1, 1 << 20),
        default=128,
        metavar="N",
        help="bytes of a piece of text, a sample: samples overlap in none",
    )


def _add_network(train: Any) -> None:
    train.add_argument(
        "--model",
        default=None,
        metavar="NAME",
        help="mlp (tanh, 64-128-128-64-10 for digits, else 256-128 units inside), lenet, resnet "
        "(ten layers), gpt (of bytes), or FILE.py:Class, a torch module made without arguments "
        "(default: mlp; gpt for text)",
    )
    train.add_argument(
        "--width",
        type=whole(1),
        default=None,
        metavar="N",
        help="columns of a gpt's weights per token, channels of a resnet's first block (default: "
        "128 and 16)",
    )
    train.add_argument(
        "--layers",
        type=whole(1),
        default=None,
        metavar="N",
        help="blocks of a gpt: each is four analog layers, 12 columns x columns (default: 4)",
    )
    train.add_argument(
        "--heads",
        type=whole(1),
        default=None,
        metavar="N",
        help="heads of a gpt's attention, among which columns are shared (default: 4)",
    )
    train.add_argument(
        "--device",
        default="soft_bounds",
        metavar="NAME",
        help="crosspoints: a model or a preset, such as exp_step or reram_sb; ideal or digital; a "
        "device file (.json)",
    )
    add_set(train, "the device, such as dw_min=0.01 (weights in [-1, 1])")
    add_set(train, "the converters of both directions, such as out_res=64 (levels)", "--io")
    add_algorithm(train)
    train.add_argument(
        "--hardware",
        default=DEFAULT,
        metavar="NAME",
        help="whose time and energy to model: a preset (pulseline hardware lists them) or a file "
        "(.toml, .json)",
    )


def _add_how(train: Any) -> None:
    train.add_argument(
        "--stages",
        type=whole(1),
        default=None,
        metavar="M",
        help="stages of the pipeline, at most the layers with weights (default: 4, or as many as "
        "there are; dist: the number of processes)",
    )
    train.add_argument("--schedule", choices=NAMES, default="async", help="of the stages' passes")
    train.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="sim",
        help="one thread, one per stage, or one process per stage (start with torchrun); the same "
        "digest",
    )
    train.add_argument(
        "--epochs", type=whole(1), default=5, metavar="N", help="passes over the training samples"
    )
    train.add_argument(
        "--seed", type=seed_number, default=0, metavar="S", help="of weights, devices, data order"
    )
    train.add_argument(
        "--lr",
        type=positive,
        default=training.LR,
        metavar="RATE",
        help="learning rate of epoch 1, weight per unit of gradient",
    )
    train.add_argument(
        "--lr-decay",
        type=positive,
        default=training.LR_DECAY,
        metavar="FACTOR",
        help="of the learning rate, between epochs",
    )
    train.add_argument(
        "--batch-size",
        type=whole(1, 1 << 31),
        default=1,
        metavar="N",
        help="samples per micro-batch",
    )
    train.add_argument(
        "--micro-batches",
        type=whole(1, 1 << 31),
        default=8,
        metavar="B",
        help="micro-batches per update (sync and gpipe only)",
    )


def _add_files(train: Any) -> None:
    train.add_argument(
        "--config",
        type=Path,
        default=None,
        metavar="FILE",
        help="run file (.toml or .json) with options, such as the run.toml that --out leaves; "
        "those given beside it count (default: none)",
    )
    train.add_argument(
        "--checkpoint",
        type=folder,
        default=None,
        metavar="DIR",
        help="directory of checkpoints (default: none are written)",
    )
    train.add_argument(
        "--checkpoint-every",
        type=whole(1),
        default=None,
        metavar="N",
        help="epochs between two checkpoints (default: 1)",
    )
    train.add_argument(
        "--resume", action="store_true", help="continue from the newest checkpoint, if any"
    )
    train.add_argument(
        "--out",
        type=folder,
        default=None,
        metavar="DIR",
        help="directory of result.json, run.toml and accuracy.png (default: nothing is written)",
    )


def _add_logs(train: Any) -> None:
    train.add_argument(
        "--csv",
        type=Path,
        default=None,
        metavar="FILE",
        help="table with a row per epoch, written as they end (default: none)",
    )
    train.add_argument(
        "--tensorboard",
        type=folder,
        default=None,
        metavar="DIR",
        help="directory of event files for TensorBoard, a point per epoch (default: none)",
    )
    train.add_argument(
        "--timeline", action="store_true", help="write measured and modelled timelines to --out"
    )
    train.add_argument(
        "--json", action="store_true", help="print what result.json holds instead of text"
    )


# Options that say where things lie and what is printed, and decide no number.
_FILES = (
    *("config", "checkpoint", "checkpoint_every", "resume", "hardware", "timeline", "out", "json"),
    *("csv", "tensorboard", "hardware_name"),
)


@dataclass(frozen=True)
class TrainOptions:
    """What ``pulseline train`` was asked for, every default resolved."""

    data: str
    root: Path
    samples: int | None
    test_samples: int | None
    context: int
    model: str
    width: int | None
    layers: int | None
    heads: int | None
    device: str
    stages: int
    schedule: str
    executor: str
    epochs: int
    seed: int
    lr: float
    lr_decay: float
    batch_size: int
    micro_batches: int
    set: dict[str, Any]
    io: dict[str, Any]
    algorithm: str
    rule: dict[str, Any]
    json: bool
    checkpoint: Path | None
    checkpoint_every: int
    resume: bool
    hardware: Hardware
    hardware_name: str
    timeline: bool
    out: Path | None
    csv: Path | None
    tensorboard: Path | None

    @classmethod
    def of(cls, args: argparse.Namespace, data: DataSet, model: nn.Module) -> TrainOptions:
        """The options of a parsed command line.

        Args:
            args: as parsed. data, model: that it names.

        Raises:
            ConfigError: options that need each other, or a name that is none.
        """
        _refuse_alone(args)
        given: dict[str, Any] = {one.name: getattr(args, one.name, None) for one in fields(cls)}
        for name in ("checkpoint", "out", "tensorboard"):
            if given[name] is not None:
                directory(given[name], f"--{name}")
        if args.csv is not None:
            directory(args.csv.parent, "--csv")
        device = device_name(args.device)
        return cls(
            **given
            | {
                "model": args.model or _default_model(data),
                "device": device,
                "set": changes(args.set, crosspoint(device)) if args.set else {},
                "io": changes(args.io, converters(device), "--io") if args.io else {},
                "rule": _rule_changes(args),
                "hardware": hardware.find(args.hardware),
                "hardware_name": args.hardware,
                "stages": args.stages or _default_stages(args.executor, model),
                "checkpoint_every": args.checkpoint_every or 1,
            }
        )

    @property
    def made_rule(self) -> Rule | None:
        """The algorithm with its settings; None: plain pulsed SGD."""
        return rule_named(self.algorithm, **self.rule)

    def saving(self, samples: int) -> Saving | None:
        """Checkpoints of the run on so many training samples."""
        if self.checkpoint is None:
            return None
        names = ["data", "model", "device", "set", "io", "seed", "lr", "lr_decay"]
        names += ["algorithm", "rule"] if self.algorithm != "sgd" else []
        config = {name: getattr(self, name) for name in names} | {"samples": samples}
        config |= {"context": self.context} if self.model == "gpt" else {}
        return Saving(self.checkpoint, self.checkpoint_every, self.resume, config)

    def result(self) -> dict[str, Any]:
        """What a result file says of them: what decides the numbers, not where things lie."""
        found = {name: value for name, value in asdict(self).items() if name not in _FILES}
        return found | {"root": str(self.root)}

    def run_file(self) -> dict[str, Any]:
        """What a run file says of them, to repeat the run."""
        return self.result() | {"hardware": self.hardware_name}


def loaded(args: argparse.Namespace) -> tuple[DataSet, nn.Module]:
    """Data and network of a parsed command line: images as vectors for the mlp.

    Args:
        args: as parsed.

    Returns:
        The data, and the network in plain torch.

    Raises:
        ConfigError: there are no such data, or no such network.
    """
    device_name(args.device)
    model = args.model
    if model is not None and model not in MODELS and not is_file(model):
        raise ConfigError(
            f"model is {model!r:.60}; use one of {', '.join(MODELS)}, or FILE.py:Class"
        )
    data = load(args.data, args.root, args.samples, args.test_samples, args.context)
    model = model or _default_model(data)
    sizes = Sizes(data.shape, data.classes, args.width, args.layers, args.heads)
    network = digital(model, args.seed, sizes)
    return data.flat() if model == "mlp" else data, network


def _rule_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of the algorithm that ``--rule`` gives."""
    found = rule_changes(args.algorithm, args.rule)
    if args.algorithm != "sgd" and device_name(args.device) == "digital":
        raise ConfigError(
            f"--algorithm is {args.algorithm} on device digital, which has no crossbars; leave it "
            "out, or choose a device"
        )
    return found


def _default_model(data: DataSet) -> str:
    return "gpt" if data.is_text else "mlp"


def _refuse_alone(args: argparse.Namespace) -> None:
    """Refuse options that need another one."""
    if args.checkpoint is None and (args.resume or args.checkpoint_every):
        name = "--resume" if args.resume else "--checkpoint-every"
        raise ConfigError(f"{name} comes without a directory; add --checkpoint DIR")
    if args.timeline and args.out is None:
        raise ConfigError("--timeline comes without a directory; add --out DIR")


def _default_stages(executor: str, model: nn.Module) -> int:
    if executor == "dist":
        from ..pipeline.executors.processes import world_size

        if size := world_size():
            return size
    own = (next(part.parameters(recurse=False), None) for part in model.modules())
    return max(1, min(4, sum(one is not None for one in own)))
