from typing import Literal

import ollama
from expect import AFTER_TOOL, ARGUMENTS, SENTENCE, TOOL, URL, wait_until_idle
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings
from pydantic import BaseModel


class Person(BaseModel):
    name: Literal["Ada"]
    age: Literal[36]


chat = ChatOllama(model="chat", base_url=URL)
assert chat.invoke("hi").content == SENTENCE
assert "".join(part.content for part in chat.stream("hi")) == SENTENCE
bound = ChatOllama(model="tool", base_url=URL).bind_tools([TOOL])
first = bound.invoke("hi")
(call,) = first.tool_calls
assert call["name"] == "get_weather" and call["args"] == ARGUMENTS
result = ToolMessage("sunny", tool_call_id=call["id"])
assert bound.invoke([HumanMessage("hi"), first, result]).content == AFTER_TOOL
assert chat.with_structured_output(Person, method="json_schema").invoke("hi") == Person(name="Ada", age=36)
assert len(OllamaEmbeddings(model="embed", base_url=URL).embed_documents(["a", "b"])) == 2
try:
    ChatOllama(model="nope", base_url=URL).invoke("hi")
    raise SystemExit("an unknown model was answered")
except ollama.ResponseError as error:
    assert error.status_code == 404
stream = ChatOllama(model="endless", base_url=URL).stream("go")
next(stream)
stream.close()
wait_until_idle("langchain-ollama")
