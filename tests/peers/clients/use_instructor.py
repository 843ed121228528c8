from typing import Literal

import instructor
import openai
from expect import SENTENCE, URL, wait_until_idle
from instructor.core import InstructorRetryException
from pydantic import BaseModel


class Person(BaseModel):
    name: Literal["Ada"]
    age: Literal[36]


raw = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
messages = [{"role": "user", "content": "hi"}]
for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
    client = instructor.from_openai(raw, mode=mode)
    person = client.chat.completions.create(
        model="tool", messages=messages, response_model=Person, max_retries=0, max_tokens=300
    )
    assert (person.name, person.age) == ("Ada", 36), (mode, person)
    parts = list(
        client.chat.completions.create_partial(
            model="tool", messages=messages, response_model=Person, max_retries=0, max_tokens=300
        )
    )
    assert (parts[-1].name, parts[-1].age) == ("Ada", 36), (mode, parts)
    text = client.chat.completions.create(model="chat", messages=messages, response_model=None)
    assert text.choices[0].message.content == SENTENCE
    try:
        client.chat.completions.create(model="nope", messages=messages, response_model=Person, max_retries=0)
        raise SystemExit("an unknown model was answered")
    except (openai.NotFoundError, InstructorRetryException) as error:
        assert "model 'nope' not found" in str(error), error
    stream = client.chat.completions.create(
        model="endless", messages=messages, response_model=None, stream=True
    )
    next(iter(stream))
    stream.close()
    wait_until_idle("instructor")
