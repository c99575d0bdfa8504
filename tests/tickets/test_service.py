import dataclasses
import json

import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import given, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis import GenerationMode

from pyg_lth.tickets import CompactTable, service
from pyg_lth.tickets.service import create_app


@pytest.fixture(scope="module", params=[{"ids": True, "valid": True}, {"layers": 2}], ids=str)
def ticket(request, make_ticket):
    return make_ticket(**request.param)


@pytest.fixture(scope="module")
def client(ticket):
    with TestClient(create_app(ticket), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("mode", GenerationMode)
def test_it_does_what_it_says_of_itself_whatever_it_is_asked(make_ticket, mode):
    app = create_app(make_ticket(ids=True, valid=True))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 5
    for operation in operations:
        if mode == GenerationMode.NEGATIVE and operation.path in ("/health", "/metrics"):
            continue  # They take nothing that could be wrong.

        @given(operation.as_strategy(generation_mode=mode))
        @settings(max_examples=20, deadline=None, database=None)
        def check(case):
            case.call_and_validate()

        check()


def as_json(answer):
    return json.loads(json.dumps(dataclasses.asdict(answer)))


def test_a_user_is_answered_as_the_ticket_answers(ticket, client):
    (user,) = ticket.user_ids.at([2])
    found = client.get("/recommend", params={"user": user, "k": 4})
    assert found.status_code == 200
    (wanted,) = ticket.recommend([str(user)], 4)
    assert found.json() == as_json(wanted)
    assert found.json()["basis"] == "trained"


def test_several_users_are_answered_in_their_order(ticket, client):
    users = [*ticket.user_ids.at([5, 0]), "nobody", 10**30, *ticket.user_ids.at([5])]
    exclude = ticket.item_ids.at([1, 4])
    found = client.post("/recommend", json={"users": users, "k": 3, "exclude": exclude})
    wanted = ticket.recommend(users, 3, exclude=exclude)
    assert found.json()["answers"] == [as_json(answer) for answer in wanted]
    assert [answer["basis"] for answer in found.json()["answers"]][2:4] == ["popularity"] * 2


@pytest.mark.parametrize("history", [[], [0], [3, 7], ["unknown"]])
def test_a_history_is_answered_as_the_ticket_answers(ticket, client, history):
    items = [one if isinstance(one, str) else ticket.item_ids.at([one])[0] for one in history]
    (found,) = client.post("/recommend", json={"history": items, "k": 5}).json()["answers"]
    assert found == as_json(ticket.recommend_for(items, 5))


def test_similar_items_are_those_of_the_ticket(ticket, client):
    (item,) = ticket.item_ids.at([3])
    found = client.get("/similar", params={"item": item, "k": 4}).json()
    wanted = ticket.similar(item, 4)
    assert list(zip(found["items"], found["scores"], strict=True)) == wanted
    assert found["item"] == str(item)


def test_health_says_what_answers(ticket, client):
    found = client.get("/health").json()
    assert found["status"] == "ok"
    assert (found["backbone"], found["users"], found["items"]) == (ticket.backbone, 7, 9)


def test_the_page_of_the_description_is_there(client):
    assert client.get("/docs").headers["content-type"].startswith("text/html")
    assert "/recommend" in client.get("/openapi.json").json()["paths"]


def test_prometheus_reads_the_metrics(make_ticket):
    with TestClient(create_app(make_ticket())) as client:
        client.get("/recommend", params={"user": "1"})
        client.get("/recommend", params={"user": "none"})
        client.get("/recommend", params={"user": "1", "k": 0})
        client.request("BREW", "/coffee/1")
        found = client.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(found.text)
        for sample in family.samples
    }
    assert samples["pyg_lth_requests_total", "/recommend", "200", "GET"] == 2
    assert samples["pyg_lth_requests_total", "/recommend", "422", "GET"] == 1
    # What a client makes up is no label.
    assert samples["pyg_lth_requests_total", "404", "other", "other"] == 1
    assert samples["pyg_lth_request_seconds_count", "/recommend"] == 3
    assert samples["pyg_lth_answers_total", "trained"] == 1
    assert samples["pyg_lth_answers_total", "popularity"] == 1


JSON = {"content-type": "application/json"}
IDS = "Input should be a valid integer or Input should be a valid string"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "users: Field required"),
        ([], 422, "the body has to be a JSON object, sent with Content-Type: application/json"),
        ({"users": []}, 422, "users: List should have at least 1 item"),
        ({"users": [1] * 257}, 422, "users: List should have at most 256 items"),
        ({"users": [1.5]}, 422, f"users.0: {IDS}"),
        ({"users": [True]}, 422, f"users.0: {IDS}"),
        ({"users": ["x" * 1001]}, 422, "users.0: "),
        ({"users": [1], "k": 1001}, 422, "k: Input should be less than or equal to 1000"),
        ({"users": [1], "k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ({"users": [1], "k": "3"}, 422, "k: Input should be a valid integer"),
        ({"users": [1], "history": [1]}, 422, "it has a field that is not known: give users or"),
        ({"users": [1], "top": 3}, 422, "it has a field that is not known"),
        ({"history": [0] * 10_001}, 422, "history: List should have at most 10000 items"),
        ({"history": [], "exclude": [0] * 10_001}, 422, "exclude: List should have at most"),
        (b'{"users": [1', 422, "the body has to be a JSON object"),
        (b'{"users": ["\\ud800"]}', 422, f"users.0: {IDS}"),
        (b'{"users": [1], "\\ud800": 1}', 422, "the body has to be a JSON object"),
        (b'{"users": [1' + b"0" * 5000 + b"]}", 400, "There was an error parsing the body"),
        (b"[" * 100_000, 400, "There was an error parsing the body"),
        (b" " * (service.BODY_AT_MOST + 1), 413, "the body is larger than 1,048,576 bytes"),
        ((b" " * 600_000,) * 2, 413, "the body is larger than 1,048,576 bytes"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(client, body, status, says):
    content = json.dumps(body) if isinstance(body, dict | list) else body
    if isinstance(body, tuple):  # In parts that do not say how many are to come.
        content = iter(body)
    found = client.post("/recommend", content=content, headers=JSON)
    assert found.status_code == status
    detail = found.json()["detail"]
    assert detail.startswith(says)
    assert "\n" not in detail
    assert len(detail) < 250


def test_a_form_is_told_to_be_json(client):
    found = client.post("/recommend", data={"users": "1"})
    assert found.status_code == 422
    assert "Content-Type: application/json" in found.json()["detail"]


def test_an_item_that_is_not_there_is_not_found(client):
    found = client.get("/similar", params={"item": "none"})
    assert found.status_code == 404
    assert found.json() == {"detail": "item none is not in the ticket: give one of its items"}


def test_scores_without_bound_are_still_json(make_ticket):
    table = np.full((16, 4), 3e38, np.float32)
    ticket = dataclasses.replace(make_ticket(), table=CompactTable.from_dense(table))
    with TestClient(create_app(ticket)) as client:
        (answer,) = client.post("/recommend", json={"users": [1], "k": 2}).json()["answers"]
    assert answer["scores"] == [float(np.finfo(np.float32).max)] * 2
