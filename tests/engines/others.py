"""The other servers and gateways that the gate must be right on, each with one row: init, run, accept, run ends 3, 0, 0.

Gateways stand before the embedded llama.cpp, vllm-router before vLLM. Not part of `make test`: `make engines-smoke`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatebook.collect.embedded import MODEL, model_file
from gatebook.collect.server import embedded_server

from tests.engines.install import CannotHave, environment, prepared, weights
from tests.engines.serving import NotStarted, chats, free_port, log_file, running, vllm

KEY = f"sk-{secrets.token_hex(16)}"
"""LiteLLM's proxy does not start without one."""
HOSTED = "local/smollm2"
"""The name in a Hugging Face cache."""
NGINX = """daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream behind {{ {upstreams} }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{first}; {edge} }} }}
  server {{ listen unix:{folder}/inner; location / {{ proxy_pass http://behind; {inner} }} }}
}}
"""
STREAMS = "proxy_buffering off;"
UNPACKING = "proxy_http_version 1.1; proxy_set_header Accept-Encoding gzip; gunzip on;"
"""An edge that asks for packed replies, as a CDN does, for clients that want none."""
PACKED = "proxy_http_version 1.1; proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; gzip on; gzip_types text/event-stream; gzip_proxied any;"
"""As written for web pages: the packer keeps a stream until a block is full. Unpacked streams nginx passes on even where it buffers."""


@contextmanager
def llama() -> Iterator[str]:
    """The embedded llama.cpp, without /v1."""
    with embedded_server(log_file("llama")) as url:
        yield url.removesuffix("/v1")


@contextmanager
def _vllm() -> Iterator[str]:
    with vllm() as url:
        yield url.removesuffix("/v1")


@contextmanager
def _nothing() -> Iterator[str]:
    yield ""


@dataclass(frozen=True)
class Front:
    """One server or gateway, and how it is started."""

    name: str
    told: str
    command: Callable[[int, str, Path], list[str]]
    """From a port, the address of what stands behind it, and a scratch folder."""
    behind: Callable[[], AbstractContextManager[str]] = llama
    model: str = MODEL
    asked: bool = False
    """Only when it is named: it takes long to install."""
    env: Callable[[Path], Mapping[str, str]] = lambda folder: {}
    key: str = ""
    """That it wants."""
    profile: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sections that are edited after `gatebook init`."""

    @contextmanager
    def started(self) -> Iterator[str]:
        """Its base URL. Raises CannotHave or NotStarted."""
        with tempfile.TemporaryDirectory() as name, self.behind() as upstream:
            folder, port = Path(name), free_port()
            url = f"http://127.0.0.1:{port}/v1"
            env = environment(**{"HOME": name, **self.env(folder)})
            command = self.command(port, upstream, folder)
            with running(command, url, env, log_file(self.name), ready=chats(self.model, self.key)) as found:
                yield found.base_url


def _python(engine: str) -> str:
    return str(prepared(engine).python)


def _script(engine: str, script: str) -> list[str]:
    return [_python(engine), str(prepared(engine).folder / "bin" / script)]


def _transformers(port: int, upstream: str, folder: Path) -> list[str]:
    return [*_script("vllm", "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]


def _cache(folder: Path) -> dict[str, str]:
    """A Hugging Face cache that holds the weights under HOSTED."""
    snapshot = "0" * 40
    repository = folder / "hub" / f"models--{HOSTED.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(snapshot)
    (repository / "blobs").mkdir()
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / snapshot).mkdir()
    for file in weights().iterdir():
        (repository / "blobs" / file.name).symlink_to(file)
        (repository / "snapshots" / snapshot / file.name).symlink_to(repository / "blobs" / file.name)
    return {"HF_HUB_CACHE": str(folder / "hub")}


def _litellm(port: int, upstream: str, folder: Path) -> list[str]:
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{upstream}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": MODEL, "litellm_params": parameters}]}
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    return [
        *_script("litellm", "litellm"),
        "--config",
        str(folder / "config.yaml"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]


def _sglang_router(port: int, upstream: str, folder: Path) -> list[str]:
    command = [
        _python("sglang-router"),
        "-m",
        "sglang_router.launch_router",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return [*command, "--worker-urls", upstream, "--prometheus-port", str(free_port())]


def _smg(port: int, upstream: str, folder: Path) -> list[str]:
    command = [*_script("smg", "smg"), "launch", "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--worker-urls", upstream, "--prometheus-port", str(free_port())]


def _vllm_router(port: int, upstream: str, folder: Path) -> list[str]:
    command = [_python("vllm-router"), "-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--worker-urls", upstream, "--prometheus-port", str(free_port())]


def nginx_program() -> str:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise CannotHave("nginx: not installed; apt-get install nginx-light")
    return program


def _nginx(port: int, upstream: str, folder: Path) -> list[str]:
    return nginx_command(nginx_program(), port, [upstream], folder)


def nginx_command(program: str, port: int, upstreams: Sequence[str], folder: Path, packed: bool = False) -> list[str]:
    """`packed`: a second nginx behind the first one packs what it passes on, and the first one unpacks it."""
    text = NGINX.format(
        folder=folder, port=port, upstreams=" ".join(f"server {url.removeprefix('http://')};" for url in upstreams),
        first=f"unix:{folder}/inner" if packed else "behind", edge=UNPACKING if packed else STREAMS, inner=PACKED,
    )  # fmt: skip
    (folder / "nginx.conf").write_text(text)
    return [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", f"user {_me()};"]


@contextmanager
def nginx(*base_urls: str, packed: bool = False) -> Iterator[str]:
    """The base URL of an nginx that asks these servers in turn. Raises CannotHave without nginx."""
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = nginx_command(nginx_program(), port, [u.removesuffix("/v1") for u in base_urls], Path(name), packed)
        ready = lambda client, url: client.get(f"{url}/models").status_code == 200  # noqa: E731
        with running(command, f"http://127.0.0.1:{port}/v1", environment(HOME=name), log_file("nginx"), ready) as found:
            yield found.base_url


def _me() -> str:
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")


def _llama_cpp_python(port: int, upstream: str, folder: Path) -> list[str]:
    command = [_python("llama-cpp-python"), "-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(model_file()), "--model_alias", MODEL, "--n_ctx", "8192"]
    return [*command, "--interrupt_requests", "false"]


FRONTS = {
    front.name: front
    for front in (
        Front("nginx", "nginx before llama.cpp", _nginx),
        Front("smg", "smg 1.13.0 before llama.cpp", _smg),
        Front("sglang-router", "sglang-router 0.3.2 before llama.cpp", _sglang_router, model="unknown", profile={"target": {"aliases": [MODEL]}}),
        Front("litellm", "LiteLLM 1.108.7 (proxy) before llama.cpp", _litellm, key=KEY, env=lambda _: {"LITELLM_MASTER_KEY": KEY}, profile={"offers": {"n": "its streams end choices wrongly"}}),
        Front("vllm-router", "vllm-router 0.1.17 before vLLM", _vllm_router, behind=_vllm),
        Front("transformers", "transformers serve 5.19.0, no model pinned", _transformers, behind=_nothing, model=HOSTED, env=_cache),
        Front("llama-cpp-python", "llama-cpp-python 0.3.36 with --interrupt_requests false", _llama_cpp_python, behind=_nothing, asked=True),
    )
}  # fmt: skip


def smoke(names: list[str]) -> int:
    """One line a row; how many did not end 3, 0, 0."""
    from tests.faults.on_vllm import introduced  # the lab needs pytest; installing does not

    bad = 0
    for front in FRONTS.values():
        if names and front.name not in names:
            continue
        if front.asked and front.name not in names:
            print(f"{front.told}: left out, it compiles for 5 to 10 minutes; name it: smoke {front.name}", flush=True)
            continue
        started, codes, reason = time.monotonic(), [], ""
        try:
            with front.started() as url, tempfile.TemporaryDirectory() as folder:
                project = introduced(Path(folder), url, front.model, front.key)
                if front.profile:
                    project.edit_profile(**{section: dict(values) for section, values in front.profile.items()})
                done = project.ask(url, "smoke")
                codes, reason = [done.code], done.verdict["reason"] if done.code != 2 else done.err.strip()
                if done.code == 3:
                    accepted = project.gatebook("accept", done.run, "--reason", "its first run")
                    codes, reason = [3, accepted.code], accepted.err.strip()
                if codes == [3, 0]:
                    done = project.ask(url, "smoke")
                    codes, reason = [3, 0, done.code], done.verdict["reason"]
        except (CannotHave, NotStarted, RuntimeError) as error:
            reason = str(error)
        ok = codes == [3, 0, 0]
        bad += not ok
        word = "ok" if ok else "NOT" if codes else "NOT RUN"
        said = ", ".join(map(str, codes))
        print(f"{front.told}: {word}: {said} in {time.monotonic() - started:.0f} s {reason[:300]}", flush=True)
    return bad
