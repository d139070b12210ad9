"""Liveness, readiness, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse, PlainTextResponse, Response

from edge_agent.wire.event import GuardState, Json, Priority
from gateway.api.access import need, public
from gateway.api.context import Context, Gauge, context_of
from gateway.domain.access import Principal, Role
from gateway.domain.board import count

router = APIRouter(tags=["health"])

COUNTER_SUFFIX = "_total"
"""Metrics named so only rise, and begin anew at a restart (Prometheus' naming rules): they are served as counters."""


@router.get("/healthz", summary="Is the process answering?", dependencies=[Depends(public)])
async def get_healthz() -> PlainTextResponse:
    """200 as long as the event loop runs."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", summary="Can it do its work?", dependencies=[Depends(public)])
async def get_readyz(request: Request) -> JSONResponse:
    """`ready`; `degraded` with what is amiss; `unavailable` (503) when broker or journal cannot be used."""
    checks = await context_of(request).checks()
    status = "ready"
    if not all(check.ok for check in checks.values()):
        status = "degraded"
    if any(check.is_vital and not check.ok for check in checks.values()):
        status = "unavailable"
    lines: dict[str, Json] = {
        name: {"ok": check.ok, "detail": check.detail} for name, check in checks.items()
    }
    code = HTTPStatus.SERVICE_UNAVAILABLE if status == "unavailable" else HTTPStatus.OK
    return JSONResponse({"status": status, "checks": lines}, code)


@router.get("/metrics", summary="Prometheus metrics")
async def get_metrics(request: Request, _: Annotated[Principal, Depends(need(Role.VIEWER))]) -> Response:
    """What an operator's dashboard needs; a token of role viewer reads it."""
    registry = CollectorRegistry(auto_describe=False)
    context = context_of(request)
    unacknowledged = await asyncio.to_thread(context.unacknowledged)
    registry.register(_Gauges((*_plant_gauges(context, unacknowledged), *context.gauges())))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Gauges(Collector):
    """State, read at each scrape: nothing is counted twice or kept beside the journal."""

    def __init__(self, gauges: Sequence[Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """All metrics now."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for gauge in self._gauges:
            name = f"guardwatch_{gauge.name}"
            kind = CounterMetricFamily if name.endswith(COUNTER_SUFFIX) else GaugeMetricFamily
            family = families.setdefault(name, kind(name, gauge.description, labels=list(gauge.labels)))
            family.add_metric(list(gauge.labels.values()), gauge.value)
        yield from families.values()


def _plant_gauges(context: Context, unacknowledged: Mapping[str, int]) -> Iterator[Gauge]:
    view = context.view()
    counts = count(view)
    yield Gauge("journal_position", "Position of the newest journal entry", view.plant.position)
    yield Gauge("agents", "Agents known", counts["agents"])
    yield Gauge("agents_offline", "Agents that are silent", counts["agents_offline"])
    for state in GuardState:
        yield Gauge("guards", "Guards by shown state", counts[state.value], {"state": state.value})
    for priority in Priority:
        labels = {"priority": priority.value}
        yield Gauge("violations_open", "Open violations by priority", counts[priority.value], labels)
    for name, number in unacknowledged.items():
        yield Gauge(
            "alarms_unacknowledged", "Alarms nobody has seen, by priority", number, {"priority": name}
        )
    yield Gauge("live_streams", "Open live streams", context.live.clients)
    behind = max(0, view.plant.position - context.live.head)
    yield Gauge("live_behind", "Journal entries not yet given to the live streams", behind)
