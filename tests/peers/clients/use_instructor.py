from typing import Literal

import instructor
import openai
from expect import URL
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
