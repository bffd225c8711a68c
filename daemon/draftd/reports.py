"""Where the reports of engines go."""

from __future__ import annotations

from draftd.protocol import CacheSize
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.prompt_caches import StoredPrompt
from draftd.telemetry.rank_records import Ranks
from draftd.telemetry.records import (
    DraftAcceptance,
    EngineProgress,
    EngineStarted,
    GenerationReport,
    ModelsLoaded,
    PromptProgress,
    Record,
)
from draftd.workers.status import RankStatus
from draftd.workers.supervisor import Supervisor


def take_report(worker: str, record: Record, supervisor: Supervisor, metrics: Metrics) -> None:
    """Pass a report of the worker's engine on to the supervisor, the metrics, or both."""
    match record:
        case EngineStarted():
            supervisor.engine_started(worker, accounting=record.accounting)
        case ModelsLoaded():
            supervisor.models_loaded(worker, record.refusal, record.target.batch)
        case CacheSize():
            supervisor.cache_size(worker, record)
        case StoredPrompt():
            metrics.record(worker, record)
        case Ranks():
            ranks = (RankStatus(one.rank, one.host, one.pid, one.memory, one.silent) for one in record.ranks)
            supervisor.ranks_told(worker, tuple(ranks))
        case DraftAcceptance() | GenerationReport():
            metrics.record(supervisor.whose(worker, record.profile), record)
    if isinstance(record, EngineProgress | GenerationReport | PromptProgress):
        memory = None if isinstance(record, PromptProgress) else record.memory
        supervisor.progress(worker, memory.active + memory.cache if memory else None)
