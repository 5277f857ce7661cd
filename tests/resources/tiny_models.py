"""Real vision-language models of transformers, tiny and with random weights, saved to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

IMAGE_PX = 28

WORDS = (
    "a the street with trees houses shows picture road sky sunny quiet busy water and of in . , ? :"
)
CHAT = (
    "{% for m in messages %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT: {% endif %}"
)


# With these a model can say levels (`model_code.text.levels`). Spaces stand between tokens, so a text and a number
# are one token each, and there is no full stop, which would go on with the number.
LEVELS = WORDS.replace(" .", "") + ' { } [ ] 0 "land" "activity" "departures"'

QWEN = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")


def _tokenizer(more: tuple[str, ...] = (), words: str = WORDS) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:"]
    vocabulary = {word: i for i, word in enumerate([*special, *more, *words.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", additional_special_tokens=["<image>", *more],
    )  # fmt: skip


def save_llava(folder: Path) -> Path:
    """A LLaVA: CLIP's vision tower, a Llama; it chats, with or without a picture."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = _tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=IMAGE_PX, patch_size=14, projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=2048,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=4, vision_feature_layer=-1,
        vision_feature_select_strategy="default", image_seq_length=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    _loud(model.lm_head)
    model.save_pretrained(folder)
    size = {"height": IMAGE_PX, "width": IMAGE_PX}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": IMAGE_PX}, crop_size=size),
        tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        chat_template=CHAT, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_qwen(folder: Path, width: int = 16, words: str = WORDS) -> Path:
    """A Qwen2.5-VL: pictures of any size, of which each 28 x 28 pixels are a token; places in three
    dimensions; it chats, with or without a picture, in `words`. vLLM's kernels want heads of 64, so a `width`
    of 128."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _tokenizer(QWEN, words)
    ids = dict(zip(QWEN, tokenizer.convert_tokens_to_ids(list(QWEN)), strict=True))
    text = {
        "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": width, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [width // 8, width // 16, width // 16]},
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": width, "intermediate_size": width, "num_heads": 2, "out_hidden_size": width,
        "fullatt_block_indexes": [1], "window_size": 56, "initializer_range": 0.3,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"], tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    _loud(model.lm_head, special=7 + len(QWEN))
    model.save_pretrained(folder)
    size = {"shortest_edge": IMAGE_PX**2, "longest_edge": (4 * IMAGE_PX) ** 2}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size), tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT.replace("<image>", "<|vision_start|> <|image_pad|> <|vision_end|>"),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_blip2(folder: Path) -> Path:
    """A BLIP-2: it has no chat template, and needs a picture."""
    import torch
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessor,
        OPTConfig,
    )

    tokenizer = _tokenizer()
    vision = Blip2VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=IMAGE_PX, patch_size=14,
    )  # fmt: skip
    qformer = Blip2QFormerConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, encoder_hidden_size=16, cross_attention_frequency=1,
    )  # fmt: skip
    text = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, ffn_dim=16, num_hidden_layers=1,
        num_attention_heads=2, word_embed_proj_dim=16, max_position_embeddings=2048,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = Blip2Config(
        vision_config=vision.to_dict(), qformer_config=qformer.to_dict(),
        text_config=text.to_dict(), num_query_tokens=4, image_token_index=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    _loud(model.language_model.lm_head)
    model.save_pretrained(folder)
    Blip2Processor(
        image_processor=BlipImageProcessor(size={"height": IMAGE_PX, "width": IMAGE_PX}),
        tokenizer=tokenizer, num_query_tokens=4,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _loud(head: Any, special: int = 7) -> None:
    """Larger logits, so that answers differ, without those of special tokens."""
    import torch

    with torch.no_grad():
        head.weight.mul_(20)
        head.weight[:special] = 0
