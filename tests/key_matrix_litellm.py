"""What litellm does with the key matrix: each pair of calls, through `litellm.completion` and its local cache.

Run it where litellm is installed, with what its caches need beside it:

    pip install litellm==1.106.2 orjson fastapi soundfile mcp
    python -m tests.key_matrix_litellm

Nothing leaves the machine: an upstream of its own answers, and counts what it is asked.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .key_matrix import BASE, RECORDED, UPSTREAM, Case, cases, name_of


class Upstream(BaseHTTPRequestHandler):
    """A server that speaks OpenAI's protocol and answers the same to everybody."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Upstream.asked += 1
        whole = {"id": f"answer-{Upstream.asked}", "created": 1, "model": body["model"], "object": "chat.completion"}
        message = {"role": "assistant", "content": "Hello."}
        if not body.get("stream"):
            whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
            whole["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return self.reply(json.dumps(whole), "application/json")
        whole["object"] = "chat.completion.chunk"
        deltas = [({**message}, None), ({}, "stop")]
        chunks = [{**whole, "choices": [{"index": 0, "delta": d, "finish_reason": f}]} for d, f in deltas]
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        return self.reply(f"{events}data: [DONE]\n\n", "text/event-stream")

    def reply(self, body: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def asked_by(case: Case, address: str) -> dict[str, str]:
    """What the second call of a pair was: a hit, a miss, or an error and which."""
    import litellm

    litellm.cache = litellm.Cache()
    for number, arguments in enumerate((case.one, case.other), 1):
        before = Upstream.asked
        try:
            answer = litellm.completion(**placed({**BASE, **arguments}, address))
            if arguments.get("stream"):
                list(answer)
        except Exception as error:
            return {"result": "error", "why": f"call {number}: {type(error).__name__}: {str(error)[:160]}"}
    return {"result": "miss" if Upstream.asked > before else "hit"}


def placed(arguments: dict[str, Any], address: str) -> dict[str, Any]:
    return {
        name: value.replace(UPSTREAM, address) if isinstance(value, str) else value for name, value in arguments.items()
    }


def main() -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["OPENAI_API_KEY"] = os.environ["HOSTED_VLLM_API_KEY"] = "no-key"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    os.environ["OPENAI_BASE_URL"] = os.environ["OPENAI_API_BASE"] = f"{address}/v1"
    results = {name_of(section, case): asked_by(case, address) for section, case in cases() if not case.ours}
    record = {
        "version": importlib.metadata.version("litellm"),
        "date": datetime.date.today().isoformat(),
        "results": results,
    }
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(record, indent=1, ensure_ascii=False).replace(address, UPSTREAM) + "\n")
    server.shutdown()


if __name__ == "__main__":
    main()
