"""A small MCP server over its standard streams: `twice` doubles a number, `die` ends the process."""

import json
import sys

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = [
    {"name": "twice", "description": "Doubles", "inputSchema": NUMBER},
    {"name": "die", "description": "Ends", "inputSchema": {"type": "object", "properties": {}}},
]


def answer(method, params):
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "test", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call" and params["name"] == "twice":
        text = f"ran twice with {json.dumps(params.get('arguments'))}"
        return {"content": [{"type": "text", "text": text}]}
    if method == "tools/call":
        sys.exit(0)
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    result = answer(message["method"], message.get("params", {}))
    if result is None:
        reply["error"] = {"code": -32601, "message": "no such method"}
    else:
        reply["result"] = result
    print(json.dumps(reply), flush=True)
