import json

import openai
from expect import AFTER_TOOL, ARGUMENTS, FUNCTION, PERSON, SENTENCE, TOOL, URL, wait_until_idle

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
messages = [{"role": "user", "content": "hi"}]
answer = client.chat.completions.create(model="chat", messages=messages)
assert answer.choices[0].message.content == SENTENCE and answer.usage.total_tokens > 0
stream = client.chat.completions.create(
    model="chat", messages=messages, stream=True, stream_options={"include_usage": True}
)
parts = list(stream)
assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == SENTENCE
assert parts[-1].usage.completion_tokens > 0
first = client.chat.completions.create(model="tool", messages=messages, tools=[TOOL], tool_choice="required")
(call,) = first.choices[0].message.tool_calls
assert call.function.name == "get_weather" and "city" in json.loads(call.function.arguments)
first = client.chat.completions.create(model="tool", messages=messages, tools=[TOOL])
(call,) = first.choices[0].message.tool_calls
assert json.loads(call.function.arguments) == ARGUMENTS
after = [*messages, first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
assert (
    client.chat.completions.create(model="tool", messages=after, tools=[TOOL]).choices[0].message.content
    == AFTER_TOOL
)
form = {"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": PERSON}}
text = (
    client.chat.completions.create(model="chat", messages=messages, response_format=form)
    .choices[0]
    .message.content
)
assert json.loads(text) == {"name": "Ada", "age": 36}
assert len(client.embeddings.create(model="embed", input=["a", "b"]).data[1].embedding) == 384
assert client.completions.create(model="chat", prompt="a", max_tokens=2).choices[0].text == "The quick"
assert any(model.id == "chat:latest" for model in client.models.list())

response = client.responses.create(model="chat", input="hi")
assert response.output_text == SENTENCE
with client.responses.stream(model="think", input="hi") as events:
    kinds = [event.type for event in events]
    assert events.get_final_response().output_text == "The answer is 42."
assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
response = client.responses.create(
    model="tool", input="hi", tools=[{"type": "function", "strict": False, **FUNCTION}]
)
assert json.loads(response.output[0].arguments) == ARGUMENTS

try:
    client.chat.completions.create(model="nope", messages=messages)
    raise SystemExit("an unknown model was answered")
except openai.NotFoundError as error:
    assert error.code == "model_not_found", error
stream = client.chat.completions.create(model="endless", messages=messages, stream=True)
next(iter(stream))
stream.close()
wait_until_idle("openai")
