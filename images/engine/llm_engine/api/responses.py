"""POST /v1/responses: whole, or as the event sequence of OpenAI's newer API."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from llm_engine.api import errors
from llm_engine.api.endpoint import SSE, Call, Reply, Stream, json_reply, sse
from llm_engine.api.errors import ApiError
from llm_engine.api.responses_input import to_turn
from llm_engine.api.responses_types import ResponsesRequest, ResponsesUsage
from llm_engine.api.text import load_only, open_turn
from llm_engine.api.turn import Begun, CallMade, Delta, End, Turn
from llm_engine.runner.messages import Usage


async def responses(call: Call) -> Reply | Stream:
    request = await call.json(ResponsesRequest)
    turn = await call.work(to_turn, request)
    writer = _Writer(request)
    if not turn.messages:
        await load_only(call, turn)
        return writer.nothing()
    if request.stream:
        return Stream(writer.events(call, turn), SSE)
    async with open_turn(call, turn) as pieces:
        async for piece in pieces:
            if isinstance(piece, Delta):
                writer.add(piece)
            elif isinstance(piece, End):
                writer.finish(piece)
    return json_reply(writer.document())


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


def _usage(end: End) -> ResponsesUsage:
    usage = end.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": end.thinking_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class _Writer:
    """Builds the response object as its items grow, and says each change as an event."""

    def __init__(self, request: ResponsesRequest) -> None:
        self.request = request
        self.id = _new_id("resp")
        self.created = int(time.time())
        self.output: list[dict[str, Any]] = []
        self.open: dict[str, Any] | None = None
        self.end: End | None = None
        self.error: dict[str, Any] | None = None
        self.sequence = 0

    # -- the document -------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        request, end = self.request, self.end
        cut = end is not None and end.reason == "length"
        if self.error is not None:
            status = "failed"
        else:
            status = "in_progress" if end is None else "incomplete" if cut else "completed"
        text = request.text if isinstance(request.text, dict) else {}
        effort = request.reasoning if isinstance(request.reasoning, dict) else {}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": self.error,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": request.instructions or None,
            "max_output_tokens": request.max_output_tokens,
            "model": request.model,
            "output": self.output,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": effort.get("effort"), "summary": effort.get("summary")},
            "store": False,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": {"format": {"type": "text"}, **text},
            "tool_choice": request.tool_choice or "auto",
            "tools": request.tools,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": request.truncation or "disabled",
            "usage": _usage(end) if end else None,
            "user": request.user,
            "metadata": request.metadata if isinstance(request.metadata, dict) else {},
            "background": False,
        }

    # -- growing ------------------------------------------------------------------------------------------

    def add(self, piece: Delta) -> list[bytes]:
        events: list[bytes] = []
        if piece.thinking:
            events += self._think(piece.thinking)
        if piece.content:
            events += self._write(piece.content)
        for made in piece.calls:
            events += self._call(made)
        return events

    def finish(self, end: End) -> list[bytes]:
        events = self._close("incomplete" if end.reason == "length" else "completed")
        self.end = end
        kind = "response.incomplete" if end.reason == "length" else "response.completed"
        return [*events, self._event(kind, response=self.document())]

    def nothing(self) -> Reply:
        """The answer to no input at all, which only loads the model."""
        begun = [
            self._event(f"response.{kind}", response=self.document()) for kind in ("created", "in_progress")
        ]
        ended = self.finish(End(0, "stop", None, called=False, usage=Usage()))
        if not self.request.stream:
            return json_reply(self.document())
        return Reply(b"".join((*begun, *ended)), media_type=SSE, headers={"Cache-Control": "no-cache"})

    def _think(self, text: str) -> list[bytes]:
        events = []
        if self.open is None or self.open["type"] != "reasoning":
            item: dict[str, Any] = {
                "id": _new_id("rs"),
                "type": "reasoning",
                "summary": [],
                "encrypted_content": "",
            }
            events += self._open(item)
            part = {"type": "summary_text", "text": ""}
            events.append(
                self._item_event("response.reasoning_summary_part.added", summary_index=0, part=part)
            )
            item["summary"] = [part]
        assert self.open is not None
        self.open["summary"][0]["text"] += text
        self.open["encrypted_content"] += text
        return [
            *events,
            self._item_event("response.reasoning_summary_text.delta", summary_index=0, delta=text),
        ]

    def _write(self, text: str) -> list[bytes]:
        events = []
        if self.open is None or self.open["type"] != "message":
            item: dict[str, Any] = {
                "id": _new_id("msg"),
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            events += self._open(item)
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            events.append(self._item_event("response.content_part.added", content_index=0, part=part))
            item["content"] = [part]
        assert self.open is not None
        self.open["content"][0]["text"] += text
        event = self._item_event("response.output_text.delta", content_index=0, delta=text, logprobs=[])
        return [*events, event]

    def _call(self, made: CallMade) -> list[bytes]:
        item = {
            "id": _new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": made.id,
            "name": made.name,
            "arguments": "",
        }
        events = self._open(item)
        arguments = made.arguments_text
        events.append(self._item_event("response.function_call_arguments.delta", delta=arguments))
        item["arguments"] = arguments
        return events + self._close("completed")

    def _open(self, item: dict[str, Any]) -> list[bytes]:
        events = self._close("completed")
        self.open = item
        self.output.append(item)
        return [
            *events,
            self._event("response.output_item.added", output_index=len(self.output) - 1, item=item),
        ]

    def _close(self, status: str) -> list[bytes]:
        item, events = self.open, []
        if item is None:
            return []
        if item["type"] == "reasoning":
            part = item["summary"][0]
            events.append(
                self._item_event("response.reasoning_summary_text.done", summary_index=0, text=part["text"])
            )
            events.append(
                self._item_event("response.reasoning_summary_part.done", summary_index=0, part=part)
            )
        elif item["type"] == "message":
            part = item["content"][0]
            item["status"] = status
            text = self._item_event(
                "response.output_text.done", content_index=0, text=part["text"], logprobs=[]
            )
            events += [text, self._item_event("response.content_part.done", content_index=0, part=part)]
        else:
            item["status"] = status
            events.append(
                self._item_event(
                    "response.function_call_arguments.done", name=item["name"], arguments=item["arguments"]
                )
            )
        self.open = None
        events.append(self._event("response.output_item.done", output_index=len(self.output) - 1, item=item))
        return events

    # -- events -------------------------------------------------------------------------------------------

    def _item_event(self, kind: str, **fields: Any) -> bytes:
        assert self.open is not None
        return self._event(kind, item_id=self.open["id"], output_index=len(self.output) - 1, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self.sequence, **fields}
        self.sequence += 1
        return sse(event, kind)

    async def events(self, call: Call, turn: Turn) -> AsyncGenerator[bytes, None]:
        started = False
        try:
            async with open_turn(call, turn) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Begun):
                        started = True
                        yield self._event("response.created", response=self.document())
                        yield self._event("response.in_progress", response=self.document())
                        continue
                    for chunk in self.add(piece) if isinstance(piece, Delta) else self.finish(piece):
                        yield chunk
        except ApiError as error:
            if not started:
                raise
            # This API has an event of its own for an answer that dies half-way.
            body = errors.body(error, call.dialect, call.request_id)["error"]
            self.error = {"code": error.code or "server_error", "message": body["message"]}
            yield self._event("response.failed", response=self.document())
