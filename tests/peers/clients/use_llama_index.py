from typing import Literal

import ollama
from expect import AFTER_TOOL, ARGUMENTS, SENTENCE, URL, wait_until_idle
from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel


class Person(BaseModel):
    name: Literal["Ada"]
    age: Literal[36]


def get_weather(city: str, days: int = 1) -> str:
    """The weather of a city."""
    return "sunny"


llm = Ollama(model="chat", base_url=URL, request_timeout=60, context_window=4096)
assert llm.complete("hi").text == SENTENCE
assert llm.chat([ChatMessage(role="user", content="hi")]).message.content == SENTENCE
assert list(llm.stream_complete("hi"))[-1].text == SENTENCE
tools = Ollama(model="tool", base_url=URL, request_timeout=60, context_window=4096)
answer = tools.chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg="hi")
(call,) = tools.get_tool_calls_from_response(answer)
assert call.tool_name == "get_weather" and call.tool_kwargs == ARGUMENTS
said = answer.message
result = ChatMessage(role="tool", content="sunny", additional_kwargs={"tool_call_id": call.tool_id})
history = [ChatMessage(role="user", content="hi"), said, result]
after = tools.chat_with_tools([FunctionTool.from_defaults(get_weather)], chat_history=history)
assert after.message.content == AFTER_TOOL
streamed = list(tools.stream_chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg="hi"))
(call,) = tools.get_tool_calls_from_response(streamed[-1])
assert call.tool_kwargs == ARGUMENTS
assert list(llm.stream_chat([ChatMessage(role="user", content="hi")]))[-1].message.content == SENTENCE
assert llm.structured_predict(Person, PromptTemplate("hi")) == Person(name="Ada", age=36)
try:
    Ollama(model="nope", base_url=URL, context_window=4096).complete("hi")
    raise SystemExit("an unknown model was answered")
except ollama.ResponseError as error:
    assert error.status_code == 404
stream = Ollama(model="endless", base_url=URL, context_window=4096).stream_complete("go")
next(stream)
stream.close()
wait_until_idle("llama-index")
