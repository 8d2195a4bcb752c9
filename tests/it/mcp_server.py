"""A small MCP server: `twice` doubles a number, `search` finds two pages, `big` answers 5 MB, `die` ends the process.

Speaks over its standard streams, or with a port (0 takes a free one) and a token as its arguments over streamable HTTP, to
whoever has the token; then it prints the port.
"""

import http.server
import json
import os
import sys

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
NAMES = {"twice": "Doubles", "search": "Searches", "big": "Answers much", "die": "Ends"}
TOOLS = [{"name": name, "description": does, "inputSchema": NUMBER} for name, does in NAMES.items()]
PAGES = [
    {"url": "https://rivers.example/danube", "title": "The Danube"},
    {"url": "https://rivers.example/rhine", "title": "The Rhine"},
]


def call(name, arguments):
    if name == "twice":
        return {"content": [{"type": "text", "text": f"ran twice with {json.dumps(arguments)}"}]}
    if name == "search":
        return {"content": [], "structuredContent": {"results": PAGES}}
    if name == "big":
        return {"content": [{"type": "text", "text": "x" * 5_000_000}]}
    os._exit(0)


def answer(message):
    """The answer to a request, `None` to a notification."""
    if "id" not in message:
        return None
    method, params = message["method"], message.get("params", {})
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        reply["result"] = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "test", "version": "1"},
        }
    elif method == "tools/list":
        reply["result"] = {"tools": TOOLS}
    elif method == "tools/call":
        reply["result"] = call(params["name"], params.get("arguments"))
    else:
        reply["error"] = {"code": -32601, "message": "no such method"}
    return reply


class Http(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        if self.headers["Authorization"] != "Bearer " + sys.argv[2]:
            return self.send_error(401)
        reply = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        body = b"" if reply is None else json.dumps(reply).encode()
        self.send_response(202 if reply is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send_error(405)

    do_DELETE = do_GET

    def log_message(self, *_):
        pass


if len(sys.argv) > 1:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Http)
    print(server.server_port, flush=True)
    server.serve_forever()
for line in sys.stdin:
    reply = answer(json.loads(line))
    if reply is not None:
        print(json.dumps(reply), flush=True)
