"""A causal language model of transformers: answers, losses, and where an answer is read off."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.interventions.pretrained import load_pretrained, text_hash
from lightsae.interventions.steering.task import Measured

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Batch = dict[str, Tensor]


class LanguageModel:
    """A causal language model beside its tokenizer.

    Args:
        model: In eval mode.
        tokenizer: Its tokenizer; texts are padded with its pad token, or where it has none with its
            end of text.
        batch_size: Texts per pass.

    Attributes:
        model: The model.
        tokenizer: The tokenizer.
        batch_size: Texts per pass.

    Raises:
        LightsaeError: If the tokenizer has neither token, or batch_size is below 1.
    """

    def __init__(
        self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch_size: int = 64
    ) -> None:
        if batch_size < 1:
            raise LightsaeError(f"batch_size is {batch_size}, expected at least 1")
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise LightsaeError("the tokenizer has neither a pad token nor an end of text")
            tokenizer.pad_token = tokenizer.eos_token

    @classmethod
    def load(cls, name: str, *, batch_size: int = 64, device: str = "cpu") -> "LanguageModel":
        """Load both by name, or from a folder that `save_pretrained` wrote.

        Args:
            name: Name on the Hub, or folder.
            batch_size: Texts per pass.
            device: Where the model runs.

        Raises:
            LightsaeError: If one of them cannot be loaded, or weights are missing.
            MissingExtraError: If transformers is not installed.
        """
        transformers = require("transformers", extra="models")
        kind = transformers.AutoModelForCausalLM
        expected = "a causal language model of transformers"
        model = load_pretrained(kind, name, expected=expected, device=device)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        except Exception as error:
            raise LightsaeError(
                f"model {name!r}: expected a tokenizer beside it: {reason(error)}"
            ) from error
        return cls(model, tokenizer, batch_size)

    def batches(self, texts: Sequence[str], *, left: bool = False) -> Iterator[Batch]:
        """Inputs of the model, in the order of the texts, padded on the right.

        Args:
            texts: Prompts.
            left: Pad on the left instead, as `generate` needs it.

        Raises:
            LightsaeError: If a text has no token, or more than the model has positions for.
        """
        for start in range(0, len(texts), self.batch_size):
            some = list(texts[start : start + self.batch_size])
            found = self.tokenizer(
                some, return_tensors="pt", padding=True, return_token_type_ids=False,
                padding_side="left" if left else "right",
            )  # fmt: skip
            self._require_lengths(found["attention_mask"].sum(dim=1).tolist(), some)
            yield {name: each.to(self.model.device) for name, each in found.items()}

    def _require_lengths(self, lengths: Sequence[int], texts: Sequence[str]) -> None:
        most = getattr(self.model.config, "max_position_embeddings", None)
        for length, text in zip(lengths, texts, strict=True):
            if not length:
                raise LightsaeError(f"text {text!r} has no token")
            if most is not None and length > most:
                raise LightsaeError(
                    f"text {text[:60]!r} has {length} tokens, the model has {most} positions"
                )

    def require_known(self, texts: Iterable[str]) -> None:
        """Refuse texts of which the tokenizer knows a word not at all: they would be others.

        Args:
            texts: Prompts.

        Raises:
            LightsaeError: Naming the first.
        """
        tokenizer = self.tokenizer
        unknown = tokenizer.unk_token_id
        if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            return
        for text in texts:
            if unknown in tokenizer(text)["input_ids"]:
                raise LightsaeError(f"prompt {text!r} has a word that the tokenizer does not know")

    def tokenizer_hash(self) -> str:
        """Hash of what the tokenizer makes of texts."""
        if not self.tokenizer.is_fast:
            return text_hash(repr(sorted(self.tokenizer.get_vocab().items())))
        told = json.loads(self.tokenizer.backend_tokenizer.to_str())
        # Of the last batch, not of the tokenizer.
        kept = {key: part for key, part in told.items() if key not in ("padding", "truncation")}
        return text_hash(json.dumps(kept, sort_keys=True))

    def tokens_of(self, answers: Sequence[str]) -> int:
        """How many tokens tell which of some answers a text begins with.

        As many as the longest answer has, and one more where a token can go on with its word: the
        first of "Bushel" may be all of "Bush".

        Args:
            answers: At least one.
        """
        found = self.tokenizer([f" {each}" for each in answers], add_special_tokens=False)
        longest = max(found["input_ids"], key=len)
        return len(longest) + self._goes_on(longest)

    def _goes_on(self, tokens: Sequence[int]) -> bool:
        """Whether some token can follow that is part of the same word."""
        start = len(self.tokenizer.decode(tokens).rstrip())
        together = ([*tokens, each] for each in range(len(self.tokenizer)))
        texts = (self.tokenizer.decode(each, skip_special_tokens=True) for each in together)
        return any(text[start : start + 1].isalnum() for text in texts)

    @torch.no_grad()
    def answers(self, prompts: Sequence[str], tokens: int) -> list[str]:
        """What the model writes after each prompt, always the likeliest token.

        Args:
            prompts: Questions.
            tokens: How many; a single one takes a single pass.
        """
        found: list[str] = []
        for batch in self.batches(prompts, left=tokens > 1):
            if tokens == 1:
                logits = self.model(**batch).logits
                written = logits[torch.arange(len(logits)), last_places(batch)].argmax(-1, True)
            else:
                start = batch["input_ids"].shape[1]
                written = self.model.generate(
                    **batch, max_new_tokens=tokens, do_sample=False, num_beams=1,
                    repetition_penalty=1.0, no_repeat_ngram_size=0,
                    pad_token_id=self.tokenizer.pad_token_id,
                )[:, start:]  # fmt: skip
            found += self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return found

    @torch.no_grad()
    def loss(self, texts: Sequence[str]) -> Measured:
        """Cross-entropy of the next token in nats: amounts are sums over a text, counts its tokens.

        Args:
            texts: Texts of two tokens or more.
        """
        sums, counts = [], []
        for batch in self.batches(texts):
            logits = self.model(**batch).logits[:, :-1].float()
            loss = nn.functional.cross_entropy(
                logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none"
            )
            seen = batch["attention_mask"][:, 1:]
            sums.append((loss * seen).sum(dim=1).double().cpu())
            counts.append(seen.sum(dim=1).double().cpu())
        return Measured(torch.cat(sums), torch.cat(counts))


def last_places(batch: Mapping[str, Tensor]) -> Tensor:
    """Where the last token of each text stands, in texts padded on the right, [B] int64.

    Args:
        batch: With `attention_mask`, [B, T].

    Example:
        >>> last_places({"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])})
        tensor([1, 2])
    """
    return batch["attention_mask"].sum(dim=1) - 1
