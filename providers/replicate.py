"""Replicate's predictions, as far as they are chat: a prompt in, a text out.

https://replicate.com/docs/topics/predictions/create-a-prediction (read 2026-11; inputs by the pages of models there)

What is decided here:

- A call waits (`Prefer: wait`) for 60 seconds at most, which is the vendor's own bound; for less, pass
  `extra_headers={"Prefer": "wait=5"}`. A prediction that is not finished by then goes on there, and here it is an error
  that names it and may be tried again.
- "owner/name" is an official model; "owner/name:version" runs that version of any model.
- A conversation of one turn is the prompt as it is. A longer one is written out, each turn after its speaker's name,
  and ends with "Assistant:". System messages are `system_prompt`.
- Each model has inputs of its own: what is in `extra_body` goes into `input`, where it has the last word. `max_tokens`
  and images have other names in OpenAI's models there; `max_new_tokens`, which older models have, is sent where the
  caller gives it.
- Images go beside the prompt, whichever message they are in. Most models take one.
- No streams: the vendor's are read by a second request, at the URL that the first one answers with.
- The vendor does not say why a text ended. It is "length" if it has as many tokens as were allowed, else "stop".
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from ..core.types import Message, Request
from .base import Call, Codec, Failure, Provider, ProviderFault, StreamDecoder
from .failures import fault_in_answer, read_failure
from .openai import wire_json

Json = dict[str, Any]

LIMITS = ("max_tokens", "max_completion_tokens")
PARAMETERS = frozenset(
    {*LIMITS, "frequency_penalty", "max_new_tokens", "min_tokens", "presence_penalty", "prompt_template", "seed"}
    | {"reasoning_effort", "repetition_penalty", "stop", "stop_sequences", "temperature", "top_k", "top_p"}
)
"""What most models there know; none knows all. Models drop inputs that they do not know in silence, so tools and
whatever else would change the kind of the answer are not among them."""

SPEAKERS = {"user": "User", "assistant": "Assistant"}


class Inputs(NamedTuple):
    """What a model calls its inputs."""

    limit: str = "max_tokens"
    image: str = "image"
    many_images: bool = False


OWNERS: Mapping[str, Inputs] = {"openai": Inputs("max_completion_tokens", "image_input", many_images=True)}
"""Owners whose models have other names than most (https://replicate.com/openai/gpt-4.1-mini/api, 2026-11)."""

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


class ReplicateCodec(Codec):
    """Chat: a prompt in, a finished prediction out."""

    def parameters(self, provider: Provider) -> frozenset[str]:
        return (PARAMETERS | provider.extra) - provider.refused

    def encode(self, request: Request, provider: Provider) -> Call:
        if request.stream:
            raise self._no_streams()
        path, body = _place(request.model)
        body["input"] = {**_input(request), **(request.extra_body or {})}
        headers = {**provider.headers, "prefer": "wait"}
        return Call(path, wire_json(body), headers, url=request.api_base + path)

    def decode(self, body: bytes, request: Request) -> bytes:
        try:
            return orjson.dumps(_completion(orjson.loads(body), body, request))
        except MALFORMED as error:
            if body.lstrip().startswith(b"<"):  # a page of some server in between
                raise ProviderFault(fault_in_answer(body), body) from error
            said = f"The answer is no prediction of Replicate's ({type(error).__name__}: {error})."
            raise ProviderFault(Failure(said, "malformed_answer", status=502), body) from error

    def decoder(self, request: Request) -> StreamDecoder:
        raise self._no_streams()

    def failure(self, status: int, body: bytes) -> Failure:
        return read_failure(body, status)

    def template(self, provider: Provider, request: Request, api_key: str | None) -> tuple[str, dict[str, str]]:
        headers = {"accept": "application/json", "content-type": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        return request.api_base, headers

    def _no_streams(self) -> Exception:
        return _invalid(
            "Replicate's streams are read by a second request, which is not made here. Leave out stream=True."
        )


def _place(model: str) -> tuple[str, Json]:
    """The path of a model's predictions, and what names it in the body."""
    name, _, version = model.partition(":")
    if name.count("/") != 1 or not all(name.split("/")):
        raise _invalid(f"Replicate's models are called 'owner/name' or 'owner/name:version', not {model!r}.")
    return ("/predictions", {"version": version}) if version else (f"/models/{name}/predictions", {})


def _input(request: Request) -> Json:
    asked, names = dict(request.parameters), OWNERS.get(request.model.partition("/")[0], Inputs())
    said: Json = _said(request.messages, names)
    for limit in LIMITS:
        if limit in asked:
            said[names.limit] = asked.pop(limit)
    if "stop" in asked:
        asked["stop_sequences"] = asked.pop("stop")
    if isinstance(asked.get("stop_sequences"), (list, tuple)):  # separated by commas, the models' pages say
        asked["stop_sequences"] = _joined(asked["stop_sequences"])
    return {**said, **asked}


def _joined(stops: Iterable[Any]) -> str:
    texts = [str(stop) for stop in stops]
    if any("," in text for text in texts):
        raise _invalid("Replicate separates stop sequences by commas, so none of several may have one in it.")
    return ",".join(texts)


def _said(messages: Iterable[Message], names: Inputs) -> Json:
    """The messages as a prompt, a system prompt and images."""
    system, turns, images = list[str](), list[tuple[str, str]](), list[str]()
    for message in messages:
        role = message["role"]
        if role not in ("system", "developer", *SPEAKERS) or message.get("tool_calls") or message.get("function_call"):
            raise _invalid(f"Replicate's models know no tools: a message of the role {role!r} cannot be told to them.")
        text, found = _content(message.get("content"))
        images += found
        if role in SPEAKERS:
            turns.append((SPEAKERS[role], text))
        else:
            system.append(text)
    said: Json = {"prompt": _prompt(turns)}
    if system:
        said["system_prompt"] = "\n\n".join(system)
    if len(images) > 1 and not names.many_images:
        raise _invalid(f"The messages have {len(images)} images, and this model of Replicate's takes one.")
    if images:
        said[names.image] = images if names.many_images else images[0]
    return said


def _prompt(turns: list[tuple[str, str]]) -> str:
    if not turns:
        raise _invalid("Replicate needs a message of the role 'user': it is the prompt.")
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join([*(f"{speaker}: {text}" for speaker, text in turns), "Assistant:"])


def _content(content: Any) -> tuple[str, list[str]]:
    """The text of a message and its images."""
    if content is None or isinstance(content, str):
        return content or "", []
    texts, images = list[str](), list[str]()
    for part in content:
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        kind = part.get("type")
        if kind in ("text", "refusal"):
            texts.append(str(part.get(kind) or ""))
        elif kind == "image_url":
            images.append(_image(part.get("image_url")))
        else:
            raise _invalid(f"Replicate takes no {kind!r} parts. Send text or images.")
    return "\n".join(texts), images


def _image(image: Any) -> str:
    url = str(image.get("url") if isinstance(image, Mapping) else image)
    if not url.startswith(("https://", "http://", "data:")):
        raise _invalid(f"An image must be an http(s) or a data URL, not {url[:60]!r}.")
    return url


def _invalid(message: str) -> Exception:
    from ..core import api_errors

    return api_errors.invalid(message, provider="replicate")


# Answers.


def _completion(prediction: Json, body: bytes, request: Request) -> Json:
    if prediction.get("status") != "succeeded":
        raise ProviderFault(_unfinished(prediction, body), body)
    usage = _usage(prediction.get("metrics") or {})
    asked = request.parameters
    bound = next((asked[limit] for limit in (*LIMITS, "max_new_tokens") if limit in asked), None)
    ending = "length" if bound is not None and usage["completion_tokens"] >= bound else "stop"
    message = {"role": "assistant", "content": _text(prediction["output"])}
    return {
        "id": prediction.get("id") or "",
        "object": "chat.completion",
        "created": _created(prediction.get("created_at")),
        "model": prediction.get("model") or request.model,
        "choices": [{"index": 0, "message": message, "finish_reason": ending}],
        "usage": usage,
        "metrics": prediction.get("metrics"),
    }


def _unfinished(prediction: Json, body: bytes) -> Failure:
    """Why there is no answer. A prediction that still runs, or that somebody canceled, may be tried again."""
    status, name = prediction.get("status"), prediction.get("id")
    if status in ("starting", "processing"):
        said = f"Replicate's prediction {name!r} was not finished within the wait; it is {status!r}"
        link = (prediction.get("urls") or {}).get("get")
        return Failure(f"{said} and goes on at {link}." if link else f"{said}.", "unfinished", status=504)
    if status in ("canceled", "aborted"):
        return Failure(f"Replicate's prediction {name!r} was {status}.", status, status=409)
    if status == "failed":
        said = str(prediction.get("error") or "no reason given")
        failure = fault_in_answer(orjson.dumps({"error": said}))
        return failure._replace(message=f"Replicate's prediction {name!r} failed: {said}")
    failure = fault_in_answer(body)
    return failure if failure.status is not None else failure._replace(status=502)


def _text(output: Any) -> str:
    """Pieces, or one text."""
    if isinstance(output, str):
        return output
    if isinstance(output, list) and all(isinstance(piece, str) for piece in output):
        return "".join(output)
    raise TypeError(f"its output is not text but {str(output)[:100]!r}")


def _usage(metrics: Mapping[str, Any]) -> Json:
    prompt, answer = int(metrics.get("input_token_count") or 0), int(metrics.get("output_token_count") or 0)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _created(given: Any) -> int:
    return int(datetime.datetime.fromisoformat(given).timestamp() if given else time.time())
