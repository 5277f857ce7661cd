"""Real models of real libraries, with tiny random weights, as folders and files: what a config names."""

from __future__ import annotations

import gzip
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

CLIP_MODEL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def file_sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _clip_tokenizer(folder: Path) -> Any:
    """CLIP's own tokens, from the list that open_clip brings."""
    import open_clip
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    listed = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(listed.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    vocabulary = open_clip.tokenizer.SimpleTokenizer().encoder
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): at for token, at in vocabulary.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )


def sdxl(folder: Path, *, force_zeros: bool = True) -> Path:
    """A `StableDiffusionXLPipeline` with everything in it, tiny."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    ids = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    text = {"vocab_size": 49408, "intermediate_size": 32, "num_attention_heads": 2,
            "num_hidden_layers": 2, "max_position_embeddings": 77, **ids}  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 2),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1), projection_class_embeddings_input_dim=24 + 6 * 8,
        cross_attention_dim=16 + 24, norm_num_groups=8,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, latent_channels=4, norm_num_groups=4,
    )  # fmt: skip
    tokenizer = _clip_tokenizer(folder.with_name(f"{folder.name}-words"))
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(hidden_size=16, **text)),
        text_encoder_2=CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=24, projection_dim=24, **text)
        ),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
        force_zeros_for_empty_prompt=force_zeros,
    )
    pipeline.save_pretrained(folder)
    return folder


def segformer(folder: Path, classes: int = 150) -> Path:
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=classes, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4,
        num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
    )  # fmt: skip
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def mask2former(folder: Path, classes: int = 7) -> Path:
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    backbone = SwinConfig(
        embed_dim=16, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, hidden_dim=32, mask_feature_size=32, feature_size=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=10,
        dim_feedforward=32, encoder_feedforward_dim=32, num_labels=classes,
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    Mask2FormerImageProcessor(size=size, ignore_index=255).save_pretrained(folder)
    return folder


def mmseg_segformer(folder: Path, classes: int = 7) -> dict[str, str]:
    """A SegFormer of mmsegmentation, from the config that it brings; a checkpoint as mmengine's runner
    writes it, histories of losses included."""
    import numpy as np
    from mmengine.logging import HistoryBuffer

    from model_code.vision import segmenters
    from model_code.vision.loading import quiet

    folder.mkdir(parents=True, exist_ok=True)
    config = segmenters._config("segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py")
    config.model.pretrained = config.model.backbone.init_cfg = None
    config.model.backbone.update(embed_dims=8, num_heads=[1] * 4, num_layers=[1] * 4)
    config.model.decode_head.update(in_channels=[8] * 4, channels=16, num_classes=classes)
    config.test_pipeline[1]["scale"] = (64, 64)
    config.dump(str(folder / "tiny.py"))
    torch.manual_seed(0)
    with quiet():
        model = segmenters._mmseg().apis.init_model(str(folder / "tiny.py"), None, device="cpu")
    history = HistoryBuffer()
    for value in (0.5, np.float64(0.25), 1):
        history.update(value)
    about = {"log_scalars": {"train/loss": history}, "runtime_info": {"iter": np.int64(3)}}
    content = {"state_dict": model.state_dict(), "meta": {"epoch": 1}, "message_hub": about}
    path = folder / "tiny.pth"
    torch.save(content, path)
    return {
        "config": str(folder / "tiny.py"), "checkpoint": str(path), "sha256": file_sha256(path),
    }  # fmt: skip


def open_clip_state(path: Path, model: dict[str, Any] | None = None) -> dict[str, str]:
    """A state of an open_clip model as torch saves it, which is how RemoteCLIP is published."""
    import open_clip

    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(open_clip.CLIP(**(model or CLIP_MODEL)).state_dict(), path)
    return {"path": str(path), "sha256": file_sha256(path)}


def backbone(path: Path, name: str) -> dict[str, str]:
    """Weights of a network of timm (`timm/NAME`) or torchvision, as a config names them."""
    import timm
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.startswith("timm/"):
        network = timm.create_model(name.removeprefix("timm/"), pretrained=False)
    else:
        network = torchvision.models.get_model(name, weights=None)
    save_file(network.state_dict(), path)
    return {"path": str(path), "sha256": file_sha256(path)}


def sentence_model(folder: Path) -> Path:
    """A `SentenceTransformer` with a BERT of one layer."""
    from transformers import BertConfig, BertModel, BertTokenizer

    from model_code.vision.loading import quiet

    with quiet():  # the modules have moved since release 5
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer
    torch.manual_seed(0)
    words, bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], folder.with_name("bert")
    words += [*"abcdefghijklmnopqrstuvwxyz.,-'", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    bert.mkdir(parents=True)
    (bert / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=32)  # fmt: skip
    BertModel(config).save_pretrained(bert)
    BertTokenizer(str(bert / "vocab.txt")).save_pretrained(bert)
    with quiet():
        body = Transformer(str(bert))
        SentenceTransformer(modules=[body, Pooling(32)], device="cpu").save(str(folder))
    return folder
