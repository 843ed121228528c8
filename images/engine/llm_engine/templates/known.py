"""Chat formats that are known by name, and recognising them in a model's Jinja template.

A format is recognised by what it writes, not by its text: the Jinja template and each known Go template
render the same small conversations, and the first whose prompts are equal is it. So a template that was
reformatted is still recognised, and one that writes anything else, or that can do more, never is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from llm_engine.templates.errors import TemplateError
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.jinja import ChatTemplate
from llm_engine.templates.jinja.traits import probe


@dataclass(frozen=True, slots=True)
class Known:
    name: str
    template: str
    stops: tuple[str, ...]
    system: bool = False
    """Only a template that takes a system message is this format."""


def _turns(system: str, user: str, assistant: str, end: str = "") -> str:
    """A format of plain turns; `%` stands for the text of each."""

    def block(name: str, shape: str) -> str:
        before, after = shape.split("%")
        return f"{{{{ if .{name} }}}}{before}{{{{ .{name} }}}}{after}{{{{ end }}}}"

    start, _, close = assistant.partition("%")
    return block("System", system) + block("Prompt", user) + f"{start}{{{{ .Response }}}}{close}{end}"


_CHATML = _turns(
    "<|im_start|>system\n%<|im_end|>\n",
    "<|im_start|>user\n%<|im_end|>\n",
    "<|im_start|>assistant\n%<|im_end|>\n",
)
_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n%<|eot_id|>"
_INSTRUCT = "### Instruction:\n{{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}\n\n### Response:\n"
_LLAMA2 = (
    "[INST] {{ if .System }}<<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ end }}"
    "{{ .Prompt }} [/INST] {{ .Response }} </s>"
)
_GEMMA = (
    "<start_of_turn>user\n{{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}<end_of_turn>\n"
    "<start_of_turn>model\n{{ .Response }}<end_of_turn>\n"
)
_ROLES = "<|start_of_role|>{}<|end_of_role|>%<|end_of_text|>\n"
_TOKEN = "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>%<|END_OF_TURN_TOKEN|>"

KNOWN: tuple[Known, ...] = (
    Known("chatml", _CHATML, ("<|im_start|>", "<|im_end|>")),
    Known(
        "llama3-instruct",
        _turns(_HEADER.format("system"), _HEADER.format("user"), _HEADER.format("assistant")),
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    Known("gemma3-instruct", _GEMMA, ("<end_of_turn>",), system=True),
    Known("gemma-instruct", _GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    Known(
        "phi-3",
        _turns("<|system|>\n%<|end|>\n", "<|user|>\n%<|end|>\n", "<|assistant|>\n%<|end|>\n"),
        ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
    ),
    Known(
        "zephyr",
        _turns("<|system|>\n%</s>\n", "<|user|>\n%</s>\n", "<|assistant|>\n%</s>\n"),
        ("<|system|>", "</s>", "<|user|>", "<|assistant|>"),
    ),
    Known("llama2-chat", _LLAMA2, ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")),
    Known(
        "mistral-instruct",
        "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }} [/INST]{{ .Response }}</s>",
        ("[INST]", "[/INST]"),
    ),
    Known(
        "granite-instruct",
        _turns(_ROLES.format("system"), _ROLES.format("user"), _ROLES.format("assistant")),
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
    ),
    Known(
        "command-r",
        _turns(_TOKEN.format("SYSTEM"), _TOKEN.format("USER"), _TOKEN.format("CHATBOT")),
        ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
    Known(
        "falcon-instruct",
        _turns("System: %\n", "User:\n%\n", "Falcon:\n%\n"),
        ("User:", "Falcon:"),
    ),
    Known(
        "openchat",
        _turns(
            "GPT4 Correct System: %<|end_of_turn|>",
            "GPT4 Correct User: %<|end_of_turn|>",
            "GPT4 Correct Assistant: %<|end_of_turn|>",
        ).replace("Assistant: {{", "Assistant:{{"),
        ("<|end_of_turn|>",),
    ),
    Known(
        "vicuna",
        "{{ if .System }}{{ .System }}\n\n{{ end }}USER: {{ .Prompt }}\nASSISTANT: {{ .Response }}</s>\n",
        ("USER:", "ASSISTANT:"),
    ),
    Known(
        "solar-instruct",
        _turns("### System:\n%\n\n", "### User:\n%\n\n", "### Assistant:\n%\n\n"),
        ("### System:", "### User:", "### Assistant:"),
    ),
    Known("alpaca", _INSTRUCT + "{{ .Response }}\n\n", ("### Instruction:", "### Response:")),
    Known(
        "starcoder2-instruct",
        "{{ if .System }}{{ .System }}\n\n{{ end }}### Instruction\n{{ .Prompt }}\n\n"
        "### Response\n{{ .Response }}<|endoftext|>\n\n",
        ("### Instruction", "### Response", "<|endoftext|>"),
    ),
    Known(
        "magicoder",
        "{{ if .System }}{{ .System }}\n\n{{ end }}"
        "@@ Instruction\n{{ .Prompt }}\n\n@@ Response\n{{ .Response }}\n",
        ("@@ Instruction", "@@ Response"),
    ),
    Known(
        "chatqa",
        "{{ if .System }}System: {{ .System }}\n\n{{ end }}"
        "User: {{ .Prompt }}\n\nAssistant: {{ .Response }}\n\n",
        ("System:", "User:", "Assistant:"),
    ),
    Known(
        "codellama-70b-instruct",
        _turns(
            "Source: system\n\n %<step>", " Source: user\n\n %<step>", " Source: assistant\n\n %<step>"
        ).replace("assistant\n\n {{", "assistant\nDestination: user\n\n {{"),
        ("Source:", "Destination:", "<step>"),
    ),
    Known(
        "alfred",
        _turns(
            "<start_system>%<end_message>", "<start_user>%<end_message>", "<start_assistant>%<end_message>"
        ),
        ("<start_system>", "<end_message>", "<start_user>", "<start_assistant>"),
    ),
)

# Each conversation is a list of (system, prompt, response); the last response is the model's to write.
_PROBES: tuple[tuple[tuple[str, str, str], ...], ...] = (
    (("", "How are you?", ""),),
    (("", "Hello there.", "Hi! How can I help?"), ("", "Tell me more.", "")),
    (("Be brief.", "How are you?", ""),),
)
_TOKENS = ({"bos_token": "", "eos_token": "</s>"}, {"bos_token": "", "eos_token": "<|end_of_text|>"})


@lru_cache(maxsize=64)
def detect(source: str) -> Known | None:
    """The known format that the Jinja template `source` writes."""
    try:
        template = ChatTemplate(source)
    except TemplateError:
        return None
    traits = probe(template)
    if traits.tools or traits.tool_calls or traits.thinking:
        return None
    for tokens in _TOKENS:
        written = [_jinja(template, turns, tokens) for turns in _PROBES]
        if written[0] is None or written[1] is None:
            continue
        for known in KNOWN:
            expected = [_go(known.template, turns) for turns in _PROBES]
            # Some models have no system role at all, which does not make them another format.
            pairs = [(a, b) for a, b in zip(written, expected, strict=True) if a is not None]
            if all(_same(a, b) for a, b in pairs) and (written[2] is not None or not known.system):
                return known
    return None


def _same(written: str | None, expected: str) -> bool:
    return written is not None and written.strip() == expected.strip()


def _jinja(
    template: ChatTemplate, turns: Sequence[tuple[str, str, str]], tokens: dict[str, str]
) -> str | None:
    messages = []
    for system, prompt, response in turns:
        texts = (("system", system), ("user", prompt), ("assistant", response))
        messages += [{"role": role, "content": text} for role, text in texts if text]
    try:
        return template.render({"messages": messages, "add_generation_prompt": True, **tokens})
    except TemplateError:
        return None


@lru_cache(maxsize=256)
def _go(source: str, turns: tuple[tuple[str, str, str], ...]) -> str:
    template = Template(source)
    whole = "".join(
        template.execute({"System": system, "Prompt": prompt, "Response": response})
        for system, prompt, response in turns[:-1]
    )
    system, prompt, _ = turns[-1]
    mark = "\0"
    return whole + template.execute({"System": system, "Prompt": prompt, "Response": mark}).partition(mark)[0]
