import anthropic
from expect import AFTER_TOOL, ARGUMENTS, PARAMETERS, PERSON, SENTENCE, URL, wait_until_idle

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
messages = [{"role": "user", "content": "hi"}]
tool = {"name": "get_weather", "description": "The weather.", "input_schema": PARAMETERS}
answer = client.messages.create(model="chat", max_tokens=50, messages=messages)
assert answer.content[0].text == SENTENCE and answer.stop_reason == "end_turn"
with client.messages.stream(model="chat", max_tokens=50, messages=messages) as stream:
    assert "".join(stream.text_stream) == SENTENCE
    assert stream.get_final_message().usage.output_tokens > 0
first = client.messages.create(model="tool", max_tokens=100, messages=messages, tools=[tool])
assert first.stop_reason == "tool_use" and first.content[0].input == ARGUMENTS
with client.messages.stream(model="tool", max_tokens=100, messages=messages, tools=[tool]) as stream:
    assert stream.get_final_message().content[0].input == ARGUMENTS
result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": "sunny"}
after = [*messages, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
assert (
    client.messages.create(model="tool", max_tokens=50, messages=after, tools=[tool]).content[0].text
    == AFTER_TOOL
)
person = {"name": "person", "input_schema": PERSON}
forced = client.messages.create(
    model="tool",
    max_tokens=200,
    messages=messages,
    tools=[person],
    tool_choice={"type": "tool", "name": "person"},
)
assert forced.content[-1].input == {"name": "Ada", "age": 36}
thinking = {"type": "enabled", "budget_tokens": 1024}
thought = client.messages.create(model="think", max_tokens=2048, messages=messages, thinking=thinking)
assert [block.type for block in thought.content] == ["thinking", "text"]
assert client.messages.count_tokens(model="chat", messages=messages).input_tokens > 0
try:
    client.messages.create(model="nope", max_tokens=5, messages=messages)
    raise SystemExit("an unknown model was answered")
except anthropic.NotFoundError as error:
    assert "model 'nope' not found" in str(error), error
stream = client.messages.create(
    model="endless", max_tokens=100000, messages=messages, stream=True, timeout=30
)
next(iter(stream))
stream.close()
wait_until_idle("anthropic")
