"""Answers over HTTP: the application that ``pyg-lth serve`` runs, for any ASGI server.

All that a request can make the service do is bounded: the bytes of its body, the users and items in
it, the length of lists, and the requests that are worked on at once.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyg_lth.errors import InputError
from pyg_lth.tickets.ticket import Basis, Recommendation, Ticket

USERS_AT_MOST = 256
ITEMS_AT_MOST = 10_000
LENGTH_AT_MOST = 1000
BODY_AT_MOST = 1 << 20

#: Where workers of one service count together, as prometheus_client names it.
COUNTERS = "PROMETHEUS_MULTIPROC_DIR"

_FLOAT_AT_MOST = 3.4028234663852886e38
_METHODS = frozenset(("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"))


def _whole(value: Any) -> Any:
    """To JSON, 3.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
Text = Annotated[str, Field(strict=True, max_length=1000)]
Id = Number | Text
Items = Annotated[list[Id], Field(max_length=ITEMS_AT_MOST)]
Length = Annotated[int, Field(ge=1, le=LENGTH_AT_MOST, description="Items wanted.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    k: Annotated[Length, Field(strict=True), BeforeValidator(_whole)] = 20
    exclude: Items = Field([], description="Ids of items to leave out.")


class ForUsers(_Body):
    """What users that may have been in training are asked for."""

    users: list[Id] = Field(min_length=1, max_length=USERS_AT_MOST, description="Ids of users.")


class ForHistory(_Body):
    """What someone who was not in training is asked for."""

    history: Items = Field(description="Ids of the items that they have.")


def _form_of(body: Any) -> str:
    """Which of the two forms a body is meant as, so that what is wrong is said of that one."""
    given = body if isinstance(body, dict) else vars(body) if isinstance(body, _Body) else {}
    return "for history" if "history" in given else "for users"


Wanted = Annotated[
    Annotated[ForUsers, Tag("for users")] | Annotated[ForHistory, Tag("for history")],
    Discriminator(_form_of),
]


class Answer(BaseModel):
    """The best items for someone, and what that rests on."""

    user: Id | None = Field(description="Their id; null where only a history was given.")
    items: list[Id] = Field(description="Ids of items, best first.")
    scores: list[float] = Field(description="The score of each.")
    basis: Basis = Field(
        description="trained: their own embedding. history: embedded by their items. popularity: "
        "nothing is known of them."
    )


class Answers(BaseModel):
    """An answer for each user, in the order that they were asked for."""

    answers: list[Answer]


class Similar(BaseModel):
    """The items most like another."""

    item: Id
    items: list[Id] = Field(description="Ids of items, most similar first.")
    scores: list[float] = Field(description="The cosine to each.")


class Health(BaseModel):
    """That the service answers, and what with."""

    status: Literal["ok"]
    backbone: str
    users: int
    items: int
    dim: int
    version: str


_FIELDS = {*ForUsers.model_fields, *ForHistory.model_fields, "user", "item"}


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no JSON."},
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "A value is missing, of another type or too large."},
}


def create_app(ticket: Ticket) -> FastAPI:
    """Build the application that answers from a ticket.

    ``GET /recommend`` for a user, ``POST /recommend`` for several or for a history, ``GET
    /similar``, ``GET /health``, ``GET /metrics`` for Prometheus; ``/openapi.json`` describes them,
    and ``/docs`` shows that.

    Args:
        ticket: The ticket. It is made ready here, so that the first request waits for nothing.

    Example:
        >>> from fastapi.testclient import TestClient
        >>> import numpy as np
        >>> from pyg_lth.tickets import CompactTable, IdTable, ItemLists, Ticket
        >>> from pyg_lth.tickets.service import create_app
        >>> ticket = Ticket(
        ...     "mf",
        ...     CompactTable.from_dense([[1, 0], [0, 1], [3, 0], [2, 1]]),  # two users, two items
        ...     train=ItemLists.from_pairs(np.array([[0], [0]]), num_users=2, num_items=2),
        ...     user_ids=IdTable.of(["ann", "ben"]),
        ...     item_ids=IdTable.of(["a", "b"]),
        ... )
        >>> client = TestClient(create_app(ticket))
        >>> client.get("/recommend", params={"user": "ann"}).json()
        {'user': 'ann', 'items': ['b'], 'scores': [2.0], 'basis': 'trained'}
        >>> client.post("/recommend", json={"history": ["b"], "k": 1}).json()["answers"]
        [{'user': None, 'items': ['a'], 'scores': [...], 'basis': 'history'}]
    """
    ticket.recommend(ticket.user_ids.at([0]), 1)
    for history in ([], ticket.item_ids.at([0])):
        ticket.recommend_for(history, 1)
    ticket.item_ids.index_of("")
    app = FastAPI(
        title="pyg-lth",
        description="Recommendations from a lottery ticket.",
        version=metadata.version("pyg-lth"),
        lifespan=_bounding_threads,
        redoc_url=None,
    )
    counters = _Counters()
    app.add_middleware(_Bounded)
    app.add_middleware(_Counted, counters=counters)
    app.add_exception_handler(RequestValidationError, _refused)

    @app.get("/recommend", responses={422: _REFUSALS[422]})
    def recommend_one(user: Text, k: Length = 20) -> Answer:
        """The best items for a user that they have not had; for an unknown user popular items."""
        return answer(ticket.recommend([user], k)[0])

    @app.post("/recommend", responses=_REFUSALS)
    def recommend(wanted: Wanted) -> Answers:
        """The best items for several users, or for someone with a history."""
        if isinstance(wanted, ForUsers):
            found = ticket.recommend(wanted.users, wanted.k, exclude=wanted.exclude)
        else:
            found = [ticket.recommend_for(wanted.history, wanted.k, wanted.exclude)]
        return Answers(answers=[answer(one) for one in found])

    @app.get(
        "/similar",
        responses={
            404: {"model": Problem, "description": "There is no such item."},
            422: _REFUSALS[422],
        },
    )
    def similar(item: Text, k: Length = 20) -> Similar:
        """The items most like another, by the angle between their embeddings."""
        try:
            found = ticket.similar(item, k)
        except InputError as error:
            raise HTTPException(404, str(error)) from None
        return Similar(item=item, items=[one for one, _ in found], scores=[by for _, by in found])

    @app.get("/health")
    async def health() -> Health:
        """Whether the service answers, and from which ticket."""
        return Health(
            status="ok",
            backbone=ticket.backbone,
            users=ticket.num_users,
            items=ticket.num_items,
            dim=ticket.dim,
            version=app.version,
        )

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Requests, their duration and what answers rested on, as Prometheus reads it."""
        return PlainTextResponse(counters.text(), media_type=CONTENT_TYPE_LATEST)

    def answer(found: Recommendation) -> Answer:
        counters.answers.labels(found.basis).inc()
        # JSON has no infinity.
        scores = [min(max(score, -_FLOAT_AT_MOST), _FLOAT_AT_MOST) for score in found.scores]
        return Answer(user=found.user, items=found.items, scores=scores, basis=found.basis)

    return app


@asynccontextmanager
async def _bounding_threads(app: FastAPI) -> AsyncIterator[None]:
    """Work on no more requests at once than there are cores: others wait, and take no memory."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = max(2, len(os.sched_getaffinity(0)))
    yield


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong first, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    kinds = {found["type"] for found in errors}
    where = "" if "json_invalid" in kinds else _place(errors[0]["loc"])
    if "extra_forbidden" in kinds:
        where = ""
        said = ["it has a field that is not known: give users or history, k and exclude"]
    elif not where:
        said = ["the body has to be a JSON object, sent with Content-Type: application/json"]
    else:
        said = list(
            dict.fromkeys(found["msg"] for found in errors if _place(found["loc"]) == where)
        )
    detail = f"{where}: {' or '.join(said)}" if where else said[0]
    return JSONResponse({"detail": detail}, status_code=422)


def _place(location: tuple[int | str, ...]) -> str:
    """A field and what of it, without the names of the types that were tried."""
    return ".".join(str(part) for part in location if isinstance(part, int) or part in _FIELDS)


class _Counters:
    """What Prometheus is told."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "pyg_lth_requests",
            "Requests by path, method and status.",
            ("path", "method", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "pyg_lth_request_seconds",
            "Time from a request to the end of its answer.",
            ("path",),
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
            registry=self._registry,
        )
        self.answers = Counter(
            "pyg_lth_answers",
            "Answers by what they rest on.",
            ("basis",),
            registry=self._registry,
        )

    def text(self) -> bytes:
        """The figures of this process, or of all workers together."""
        registry = self._registry
        if COUNTERS in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class _Counted:
    """Counts requests; paths and methods that the service does not know count as ``other``."""

    def __init__(self, app: ASGIApp, counters: _Counters):
        self._app, self._counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._counters.requests.labels(path, method, str(status)).inc()
            self._counters.seconds.labels(path).observe(time.perf_counter() - begin)


class _Bounded:
    """Refuses a body that is too large, by what it says of itself or as soon as it is."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = BODY_AT_MOST

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, _TOO_LARGE)
            return message

        said = dict(scope["headers"]).get(b"content-length", b"")
        if said.isdigit() and (len(said) > 18 or int(said) > BODY_AT_MOST):
            await JSONResponse({"detail": _TOO_LARGE}, 413)(scope, receive, send)
            return
        await self._app(scope, counted, send)


_TOO_LARGE = f"the body is larger than {BODY_AT_MOST:,} bytes: ask for fewer users at once"
