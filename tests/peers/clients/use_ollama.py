import json

import ollama
from expect import AFTER_TOOL, ARGUMENTS, PERSON, SENTENCE, TOOL, URL, wait_until_idle

client = ollama.Client(host=URL)
messages = [{"role": "user", "content": "hi"}]
assert client.chat(model="chat", messages=messages).message.content == SENTENCE
assert "".join(part.message.content for part in client.chat("chat", messages, stream=True)) == SENTENCE
assert client.generate("chat", "hi").response == SENTENCE
first = client.chat("tool", messages, tools=[TOOL])
(call,) = first.message.tool_calls
assert call.function.name == "get_weather" and dict(call.function.arguments) == ARGUMENTS
after = [*messages, first.message, {"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
assert client.chat("tool", after, tools=[TOOL]).message.content == AFTER_TOOL
thought = client.chat("think", messages, think=True).message
assert thought.thinking == "Let me consider it." and thought.content == "The answer is 42."
assert json.loads(client.chat("chat", messages, format=PERSON).message.content) == {"name": "Ada", "age": 36}
assert len(client.embed("embed", ["a", "b"]).embeddings) == 2
assert len(client.embeddings("embed", "a").embedding) == 384
assert any(model.model == "chat:latest" for model in client.ps().models)
try:
    client.chat("nope", messages)
    raise SystemExit("an unknown model was answered")
except ollama.ResponseError as error:
    assert error.status_code == 404 and error.error == "model 'nope' not found", error
stream = client.generate("endless", "go", stream=True)
next(stream)
stream.close()
wait_until_idle("ollama")
