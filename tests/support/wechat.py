"""WeChat's side of the OAuth flow. Like WeChat, it answers even errors with HTTP 200 and text/plain."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

APP_ID, SECRET = "wx5f0c2d6c1a", "the app's secret of 32 characters"


@dataclass
class WechatStub:
    """Maps codes to people; each code works once. `misbehave` holds the answers to other codes."""

    url: str = ""
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    misbehave: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add_person(self, code: str, openid: str, *, scope: str = "snsapi_userinfo", **profile: Any) -> str:
        """Let a person who agrees at WeChat return with this code."""
        self.people[code] = {"openid": openid, "scope": scope, **profile}
        return code

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        self.asked.append(path)
        if path == "/sns/oauth2/access_token":
            return self._token(query)
        if path == "/sns/userinfo":
            profile = self.tokens.get(query.get("access_token", ""))
            if profile is None or query.get("openid") != profile["openid"]:
                return json_answer(errcode=40001, errmsg="invalid credential")
            return json_answer(**{**profile, "openid": profile.get("answers_as", profile["openid"]), "sex": 0})
        return 404, b"not found"

    def _token(self, query: dict[str, str]) -> tuple[int, bytes]:
        if query.get("appid") != APP_ID or query.get("secret") != SECRET:
            return json_answer(errcode=40125, errmsg="invalid appsecret")
        if query.get("grant_type") != "authorization_code":
            return json_answer(errcode=40002, errmsg="invalid grant_type")
        code = query.get("code", "")
        if code in self.misbehave:
            return self.misbehave[code]
        profile = self.people.pop(code, None)
        if profile is None:
            return json_answer(errcode=40029, errmsg="invalid code")
        token = f"token of {code}"
        self.tokens[token] = profile
        unionid = {"unionid": profile["unionid"]} if "unionid" in profile else {}
        return json_answer(
            access_token=token,
            expires_in=7200,
            refresh_token="r",
            openid=profile["openid"],
            scope=profile["scope"],
            **unionid,
        )


def json_answer(**fields: Any) -> tuple[int, bytes]:
    return 200, json.dumps(fields, ensure_ascii=False).encode()


@contextmanager
def running_wechat() -> Iterator[WechatStub]:
    stub = WechatStub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, body = stub.answer(parts.path, dict(parse_qsl(parts.query)))
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            if 300 <= status < 400:
                self.send_header("Location", body.decode())
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Print no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
