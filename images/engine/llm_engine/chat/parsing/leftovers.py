"""What the client reads where a model wrote in its tags what becomes no call: the text, and no tag.

Two cases: the tags held no call (it was cut off, or the model did not keep to its form), and they held one
that nobody waits for, because the client gave no tools or forbade them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from llm_engine.chat.parsing.tags import whole_tags
from llm_engine.chat.parsing.values import Made

# The tags that stand inside a call, in any family; the last one may be cut off.
_INNER = re.compile(
    r"</?(?:function|parameter|invoke|param)\b[^<>\n]*(?:>|\Z)"
    r"|</?arg_(?:key|value)>"
    r"|</?｜DSML｜[^<>\n]*(?:>|\Z)"
    r"|<[|｜][^<>|｜\n]{0,40}[|｜]?(?:>|\Z)"
    r"|<escape>|<!\[CDATA\[|\]\]>"
    r"|\[(?:ARGS|CALL_ID)\]"
)


def untagged(text: str, tags: Sequence[str]) -> str:
    """The inside of what was no call; the family's `tags` may stand in a value of it that never ended."""
    text = _INNER.sub("", text)
    for tag in tags:
        text = text.replace(tag, "")
    return whole_tags(text, tags)


def as_text(made: Made) -> str:
    """A call that nobody waits for."""
    return json.dumps({"name": made.name, "arguments": dict(made.arguments)}, ensure_ascii=False)
