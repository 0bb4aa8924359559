"""Two tasks that need a sandbox: a chart from a CSV, and a form on a local site. The model reads what it needs.

The form's site runs in the sandbox, because a sandbox does not reach the machine that it runs on.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from moorage_api.agent.messages import content_text
from support.agent import shell
from support.llm import Call, Calls, Finish, Plan, Request, Responder, Say, Turn
from support.providers.runs import BLANK, count_answers

WORKSPACE = "/home/ubuntu/workspace"
CSV = f"{WORKSPACE}/upload/sales.csv"
CHART = f"{WORKSPACE}/chart.png"
SITE = f"{WORKSPACE}/upload/site.py"
RECEIVED = f"{WORKSPACE}/received.jsonl"
COLOURS = {"north": (200, 0, 0), "south": (0, 160, 0), "west": (0, 0, 220)}
CUSTOMER = "Zoë & 你好"

TOTAL = r"The total is (\d+)"
ADDRESS = r"The site is at (http://127\.0\.0\.1:\d+/)"
ORDER = r"Order (\d+) was received"

DRAW = f"""
import collections, csv
import matplotlib.pyplot as plt
totals = collections.Counter()
for row in csv.DictReader(open("{CSV}")):
    totals[row["region"]] += int(row["revenue"])
colours = {COLOURS}
plt.figure(figsize=(6, 4), dpi=100)
plt.bar(list(totals), list(totals.values()), color=[[part / 255 for part in colours[name]] for name in totals])
plt.savefig("{CHART}")
print("The total is", sum(totals.values()))
"""

SITE_CODE = f"""
import http.server, json, os, random, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer('''<title>Order</title><form action=/order method=post><label>Name <input name=name></label>
            <select name=colour><option>red<option>green<option>blue</select><button>Send</button></form>''')

    def do_POST(self):
        sent = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        order = {{"number": random.randrange(10_000, 99_999), "name": sent["name"][0], "colour": sent["colour"][0]}}
        with open("{RECEIVED}", "a") as file:
            file.write(json.dumps(order) + chr(10))
        self.answer(f"<title>Thanks</title>Order {{order['number']}} was received")

    def answer(self, page):
        body = page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"The site is at http://127.0.0.1:{{server.server_address[1]}}/", flush=True)
if os.fork() == 0:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    server.serve_forever()
"""


@dataclass(frozen=True)
class Sales:
    """The numbers of one CSV, different for each seed."""

    seed: str

    def totals(self) -> dict[str, int]:
        chance = random.Random(self.seed)
        return {region: chance.randrange(2_000, 9_000) for region in COLOURS}

    def csv(self) -> str:
        """Two rows for each region."""
        rows = [f"{region},{part}\n" for region, total in self.totals().items() for part in (700, total - 700)]
        return f"region,revenue\n{''.join(rows)}"

    def check_chart(self, picture: bytes) -> None:
        """The bars have the colours of their regions, and their areas are as the revenues."""
        image = Image.open(io.BytesIO(picture))
        assert (image.format, image.size) == ("PNG", (600, 400))
        pixels = {colour: count for count, colour in image.convert("RGB").getcolors(2**24) or []}
        totals = self.totals()
        drawn = sum(pixels.get(colour, 0) for colour in COLOURS.values())
        for region, colour in COLOURS.items():
            share = pixels.get(colour, 0) / drawn
            assert abs(share - totals[region] / sum(totals.values())) < 0.02, region


def outputs(request: Request) -> list[str]:
    """The results of calls, newest first. In a history without calls they are messages of the user."""
    return [content_text(message) for message in reversed(request["messages"]) if message["role"] in ("tool", "user")]


def find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, f"{pattern} is not in {text}"
    return found[1]


def find_output(pattern: str, request: Request) -> str:
    """The match in the newest result that has one."""
    return find(pattern, next((text for text in outputs(request) if re.search(pattern, text)), "the results"))


Step = Turn | Callable[[Request], Turn]

CHART_STEPS: Sequence[Step] = [
    Plan("Chart", "I will draw a chart.", ["Draw the chart"]),
    Say(BLANK, calls=[shell(f"head -2 {CSV}")]),
    Calls(Call("write_file", {"filepath": f"{WORKSPACE}/draw.py", "content": DRAW}), shell("python3 draw.py")),
    Finish("The chart is drawn.", attachments=[CHART]),
    lambda request: Say(f"The total is {find_output(TOTAL, request)}."),
]
FORM_STEPS: Sequence[Step] = [
    Plan("Order", "I will send the form.", ["Start the site", "Send the form"]),
    shell(f"python3 {SITE}"),
    Finish("The site runs."),
    lambda request: Call("browser_navigate", {"url": find_output(ADDRESS, request)}),
    lambda request: Call(
        "browser_input",
        {"index": index_of('<input name="name"', request), "text": CUSTOMER, "press_enter": False},
    ),
    lambda request: Call(
        "browser_select_option",
        {
            "index": index_of('<select name="colour"', request),
            "option": int(find(r"(\d+): green", outputs(request)[0])),
        },
    ),
    lambda request: Call("browser_click", {"index": index_of("<button> Send", request)}),
    lambda request: Finish(f"The order has the number {find(ORDER, outputs(request)[0])}."),
    lambda request: Say(f"Your order has the number {find_output(ORDER, request)}."),
]

CLICK = 6
"""The place of the step that sends the form."""


def index_of(element: str, request: Request) -> int:
    return int(find(rf"(\d+): {re.escape(element)}", outputs(request)[0]))


def play(steps: Sequence[Step]) -> Responder:
    """The step whose place is the number of answers in the request."""

    def choose(request: Request) -> Turn:
        step = steps[count_answers(request)]
        return step(request) if callable(step) else step

    return choose
