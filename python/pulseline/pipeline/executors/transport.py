"""Messages between processes: headers, one-way channels, and the transfers of a clock tick.

gloo gives no protection of its own: a message of another size or type is accepted as it comes
(8 floats into a receive of 16, float64 into float32). So every message begins with a header, and
is used only after its check.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import StageFailed
from ...schedules import Planned
from ..messages import Bundle, Message, decode, encode
from .link import LinkFailed, Poisoned

__all__ = [
    "HEAD",
    "KINDS",
    "Channel",
    "LockStep",
    "Transfers",
    "empty_header",
    "flat",
    "lost",
    "pack",
    "poison",
    "read_poison",
    "transfers",
    "unpack",
]

_MAGIC = 0x70756C73_00000001  # "puls", version 1 of the header
_SIZE, _SHAPE, _POISON = 16, 7, -1
HEAD = 8 * _SIZE  # bytes
KINDS = {"F": 1, "B": 2, "E": 3}
_OPERATIONS = ("flush", "F", "B", "U", "eval", "start")
_DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
_BUNDLE = len(_DTYPES)  # in the place of a dtype: several tensors, as bytes


def pack(
    seq: int, k: int, kind: str, message: Tensor, finite: bool = True, bundle: bool = False
) -> Tensor:
    """Header of a message: magic, seq, k, kind, dtype, finite flag, dimensions, shape.

    Args:
        seq: number of the message on its link. k: micro-batch. kind: one of KINDS.
        message: that follows. finite: whether it holds no NaN and no infinity.
        bundle: it is several, see :func:`.messages.encode`.

    Returns:
        (16,) int64 on the CPU.

    Raises:
        LinkFailed: the header has no form for its dtype or dimensions.
    """
    if message.dtype not in _DTYPES or message.dim() > _SIZE - _SHAPE:
        raise LinkFailed(f"a message of {message.dtype} and {message.dim()} dimensions has no form")
    dtype = _BUNDLE if bundle else _DTYPES.index(message.dtype)
    values = [_MAGIC, seq, k, KINDS[kind], dtype, int(finite), message.dim(), *message.shape]
    return torch.tensor(values + [0] * (_SIZE - len(values)), dtype=torch.int64, device="cpu")


def unpack(header: Tensor, seq: int, k: int, kind: str) -> tuple[torch.dtype | None, list[int]]:
    """What a header says of the message that follows.

    Args:
        header: (16,) int64. seq, k, kind: of the message that is due, see :func:`pack`.

    Returns:
        dtype (None: a bundle's bytes) and shape.

    Raises:
        LinkFailed: it is another message, or not finite.
        Poisoned: the neighbour failed.
    """
    magic, *values = header.tolist()
    if magic == _POISON:
        raise Poisoned(read_poison(header))
    if magic != _MAGIC:
        raise LinkFailed("what came is no message of this version of pulseline")
    got_seq, got_k, got_kind, dtype, finite, dims = values[: _SHAPE - 1]
    due, got = (seq, k, KINDS[kind]), (got_seq, got_k, got_kind)
    if got != due:
        raise LinkFailed(f"message {got} (number, micro-batch, kind) came in place of {due}")
    if not finite:
        raise LinkFailed("its message is NaN or infinite")
    if not (0 <= dtype <= _BUNDLE and 0 <= dims <= _SIZE - _SHAPE):
        raise LinkFailed("its message's header is damaged")
    shape = values[_SHAPE - 1 : _SHAPE - 1 + dims]
    return None if dtype == _BUNDLE else _DTYPES[dtype], shape


def flat(message: Message) -> tuple[Tensor, bool]:
    """A message as one tensor, and whether it is a bundle."""
    if type(message) is Bundle:
        return encode(message), True
    return message.detach(), False  # type: ignore[union-attr]


def poison(failure: StageFailed | None = None, words: int = _SIZE) -> Tensor:
    """The header that tells a neighbour that its partner failed.

    Args:
        failure: what happened; its reason is cut to what the header holds.
        words: int64 numbers in it.

    Returns:
        (words,) int64: a mark, stage, kind, micro-batch, and the reason's bytes.
    """
    header = torch.zeros(words, dtype=torch.int64, device="cpu")
    header[0] = _POISON
    if failure is not None:
        kind = _OPERATIONS.index(failure.op) if failure.op in _OPERATIONS else 0
        numbers = [failure.stage, kind, failure.k]
        header[1:4] = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        body = failure.reason.encode()[: 8 * (words - 4)].decode(errors="ignore").encode()
        bytes_ = torch.tensor(list(body), dtype=torch.uint8, device="cpu")
        header[4:].view(torch.uint8)[: len(body)] = bytes_
    return header


def read_poison(header: Tensor) -> StageFailed | None:
    """What :func:`poison` was given, if anything."""
    stage, kind, k = header[1:4].tolist()
    if not stage:
        return None
    body = bytes(header[4:].contiguous().view(torch.uint8).tolist()).rstrip(b"\0")
    return StageFailed(stage, _OPERATIONS[kind], k, body.decode(errors="replace"))


def empty_header() -> Tensor:
    """Room for a header to come."""
    return torch.empty(_SIZE, dtype=torch.int64, device="cpu")


def lost(peer: int, error: Exception, timeout: float) -> LinkFailed:
    """What a failed send or receive means.

    Args:
        peer: rank of the other process. error: of torch.distributed. timeout: seconds waited.
    """
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    text = re.sub(r"^\[[^]]*] *", "", text).partition(". ")[0]  # gloo: [file:line] and advice
    if "imed out" in text or "timeout" in text:
        return LinkFailed(f"stage {peer + 1} did not answer for {timeout:g} s", peer)
    return LinkFailed(f"the connection to stage {peer + 1} was lost ({text})", peer)


class Channel:
    """Messages in order to or from another process: ``put`` never waits, ``get`` does.

    A message is its header and its bytes in one. Up to ``window`` receives are posted before they
    are needed: while a message waits for its receive, gloo's own thread spins on a core. That
    fixes the size of a message to that of the link's first; a larger one, and the first itself,
    follow their header on a second tag. Handles and tensors of sends are kept until they are
    complete, since gloo loses them otherwise: at most ``window``.

    Args:
        group: of gloo. peer: rank of the other process. kind: "F", "B" or "E" (evaluation).
        window: at least the schedule's depth. timeout: seconds to wait.
        device: where messages are handed over.
    """

    def __init__(
        self, group: Any, peer: int, kind: str, window: int, timeout: float, device: torch.device
    ) -> None:
        self._group, self._peer, self._kind = group, peer, kind
        self._window, self._timeout, self._device = window, timeout, device
        self._seq = 0
        self._room = 0
        self._sent: deque[tuple[Any, Tensor]] = deque()
        self._posted: deque[tuple[Any, Tensor]] = deque()

    def put(self, k: int, message: Message) -> None:
        """Send a message.

        Args:
            k: micro-batch. message: output or error of the stage.

        Raises:
            LinkFailed: the connection was lost.
        """
        one, bundle = flat(message)
        one = one.cpu().contiguous()
        body = one.reshape(-1).view(torch.uint8)
        head = pack(self._seq, k, self._kind, one, bundle=bundle).view(torch.uint8)
        self._begin(len(body))
        if self._seq and len(body) <= self._room:
            self._transmit((head, body))
        else:
            self._transmit((head,))
            if len(body):
                self._send(body, large=True)
            if not self._seq:
                self._room = len(body)
        self._seq += 1
        while len(self._sent) > 2 * self._window:
            self._complete()

    def get(self, k: int) -> Message:
        """Wait for the next message.

        Raises:
            LinkFailed: it does not come, or is not that of micro-batch k.
            Poisoned: the stage at the other end failed.
        """
        data = self._next()
        dtype, shape = unpack(data[:HEAD].view(torch.int64), self._seq, k, self._kind)
        size = math.prod(shape) * (1 if dtype is None else dtype.itemsize)
        body = data[HEAD : HEAD + size]
        if not self._seq or size > self._room:
            body = torch.empty(size, dtype=torch.uint8, device="cpu")
            if size:
                self._wait(self._receive(body, large=True))
            if not self._seq:
                self._room = size
        self._seq += 1
        self._ahead()
        if dtype is None:
            return decode(body.to(self._device))
        return body.view(dtype).reshape(shape).to(self._device)

    def _begin(self, size: int) -> None:
        """A message of that many bytes is about to be sent."""

    def poison(self, failure: StageFailed | None = None) -> None:
        """Tell the reader that this process failed, if it still listens.

        Args:
            failure: what happened.
        """
        try:
            self._send(poison(failure).view(torch.uint8))
        except LinkFailed:
            self._sent.clear()

    def flush(self) -> None:
        """Wait until everything is sent."""
        while self._sent:
            self._complete()

    def close(self) -> None:
        """Give descriptors back; nothing is sent or received after it."""

    def leave(self) -> None:
        """Forget the group; what was sent and not received is lost."""
        self._group = None
        self._sent.clear()
        self._posted.clear()

    def _transmit(self, parts: tuple[Tensor, ...]) -> None:
        """Send header, or header and body, as one."""
        self._send(torch.cat(parts))

    def _next(self) -> Tensor:
        """Header, or header and body, of the message that is due."""
        if not self._posted:
            self._post()
        return self._take()

    def _ahead(self) -> None:
        """Post receives for what is to come."""
        while len(self._posted) < self._window:
            self._post()

    def _take(self) -> Tensor:
        work, data = self._posted.popleft()
        self._wait(work)
        return data

    def _send(self, tensor: Tensor, large: bool = False) -> None:
        try:
            tag = 2 * KINDS[self._kind] + large
            work = dist.isend(tensor, self._peer, group=self._group, tag=tag)
        except RuntimeError as error:
            raise lost(self._peer, error, self._timeout) from error
        self._sent.append((work, tensor))

    def _complete(self) -> None:
        work, _ = self._sent.popleft()
        self._wait(work)

    def _post(self) -> None:
        data = torch.empty(HEAD + self._room, dtype=torch.uint8, device="cpu")
        self._posted.append((self._receive(data), data))

    def _receive(self, tensor: Tensor, large: bool = False) -> Any:
        try:
            tag = 2 * KINDS[self._kind] + large
            return dist.irecv(tensor, self._peer, group=self._group, tag=tag)
        except RuntimeError as error:
            raise lost(self._peer, error, self._timeout) from error

    def _wait(self, work: Any) -> None:
        try:
            work.wait()
        except RuntimeError as error:
            raise lost(self._peer, error, self._timeout) from error


# Of one tick: (peer, kind, micro-batch), peers from 0.
Transfers = list[tuple[int, str, int]]


def transfers(ops: Sequence[Planned], stages: int, me: int) -> tuple[Transfers, Transfers]:
    """What a stage sends and receives after the operations of one clock tick.

    Every process derives it from the same plan, so both ends of a link agree. At most one message
    per link and direction belongs to a tick.

    Args:
        ops: of all stages in that tick. stages: how many. me: the stage, from 0.

    Returns:
        Sends and receives, each in the order of peers.
    """
    sends: Transfers = []
    receives: Transfers = []
    for _, m, kind, k in ops:
        peer = m + {"F": 1, "B": -1}.get(kind, stages)
        if not 0 <= peer < stages:
            continue
        if m == me:
            sends.append((peer, kind, k))
        elif peer == me:
            receives.append((m, kind, k))
    return sorted(sends), sorted(receives)


class LockStep:
    """Exchanges the messages of one tick as one batch, as NCCL wants it: no send waits alone.

    Args:
        group: of processes. device: of the messages. timeout: seconds to wait.
    """

    def __init__(self, group: Any, device: torch.device, timeout: float) -> None:
        self._group, self._device, self._timeout = group, device, timeout
        self._sent: dict[tuple[int, str], int] = {}
        self._received: dict[tuple[int, str], int] = {}

    def exchange(self, outgoing: list[Message], sends: Transfers, due: Transfers) -> list[Message]:
        """Send and receive the messages of one tick.

        Args:
            outgoing: messages. sends: where each goes. due: what comes, see :func:`transfers`.

        Returns:
            The messages of ``due``, in its order.

        Raises:
            LinkFailed: the connection was lost, or another message came.
        """
        headers, bodies = [], []
        for message, (peer, kind, k) in zip(outgoing, sends, strict=True):
            one, bundle = flat(message)
            bodies.append(one.contiguous().to(self._device))
            seq = self._sent.get((peer, kind), 0)
            self._sent[peer, kind] = seq + 1
            headers.append(pack(seq, k, kind, one, bundle=bundle).to(self._device))
        heads = [empty_header().to(self._device) for _ in due]
        self._batch(headers, sends, heads, due)
        incoming, bundles = [], []
        for head, (peer, kind, k) in zip(heads, due, strict=True):
            seq = self._received.get((peer, kind), 0)
            self._received[peer, kind] = seq + 1
            dtype, shape = unpack(head.cpu(), seq, k, kind)
            bundles.append(dtype is None)
            incoming.append(torch.empty(shape, dtype=dtype or torch.uint8, device=self._device))
        self._batch(bodies, sends, incoming, due)
        return [
            decode(one) if bundle else one for one, bundle in zip(incoming, bundles, strict=True)
        ]

    def _batch(
        self, outgoing: list[Tensor], sends: Transfers, incoming: list[Tensor], due: Transfers
    ) -> None:
        ops = [
            dist.P2POp(dist.isend, message, peer, self._group, tag=KINDS[kind])
            for message, (peer, kind, _) in zip(outgoing, sends, strict=True)
            if message.numel()
        ]
        ops += [
            dist.P2POp(dist.irecv, message, peer, self._group, tag=KINDS[kind])
            for message, (peer, kind, _) in zip(incoming, due, strict=True)
            if message.numel()
        ]
        try:
            for work in dist.batch_isend_irecv(ops) if ops else ():
                work.wait()
        except RuntimeError as error:
            peer = (due or sends)[0][0]
            raise lost(peer, error, self._timeout) from error
