"""One row per vendor. A new OpenAI-compatible one is a row here, and nothing else: see `docs/add-a-provider.md`.

Each row names the vendor's page, and a month: in it the row was checked against stored copies and excerpts of that
page, not against the live service. "By models.dev's row" says that only that public list, and "not re-read" that
nothing, was looked at. Lists of parameters (`refused`, `extra`, `renamed`, `endpoints`) rest in part on recorded
traffic and on general knowledge: a vendor's own answer is the last word. Where two pages are named the second is what
the environment variable or the parameter list rests on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.errors import UnknownProvider, suggestion
from ..core.types import Request
from .base import Codec, Most, Provider, Signer
from .fixes import COMMON, STRAY_USAGE
from .history import for_mistral, with_reasoning

if TYPE_CHECKING:
    from .openai import OpenAICodec


def _google_token() -> str:
    from .vertex import access_token

    return access_token()


def _bedrock_place(arguments: Mapping[str, Any], model: str) -> str:
    from .bedrock_auth import base_url

    return base_url(arguments, model)


def _aws_signer(identity: Mapping[str, str]) -> Signer:
    from .bedrock_auth import AwsSigner

    return AwsSigner(identity)


ENDPOINTS = (
    *("embedding", "text_completion", "responses", "image_generation", "transcription", "translation"),
    *("speech", "moderation", "rerank"),
)
"""What can be called beside chat."""

SELDOM = ("count_tokens", "ocr")
"""What else can, at few vendors: among those of OpenAI's protocol only where the row names its path."""

EVENT_STREAMS = frozenset({"image_generation", "transcription", "speech"})
"""What OpenAI streams beside texts."""


def _only(*names: str) -> dict[str, str]:
    """The `endpoints` of a row that has these and no others."""
    return {name: "" for name in ("chat", *ENDPOINTS) if name not in names}


def _lacks(*names: str) -> dict[str, str]:
    """The `endpoints` of a row that has not these."""
    return dict.fromkeys(names, "")


ROWS = (
    # OpenAI. The fix is for the servers that callers reach under this name with an `api_base` of their own.
    Provider(
        "openai",
        "https://api.openai.com/v1",
        key_env=("OPENAI_API_KEY",),
        base_env=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        endpoints={**_lacks("rerank"), "count_tokens": "/responses/input_tokens"},
        event_streams=EVENT_STREAMS,
        # https://platform.openai.com/docs/api-reference/embeddings/create (2026-11)
        most_to_embed=Most(2048, 300_000),
        prompt_cache="automatic",
        fix=STRAY_USAGE,
        docs="https://platform.openai.com/docs/api-reference/chat",  # 2026-11
    ),
    Provider(
        "anthropic",
        "https://api.anthropic.com",
        codec="anthropic",
        key_env=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        base_env=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"),
        prompt_cache="top_level",
        docs="https://docs.anthropic.com/en/api/messages",  # 2026-11
    ),
    Provider(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        codec="gemini",
        key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        base_env=("GEMINI_API_BASE", "GOOGLE_GEMINI_BASE_URL"),
        # "at most 100 requests can be in one batch", says its error (2026-07)
        most_to_embed=Most(100),
        prompt_cache="automatic",
        docs="https://ai.google.dev/api/generate-content",  # 2026-11
    ),
    Provider(
        "vertex_ai",
        "https://aiplatform.googleapis.com/v1beta1",
        codec="vertex_ai",
        needs_key=False,
        base_env=("VERTEXAI_API_BASE", "GOOGLE_VERTEX_BASE_URL"),
        credential=_google_token,
        # https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings (2026-11)
        most_to_embed=Most(250, 20_000),
        most_by_model={"gemini-embedding": Most(1), "multimodal": Most(1)},
        served_as={"claude": "vertex_anthropic", "publishers/anthropic/": "vertex_anthropic"},
        prompt_cache="automatic",
        docs="https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference",  # 2026-11
    ),
    # Claude there. "vertex_ai/claude-…" comes here too.
    Provider(
        "vertex_anthropic",
        "https://aiplatform.googleapis.com/v1",
        codec="vertex_anthropic",
        needs_key=False,
        base_env=("VERTEXAI_ANTHROPIC_API_BASE", "ANTHROPIC_VERTEX_BASE_URL"),
        credential=_google_token,
        prompt_cache="blocks",
        docs="https://docs.cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/use-claude",  # 2026-11
    ),
    # Any model of Amazon Bedrock, by Converse. The caller's region is in the base URL.
    Provider(
        "bedrock",
        "",
        codec="bedrock",
        key_env=("AWS_BEARER_TOKEN_BEDROCK",),
        base_env=("AWS_BEDROCK_RUNTIME_ENDPOINT", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
        needs_key=False,
        place=_bedrock_place,
        signer=_aws_signer,
        routes={"converse": "bedrock", "invoke": "bedrock_invoke"},
        most_to_embed=Most(96),  # Cohere's; Amazon's own models take one
        most_by_model={"titan-": Most(1), "nova-": Most(1)},
        prompt_cache="points",
        docs="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",  # 2026-11
    ),
    # Each model there in its own protocol, by InvokeModel.
    Provider(
        "bedrock_invoke",
        "",
        codec="bedrock_invoke",
        key_env=("AWS_BEARER_TOKEN_BEDROCK",),
        base_env=("AWS_BEDROCK_RUNTIME_ENDPOINT", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
        needs_key=False,
        place=_bedrock_place,
        signer=_aws_signer,
        most_to_embed=Most(96),
        most_by_model={"titan-": Most(1), "nova-": Most(1)},
        prompt_cache="blocks",
        docs="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html",  # 2026-11
    ),
    Provider(
        "azure",
        "",
        codec="azure",
        key_env=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_AD_TOKEN"),
        base_env=("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT"),
        version_env=("AZURE_API_VERSION", "OPENAI_API_VERSION"),
        endpoints=_lacks("rerank"),
        event_streams=EVENT_STREAMS,
        # https://learn.microsoft.com/azure/foundry/openai/how-to/embeddings (2026-11)
        most_to_embed=Most(2048, 300_000),
        prompt_cache="automatic",
        fix=COMMON,
        docs="https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle",  # 2026-11
    ),
    # Models of other vendors at Azure, under …/models or …/openai/v1.
    Provider(
        "azure_ai",
        "",
        codec="azure",
        key_env=("AZURE_AI_API_KEY",),
        base_env=("AZURE_AI_API_BASE",),
        version_env=("AZURE_AI_API_VERSION",),
        endpoints={**_only("chat", "embedding"), "ocr": "/providers/mistral/azure/ocr"},
        open_ended=True,
        fix=COMMON,
        docs="https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle",  # 2026-11, and recorded answers
    ),
    Provider(
        "cohere",
        "https://api.cohere.com",
        codec="cohere",
        key_env=("COHERE_API_KEY", "CO_API_KEY"),
        base_env=("COHERE_API_BASE", "CO_API_URL"),
        most_to_embed=Most(96),  # https://docs.cohere.com/reference/embed (2026-11)
        docs="https://docs.cohere.com/reference/chat",  # 2026-11; the variables CO_… are the vendor's SDK's
    ),
    # The older version of its chat, for those who still call it.
    Provider(
        "cohere_v1",
        "https://api.cohere.com",
        codec="cohere_v1",
        key_env=("COHERE_API_KEY", "CO_API_KEY"),
        base_env=("COHERE_API_BASE", "CO_API_URL"),
        docs="https://docs.cohere.com/v1/reference/chat",  # 2026-11
    ),
    # Text models only. Inputs that only one of them has go into extra_body.
    Provider(
        "replicate",
        "https://api.replicate.com/v1",
        codec="replicate",
        key_env=("REPLICATE_API_TOKEN", "REPLICATE_API_KEY"),
        base_env=("REPLICATE_API_BASE",),
        docs="https://replicate.com/docs/topics/predictions/create-a-prediction",  # 2026-11; second key: litellm's
    ),
    # Any server that speaks the protocol; the caller says where.
    Provider(
        "openai_compatible",
        "",
        key_env=("OPENAI_COMPATIBLE_API_KEY",),
        base_env=("OPENAI_COMPATIBLE_API_BASE", "OPENAI_COMPATIBLE_BASE_URL"),
        needs_key=False,
        open_ended=True,
        event_streams=EVENT_STREAMS,
        fix=STRAY_USAGE,
    ),
    Provider(
        "echo",
        "",
        codec="openai",
        needs_key=False,
        open_ended=True,
        endpoints={"count_tokens": "/responses/input_tokens", "ocr": "/ocr"},
        event_streams=EVENT_STREAMS,
    ),
    # Servers that one runs oneself. They take sampling parameters without end, and mostly no key.
    Provider(
        "ollama",
        "http://localhost:11434/v1",
        key_env=("OLLAMA_API_KEY",),
        base_env=("OLLAMA_API_BASE", "OLLAMA_HOST"),
        needs_key=False,
        open_ended=True,
        fix=COMMON,
        docs="https://docs.ollama.com/openai",  # 2026-11; recorded answers name their thinking `reasoning`
    ),
    # The same server's own protocol: thinking levels, context size, durations.
    Provider(
        "ollama_chat",
        "http://localhost:11434",
        codec="ollama",
        key_env=("OLLAMA_API_KEY",),
        base_env=("OLLAMA_API_BASE", "OLLAMA_HOST"),
        needs_key=False,
        docs="https://docs.ollama.com/api/chat",  # 2026-11
    ),
    Provider(
        "ollama_cloud",
        "https://ollama.com/v1",
        key_env=("OLLAMA_API_KEY",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.ollama.com/cloud",  # 2026-11, by models.dev's row
    ),
    Provider(
        "vllm",
        "http://localhost:8000/v1",
        key_env=("VLLM_API_KEY", "HOSTED_VLLM_API_KEY"),
        base_env=("VLLM_API_BASE", "HOSTED_VLLM_API_BASE"),
        needs_key=False,
        open_ended=True,
        fix=COMMON,
        # not re-read: port 8000 is the default
        docs="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
    ),
    Provider(
        "lm_studio",
        "http://localhost:1234/v1",
        key_env=("LM_STUDIO_API_KEY", "LMSTUDIO_API_KEY"),
        base_env=("LM_STUDIO_API_BASE",),
        needs_key=False,
        open_ended=True,
        fix=COMMON,
        docs="https://lmstudio.ai/docs/developer/openai-compat",  # 2026-11, by models.dev's row
    ),
    Provider(
        "llamacpp",
        "http://localhost:8080/v1",
        key_env=("LLAMA_API_KEY", "LLAMACPP_API_KEY"),
        base_env=("LLAMACPP_API_BASE",),
        needs_key=False,
        open_ended=True,
        fix=COMMON,
        docs="https://github.com/ggml-org/llama.cpp/tree/master/tools/server",  # not re-read; answers as recorded
    ),
    Provider(
        "llamafile",
        "http://localhost:8080/v1",
        key_env=("LLAMAFILE_API_KEY",),
        base_env=("LLAMAFILE_API_BASE",),
        needs_key=False,
        open_ended=True,
        fix=COMMON,
        docs="https://github.com/mozilla-ai/llamafile",  # not re-read: it is llama.cpp's server
    ),
    Provider(
        "sglang",
        "http://localhost:30000/v1",
        key_env=("SGLANG_API_KEY",),
        base_env=("SGLANG_API_BASE",),
        needs_key=False,
        open_ended=True,
        fix=COMMON,
        docs="https://docs.sglang.ai/basic_usage/openai_api_completions.html",  # not re-read: port 30000 is the default
    ),
    Provider(
        "tgi",
        "http://localhost:8080/v1",
        key_env=("TGI_API_KEY", "HF_TOKEN"),
        base_env=("TGI_API_BASE",),
        needs_key=False,
        open_ended=True,
        fix=COMMON,
        # not re-read; its docs publish port 8080
        docs="https://huggingface.co/docs/text-generation-inference/messages_api",
    ),
    Provider(
        "gpustack",
        "",
        key_env=("GPUSTACK_API_KEY",),
        base_env=("GPUSTACK_API_BASE",),
        open_ended=True,
        fix=COMMON,  # every installation has its own address; checked against recorded answers
    ),
    Provider(
        "mistralrs",
        "",
        key_env=("MISTRALRS_API_KEY",),
        base_env=("MISTRALRS_API_BASE",),
        needs_key=False,
        open_ended=True,
        fix=COMMON,  # no default address; checked against recorded answers
    ),
    Provider(
        "litellm_proxy",
        "http://localhost:4000",
        key_env=("LITELLM_PROXY_API_KEY",),
        base_env=("LITELLM_PROXY_API_BASE",),
        needs_key=False,
        open_ended=True,
        event_streams=EVENT_STREAMS,
        fix=STRAY_USAGE,
        docs="https://docs.litellm.ai/docs/providers/litellm_proxy",  # not re-read; 4000 is the proxy's default port
    ),
    # Services.
    # logprobs, logit_bias and top_logprobs are answered with 400: https://console.groq.com/docs/openai (2026-11)
    Provider(
        "groq",
        "https://api.groq.com/openai/v1",
        key_env=("GROQ_API_KEY",),
        base_env=("GROQ_API_BASE", "GROQ_BASE_URL"),
        refused=frozenset({"logprobs", "logit_bias", "top_logprobs"}),
        extra=frozenset(
            {"reasoning_format", "include_reasoning", "search_settings", "documents", "citation_options"}
            | {"compound_custom", "disable_tool_validation", "exclude_domains", "include_domains"}
        ),
        endpoints=_lacks("embedding", "text_completion", "image_generation", "moderation", "rerank"),
        prompt_cache="automatic",
        history=with_reasoning,
        fix=STRAY_USAGE,
        docs="https://console.groq.com/docs/api-reference",
    ),
    Provider(
        "deepseek",
        "https://api.deepseek.com",
        key_env=("DEEPSEEK_API_KEY",),
        base_env=("DEEPSEEK_API_BASE", "DEEPSEEK_BASE_URL"),
        renamed={"max_completion_tokens": "max_tokens"},
        extra=frozenset({"thinking", "user_id"}),
        endpoints={
            **_lacks("embedding", "image_generation", "transcription", "translation", "speech", "moderation", "rerank"),
            "text_completion": "/beta/completions",
        },
        prompt_cache="automatic",
        fix=COMMON,
        docs="https://api-docs.deepseek.com/api/create-chat-completion",  # 2026-11
    ),
    Provider(
        "openrouter",
        "https://openrouter.ai/api/v1",
        key_env=("OPENROUTER_API_KEY",),
        base_env=("OPENROUTER_API_BASE", "OPENROUTER_BASE_URL"),
        open_ended=True,
        extra=frozenset({"models"}),  # https://openrouter.ai/docs/guides/routing/model-fallbacks (2026-11)
        takes_forms=False,  # https://openrouter.ai/docs/api/api-reference/stt/create-transcription (2026-11)
        # https://openrouter.ai/docs/api/api-reference/images/generate-an-image (2026-11)
        endpoints={**_lacks("translation", "moderation"), "image_generation": "/images"},
        prompt_cache="blocks",
        fix=COMMON,
        docs="https://openrouter.ai/docs/api/reference/overview",  # 2026-11; errors inside choices are read as such
    ),
    Provider(
        "together_ai",
        "https://api.together.xyz/v1",
        key_env=("TOGETHER_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
        base_env=("TOGETHER_API_BASE", "TOGETHERAI_API_BASE"),
        open_ended=True,
        # https://docs.together.ai/docs/inference/openai-compatibility (2026-11): no moderation; responses are in beta
        endpoints=_lacks("moderation"),
        fix=COMMON,
        docs="https://docs.together.ai/reference/chat-completions",  # 2026-11
    ),
    # Usage comes unasked in the last chunk; the seed is `random_seed`, the token bound `max_tokens`.
    Provider(
        "mistral",
        "https://api.mistral.ai/v1",
        key_env=("MISTRAL_API_KEY",),
        base_env=("MISTRAL_API_BASE", "MISTRAL_BASE_URL"),
        refused=frozenset(
            {"audio", "function_call", "functions", "logit_bias", "modalities", "moderation", "service_tier", "store"}
            | {"prompt_cache_options", "prompt_cache_retention", "user", "verbosity", "web_search_options"}
        ),
        renamed={"seed": "random_seed", "max_completion_tokens": "max_tokens", "dimensions": "output_dimension"},
        extra=frozenset({"random_seed", "safe_prompt", "prompt_mode", "guardrails", "document_image_limit"}),
        stream_usage=False,
        endpoints={
            **_lacks("text_completion", "responses", "image_generation", "translation", "rerank"),
            "ocr": "/ocr",
        },
        event_streams=frozenset({"transcription"}),
        # Its errors say 512 inputs (2026-05), and "Max is 16384" tokens (2025-02); the page gives no numbers.
        most_to_embed=Most(512, 16_384),
        history=for_mistral,
        fix=COMMON,
        docs="https://docs.mistral.ai/api/endpoint/chat",  # 2026-11; logprobs as recorded
    ),
    Provider(
        "xai",
        "https://api.x.ai/v1",
        key_env=("XAI_API_KEY",),
        base_env=("XAI_API_BASE", "XAI_BASE_URL"),
        refused=frozenset({"audio", "function_call", "functions", "modalities", "prediction", "store", "verbosity"}),
        extra=frozenset({"search_parameters", "deferred"}),
        # https://docs.x.ai/docs/api-reference (2026-11) has no vectors any more; its voices are at /v1/tts and /v1/stt
        endpoints=_lacks("embedding", "transcription", "translation", "speech", "moderation", "rerank"),
        prompt_cache="automatic",
        fix=COMMON,
        # 2026-11, by recorded traffic: `completion_tokens` does not count the reasoning tokens, `total_tokens` does
        docs="https://docs.x.ai/docs/api-reference",
    ),
    Provider(
        "fireworks_ai",
        "https://api.fireworks.ai/inference/v1",
        key_env=("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"),
        base_env=("FIREWORKS_API_BASE",),
        open_ended=True,
        # https://docs.fireworks.ai/guides/querying-embeddings-models (2026-11): rerank too. Images are elsewhere;
        # sound goes into chats: https://docs.fireworks.ai/guides/video-audio-inputs (2026-11)
        endpoints=_lacks("image_generation", "transcription", "translation", "speech", "moderation"),
        fix=COMMON,
        docs="https://docs.fireworks.ai/tools-sdks/openai-compatibility",  # 2026-11
    ),
    # Usage comes unasked in each chunk (recorded). Parameters: https://docs.perplexity.ai/api-reference (2026-11)
    Provider(
        "perplexity",
        "https://api.perplexity.ai",
        codec="perplexity",
        key_env=("PERPLEXITY_API_KEY", "PERPLEXITYAI_API_KEY"),
        base_env=("PERPLEXITY_API_BASE",),
        open_ended=True,
        stream_usage=False,
        endpoints=_only("chat", "embedding", "responses"),
        fix=COMMON,
        docs="https://docs.perplexity.ai/api-reference/sonar-post",
    ),
    # https://inference-docs.cerebras.ai/resources/openai (2026-11): these are answered with 400
    Provider(
        "cerebras",
        "https://api.cerebras.ai/v1",
        key_env=("CEREBRAS_API_KEY",),
        base_env=("CEREBRAS_API_BASE",),
        refused=frozenset({"frequency_penalty", "logit_bias", "presence_penalty"}),
        extra=frozenset({"clear_thinking", "disable_reasoning", "reasoning_format", "min_tokens"}),
        endpoints=_only("chat", "text_completion"),
        history=with_reasoning,
        fix=COMMON,
        docs="https://inference-docs.cerebras.ai/api-reference/chat-completions",
    ),
    Provider(
        "sambanova",
        "https://api.sambanova.ai/v1",
        key_env=("SAMBANOVA_API_KEY",),
        base_env=("SAMBANOVA_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.sambanova.ai/docs/en/features/openai-compatibility",  # 2026-11
    ),
    Provider(
        "nvidia_nim",
        "https://integrate.api.nvidia.com/v1",
        key_env=("NVIDIA_NIM_API_KEY", "NVIDIA_API_KEY"),
        base_env=("NVIDIA_NIM_API_BASE",),
        open_ended=True,
        # https://docs.nvidia.com/nim/nemo-retriever/text-embedding/latest/reference.html (2026-11); `input_type` is a
        # parameter like any. Reranks, images and speech are served from other addresses, in other protocols.
        endpoints=_only("chat", "text_completion", "responses", "embedding"),
        fix=COMMON,
        docs="https://docs.api.nvidia.com/nim/reference/llm-apis",  # 2026-11; the schema differs by model
    ),
    Provider(
        "deepinfra",
        "https://api.deepinfra.com/v1/openai",
        key_env=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        base_env=("DEEPINFRA_API_BASE",),
        open_ended=True,
        # https://deepinfra.com/docs/openai_api (2026-11): reranks go to /v1/inference/<model>
        endpoints=_lacks("moderation", "rerank"),
        most_to_embed=Most(1024),  # as LangChain's clients have it (2026-11)
        fix=COMMON,
        docs="https://docs.deepinfra.com/api-reference/chat-completions/openai-chat-completions",  # 2026-11
    ),
    Provider(
        "moonshot",
        "https://api.moonshot.ai/v1",
        key_env=("MOONSHOT_API_KEY",),
        base_env=("MOONSHOT_API_BASE",),
        open_ended=True,
        prompt_cache="automatic",
        fix=STRAY_USAGE,
        docs="https://platform.moonshot.ai/docs/api/chat",  # 2026-11
    ),
    Provider(
        "zai",
        "https://api.z.ai/api/paas/v4",
        key_env=("ZAI_API_KEY", "ZHIPU_API_KEY"),
        base_env=("ZAI_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.z.ai/api-reference/llm/chat-completion",  # 2026-11
    ),
    Provider(
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key_env=("DASHSCOPE_API_KEY",),
        base_env=("DASHSCOPE_API_BASE", "DASHSCOPE_BASE_URL"),
        open_ended=True,
        # https://www.alibabacloud.com/help/en/model-studio/text-embedding-synchronous-api (2026-03): of v3 and v4
        most_to_embed=Most(10),
        fix=COMMON,
        docs="https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope",  # 2026-11
    ),
    Provider(
        "minimax",
        "https://api.minimax.io/v1",
        key_env=("MINIMAX_API_KEY",),
        base_env=("MINIMAX_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://platform.minimax.io/docs/api-reference/text-openai-api",  # 2026-11; errors come with status 200
    ),
    Provider(
        "hyperbolic",
        "https://api.hyperbolic.xyz/v1",
        key_env=("HYPERBOLIC_API_KEY",),
        base_env=("HYPERBOLIC_API_BASE",),
        open_ended=True,
        fix=COMMON,
        # the page was not to be had; the URL rests on ten clients' sources (2026-11)
        docs="https://docs.hyperbolic.xyz",
    ),
    Provider(
        "nebius",
        "https://api.tokenfactory.nebius.com/v1",
        key_env=("NEBIUS_API_KEY",),
        base_env=("NEBIUS_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.tokenfactory.nebius.com/api-reference/inference/create-chat-completion",  # 2026-11
    ),
    Provider(
        "novita",
        "https://api.novita.ai/openai",
        key_env=("NOVITA_API_KEY",),
        base_env=("NOVITA_API_BASE",),
        open_ended=True,
        fix=COMMON,
        # 2026-11, by models.dev's row
        docs="https://novita.ai/docs/api-reference/model-apis-llm-create-chat-completion",
    ),
    Provider(
        "friendliai",
        "https://api.friendli.ai/serverless/v1",
        key_env=("FRIENDLI_TOKEN",),
        base_env=("FRIENDLI_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://friendli.ai/docs/openapi/model-apis/chat-completions",  # 2026-11, by models.dev's row
    ),
    Provider(
        "baseten",
        "https://inference.baseten.co/v1",
        key_env=("BASETEN_API_KEY",),
        base_env=("BASETEN_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.baseten.co/reference/inference-api/chat-completions",  # 2026-11, by models.dev's row
    ),
    Provider(
        "writer",
        "https://api.writer.com/v1",
        codec="writer",
        key_env=("WRITER_API_KEY",),
        base_env=("WRITER_API_BASE", "WRITER_BASE_URL"),
        extra=frozenset({"random_seed", "best_of"}),
        fix=COMMON,
        docs="https://dev.writer.com/home/text-generation",  # 2026-11; its stream as recorded
    ),
    Provider(
        "featherless_ai",
        "https://api.featherless.ai/v1",
        key_env=("FEATHERLESS_API_KEY", "FEATHERLESS_AI_API_KEY"),
        base_env=("FEATHERLESS_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://featherless.ai/docs/api-overview-and-common-options",  # 2026-11
    ),
    Provider(
        "github",
        "https://models.github.ai/inference",
        key_env=("GITHUB_API_KEY", "GITHUB_TOKEN"),
        base_env=("GITHUB_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.github.com/en/github-models",  # 2026-11, by models.dev's row
    ),
    Provider(
        "huggingface",
        "https://router.huggingface.co/v1",
        key_env=("HF_TOKEN", "HUGGINGFACE_API_KEY"),
        base_env=("HUGGINGFACE_API_BASE", "HF_API_BASE"),
        open_ended=True,
        # What the router speaks of OpenAI's protocol; other tasks have addresses of their own, by model and provider:
        # https://huggingface.co/docs/inference-providers (2026-11)
        endpoints=_only("chat", "responses"),
        fix=STRAY_USAGE,  # it passes on what Groq, Together, Nebius … answer
        docs="https://huggingface.co/docs/inference-providers",  # 2026-11
    ),
    Provider(
        "venice",
        "https://api.venice.ai/api/v1",
        key_env=("VENICE_API_KEY", "VENICE_AI_API_KEY"),
        base_env=("VENICE_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.venice.ai/api-reference/endpoint/chat/completions",  # 2026-11
    ),
    # Base: https://<workspace>/serving-endpoints (as recorded, 2026-11)
    Provider(
        "databricks",
        "",
        key_env=("DATABRICKS_API_KEY", "DATABRICKS_TOKEN"),
        base_env=("DATABRICKS_API_BASE",),
        open_ended=True,
        stream_usage=False,  # usage comes unasked in each chunk (recorded)
        fix=COMMON,
        docs="https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference",
    ),
    # Base: https://api.cloudflare.com/client/v4/accounts/<account>/ai/v1 (2026-11)
    Provider(
        "cloudflare",
        "",
        key_env=("CLOUDFLARE_API_KEY", "CLOUDFLARE_API_TOKEN"),
        base_env=("CLOUDFLARE_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility/",
    ),
    # Base: https://<account>.snowflakecomputing.com/api/v2/cortex/v1 (2026-11)
    Provider(
        "snowflake",
        "",
        key_env=("SNOWFLAKE_PAT", "SNOWFLAKE_API_KEY", "SNOWFLAKE_JWT"),
        base_env=("SNOWFLAKE_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.snowflake.com/user-guide/snowflake-cortex/open_ai_sdk",
    ),
    Provider(
        "avian",
        "https://api.avian.io/v1",
        key_env=("AVIAN_API_KEY",),
        base_env=("AVIAN_API_BASE",),
        open_ended=True,
        fix=COMMON,
        # the page was not to be had; recorded traffic and several clients' sources (2026-11)
        docs="https://avian.io/docs",
    ),
    Provider(
        "vercel_gateway",
        "https://ai-gateway.vercel.sh/v1",
        key_env=("AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY"),
        base_env=("VERCEL_AI_GATEWAY_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://vercel.com/docs/ai-gateway/openai-compat",  # 2026-11
    ),
    Provider(
        "crusoe",
        "https://managed-inference-api-proxy.crusoecloud.com/v1",
        key_env=("CRUSOE_API_KEY",),
        base_env=("CRUSOE_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.crusoecloud.com/managed-inference",  # the URL rests on litellm's table (2026-11)
    ),
    Provider(
        "scaleway",
        "https://api.scaleway.ai/v1",
        key_env=("SCW_SECRET_KEY", "SCALEWAY_API_KEY"),
        base_env=("SCALEWAY_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://www.scaleway.com/en/docs/generative-apis/",  # 2026-11, by models.dev's and litellm's rows
    ),
    Provider(
        "meta_llama",
        "https://api.llama.com/compat/v1",
        key_env=("LLAMA_API_KEY",),
        base_env=("META_LLAMA_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://llama.developer.meta.com/docs",  # 2026-11, by models.dev's row
    ),
    Provider(
        "upstage",
        "https://api.upstage.ai/v1/solar",
        key_env=("UPSTAGE_API_KEY",),
        base_env=("UPSTAGE_API_BASE",),
        open_ended=True,
        most_to_embed=Most(100, 204_800),  # https://console.upstage.ai/api/embeddings (2026-11)
        fix=COMMON,
        docs="https://developers.upstage.ai/docs/apis/chat",  # 2026-11, by models.dev's row
    ),
    Provider(
        "inception",
        "https://api.inceptionlabs.ai/v1",
        key_env=("INCEPTION_API_KEY",),
        base_env=("INCEPTION_API_BASE",),
        open_ended=True,
        fix=COMMON,
        # 2026-11, by models.dev's row
        docs="https://docs.inceptionlabs.ai/api-reference/chat/create-a-chat-completion",
    ),
    Provider(
        "chutes",
        "https://llm.chutes.ai/v1",
        key_env=("CHUTES_API_KEY",),
        base_env=("CHUTES_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://chutes.ai/docs",  # 2026-11, by models.dev's and litellm's rows
    ),
    Provider(
        "siliconflow",
        "https://api.siliconflow.com/v1",
        key_env=("SILICONFLOW_API_KEY",),
        base_env=("SILICONFLOW_API_BASE",),
        open_ended=True,
        fix=COMMON,
        # 2026-11, by models.dev's row
        docs="https://docs.siliconflow.com/en/api-reference/chat-completions/chat-completions",
    ),
    Provider(
        "wandb",
        "https://api.inference.wandb.ai/v1",
        key_env=("WANDB_API_KEY",),
        base_env=("WANDB_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.wandb.ai/guides/integrations/inference/",  # 2026-11, by models.dev's row
    ),
    Provider(
        "inference_net",
        "https://api.inference.net/v1",
        key_env=("INFERENCE_API_KEY",),
        base_env=("INFERENCE_API_BASE",),
        open_ended=True,
        fix=COMMON,
        docs="https://docs.inference.net",  # 2026-11, by models.dev's row
    ),
    # Vectors and rerank only. Voyage has words of its own for both (recorded), and answers reranks under `data`.
    Provider(
        "voyage",
        "https://api.voyageai.com/v1",
        key_env=("VOYAGE_API_KEY",),
        base_env=("VOYAGE_API_BASE",),
        open_ended=True,
        renamed={"top_n": "top_k", "dimensions": "output_dimension"},
        endpoints=_only("embedding", "rerank"),
        # https://docs.voyageai.com/reference/embeddings-api (2026-05): the tokens are those of the largest models
        most_to_embed=Most(1000, 120_000),
        docs="https://docs.voyageai.com/reference/reranker-api",  # not re-read; paths and names as recorded
    ),
    Provider(
        "jina_ai",
        "https://api.jina.ai/v1",
        key_env=("JINA_API_KEY", "JINA_AI_API_KEY"),
        base_env=("JINA_AI_API_BASE",),
        open_ended=True,
        endpoints=_only("embedding", "rerank"),
        most_to_embed=Most(512),  # "at most 512 items", says its error of v4 (2025-11); the older ones take more
        docs="https://api.jina.ai/redoc",  # not re-read: paths as other clients have them
    ),
)
PROVIDERS: dict[str, Provider] = {row.name: row for row in ROWS}

OTHER_NAMES = {
    "hosted_vllm": "vllm",
    "lmstudio": "lm_studio",
    "llama_cpp": "llamacpp",
    "together": "together_ai",
    "togetherai": "together_ai",
    "fireworks": "fireworks_ai",
    "featherless": "featherless_ai",
    "nvidia": "nvidia_nim",
    "friendli": "friendliai",
    "alibaba": "dashscope",
    "qwen": "dashscope",
    "moonshotai": "moonshot",
    "z_ai": "zai",
    "github_models": "github",
    "hf": "huggingface",
    "veniceai": "venice",
    "vercel_ai_gateway": "vercel_gateway",
    "workers_ai": "cloudflare",
    "x_ai": "xai",
    "custom_openai": "openai_compatible",
    "azure_openai": "azure",
    "cohere_chat": "cohere",
    "cohere_chat_v1": "cohere_v1",
    "google": "gemini",
    "google_vertex": "vertex_ai",
    "vertex": "vertex_ai",
    "vertex_ai_beta": "vertex_ai",
    "anthropic_vertex": "vertex_anthropic",
    "bedrock_converse": "bedrock",
}
"""Names under which users of other libraries know a provider."""

BARE_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("gpt-", "o1", "o3", "o4", "chatgpt-", "ft:gpt-"), "openai"),
    (("text-embedding-3", "text-embedding-ada", "whisper-", "tts-", "dall-e-", "davinci-", "babbage-"), "openai"),
    (("omni-moderation-", "text-moderation-"), "openai"),
    (("claude-",), "anthropic"),
    (("gemini-",), "gemini"),
    (("deepseek-chat", "deepseek-reasoner", "deepseek-v"), "deepseek"),
    (("grok-",), "xai"),
    (("mistral-", "ministral-", "magistral-", "codestral-", "devstral-", "pixtral-", "open-mistral-"), "mistral"),
    (("sonar",), "perplexity"),
    (("voyage-",), "voyage"),
    (("jina-",), "jina_ai"),
)
"""How well-known model names begin, and whose they are."""


@functools.lru_cache(maxsize=1024)
def resolve(model: str) -> tuple[Provider, str]:
    """The provider of "provider/model", or of a well-known bare name, and the vendor's name of the model."""
    name, slash, rest = model.partition("/")
    row = PROVIDERS.get(OTHER_NAMES.get(name, name))
    if slash and rest and row:
        return (row, rest) if not (row.routes or row.served_as) else _routed(row, rest)
    for prefixes, provider in BARE_NAMES:
        if not slash and model.startswith(prefixes):
            return PROVIDERS[provider], model
    raise UnknownProvider(_unknown(model, name, rest, row))


def _routed(row: Provider, model: str) -> tuple[Provider, str]:
    """The same where a vendor speaks more than one protocol: the row for this model."""
    route, _, routed = model.partition("/")
    if routed and route in row.routes:
        return PROVIDERS[row.routes[route]], routed
    other = next((other for start, other in row.served_as.items() if model.startswith(start)), None)
    return (row if other is None else PROVIDERS[other]), model


def _unknown(model: str, name: str, rest: str, row: Provider | None) -> str:
    if row and not rest:
        return f"The model {model!r} names the provider {row.name!r} and no model. Write '{row.name}/<model>'."
    if rest:
        close = suggestion(name, [*PROVIDERS, *OTHER_NAMES])
        return (
            f"No provider named {name!r} (in the model {model!r}).{close} "
            f"For a server that speaks OpenAI's protocol write 'openai_compatible/{model}' and pass api_base=."
        )
    return f"The model {model!r} does not say which provider. Write 'provider/{model}', for example 'openai/{model}'."


def _openai() -> OpenAICodec:
    from .openai import OpenAICodec

    return OpenAICodec(PROVIDERS)


def _anthropic() -> Codec:
    from .anthropic import AnthropicCodec

    return AnthropicCodec()


def _gemini() -> Codec:
    from .gemini import GeminiCodec

    return GeminiCodec()


def _gemini_embed() -> Codec:
    from .gemini_embedding import GeminiEmbed

    return GeminiEmbed()


def _vertex() -> Codec:
    from .vertex import VertexCodec

    return VertexCodec()


def _vertex_embed() -> Codec:
    from .vertex_predict import VertexEmbed

    return VertexEmbed()


def _imagen() -> Codec:
    from .vertex_predict import Imagen

    return Imagen()


def _vertex_imagen() -> Codec:
    from .vertex_predict import VertexImagen

    return VertexImagen()


def _vertex_anthropic() -> Codec:
    from .vertex_anthropic import VertexAnthropicCodec

    return VertexAnthropicCodec()


def _bedrock() -> Codec:
    from .bedrock import BedrockCodec

    return BedrockCodec()


def _bedrock_invoke() -> Codec:
    from .bedrock_invoke import BedrockInvokeCodec

    return BedrockInvokeCodec()


def _bedrock_embed() -> Codec:
    from .bedrock_embedding import BedrockEmbed

    return BedrockEmbed()


def _bedrock_text() -> Codec:
    from .bedrock_invoke import BedrockTextCodec

    return BedrockTextCodec()


def _cohere() -> Codec:
    from .cohere import CohereCodec

    return CohereCodec()


def _cohere_v1() -> Codec:
    from .cohere_v1 import CohereV1Codec

    return CohereV1Codec()


def _cohere_embed() -> Codec:
    from .cohere_endpoints import CohereEmbed

    return CohereEmbed()


def _cohere_rerank() -> Codec:
    from .cohere_endpoints import CohereRerank

    return CohereRerank()


def _ollama() -> Codec:
    from .ollama import OllamaCodec

    return OllamaCodec()


def _ollama_embed() -> Codec:
    from .ollama import OllamaEmbed

    return OllamaEmbed()


def _ollama_generate() -> Codec:
    from .ollama_generate import OllamaGenerate

    return OllamaGenerate()


def _perplexity() -> Codec:
    from .perplexity import PerplexityCodec

    return PerplexityCodec(PROVIDERS)


def _writer() -> Codec:
    from .writer import WriterChat

    return WriterChat(PROVIDERS)


def _writer_text() -> Codec:
    from .writer import WriterText

    return WriterText()


def _replicate() -> Codec:
    from .replicate import ReplicateCodec

    return ReplicateCodec()


def _azure(inner: Callable[[], OpenAICodec]) -> Callable[[], Codec]:
    """What makes the codec of an OpenAI endpoint at Azure."""

    def make() -> Codec:
        from .azure import AzureCodec

        return AzureCodec(inner())

    return make


def _count(name: str) -> Callable[[], Codec]:
    """What makes the codec of that class that counts tokens."""

    def make() -> Codec:
        from . import counting

        made: Codec = getattr(counting, name)()
        return made

    return make


def _azure_ocr() -> Codec:
    from .azure import AzureOcr

    return AzureOcr()


def _endpoint(name: str) -> Callable[[], OpenAICodec]:
    def make() -> OpenAICodec:
        from . import openai_endpoints

        return openai_endpoints.codec(name)

    return make


CODECS: dict[tuple[str, str], Callable[[], Codec]] = {
    ("openai", "chat"): _openai,
    ("anthropic", "chat"): _anthropic,
    ("gemini", "chat"): _gemini,
    ("gemini", "embedding"): _gemini_embed,
    ("gemini", "image_generation"): _imagen,
    ("vertex_ai", "chat"): _vertex,
    ("vertex_ai", "embedding"): _vertex_embed,
    ("vertex_ai", "image_generation"): _vertex_imagen,
    ("vertex_anthropic", "chat"): _vertex_anthropic,
    ("bedrock", "chat"): _bedrock,
    ("bedrock", "embedding"): _bedrock_embed,
    ("bedrock_invoke", "embedding"): _bedrock_embed,
    ("bedrock_invoke", "chat"): _bedrock_invoke,
    ("bedrock", "text_completion"): _bedrock_text,
    ("bedrock_invoke", "text_completion"): _bedrock_text,
    ("cohere", "chat"): _cohere,
    ("cohere_v1", "chat"): _cohere_v1,
    ("cohere", "embedding"): _cohere_embed,
    ("cohere", "rerank"): _cohere_rerank,
    ("ollama", "chat"): _ollama,
    ("ollama", "embedding"): _ollama_embed,
    ("ollama", "text_completion"): _ollama_generate,
    ("replicate", "chat"): _replicate,
    ("perplexity", "chat"): _perplexity,
    ("perplexity", "embedding"): _endpoint("embedding"),
    ("perplexity", "responses"): _endpoint("responses"),
    ("writer", "chat"): _writer,
    ("writer", "text_completion"): _writer_text,
    ("azure", "chat"): _azure(_openai),
    ("anthropic", "count_tokens"): _count("AnthropicCount"),
    ("gemini", "count_tokens"): _count("GeminiCount"),
    ("vertex_ai", "count_tokens"): _count("VertexCount"),
    ("vertex_anthropic", "count_tokens"): _count("VertexAnthropicCount"),
    ("bedrock", "count_tokens"): _count("BedrockCount"),
    ("bedrock_invoke", "count_tokens"): _count("BedrockInvokeCount"),
    ("openai", "count_tokens"): _count("OpenAICount"),
    ("openai", "ocr"): _endpoint("ocr"),
    ("azure", "ocr"): _azure_ocr,
    **{("openai", name): _endpoint(name) for name in ENDPOINTS},
    **{("azure", name): _azure(_endpoint(name)) for name in ENDPOINTS},
}
"""One per protocol and endpoint; each loads its module when it is first used."""


@functools.cache
def codec(protocol: str, endpoint: str = "chat") -> Codec | None:
    """The codec of an endpoint in a protocol, its module loaded on first use; None if it has no such endpoint."""
    make = CODECS.get((protocol, endpoint))
    return None if make is None else make()


def serves(provider: Provider, endpoint: str) -> bool:
    """Whether a provider has an endpoint, as far as its row tells."""
    is_usual = endpoint not in SELDOM or provider.codec not in ("openai", "azure")
    return (provider.codec, endpoint) in CODECS and provider.endpoints.get(endpoint, "/" if is_usual else "") != ""


def most_to_embed(request: Request) -> Most:
    """What the model of `request` takes in one request for vectors."""
    row = PROVIDERS[request.provider]
    return next((most for word, most in row.most_by_model.items() if word in request.model), row.most_to_embed)


def api_base(provider: Provider, given: str | None, arguments: Mapping[str, Any] | None = None, model: str = "") -> str:
    """The base URL that a call goes to, without a trailing slash; empty if there is none.

    `arguments` are the call's, for a vendor whose base URL depends on them.
    """
    if given:
        return str(given).rstrip("/")  # perhaps an httpx URL
    for name in provider.base_env:
        value = os.environ.get(name)
        if value:
            return _whole_url(value, provider)
    return provider.base_url if provider.place is None else provider.place(arguments or {}, model)


def api_version(provider: Provider, given: str | None) -> str | None:
    """The API version that a call asks for; None where the vendor has none, or a usual one."""
    return given or next((value for name in provider.version_env if (value := os.environ.get(name))), None)


def _whole_url(value: str, provider: Provider) -> str:
    """A base URL out of an environment variable.

    For servers that one runs oneself it may be what *they* read there, without scheme, port or path: OLLAMA_HOST is
    "0.0.0.0:11434" or "gpu-box" (https://docs.ollama.com/faq, 2026-11).
    """
    value = value.rstrip("/")
    if not provider.base_url.startswith("http://"):
        return value
    default = urlsplit(provider.base_url)
    given = urlsplit(value if "://" in value else f"http://{value}")
    host = "localhost" if given.hostname in (None, "0.0.0.0") else given.netloc.removesuffix(f":{given.port}")
    port = given.port or (default.port if "://" not in value else None)
    return f"{given.scheme}://{host}{f':{port}' if port else ''}{given.path or default.path}"
