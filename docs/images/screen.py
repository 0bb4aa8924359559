"""Makes screen.png: the screen of a session in which the scripted model has made a report from a CSV.

Everything but the model is real. Run it as `PYTHONPATH=tests .venv/bin/python docs/images/screen.py`.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import numpy
from PIL import Image

from support.accounts import Person, register
from support.llm import Call, Calls, Finish, Plan, Say, ScriptedModel, Turn
from support.processes import Platform
from support.screen import picture, rfb_client
from support.services import Services, running_services
from support.sse import Chat

PICTURE = Path(__file__).with_name("screen.png")
COLORS = 200
MAX_LOOKS = 20

WORKSPACE = "/home/ubuntu/workspace"

SALES = {
    "North": [41, 44, 52, 57, 63, 71, 76, 73, 66, 61, 70, 88],
    "South": [33, 31, 38, 44, 49, 47, 45, 51, 58, 62, 67, 79],
    "West": [18, 22, 21, 27, 30, 36, 41, 39, 37, 43, 49, 56],
}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
CSV = "month,region,revenue\n" + "".join(
    f"{month},{region},{thousands[place] * 1000}\n"
    for place, month in enumerate(MONTHS)
    for region, thousands in SALES.items()
)

CHART_SCRIPT = """\
import pandas as pd
import matplotlib.pyplot as plt

sales = pd.read_csv("upload/sales.csv")
table = sales.pivot_table(index="month", columns="region", values="revenue", sort=False) / 1000
axes = table.plot.bar(stacked=True, figsize=(7, 5.4), width=0.72, color=["#1f4e79", "#2e9e8f", "#f2b544"], rot=0)
axes.set(xlabel="", ylabel="thousand euros")
axes.spines[["top", "right", "left"]].set_visible(False)
axes.grid(axis="y", color="#e3e8ee")
axes.set_axisbelow(True)
axes.tick_params(length=0)
axes.legend(title="", frameon=False, ncol=3, loc="upper left")
plt.tight_layout()
plt.savefig("chart.png", dpi=100)
"""

PAGE_SCRIPT = """\
import string
import pandas as pd

sales = pd.read_csv("upload/sales.csv")
table = sales.pivot_table(index="month", columns="region", values="revenue", sort=False)
regions, months = table.sum(), table.sum(axis=1)
first, second = table.iloc[:6].sum(), table.iloc[6:].sum()
rows = [
    f"<tr><td>{region}<td>{revenue:,} €<td>{revenue / regions.sum():.0%}"
    f"<td class=up>+{second[region] / first[region] - 1:.0%}"
    for region, revenue in regions.items()
]
quarters = [
    f"<tr><td>{begin} to {end}<td>{months[begin:end].sum():,} €<td>{months[begin:end].sum() / months.sum():.0%}"
    for begin, end in zip(months.index[::3], months.index[2::3])
]
page = string.Template(open("template.html").read()).substitute(
    count=len(sales),
    total=f"{regions.sum():,} €",
    best=f"{months.idxmax()}, {months.max():,} €",
    growth=f"+{second.sum() / first.sum() - 1:.0%}",
    rows="".join(rows),
    quarters="".join(quarters),
)
open("report.html", "w").write(page)
"""

TEMPLATE = """\
<!doctype html><meta charset=utf-8><title>Revenue 2026</title>
<style>
body { font: 16px/1.5 "Liberation Sans"; margin: 0; padding: 36px 56px; color: #1d2733; background: #f3f5f8 }
h1 { margin: 0; font-size: 34px }
h2 { margin: 0 0 10px; font-size: 18px }
p { margin: 4px 0 26px; color: #5b6876 }
section { display: flex; gap: 22px; margin-bottom: 22px }
section > div { flex: 1; background: #fff; border-radius: 12px; padding: 18px 24px; box-shadow: 0 1px 4px #1d273322 }
section > div:has(img) { flex: none }
b { display: block; font-size: 28px }
span, th { color: #5b6876; font-size: 14px; font-weight: normal }
img { display: block }
table { border-collapse: collapse; width: 100% }
th, td { padding: 10px 0; border-bottom: 1px solid #e3e8ee; text-align: right }
th:first-child, td:first-child { text-align: left }
.up { color: #1d8a5f }
</style>
<h1>Revenue 2026</h1>
<p>From sales.csv: $count rows, twelve months, three regions</p>
<section>
  <div><span>Total</span><b>$total</b></div>
  <div><span>Best month</span><b>$best</b></div>
  <div><span>Second half of the year against the first</span><b class=up>$growth</b></div>
</section>
<section>
  <div><h2>By month and region</h2><img src=chart.png></div>
  <div>
    <h2>By region</h2><table><tr><th>Region<th>Revenue<th>Share<th>Half-year$rows</table><br>
    <h2>By quarter</h2><table><tr><th>Quarter<th>Revenue<th>Share$quarters</table>
  </div>
</section>
"""


def shell(command: str) -> Call:
    return Call("shell_execute", {"session_id": "main", "exec_dir": WORKSPACE, "command": command})


def write(name: str, content: str) -> Call:
    return Call("write_file", {"filepath": f"{WORKSPACE}/{name}", "content": content})


def script() -> list[Turn]:
    return [
        Plan(
            "Revenue report",
            "I will look at the data, draw a chart and put both on one page.",
            ["Read the data", "Draw the chart", "Make the page and look at it"],
        ),
        shell("head -4 upload/sales.csv"),
        Finish("The columns are month, region and revenue."),
        Calls(write("chart.py", CHART_SCRIPT), shell("python3 chart.py")),
        Finish("The chart is drawn.", attachments=[f"{WORKSPACE}/chart.png"]),
        Calls(
            write("template.html", TEMPLATE),
            write("report.py", PAGE_SCRIPT),
            shell("python3 report.py"),
            Call("browser_navigate", {"url": f"file://{WORKSPACE}/report.html"}),
        ),
        Finish("The page is done.", attachments=[f"{WORKSPACE}/report.html"]),
        Say("The report is attached."),
    ]


async def screen_of(user: Person, session: str, api: str) -> Image.Image:
    """What its user sees, once it no longer changes."""
    url = f"{api}/api/sessions/{session}/vnc?token={user.token}".replace("http", "ws", 1)
    async with rfb_client(url) as client:
        seen = await picture(client)
        for _ in range(MAX_LOOKS):
            await asyncio.sleep(0.5)
            before, seen = seen, await picture(client)
            if numpy.array_equal(before, seen):
                return Image.fromarray(seen).convert("RGB")
    raise TimeoutError("The screen does not come to rest")


async def make_picture(services: Services, directory: Path) -> None:
    platform = Platform(services, await services.create_database(), directory)
    with ScriptedModel(script()) as model:
        platform.changes.update(llm_base_url=model.url, llm_model="scripted", llm_api_key="none")
        try:
            api = await platform.start_api()
            await asyncio.gather(platform.start_runner(), platform.start_host())
            async with await register(api.url) as user:
                uploaded = await user.upload("sales.csv", CSV.encode(), "text/csv")
                chat = Chat(await user.create_session(), user.token, lambda: api.url)
                ending = await chat.say("Make a page about the revenue in this file", attachments=[uploaded["id"]])
                failed = [tool for tool in chat.all("tool", status="called") if "rror" in str(tool["content"])]
                if ending.event != "done" or failed:
                    raise RuntimeError(f"{ending.data}\n{failed}\n{platform.logs()}")
                screen = await screen_of(user, chat.session_id, api.url)
        finally:
            await platform.stop()
    screen.quantize(COLORS).save(PICTURE, optimize=True)


def main() -> None:
    with running_services() as services, tempfile.TemporaryDirectory(prefix="mo-") as directory:
        asyncio.run(make_picture(services, Path(directory)))
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
