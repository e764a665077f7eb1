"""Forged DNS answers, as somebody off the path sends them who knows everything but one thing."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping

from outgate.cli.demo import zone
from outgate.cli.demo.control import Lie, SetRecords
from outgate.cli.demo.sockets import bound_socket

OTHER_SERVER4 = "45.45.45.54"
OTHER_SERVER6 = "2a0f:4444::54"
GUESSES = 24
"""Wrong ids for one question; a real attacker sends as many as fit before the true answer."""
_FORGED_TTL_S = 3600


def send_lies(
    listener: socket.socket, peer: tuple[str, int], message: bytes, question: zone.Question, records: SetRecords
) -> None:
    """Send every lie of ``records`` about ``question``, asked in ``message``, to ``peer``."""
    forged = SetRecords(records.name, addresses=(records.lie_address,), ttl_s=_FORGED_TTL_S)
    answer = zone.render_answer(message, question, {question.name: forged})
    address, port = listener.getsockname()[:2]
    for lie in records.lies:
        if lie in _ALTERED:
            for altered in _ALTERED[lie](answer):
                listener.sendto(altered, peer)
        else:
            other = OTHER_SERVER6 if ":" in address else OTHER_SERVER4
            is_near = lie is Lie.OTHER_PORT
            elsewhere = bound_socket(address if is_near else other, 0 if is_near else port, socket.SOCK_DGRAM)
            with contextlib.closing(elsewhere):
                elsewhere.sendto(answer, peer)


def _guess_ids(answer: bytes) -> Iterator[bytes]:
    true = int.from_bytes(answer[:2], "big")
    for guess in range(1, GUESSES + 1):
        yield ((true + guess) % 65536).to_bytes(2, "big") + answer[2:]


def _change_question(answer: bytes) -> Iterator[bytes]:
    """The first letter of the name becomes another one."""
    yield answer[:13] + bytes((answer[13] ^ 1,)) + answer[14:]


def _clear_answer_flag(answer: bytes) -> Iterator[bytes]:
    yield answer[:2] + bytes((answer[2] & 0x7F,)) + answer[3:]


_ALTERED: Mapping[Lie, Callable[[bytes], Iterator[bytes]]] = {
    Lie.WRONG_ID: _guess_ids,
    Lie.WRONG_QUESTION: _change_question,
    Lie.NO_ANSWER_FLAG: _clear_answer_flag,
}
