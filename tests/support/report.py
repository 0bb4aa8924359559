"""The real task of the end-to-end tests: a chart and a short report from a CSV."""

from __future__ import annotations

import asyncio

from support.accounts import Person
from support.llm import Call, Calls, Finish, Plan, Say, Turn
from support.screen import picture, rfb_client, share_of
from support.sse import Frame

CSV = "month,region,revenue\n" + "".join(
    f"2026-{month:02},{region},{1000 + 137 * month * weight}\n"
    for month in range(1, 13)
    for weight, region in enumerate(("north", "south", "west"), start=1)
)
TOTAL = sum(int(line.rpartition(",")[2]) for line in CSV.splitlines()[1:])

UPLOADED = "/home/ubuntu/workspace/upload/sales.csv"
CHART = "/home/ubuntu/workspace/chart.png"
REPORT = "/home/ubuntu/workspace/report.md"
PAGE = "/home/ubuntu/workspace/chart.html"

SCRIPT = f"""
import csv, collections
import matplotlib.pyplot as plt
months = collections.Counter()
for row in csv.DictReader(open("{UPLOADED}")):
    months[row["month"]] += int(row["revenue"])
plt.figure(figsize=(8, 5), dpi=100)
plt.bar(list(months), list(months.values()))
plt.title("Revenue by month")
plt.xticks(rotation=45)
plt.tight_layout()
plt.savefig("{CHART}")
print("total", sum(months.values()))
"""

RED_PAGE = "<html><title>Chart</title><body style='margin:0;background:#ff0000'><h1>Revenue</h1><a href='#'>top</a>"


def shell(command: str, name: str = "main") -> Call:
    args = {"session_id": name, "exec_dir": "/home/ubuntu/workspace", "command": command}
    return Call("shell_execute", args)


def once(label: str) -> str:
    """A shell command that appends one line each time it runs, which proves that it ran at most once."""
    return f"echo {label} >> /home/ubuntu/workspace/ran.log"


def script() -> list[Turn]:
    """Three steps with shell, file and browser tools; every shell command leaves a mark in ran.log."""
    return [
        Plan(
            "Sales report",
            "I will read the data, draw a chart and write a report.",
            ["Read the data", "Draw the chart", "Write the report"],
        ),
        shell(f"{once('head')}; head -3 {UPLOADED}; wc -l < {UPLOADED}"),
        Finish("The file has the columns month, region and revenue."),
        Calls(
            Call("write_file", {"filepath": "/home/ubuntu/workspace/chart.py", "content": SCRIPT}),
            Call("write_file", {"filepath": PAGE, "content": RED_PAGE}),
        ),
        shell(f"{once('draw')}; python3 chart.py"),
        Call("browser_navigate", {"url": f"file://{PAGE}"}),
        Finish("The chart is drawn.", attachments=[CHART]),
        Call("write_file", {"filepath": REPORT, "content": f"# Revenue\n\nThe total is {TOTAL}.\n"}),
        shell(f"{once('check')}; cat report.md"),
        Finish("The report is written.", attachments=[REPORT]),
        Say(f"Revenue came to {TOTAL}. The chart and the report are attached."),
    ]


MARKS = ["head", "draw", "check"]
"""The lines of ran.log after each command ran once."""


class Watcher:
    """Looks at the session's screen once the browser is at `RED_PAGE`; `on_frame` takes the frames of the chat."""

    def __init__(self, person: Person, *, url: str, session_id: str) -> None:
        self._address = f"{url}/api/sessions/{session_id}/vnc?token={person.token}".replace("http", "ws", 1)
        self._looking: asyncio.Task[float] | None = None

    def on_frame(self, frame: Frame) -> None:
        if frame.data.get("function") == "browser_navigate" and frame.data["status"] == "called":
            self._looking = asyncio.create_task(self._look())

    async def red_share(self) -> float:
        """The share of the screen that was red in the last picture."""
        assert self._looking is not None, "the browser was not used"
        return await self._looking

    async def _look(self) -> float:
        async with rfb_client(self._address) as client:
            for _ in range(50):
                share = share_of(await picture(client), (255, 0, 0))
                if share > 0.5:
                    break
            return share
