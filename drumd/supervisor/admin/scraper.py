"""Scrapes: a snapshot from the loop, rendered in a thread, one page for all who ask at once."""

import asyncio

from drumd.supervisor.admin.operator import Operator
from drumd.supervisor.observe.appmetrics import AppMetrics
from drumd.supervisor.observe.metrics import render
from drumd.supervisor.observe.snapshot import Snapshot


class Scraper:
    """Render `/metrics` without holding up the loop, however slow the disk is."""

    def __init__(self, operator: Operator, app_metrics: AppMetrics) -> None:
        self._operator = operator
        self._app_metrics = app_metrics
        self._running: asyncio.Task[bytes] | None = None

    async def scrape(self) -> bytes:
        """Return the page; those who ask while one is being rendered share it."""
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(
                asyncio.to_thread(self._render, self._operator.snapshot())
            )
        # One asker that goes away must not take the result from the others.
        return await asyncio.shield(self._running)

    def _render(self, snapshot: Snapshot) -> bytes:
        directories = {pool.name: pool.metrics_dirs for pool in snapshot.pools}
        families = self._app_metrics.collect(directories)
        return render(snapshot, families, self._app_metrics.skipped)
