from typing import Literal

import openai
from expect import AFTER_TOOL, ARGUMENTS, SENTENCE, TOOL, URL, wait_until_idle
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

common = {"base_url": f"{URL}/v1", "api_key": "none", "max_retries": 0}


class Person(BaseModel):
    name: Literal["Ada"]
    age: Literal[36]


chat = ChatOpenAI(model="chat", **common)
assert chat.invoke("hi").content == SENTENCE
assert "".join(part.content for part in chat.stream("hi")) == SENTENCE
bound = ChatOpenAI(model="tool", **common).bind_tools([TOOL])
first = bound.invoke("hi")
(call,) = first.tool_calls
assert call["name"] == "get_weather" and call["args"] == ARGUMENTS
assert (
    bound.invoke([HumanMessage("hi"), first, ToolMessage("sunny", tool_call_id=call["id"])]).content
    == AFTER_TOOL
)
assert chat.with_structured_output(Person, method="json_schema").invoke("hi") == Person(name="Ada", age=36)
embeddings = OpenAIEmbeddings(model="embed", check_embedding_ctx_length=False, **common)
assert len(embeddings.embed_documents(["a", "b"])[0]) == 384
try:
    ChatOpenAI(model="nope", **common).invoke("hi")
    raise SystemExit("an unknown model was answered")
except openai.NotFoundError:
    pass
stream = ChatOpenAI(model="endless", **common).stream("go")
next(stream)
stream.close()
wait_until_idle("langchain-openai")
