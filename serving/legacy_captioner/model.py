"""InternLM-XComposer2-4KHD with the captioner's weights, asked as the release's demo asks it.

NOT TESTED WITH THE REAL WEIGHTS. Nothing here was run on them: they are 17 GB and want a large GPU and the
old libraries. It was written from what the released demo does: the picture before the prompt, after the token
that begins a text; fp16 under autocast; three beams, no sampling, no repetition penalty. The demo cuts the
text at the end of a turn; here the end of a turn also ends the generation, which the demo leaves running.
Before you rely on it, compare some captions with those of the demo.

``trust_remote_code`` is on here and nowhere else in share4video: the folder's Python files are run. Call it
only after `trust.require_trusted` has passed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.legacy_captioner.protocol import Question, Written
from serving.legacy_captioner.wrapper import END

BEAMS = 3


class XComposer2:
    """The model on one GPU.

    Args:
        folder: the checkpoint with its code, on this machine and trusted.
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        given: dict[str, Any] = {"trust_remote_code": True, "local_files_only": True}
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), **given)
        model = AutoModel.from_pretrained(str(folder), torch_dtype=torch.float16, **given)
        self._model = model.cuda().eval()
        self._model.tokenizer = self._tokenizer
        self._ends = [self._tokenizer.convert_tokens_to_ids(END), self._tokenizer.eos_token_id]

    def write(self, question: Question) -> Written:
        """Answer one question; a temperature above 0 samples instead of searching with beams."""
        import torch

        model = self._model
        if question.seed is not None:
            torch.manual_seed(question.seed)
        decoding: dict[str, Any] = {"num_beams": BEAMS, "do_sample": False, "temperature": 1.0}
        if question.temperature > 0:
            decoding = {"num_beams": 1, "do_sample": True, "temperature": question.temperature}
        with torch.no_grad(), torch.cuda.amp.autocast():
            embedded, is_image = self._embedded(question)
            (tokens,) = model.generate(
                inputs_embeds=embedded,
                im_mask=is_image,
                max_new_tokens=question.max_tokens,
                repetition_penalty=1.0,
                eos_token_id=self._ends,
                **decoding,
            )
        begun = 1 if len(tokens) and int(tokens[0]) in (0, 1) else 0
        text = self._tokenizer.decode(tokens[begun:], add_special_tokens=False)
        return Written(text, int(embedded.shape[1]), len(tokens) - begun)

    def _embedded(self, question: Question) -> tuple[Any, Any]:
        """Return the prompt's embeddings (1, tokens, width), and which are the picture's (1, tokens)."""
        import torch

        model = self._model
        if question.image is None:
            parts = [(model.encode_text(question.prompt, add_special_tokens=True), False)]
        else:
            pixels = model.vis_processor(question.image).unsqueeze(0).cuda()
            parts = [
                (model.encode_text("", add_special_tokens=True), False),
                (model.encode_img(pixels), True),
                (model.encode_text(question.prompt, add_special_tokens=False), False),
            ]
        masks = [
            torch.full(part.shape[:2], shown, dtype=torch.bool, device=part.device) for part, shown in parts
        ]
        return torch.cat([part for part, _ in parts], dim=1), torch.cat(masks, dim=1)
