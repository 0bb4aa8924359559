"""A web site on loopback with the pages that browser tests open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGES = {
    "/plain": "<title>Plain</title><h1>A heading</h1><p>Some text</p><p hidden>Unseen</p>",
    "/form": """<title>Form</title>
        <form action=/sent><label>Name <input name=name value=old></label>
        <select name=colour><option>red<option>green</select><button>Send</button></form>
        <script>document.addEventListener('keydown', (event) => console.log('key', event.key))</script>""",
    "/buttons": """<title>Buttons</title>
        <button onclick="document.title = 'clicked'">Click me</button>
        <button onclick="alert('Watch out'); document.title = 'told ' + confirm('Sure?')">Ask</button>
        <button onclick="window.open('/popup')">Open</button>
        <button onclick="setTimeout(() => location = '/plain', 50)">Leave</button>
        <button onclick="while (true);">Spin</button>
        <button onclick="this.nextElementSibling.remove()">Remove next</button><button>Next</button>
        <button disabled>Disabled</button><button style="display: none">Hidden</button>""",
    "/popup": "<title>Popup</title>The popup <button onclick='window.close()'>Close</button>",
    "/nested": """<title>Nested</title><iframe src=/framed></iframe><div id=host></div>
        <input type=file onchange="document.title = this.files[0].name">
        <script>document.querySelector('#host').attachShadow({mode: 'open'}).innerHTML =
          '<button onclick="document.title = `shadow`">In the shadow</button>'</script>""",
    "/framed": "<button onclick=\"parent.document.title = 'frame'\">In the frame</button>",
    "/long": "<title>Long</title>" + "".join(f"<p>Line {n} <a href=/plain>link</a></p>" for n in range(3000)),
    "/loop": "<title>Loop</title>Before<script>while (true);</script>",
    "/dialogs": "<title>Dialogs</title><script>while (true) alert('again');</script>",
    "/leaving": """<title>Leaving</title><button>Do nothing</button><button onclick="print()">Print</button>
        <script>onbeforeunload = (event) => event.preventDefault();</script>""",
    "/download": "",
    "/sent": "<title>Sent</title>",
}


class Site:
    def __init__(self, port: int) -> None:
        self.port = port
        self.hanging = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def running_site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/hangs":
                site.hanging.wait(60)
                return
            body = PAGES.get(path, "<title>None</title>").encode()
            if path == "/sent":
                body += query.encode()
            self.send_response(200 if path in PAGES else 404)
            if path == "/download":
                body = bytes(100_000)
                self.send_header("Content-Disposition", "attachment; filename=report.bin")
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test's output is for its failure."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        site.hanging.set()
        server.shutdown()
        thread.join()
        server.server_close()
