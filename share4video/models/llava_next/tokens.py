"""The tokenizer of an original checkpoint, with a token for pictures added, and the processor around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share4video.errors import UserError
from share4video.models.llava_next.chat_template import CONTROL_TOKENS, IMAGE_TOKEN, Opening, chat_template
from share4video.models.llava_next.config import OriginalConfig, read_json, tiles
from share4video.models.llava_next.processor import pin_pil

if TYPE_CHECKING:
    from transformers import LlavaNextConfig, PreTrainedTokenizerFast

_ROW_MULTIPLE = 64  # of the vocabulary: matrix products are faster, and tensor parallelism divides it
_MOST_UNNAMED_ROWS = 4096
_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_BICUBIC = 3


@dataclass(frozen=True)
class Tokens:
    """A tokenizer that knows pictures.

    Attributes:
        image_token_id: the first id behind the embedding's rows and the tokenizer's tokens.
        vocab_size: rows the embeddings need.
    """

    tokenizer: PreTrainedTokenizerFast
    opening: Opening
    image_token_id: int
    vocab_size: int


def load_tokens(folder: Path, original: OriginalConfig, rows: int, shown: str) -> Tokens:
    """Load a checkpoint's tokenizer and add the image token.

    Args:
        rows: of the checkpoint's embedding.
        shown: the folder as a person knows it.

    Raises:
        UserError: there is no ``tokenizer.json``, or it lacks the tokens the conversation is built of.
    """
    from transformers import AddedToken, PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            "the checkpoint has no tokenizer.json",
            where=shown,
            fix="copy the tokenizer's files of the model it was trained from",
        )
    read_json(folder / "tokenizer.json")  # bounds its size
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises whatever the file makes it raise
        raise UserError(
            f"the tokenizer cannot be loaded: {' '.join(str(error).split())[:200]}",
            where=f"{shown}/tokenizer.json",
            fix="fetch the checkpoint again",
        ) from error
    known = tokenizer.get_vocab()
    lacking = [token for token in CONTROL_TOKENS if token not in known]
    if lacking or tokenizer.bos_token is None:
        raise UserError(
            f"the tokenizer has no {', '.join(lacking) or 'BOS'}",
            where=shown,
            fix="only checkpoints on Llama 3, with its conversation llava_llama_3, are converted",
        )
    opening = Opening(tokenizer.bos_token, tokenizer("a").input_ids[0] == tokenizer.bos_token_id)
    if IMAGE_TOKEN in known:
        image_token_id = known[IMAGE_TOKEN]
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
    else:
        _name_rows(tokenizer, original, rows, shown)
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
        image_token_id = tokenizer.get_vocab()[IMAGE_TOKEN]
    _keep_pad_token(tokenizer, original)
    if original.tokenizer_model_max_length:
        tokenizer.model_max_length = original.tokenizer_model_max_length
    tokenizer.padding_side = "left"  # answers are generated at the right end
    needed = max(rows, len(tokenizer), image_token_id + 1)
    return Tokens(tokenizer, opening, image_token_id, -(-needed // _ROW_MULTIPLE) * _ROW_MULTIPLE)


def _name_rows(tokenizer: Any, original: OriginalConfig, rows: int, shown: str) -> None:
    """Name the embedding's rows that the tokenizer has no token for, so that the next id is a new one."""
    from transformers import AddedToken

    unnamed = range(len(tokenizer), rows)
    if len(unnamed) > _MOST_UNNAMED_ROWS:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows",
            where=shown,
            fix="put the checkpoint's own tokenizer beside it",
        )
    names = [f"<|unused_{number}|>" for number in unnamed]
    pads = original.pad_token_id
    if pads is not None and pads in unnamed and "<pad>" not in tokenizer.get_vocab():
        names[unnamed.index(pads)] = "<pad>"
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False, special=True) for name in names], special_tokens=True
    )


def _keep_pad_token(tokenizer: Any, original: OriginalConfig) -> None:
    """Leave the pad token; where the tokenizer names none, take the configuration's, or else the EOS."""
    if tokenizer.pad_token is not None:
        return
    number = original.pad_token_id
    if number is not None and 0 <= number < len(tokenizer):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(number)
    else:
        tokenizer.pad_token = tokenizer.eos_token


def save_processor(tokens: Tokens, config: LlavaNextConfig, tower: Path, folder: Path) -> None:
    """Write tokenizer, picture processing and chat template to ``folder``.

    Pictures go through PIL, as they did in training: torchvision's scaling gives other last bits.

    Args:
        tower: the folder with the tower's ``preprocessor_config.json``; without one, CLIP's own values hold.
    """
    from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor

    path = tower / "preprocessor_config.json"
    found = read_json(path) if path.is_file() else {}
    side, patch = tiles(config)
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=config.image_grid_pinpoints,
        image_mean=found.get("image_mean", _CLIP_MEAN),
        image_std=found.get("image_std", _CLIP_STD),
        resample=_BICUBIC,
    )
    processor = LlavaNextProcessor(
        image_processor=pictures,
        tokenizer=tokens.tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
        chat_template=chat_template(tokens.opening),
    )
    processor.save_pretrained(folder)
    pin_pil(folder)
