import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from expect import AFTER_TOOL, ARGUMENTS, PERSON, SENTENCE, TOOL, URL, wait_until_idle

messages = [{"role": "user", "content": "hi"}]
openai = {"api_base": f"{URL}/v1", "api_key": "none", "num_retries": 0}
for model, where in (("openai/chat", openai), ("ollama_chat/chat", {"api_base": URL})):
    assert litellm.completion(model=model, messages=messages, **where).choices[0].message.content == SENTENCE
    parts = litellm.completion(model=model, messages=messages, stream=True, **where)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == SENTENCE
answer = litellm.completion(model="openai/tool", messages=messages, tools=[TOOL], **openai)
(call,) = answer.choices[0].message.tool_calls
assert json.loads(call.function.arguments) == ARGUMENTS
result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
after = [*messages, answer.choices[0].message.model_dump(), result]
answer = litellm.completion(model="openai/tool", messages=after, tools=[TOOL], **openai)
assert answer.choices[0].message.content == AFTER_TOOL
form = {"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": PERSON}}
answer = litellm.completion(model="openai/chat", messages=messages, response_format=form, **openai)
assert json.loads(answer.choices[0].message.content) == {"name": "Ada", "age": 36}
answer = litellm.completion(
    model="anthropic/chat", messages=messages, api_base=URL, api_key="none", max_tokens=50, num_retries=0
)
assert answer.choices[0].message.content == SENTENCE
anthropic = {"api_base": URL, "api_key": "none", "num_retries": 0, "max_tokens": 100}
parts = litellm.completion(model="anthropic/chat", messages=messages, stream=True, **anthropic)
assert "".join(part.choices[0].delta.content or "" for part in parts) == SENTENCE
answer = litellm.completion(model="anthropic/tool", messages=messages, tools=[TOOL], **anthropic)
(call,) = answer.choices[0].message.tool_calls
assert json.loads(call.function.arguments) == ARGUMENTS
parts = litellm.completion(model="openai/tool", messages=messages, tools=[TOOL], stream=True, **openai)
whole = litellm.stream_chunk_builder(list(parts))
(call,) = whole.choices[0].message.tool_calls
assert json.loads(call.function.arguments) == ARGUMENTS and whole.choices[0].finish_reason == "tool_calls"
vectors = litellm.embedding(model="ollama/embed", input=["a", "b"], api_base=URL)
assert len(vectors.data[1]["embedding"]) == 384
vectors = litellm.embedding(model="openai/embed", input=["a", "b"], **openai)
assert len(vectors.data[1]["embedding"]) == 384
for model, where in (("openai/nope", openai), ("anthropic/nope", anthropic)):
    try:
        litellm.completion(model=model, messages=messages, **where)
        raise SystemExit("an unknown model was answered")
    except litellm.NotFoundError:
        pass
stream = litellm.completion(model="openai/endless", messages=messages, stream=True, **openai)
next(iter(stream))
stream.completion_stream.close()
wait_until_idle("litellm")
