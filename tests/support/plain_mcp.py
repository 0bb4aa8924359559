"""An MCP server of the standard library alone, for images that hold no more: `python3 -c "$(cat plain_mcp.py)"`."""

import json
import os
import sys

TOOL = {"name": "variables", "description": "The names of this process's variables.", "inputSchema": {"type": "object"}}


def answer_of(method: str, params: dict[str, str]) -> dict[str, object] | None:
    if method == "initialize":
        about = {"name": "plain", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": " ".join(sorted(os.environ))}]}
    return None


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    result = answer_of(request["method"], request.get("params", {}))
    outcome = {"error": {"code": -32601, "message": "Unknown"}} if result is None else {"result": result}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **outcome}), flush=True)
