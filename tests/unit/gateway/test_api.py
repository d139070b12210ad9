"""The HTTP interface over a real server and a real journal: who may what, what is answered, how errors look."""

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httpx
import openpyxl
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from edge_agent.wire.event import Basis, GuardState, Json, OpenOccurrence, Priority
from gateway.api.access import Need, public
from gateway.api.application import build_application
from gateway.api.context import Check
from gateway.api.limits import BODY_MAX_BYTES
from gateway.api.visit import Visitor, following_path
from gateway.domain.access import Role
from gateway.domain.journal import ReconciledChange
from gateway.domain.listing import encode_cursor
from tests.board_rig import AGENT, SITE, BoardRig, board_rig, tell_busy_plant

pytestmark = pytest.mark.thorough

PATIENCE_S = 10.0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[BoardRig]:
    """A gateway that lets nobody read without signing in, with the busy plant."""
    async with board_rig(tmp_path) as rig:
        await tell_busy_plant(rig)
        yield rig


@asynccontextmanager
async def client_of(rig: BoardRig, role: Role | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with a bearer token of this role; nobody without one."""
    headers = {} if role is None else {"Authorization": f"Bearer {rig.token(role)}"}
    async with httpx.AsyncClient(base_url=rig.url, headers=headers, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
async def viewer(rig: BoardRig) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(rig, Role.VIEWER) as client:
        yield client


def body_of(response: httpx.Response) -> dict[str, Json]:
    return cast("dict[str, Json]", response.json())


def items_of(response: httpx.Response) -> list[dict[str, Json]]:
    assert response.status_code == HTTPStatus.OK, response.text
    return cast("list[dict[str, Json]]", response.json()["items"])


# --- who may ---------------------------------------------------------------------------------------------------------

OPEN_TO_ALL = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("POST", "/api/v1/session"),
    ("GET", "/"),
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
    ("GET", "/enter/{code}"),
    ("POST", "/enter/{code}"),
    ("GET", "/static/{path:path}"),
}


def guards_of(dependant: Dependant) -> set[object]:
    found: set[object] = {dependant.call}
    for inner in dependant.dependencies:
        found |= guards_of(inner)
    return found


def routes_of(app: FastAPI) -> list[APIRoute]:
    found: list[APIRoute] = []
    pending = list(app.router.routes)
    while pending:
        route = pending.pop()
        if isinstance(route, APIRoute):
            found.append(route)
        else:
            inner = getattr(route, "original_router", None) or getattr(route, "router", None)
            assert inner is not None, f"a route that nobody guards: {route}"
            pending += inner.routes
    return found


async def test_every_route_is_guarded_and_only_the_named_ones_are_open_to_all(rig: BoardRig) -> None:
    app = build_application(rig.context(None))
    opened = set()
    routes = routes_of(app)
    for route in routes:
        guards = guards_of(route.dependant)
        if any(isinstance(guard, Need | Visitor) for guard in guards):
            continue
        assert public in guards, f"{route.path} declares neither a role nor that it is open"
        opened |= {(method, route.path) for method in route.methods or ()}
    assert opened == OPEN_TO_ALL
    assert len(routes) > 25


READS = (
    "/api/v1/board",
    "/api/v1/violations",
    "/api/v1/alarms",
    "/api/v1/alarms/1",
    "/api/v1/agents",
    "/api/v1/guards/changyi/mixer-18/door-1/timeline",
    "/api/v1/quarantine",
    "/api/v1/session",
    "/api/openapi.json",
    "/metrics",
)


async def test_nobody_reads_without_signing_in(rig: BoardRig) -> None:
    async with client_of(rig) as client:
        for path in (*READS, "/api/v1/live"):
            response = await client.get(path)
            assert response.status_code == HTTPStatus.UNAUTHORIZED, path
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["www-authenticate"].startswith("Bearer")


async def test_every_role_reads(rig: BoardRig) -> None:
    for role in Role:
        async with client_of(rig, role) as client:
            for path in READS:
                assert (await client.get(path)).status_code == HTTPStatus.OK, (role, path)


async def test_acknowledging_takes_maintenance_or_more(rig: BoardRig) -> None:
    async with client_of(rig, Role.VIEWER) as client:
        assert (await client.post("/api/v1/alarms/1/ack")).status_code == HTTPStatus.FORBIDDEN
    for role in list(Role)[1:]:
        await rig.raise_violation("belt-11", "cover", "pull_cord", Priority.P2)
        async with client_of(rig, role) as client:
            newest = items_of(await client.get("/api/v1/alarms?limit=1"))[0]["id"]
            assert (await client.post(f"/api/v1/alarms/{newest}/ack")).status_code == HTTPStatus.OK, role


WRONG_CREDENTIALS = ["Bearer gw_nothing", "Bearer", "Basic eDp5", "gw_x", "Bearer " + "x" * 5000]


async def test_a_wrong_bearer_is_refused_even_where_anonymous_may_read(tmp_path: Path) -> None:
    async with board_rig(tmp_path, Role.VIEWER) as rig, client_of(rig) as client:
        assert (await client.get("/api/v1/board")).status_code == HTTPStatus.OK
        for header in WRONG_CREDENTIALS:
            response = await client.get("/api/v1/board", headers={"Authorization": header})
            assert response.status_code == HTTPStatus.UNAUTHORIZED, header[:20]


async def test_an_anonymous_viewer_reads_but_is_asked_to_sign_in_to_act(tmp_path: Path) -> None:
    async with board_rig(tmp_path, Role.VIEWER) as rig, client_of(rig) as client:
        await tell_busy_plant(rig)
        assert (await client.get("/api/v1/session")).json()["anonymous"] is True
        assert (await client.post("/api/v1/alarms/1/ack")).status_code == HTTPStatus.UNAUTHORIZED


# --- what is answered ------------------------------------------------------------------------------------------------


async def test_the_board_shows_the_plant(viewer: httpx.AsyncClient, rig: BoardRig) -> None:
    board = body_of(await viewer.get("/api/v1/board"))
    assert board["position"] == rig.journal.position
    assert datetime.fromisoformat(str(board["as_of"])).tzinfo is not None
    sites = cast("list[dict[str, Json]]", board["sites"])
    areas = cast("list[dict[str, Json]]", sites[0]["areas"])
    assert [area["area"] for area in areas] == ["sand", "packing"]
    machine = cast("list[dict[str, Json]]", areas[0]["machines"])[0]
    assert (machine["machine"], machine["moving"], machine["mode"]) == ("mixer-18", True, "auto")
    guard = cast("list[dict[str, Json]]", machine["guards"])[0]
    assert {"guard", "labels", "kind", "state", "since", "quality", "age_ms", "alarms"} <= guard.keys()
    assert (guard["guard"], guard["state"], guard["age_ms"], guard["alarms"]) == ("door-1", "open", 120, 1)
    counts = cast("dict[str, int]", board["counts"])
    assert (counts["P1"], counts["P2"], counts["unknown"], counts["unacknowledged"]) == (1, 2, 2, 3)


async def test_a_violation_has_every_field_of_the_contract(viewer: httpx.AsyncClient) -> None:
    found = items_of(await viewer.get("/api/v1/violations?rule=guard_open_motion"))
    assert set(found[0]) == {
        *("occurrence", "site", "agent", "area", "machine", "guard", "device", "rule", "priority", "basis"),
        *("since", "occurred_at", "received_at", "raised_at", "cleared_at", "duration_ms", "state"),
        *("hidden_by", "evidence", "alarm", "origin"),
    }
    assert (found[0]["state"], found[0]["cleared_at"], found[0]["origin"]) == ("active", None, "agent")


FILTERS = [
    ("", ["channel_discrepancy", "bypass_active", "guard_open_motion"]),
    ("?priority=P1", ["guard_open_motion"]),
    ("?priority=P1,P2&machine=palletiser-03", ["channel_discrepancy", "bypass_active"]),
    ("?guard=door-1", ["channel_discrepancy", "guard_open_motion"]),
    ("?area=sand", ["guard_open_motion"]),
    ("?site=changyi&state=active&basis=proven&limit=1", ["channel_discrepancy"]),
    ("?site=elsewhere", []),
    ("?state=cleared", []),
]
"""Query and the rules it leaves, newest first."""


async def test_filters_narrow_the_log_newest_first(viewer: httpx.AsyncClient) -> None:
    for query, rules in FILTERS:
        found = items_of(await viewer.get(f"/api/v1/violations{query}"))
        assert [item["rule"] for item in found] == rules, query


async def test_from_and_to_are_half_open_on_since(viewer: httpx.AsyncClient) -> None:
    middle = items_of(await viewer.get("/api/v1/violations"))[1]
    since = str(middle["since"])
    newer = items_of(await viewer.get("/api/v1/violations", params={"from": since}))
    older = items_of(await viewer.get("/api/v1/violations", params={"to": since}))
    assert [item["rule"] for item in newer] == ["channel_discrepancy", "bypass_active"]
    assert [item["rule"] for item in older] == ["guard_open_motion"]


async def test_pages_follow_each_other_without_hole_or_double_whatever_comes_meanwhile(
    viewer: httpx.AsyncClient, rig: BoardRig
) -> None:
    for number in range(25):
        await rig.raise_violation("belt-11", f"pullcord-{number % 2 + 1}", "pull_cord", Priority.P2)
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": "4"} | ({"cursor": cursor} if cursor else {})
        page = body_of(await viewer.get("/api/v1/violations", params=query))
        seen += [str(item["occurrence"]) for item in cast("list[dict[str, Json]]", page["items"])]
        await rig.raise_violation("belt-11", "cover", "guard_left_open", Priority.P4)
        if page["next"] is None:
            break
        cursor = str(page["next"])
    assert len(seen) == len(set(seen)) == 28


MISFITS = [
    "limit=0",
    "limit=1001",
    "limit=x",
    "cursor=nonsense",
    "cursor=MQ",
    f"cursor={encode_cursor((10**19, 0))}",
    f"cursor={encode_cursor((0, -(10**19)))}",
    "priority=P9",
    "state=open,active",
    "basis=guess",
    "from=yesterday",
    "from=2026-11-22T10:00:00",
    "to=2026-13-01T00:00:00Z",
    "format=pdf",
]


async def test_what_does_not_fit_is_refused_with_its_place(viewer: httpx.AsyncClient) -> None:
    for query in MISFITS:
        response = await viewer.get(f"/api/v1/violations?{query}")
        assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY, query
        faults = cast("list[dict[str, str]]", body_of(response)["errors"])
        assert faults[0]["where"] == f"query.{query.partition('=')[0]}"


async def test_csv_is_utf8_without_bom_and_inert_in_spreadsheets(
    viewer: httpx.AsyncClient, rig: BoardRig
) -> None:
    await rig.raise_violation("=cmd|' /C calc'!A0", "@sum", "+1", Priority.P3, Basis.UNKNOWN)
    response = await viewer.get("/api/v1/violations", headers={"Accept": "text/csv"})
    assert response.headers["content-type"].startswith("text/csv")
    assert not response.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(response.content.decode("utf-8"))))
    assert len(rows) == 4
    assert (rows[0]["machine"], rows[0]["guard"], rows[0]["rule"]) == (
        "'=cmd|' /C calc'!A0",
        "'@sum",
        "'+1",
    )
    assert json.loads(rows[0]["evidence"]) == {"grade": "B"}


async def test_ndjson_and_xlsx_hold_the_same_rows(viewer: httpx.AsyncClient, rig: BoardRig) -> None:
    await rig.raise_violation("=1+1", None, "r", Priority.P3)
    lines = (await viewer.get("/api/v1/violations?format=ndjson")).text.splitlines()
    sheet = openpyxl.load_workbook(
        io.BytesIO((await viewer.get("/api/v1/violations?format=xlsx")).content)
    ).active
    assert sheet is not None
    rows = list(sheet.iter_rows(values_only=True))
    column = list(rows[0]).index("occurrence")
    assert [json.loads(line)["occurrence"] for line in lines] == [row[column] for row in rows[1:]]
    cells = [cell for row in sheet.iter_rows() for cell in row]
    assert not [cell for cell in cells if cell.data_type == "f"]


async def test_an_export_takes_the_filter_and_every_page_of_it(
    viewer: httpx.AsyncClient, rig: BoardRig
) -> None:
    for _ in range(5):
        await rig.raise_violation("belt-11", "cover", "pull_cord", Priority.P2)
    response = await viewer.get("/api/v1/violations?format=ndjson&machine=belt-11")
    assert len(response.text.splitlines()) == 5
    assert len((await viewer.get("/api/v1/violations?format=csv&limit=2")).text.splitlines()) == 3


async def test_alarms_are_listed_and_filtered_by_letter(viewer: httpx.AsyncClient, rig: BoardRig) -> None:
    alarms = items_of(await viewer.get("/api/v1/alarms"))
    assert [alarm["id"] for alarm in alarms] == [3, 2, 1]
    assert {alarm["letter"] for alarm in alarms} == {"B"}
    assert items_of(await viewer.get("/api/v1/alarms?letter=C")) == []
    paged = body_of(await viewer.get("/api/v1/alarms?limit=2"))
    rest = items_of(await viewer.get(f"/api/v1/alarms?limit=2&cursor={paged['next']}"))
    assert [alarm["id"] for alarm in rest] == [1]
    assert (await viewer.get("/api/v1/alarms?letter=Z")).status_code == HTTPStatus.UNPROCESSABLE_ENTITY


async def test_an_alarm_has_every_field_of_the_contract_and_who_was_told(viewer: httpx.AsyncClient) -> None:
    alarm = body_of(await viewer.get("/api/v1/alarms/1"))
    assert {
        *("id", "letter", "condition", "ack", "shelved_until", "priority", "machine", "guard", "rule"),
        *("occurrence", "since", "acked_by", "note", "told"),
    } <= alarm.keys()
    assert (alarm["letter"], alarm["acked_by"]) == ("B", None)


async def test_the_first_acknowledgement_counts_and_the_second_is_told_who_was_first(rig: BoardRig) -> None:
    async with client_of(rig, Role.MAINTENANCE) as first, client_of(rig, Role.SHIFT_MANAGER) as second:
        done = body_of(await first.post("/api/v1/alarms/1/ack", json={"note": "on my way"}))
        assert (done["letter"], done["note"]) == ("C", "on my way")
        late = await second.post("/api/v1/alarms/1/ack", json={})
    assert late.status_code == HTTPStatus.CONFLICT
    assert body_of(late)["acked_by"] == done["acked_by"]
    assert str(done["acked_by"]).startswith("maintenance-")


async def test_an_unknown_alarm_is_not_found(rig: BoardRig) -> None:
    async with client_of(rig, Role.ADMIN) as client:
        assert (await client.get("/api/v1/alarms/999")).status_code == HTTPStatus.NOT_FOUND
        assert (await client.post("/api/v1/alarms/999/ack")).status_code == HTTPStatus.NOT_FOUND


STRANGE_BODIES = ['{"note": 5}', '{"note": "x", "who": "me"}', "[", '{"note": "' + "x" * 501 + '"}']


async def test_an_acknowledgement_with_a_strange_body_is_refused(rig: BoardRig) -> None:
    async with client_of(rig, Role.ADMIN) as client:
        for body in STRANGE_BODIES:
            headers = {"Content-Type": "application/json"}
            response = await client.post("/api/v1/alarms/1/ack", content=body, headers=headers)
            assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY, body[:20]
        assert items_of(await client.get("/api/v1/alarms?letter=C")) == []


async def test_agents_are_listed_with_every_field_of_the_contract(viewer: httpx.AsyncClient) -> None:
    agent = items_of(await viewer.get("/api/v1/agents"))[0]
    assert {
        *("site", "agent", "online", "version", "epoch", "last_seq", "gaps", "lag_ms", "config_hash"),
        *("clock_offset_ms", "blind_guards", "overruns"),
    } <= agent.keys()
    assert (agent["agent"], agent["online"], agent["blind_guards"]) == ("gw-01", True, 2)


async def test_the_quarantine_shows_what_was_refused_raw(viewer: httpx.AsyncClient) -> None:
    refused = items_of(await viewer.get("/api/v1/quarantine"))[0]
    assert (refused["payload"], refused["text"], refused["reason"]) == ("/w==", None, "not JSON")


TIMELINES = [
    ("/api/v1/guards/changyi/mixer-18/door-1/timeline", HTTPStatus.OK),
    ("/api/v1/guards/changyi/mixer-18/nothing/timeline", HTTPStatus.NOT_FOUND),
    ("/api/v1/guards/changyi/mixer-18/door-1/timeline?from=2999-01-01T00:00:00Z", 422),
    ("/api/v1/guards/changyi/mixer-18/door-1/timeline?from=2020-01-01T00:00:00Z", 422),
    ("/api/v1/guards/changyi/mixer-18/door-1/timeline?to=0001-01-01T00:00:00Z", 422),
    ("/api/v1/guards/changyi/mixer-18/door-1/timeline?to=1970-01-01T00:00:00Z", 422),
    ("/api/v1/guards/changyi/mixer-18/door-1/timeline?to=1970-01-02T00:00:00Z", HTTPStatus.OK),
]


async def test_timelines_are_asked_for_within_bounds(viewer: httpx.AsyncClient) -> None:
    for path, status in TIMELINES:
        assert (await viewer.get(path)).status_code == status, path


async def test_readiness_tells_the_truth_and_is_unavailable_only_without_what_is_vital(rig: BoardRig) -> None:
    async with client_of(rig) as client:
        assert (await client.get("/readyz")).json()["status"] == "ready"
        rig.checks["influxdb"] = Check(ok=False, detail="refused")
        degraded = await client.get("/readyz")
        assert (degraded.status_code, degraded.json()["status"]) == (HTTPStatus.OK, "degraded")
        assert degraded.json()["checks"]["influxdb"] == {"ok": False, "detail": "refused"}
        rig.checks["journal"] = Check(ok=False, detail="disk full", is_vital=True)
        gone = await client.get("/readyz")
        assert (gone.status_code, gone.json()["status"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "unavailable")


async def test_metrics_speak_prometheus(viewer: httpx.AsyncClient) -> None:
    text = (await viewer.get("/metrics")).text
    assert 'guardwatch_guards{state="unknown"} 2.0' in text
    assert 'guardwatch_violations_open{priority="P1"} 1.0' in text
    assert 'guardwatch_alarms_unacknowledged{priority="P2"} 2.0' in text
    assert "guardwatch_test_gauge 1.0" in text
    assert "# TYPE guardwatch_test_reads_total counter\nguardwatch_test_reads_total 2.0" in text


async def test_openapi_describes_every_path_of_the_contract(viewer: httpx.AsyncClient) -> None:
    paths = (await viewer.get("/api/openapi.json")).json()["paths"]
    assert {
        "/api/v1/board",
        "/api/v1/live",
        "/api/v1/violations",
        "/api/v1/alarms",
        "/api/v1/alarms/{number}",
        "/api/v1/alarms/{number}/ack",
        "/api/v1/agents",
        "/api/v1/guards/{site}/{machine}/{guard}/timeline",
        "/api/v1/quarantine",
        "/api/v1/session",
        "/healthz",
        "/readyz",
        "/metrics",
    } <= paths.keys()


# --- the live stream over the wire -----------------------------------------------------------------------------------


async def read_events(
    client: httpx.AsyncClient, query: str, count: int, headers: Mapping[str, str] | None = None
) -> list[tuple[str, str | None, dict[str, Json]]]:
    """The first `count` events but ticks: type, id, data."""
    found: list[tuple[str, str | None, dict[str, Json]]] = []
    async with client.stream("GET", f"/api/v1/live{query}", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            if fields.get("event") not in (None, "tick"):
                found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
                if len(found) == count:
                    return found
            fields = {}
    return found


async def test_a_stream_from_the_boards_position_carries_what_changed_after_it(
    rig: BoardRig, viewer: httpx.AsyncClient
) -> None:
    position = body_of(await viewer.get("/api/v1/board"))["position"]
    await rig.change("belt-11", "cover", GuardState.OPEN)
    await rig.change("belt-11", "cover", GuardState.CLOSED)
    found = await read_events(viewer, f"?position={position}", 2)
    assert [(event, data["guard"], data["state"]) for event, _, data in found] == [
        ("guard", "cover", "open"),
        ("guard", "cover", "closed"),
    ]
    assert [place for _, place, _ in found] == [
        str(cast("int", position) + 1),
        str(cast("int", position) + 2),
    ]


async def test_last_event_id_resumes_and_outweighs_the_position_in_the_address(
    rig: BoardRig, viewer: httpx.AsyncClient
) -> None:
    first = await rig.change("belt-11", "cover", GuardState.OPEN)
    second = await rig.change("belt-11", "cover", GuardState.CLOSED)
    found = await read_events(viewer, "?position=1", 1, {"Last-Event-ID": str(first)})
    assert found[0][1] == str(second)


async def test_a_violation_brings_guard_machine_violation_and_alarm_in_one_position(
    rig: BoardRig, viewer: httpx.AsyncClient
) -> None:
    position = rig.journal.position
    await rig.raise_violation("belt-11", "cover", "guard_open_motion", Priority.P1)
    found = await read_events(viewer, f"?position={position}", 4)
    assert [event for event, _, _ in found] == ["guard", "machine", "violation", "alarm"]
    assert [place for _, place, _ in found] == [None, None, None, str(position + 1)]
    assert (found[0][2]["alarms"], found[3][2]["letter"]) == (1, "B")


async def test_a_replayed_raise_shows_the_violation_as_it_was_raised(
    rig: BoardRig, viewer: httpx.AsyncClient
) -> None:
    position = rig.journal.position
    occurrence = await rig.raise_violation("belt-11", "cover", "guard_open_motion", Priority.P1)
    await rig.clear_violation(occurrence, "belt-11", "cover", "guard_open_motion")
    found = await read_events(viewer, f"?position={position}", 8)
    states = [data["state"] for event, _, data in found if event == "violation"]
    assert states == ["active", "cleared"]


async def test_what_a_report_puts_right_is_shown_like_any_change(
    rig: BoardRig, viewer: httpx.AsyncClient
) -> None:
    occurrence = await rig.raise_violation("belt-11", "cover", "guard_open_motion", Priority.P1)
    position = rig.journal.position
    place = ("guard_open_motion", "belt-11", "cover", None)
    listed = OpenOccurrence(occurrence, *place, Priority.P3, Basis.PROVEN, "2026-11-22T00:00:00Z", None)
    await rig.append(ReconciledChange(SITE, AGENT, occurrence, listed))
    found = await read_events(viewer, f"?position={position}", 4)
    assert [event for event, _, _ in found] == ["guard", "machine", "violation", "alarm"]
    assert [data["priority"] for _, _, data in found] == ["P3"] * 4


async def test_a_lost_agent_sends_its_guards_as_unknown(rig: BoardRig, viewer: httpx.AsyncClient) -> None:
    position = rig.journal.position
    await rig.presence(online=False)
    guards = len(rig.plant.state.guards)
    found = await read_events(viewer, f"?position={position}", guards + 6)
    assert {data["state"] for event, _, data in found if event == "guard"} == {"unknown"}
    assert [event for event, _, _ in found].count("guard") == guards
    assert found[-1][0] == "agent"
    assert found[-1][2]["online"] is False


async def test_a_resume_during_a_lost_agent_never_shows_a_state_from_before(
    rig: BoardRig, viewer: httpx.AsyncClient
) -> None:
    position = await rig.change("belt-11", "cover", GuardState.OPEN) - 1
    await rig.presence(online=False)
    found = await read_events(viewer, f"?position={position}", 1)
    assert found[0][2]["state"] == "unknown"


async def test_a_strange_last_event_id_is_refused(viewer: httpx.AsyncClient) -> None:
    response = await viewer.get("/api/v1/live", headers={"Last-Event-ID": "abc"})
    assert response.status_code == HTTPStatus.BAD_REQUEST


# --- errors, limits, headers -----------------------------------------------------------------------------------------


ERRORS = [
    ("GET", "/nothing", HTTPStatus.NOT_FOUND),
    ("GET", "/api/v1/nothing", HTTPStatus.NOT_FOUND),
    ("GET", "/static/../application.py", HTTPStatus.NOT_FOUND),
    ("GET", "/static/..%2fapplication.py", HTTPStatus.NOT_FOUND),
    ("DELETE", "/api/v1/board", HTTPStatus.METHOD_NOT_ALLOWED),
    ("PUT", "/api/v1/alarms/1/ack", HTTPStatus.METHOD_NOT_ALLOWED),
    ("GET", "/api/v1/alarms/0", HTTPStatus.UNPROCESSABLE_ENTITY),
    ("GET", "/api/v1/alarms/x", HTTPStatus.UNPROCESSABLE_ENTITY),
]


async def test_every_error_is_a_problem_document(viewer: httpx.AsyncClient) -> None:
    for method, path, status in ERRORS:
        response = await viewer.request(method, path)
        assert response.status_code == status, path
        assert response.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= body_of(response).keys()
        assert body_of(response)["status"] == status


async def test_a_failure_inside_says_nothing_of_the_inside(rig: BoardRig, viewer: httpx.AsyncClient) -> None:
    def broken(_number: int) -> None:
        raise ZeroDivisionError("secret detail")

    rig.alarms.alarm = broken  # type: ignore[method-assign, assignment]
    response = await viewer.get("/api/v1/alarms/1")
    assert response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert "secret" not in response.text
    assert "ZeroDivision" not in response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_body_above_the_limit_is_refused(rig: BoardRig) -> None:
    async with client_of(rig, Role.ADMIN) as client:
        response = await client.post("/api/v1/alarms/1/ack", content=b"x" * (BODY_MAX_BYTES + 1))
    assert response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert response.headers["content-type"] == "application/problem+json"


async def test_headers_above_the_limit_are_refused(viewer: httpx.AsyncClient) -> None:
    response = await viewer.get("/api/v1/board", headers={"X-Large": "x" * 70_000})
    assert response.status_code == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


async def test_every_answer_carries_the_security_headers(viewer: httpx.AsyncClient) -> None:
    for path in ("/api/v1/board", "/board", "/healthz", "/static/board.js", "/nothing"):
        headers = (await viewer.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")
        assert "server" not in headers


async def test_static_files_are_checked_again_not_sent_again(viewer: httpx.AsyncClient) -> None:
    first = await viewer.get("/static/board.css")
    again = await viewer.get("/static/board.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (HTTPStatus.NOT_MODIFIED, b"")


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("/alarms/7", "/alarms/7"),
        ("//evil.example", "/board"),
        ("/\\evil.example", "/board"),
        ("https://evil.example", "/board"),
        ("/a\r\nSet-Cookie: x", "/board"),
        (None, "/board"),
    ],
)
def test_nobody_is_sent_to_another_site_after_signing_in(wanted: str | None, given: str) -> None:
    assert following_path(wanted) == given


@pytest.mark.parametrize("position", [str(10**17), "9" * 30, "9" * 5000], ids=len)
async def test_a_position_that_no_journal_can_have_is_refused(
    viewer: httpx.AsyncClient, position: str
) -> None:
    asked = await viewer.get("/api/v1/live", params={"position": position})
    assert asked.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    resumed = await viewer.get("/api/v1/live", headers={"Last-Event-ID": position})
    assert resumed.status_code == HTTPStatus.BAD_REQUEST
