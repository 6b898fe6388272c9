"""The ``dist`` executor on gloo over the loopback, its messages, and the static tick table.

One start of a few processes runs many cases (see ``dist_rank.py``): importing torch is what costs.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import torch

import executor_cases as cases
import launch
from pulseline.cli import main
from pulseline.errors import ConfigError
from pulseline.pipeline.executors.link import LinkFailed, Poisoned
from pulseline.pipeline.executors.transport import pack, poison, transfers, unpack
from pulseline.schedules import Planned, Planner, asynchronous

SCRIPT = str(Path(__file__).with_name("dist_rank.py"))
FAULTS = str(Path(__file__).with_name("dist_faults.py"))


def said(done: launch.Done, case: str) -> str:
    """What a rank printed in a case."""
    found = re.search(rf"^{case}: (.*)$", done.out, re.MULTILINE)
    assert found, done
    return found[1]


def test_two_ranks() -> None:
    """... do what one thread does; a rank that hangs is noticed, with everybody's last word."""
    done = launch.ranks(2, SCRIPT, "equal", "memory", "refuses", "twins", "stall")
    assert [rank.code for rank in done] == [0, 0], done
    texts = [said(rank, "stall") for rank in done]
    assert texts[0] == texts[1]
    age = r"its last word, (\d+\.\d) s ago, was of F0, begun (\d+\.\d) s ago"
    found = re.fullmatch(
        rf"stage 1 failed at operation B0: stage 2 did not answer for 1\.5 s; {age}", texts[0]
    )
    assert found, texts
    assert float(found[1]) < float(found[2])
    assert float(found[2]) >= 1.4  # of the operation, not of the word; rounded
    table = "".join(rank.err for rank in done)
    assert table.count("rank  stage  last operation  seconds ago  last heard") == 1
    for stage, operation in ((1, "B0"), (2, "F0")):
        line = re.search(rf"^ +\d +{stage} +{operation} +(\S+) ", table, re.MULTILINE)
        assert line, table
        assert float(line[1]) >= 1.4, table


def test_three_ranks() -> None:
    """Lock-step too; every kind of failure ends in the same sentence on all ranks."""
    done = launch.ranks(3, SCRIPT, "equal", "lockstep", "nan", "exception", "killed")
    assert [rank.code for rank in done] == [0, 0, -9], done
    for rank in done:
        assert said(rank, "nan").startswith("stage 2 failed at operation B4: ")
        text = said(rank, "exception")
        assert text == "stage 3 failed at operation F6: ValueError: the roof is on fire"
    for rank in done[:2]:
        text = said(rank, "killed")
        assert re.match(r"stage 2 failed at operation [FB]\d+: the connection to stage 3 was", text)
    assert "last operation" in done[0].err + done[1].err


def test_four_ranks() -> None:
    done = launch.ranks(4, SCRIPT, "equal", "sleeps")
    assert [rank.code for rank in done] == [0] * 4, done


def test_algorithms_of_several_arrays() -> None:
    done = launch.ranks(2, SCRIPT, "algorithms")
    assert [rank.code for rank in done] == [0] * 2, done


def test_without_shared_memory() -> None:
    """As between machines: gloo carries everything."""
    done = launch.ranks(2, SCRIPT, "gloo", "memory", "nan", "killed")
    assert [rank.code for rank in done] == [0, -9], done
    for rank in done:
        assert said(rank, "nan").startswith("stage 2 failed at operation B4: ")
    text = said(done[0], "killed")
    assert re.match(r"stage 1 failed at operation [FB]\d+: the connection to stage 2 was", text)


# ---- ranks that are not alike, not there, or gone ----


def test_ranks_agree_or_say_where_they_differ() -> None:
    """What one rank builds, is fed or is called in another way; descriptors of what is closed."""
    done = launch.ranks(2, FAULTS, "descriptors", "differs", "calls", "counts", "late")
    assert [rank.code for rank in done] == [0, 0], done


def test_ranks_that_stop_or_are_killed() -> None:
    """Every rank ends within two timeouts, also without the store that rank 0 holds."""
    done = launch.ranks(3, FAULTS, "stopped_last", "stopped_first", "killed_first")
    assert [rank.code for rank in done] == [-9, 0, 0], done
    for rank in done:
        for case in ("stopped_last", "stopped_first"):
            # which one gives up first is open: neighbours of the one that stopped, or of those
            want = r"stage \d failed at operation [FB]\d+: stage \d did not answer for 2\.5 s; "
            assert re.match(want + "its last word, ", said(rank, case)), done
    for rank in done[1:]:
        want = r"stage 2 failed at operation [FB]\d+: the connection to stage 1 was lost"
        assert re.match(want, said(rank, "killed_first")), done


def test_a_full_pipe() -> None:
    """A rank that writes to one that stopped ends within two timeouts, whatever carries it."""
    done = launch.ranks(2, FAULTS, "full")
    assert [rank.code for rank in done] == [0, 0], done
    for case in ("full_memory", "full_gloo"):
        want = r"stage 1 failed at operation [FB]\d+: stage 2 did not answer for 2\.5 s; "
        assert re.match(want, said(done[0], case)), done


def test_a_rank_that_is_killed_while_others_start() -> None:
    done = launch.ranks(3, FAULTS, "killed_at_start")
    assert [rank.code for rank in done] == [0, 0, -9], done
    assert said(done[0], "killed_at_start") == said(done[1], "killed_at_start")


@pytest.mark.parametrize(
    ("rank", "want"),
    [(0, "port {} is taken by another program"), (1, "the store at 127.0.0.1:{} did not answer")],
)
def test_a_port_that_another_program_has(rank: int, want: str) -> None:
    """Somebody who listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        done = launch.run(FAULTS, "start", RANK=str(rank), WAIT_S="2", **env)
    assert done.code == 0, done
    assert said(done, "start").startswith(f"BackendError: {want.format(port)}"), done


def test_a_rank_of_another_run() -> None:
    """Two ranks 1 at one address: the second to come is turned away, the others work."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "WAIT_S": "60"}
    done = launch.finish([launch.start(FAULTS, "start", RANK=r, **env) for r in ("0", "1", "1")])
    assert [rank.code for rank in done] == [0, 0, 0], done
    assert said(done[0], "start") == "done"
    texts = sorted(said(rank, "start") for rank in done[1:])
    assert texts[1] == "done", done
    assert texts[0].startswith("BackendError: another process is rank 1 of the run at this"), done


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("RANK", "-1", "RANK is -1; use an integer from 0 to 1"),
        ("RANK", "2", "RANK is 2; use an integer from 0 to 1"),
        ("RANK", "first", "RANK is first; use an integer from 0 to 1"),
        ("WORLD_SIZE", "-2", "WORLD_SIZE is -2; use an integer from 1"),
        ("MASTER_PORT", "0", "MASTER_PORT is 0; use an integer from 1 to 65535"),
        ("MASTER_PORT", "", "MASTER_PORT is not set; use an integer from 1 to 65535"),
        ("MASTER_ADDR", "", "MASTER_ADDR is not set; use the address of rank 0"),
    ],
)
def test_an_environment_that_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, want: str
) -> None:
    good = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for key, text in {**good, name: value}.items():
        monkeypatch.setenv(key, text)
    with pytest.raises(ConfigError, match=re.escape(want)):
        cases.build(2, asynchronous(), executor="dist", timeout=1.0)


# ---- the end of a program ----


def forgotten(executor: str) -> set[str]:
    """Two ranks, or one process, that end without close(); their digests."""
    world = 2 if executor == "dist" else 1
    done = launch.ranks(world, FAULTS, "forgotten", env={"EXECUTOR": executor})
    assert [rank.code for rank in done] == [0] * world, done
    assert all(rank.err == "" for rank in done), done
    return {said(rank, "forgotten") for rank in done}


@pytest.mark.parametrize("executor", ["sim", "threads", "dist"])
def test_a_program_may_end_without_close(executor: str) -> None:
    assert len(forgotten(executor)) == 1


@pytest.mark.full
@pytest.mark.parametrize("executor", ["sim", "threads", "dist"])
def test_twenty_programs_end_without_close(executor: str) -> None:
    assert len({digest for _ in range(20) for digest in forgotten(executor)}) == 1


# ---- messages ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4), (1,) * 9])
def test_header_round_trip(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    header = pack(5, 7, "B", torch.zeros(shape, dtype=dtype))
    assert unpack(header, 5, 7, "B") == (dtype, list(shape))


def test_headers_are_checked() -> None:
    message = torch.zeros(2, 3)
    header = pack(5, 7, "F", message)
    for due in ((4, 7, "F"), (5, 8, "F"), (5, 7, "B")):
        with pytest.raises(LinkFailed, match="came in place of"):
            unpack(header, *due)
    with pytest.raises(LinkFailed, match="NaN or infinite"):
        unpack(pack(5, 7, "F", message, finite=False), 5, 7, "F")
    for index, value in ((0, 1), (4, 99), (4, -1), (6, 10), (6, -1)):
        damaged = header.clone()
        damaged[index] = value
        with pytest.raises(LinkFailed, match=r"no message|damaged"):
            unpack(damaged, 5, 7, "F")
    with pytest.raises(Poisoned):
        unpack(poison(), 5, 7, "F")
    for odd in (torch.zeros(2, dtype=torch.complex64), torch.zeros((1,) * 10)):
        with pytest.raises(LinkFailed, match="has no form"):
            pack(0, 0, "F", odd)


# ---- tick table ----


@pytest.mark.parametrize("stages", range(1, 9))
def test_both_ends_of_a_tick_agree(stages: int) -> None:
    """For every tick: what one rank sends, the other receives, one per link and direction;
    and every message is there in the tick before the one that uses it."""
    for plan in (*cases.SCHEDULES.values(), cases.deeper(stages)):
        planner = Planner(plan, stages)
        planner.feed(17)
        ticks: dict[int, list[Planned]] = {}
        for op in planner.advance(drain=True):
            ticks.setdefault(op[0], []).append(op)
        there: set[tuple[int, str, int]] = set()
        for cycle in sorted(ticks):
            for _, m, kind, k in ticks[cycle]:
                if (kind, m) not in (("F", 0), ("B", stages - 1)) and kind != "U":
                    there.remove((m, kind, k))
            tables = [transfers(ticks[cycle], stages, me) for me in range(stages)]
            sent = {(me, *one) for me, (sends, _) in enumerate(tables) for one in sends}
            due = {
                (peer, me, kind, k)
                for me, (_, receives) in enumerate(tables)
                for peer, kind, k in receives
            }
            assert sent == due
            assert len(sent) == sum(len(sends) for sends, _ in tables)
            assert len({(a, b) for a, b, _, _ in sent}) == len(sent)
            assert all(abs(a - b) == 1 for a, b, _, _ in sent)
            there |= {(b, kind, k) for _, b, kind, k in sent}
        assert not there


# ---- the command ----


def result(out: str) -> list[str]:
    """What ``train`` printed, but for the wall time of nothing."""
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["test accuracy", "clock cycles", "digest"]
    return lines


def test_the_command_prints_the_same_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """One thread, four threads, four processes, other instructions: the same digest."""
    words = ["train", "--samples", "48", "--epochs", "2", "--batch-size", "4"]
    found = []
    for executor in ("sim", "threads"):
        assert main([*words, "--executor", executor]) == 0
        found.append(result(capsys.readouterr().out))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4")
    done = launch.run(*torchrun, "-m", "pulseline", *words, "--executor", "dist")
    assert done.code == 0, done
    found.append(result(done.out))
    assert found[1] == found[2] == found[0]


@pytest.mark.parametrize(("isa", "threads"), [("avx2", "1"), ("avx512", "2")])
def test_the_digest_is_that_of_any_instructions(
    capsys: pytest.CaptureFixture[str], isa: str, threads: str, kernels: object
) -> None:
    if isa not in kernels.isas:  # type: ignore[attr-defined]
        pytest.skip(f"this machine has no {isa}")
    words = ["train", "--samples", "48", "--epochs", "1"]
    assert main(words) == 0
    want = result(capsys.readouterr().out)
    done = launch.run("-m", "pulseline", *words, PULSELINE_ISA=isa, OMP_NUM_THREADS=threads)
    assert done.code == 0, done
    assert result(done.out) == want
