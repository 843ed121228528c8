"""What happens to a sampled token: accept it, turn it into text, decide whether the answer is over."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_engine.runner.branch import Branch
from llm_engine.runner.constraint import GrammarError
from llm_engine.runner.messages import TokenLogprob
from llm_engine.runner.outbox import Outbox
from llm_engine.runner.sampling import best, log_softmax
from llm_engine.runner.vocab import Vocab

Rows = NDArray[np.float32]


class Emitter:
    """Samples a branch's rows and sends what came of it."""

    def __init__(self, vocab: Vocab, outbox: Outbox) -> None:
        self.vocab = vocab
        self._outbox = outbox
        self._ends = vocab.end_tokens

    def take(self, branch: Branch, rows: Rows, proposal: list[int]) -> tuple[str | None, int]:
        """Sample one token per row for as long as they confirm the proposal.

        Returns why the branch is over (None: it goes on; `!text`: it failed) and how many proposed tokens
        held.
        """
        sampler = branch.sampler
        assert sampler is not None
        text: list[str] = []
        asked = branch.request.logprobs
        tells = branch.request.echo_tokens or asked is not None
        hits = 0
        reason: str | None = None
        for at, row in enumerate(rows):
            try:
                token = sampler.sample(row)
            except GrammarError as error:
                reason = f"!{error}"
                break
            sampler.accept(token)
            if token in self._ends:
                reason = "stop"
                break
            branch.append(token)
            branch.generated += 1
            held = at < len(proposal) and token == proposal[at]
            hits += held
            piece = self.vocab.piece(token, special=branch.request.special)
            before = branch.text.taken
            text.append(branch.text.push(piece))
            if tells:
                logprob = self._logprob(token, row, asked) if asked is not None else None
                branch.told.add(token, logprob, before, branch.text)
            if branch.text.matched is not None:
                reason = "stop_string"
            elif branch.generated == branch.request.max_tokens:
                reason = "length"
            if reason is not None or not held:
                break
        self._tell(branch, "".join(text))
        return reason, hits

    def _tell(self, branch: Branch, text: str, *, over: bool = False) -> None:
        """Send text that may leave, and with it what is asked for of its tokens."""
        ids, logprobs = branch.told.leave(branch.text, over=over)
        if text or ids or logprobs:
            self._outbox.tokens(branch, text, ids if branch.request.echo_tokens else [], logprobs)

    def _logprob(self, token: int, row: Any, count: int) -> TokenLogprob:
        values = log_softmax(row)
        piece = self.vocab.piece
        top = [(i, piece(i, special=True), float(values[i])) for i in best(values, count)]
        return TokenLogprob(token, piece(token, special=True), float(values[token]), top)

    def read(self, branch: Branch, rows: Rows, upto: int) -> None:
        """Tell of the prompt's tokens, given the rows that were computed for those before `upto`."""
        count = branch.request.prompt_logprobs or 0
        found = []
        if branch.told_prompt == 0:
            first = int(branch.prompt[0])
            found.append(TokenLogprob(first, self.vocab.piece(first, special=True), 0.0))
        begin = upto - len(rows) + 1
        for at in range(max(begin, branch.told_prompt, 1), min(upto + 1, len(branch.prompt))):
            found.append(self._logprob(int(branch.prompt[at]), rows[at - begin], count))
        branch.told_prompt = max(branch.told_prompt, min(upto + 1, len(branch.prompt)))
        self._outbox.read(branch.request_id, found)

    def finish(self, branch: Branch, reason: str) -> None:
        """The branch is over: send what text was held back, and why it ended."""
        self._tell(branch, branch.text.finish(), over=True)
        if reason != "stop_string" and branch.text.matched is not None:
            reason = "stop_string"
        self._outbox.done(branch, reason)
