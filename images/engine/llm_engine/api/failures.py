"""What goes wrong behind the API, as errors a client can act on."""

from __future__ import annotations

from llm_engine.api.errors import ApiError, QueueFull
from llm_engine.scheduler.errors import Busy, CrashLoop, SchedulerError, ShuttingDown, Unloaded

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length"
)
_RUNNER_STATUS = {
    "invalid": 400,
    "context": 400,
    "unsupported": 400,
    "crashed": 500,
    "internal": 500,
}


def scheduler_error(error: SchedulerError) -> ApiError:
    if isinstance(error, Busy):
        return QueueFull(error.queued, error.retry_after)
    if isinstance(error, ShuttingDown):
        return ApiError(503, str(error), code="shutting_down", headers={"Retry-After": "5"})
    if isinstance(error, Unloaded):
        return ApiError(503, str(error), code="unloaded")
    if isinstance(error, CrashLoop):
        headers = {"Retry-After": str(error.retry_after)}
        return ApiError(503, str(error), code="crash_loop", headers=headers)
    return ApiError(500, str(error), code="load_failed")


def runner_error(kind: str, text: str) -> ApiError:
    status = _RUNNER_STATUS.get(kind, 500)
    if kind == "crashed":
        return ApiError(
            500, f"an error was encountered while running the model: {text}", code="runner_crashed"
        )
    code = "context_length_exceeded" if kind == "context" else None
    return ApiError(status, text, code=code)
