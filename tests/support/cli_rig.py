"""The command line against an API of a test's own."""

import json
from collections.abc import Callable, Mapping

import httpx


class FakeApi:
    """Answers by path; keeps what it was sent."""

    def __init__(self, answers: Mapping[str, object]) -> None:
        self.answers = answers
        self.bodies: dict[str, object] = {}
        self.queries: dict[str, httpx.QueryParams] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        key = f"{request.method} {request.url.path}"
        self.queries[key] = request.url.params
        if request.content:
            self.bodies[key] = json.loads(request.content)
        answer = self.answers.get(key, (404, {"message": f"nothing at {key}"}))
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        return httpx.Response(status, json=body)


Run = Callable[[list[str], Mapping[str, object]], tuple[int, str, str, FakeApi]]
"""Runs the whole program: exit code, standard output, standard error, and what the API saw."""
