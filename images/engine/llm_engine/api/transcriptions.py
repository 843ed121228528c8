"""POST /v1/audio/transcriptions: a chat with a model that hears, and a fixed instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.multipart import MultipartParser, parse_options_header
from typing_extensions import TypedDict

from llm_engine.api.endpoint import Call, Reply, json_reply, text_reply
from llm_engine.api.errors import bad_request
from llm_engine.api.text import collect
from llm_engine.api.turn import Turn
from llm_engine.chat.messages import Message

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_INSTRUCTION = "Transcribe the audio. Answer with the words that are spoken and nothing else."


class Transcription(TypedDict):
    text: str


BODY = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "file": {"type": "string", "format": "binary"},
                "model": {"type": "string"},
                "response_format": {"enum": ["json", "text", "verbose_json"]},
                "language": {"type": "string"},
                "prompt": {"type": "string"},
            },
            "required": ["file", "model"],
        }
    }
}


async def transcribe(call: Call) -> Reply:
    fields = await _form(call)
    model = fields.get("model", b"").decode("utf-8", "replace")
    if not model:
        raise bad_request("model is required", param="model")
    if "file" not in fields:
        raise bad_request("file is required: http: no such file", param="file")
    if not fields["file"]:
        raise bad_request("audio file is empty", param="file")
    instruction = _INSTRUCTION
    if language := fields.get("language", b"").decode("utf-8", "replace"):
        instruction += f" The language is {language}."
    prompt = fields.get("prompt", b"").decode("utf-8", "replace")
    turn = Turn(
        model=model,
        messages=[Message("system", instruction), Message("user", prompt, images=[fields["file"]])],
        think=False,
        relax_thinking=True,
        overrides={"temperature": 0.0},
    )
    text = (await collect(call, turn))[0].content.strip()
    if fields.get("response_format") == b"text":
        return text_reply(text)
    return json_reply({"text": text})


async def _form(call: Call) -> dict[str, bytes]:
    kind, options = parse_options_header(call.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise bad_request("failed to parse multipart form: request Content-Type isn't multipart/form-data")
    return await call.work(_fields, await call.body(), boundary)


def _fields(raw: bytes, boundary: bytes) -> dict[str, bytes]:
    form = _Form()
    parser = MultipartParser(boundary, form.callbacks())
    try:
        parser.write(raw)
        parser.finalize()
    except ValueError as error:
        raise bad_request(f"failed to parse multipart form: {error}") from None
    return form.fields


class _Form:
    """Gathers the parts of a form by name."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.header = self.value = b""
        self.name = ""
        self.data = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
        }

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def _header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            _, options = parse_options_header(self.value)
            self.name = options.get(b"name", b"").decode("utf-8", "replace")
        self.header = self.value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.data += data[start:end]

    def _part_end(self) -> None:
        self.fields[self.name] = bytes(self.data)
        self.name, self.data = "", bytearray()
