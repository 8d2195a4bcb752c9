"""The page in a headless Chromium, against a server.

page.py spoken HTTP_ADDR QUESTION.wav OUT   a question comes in by the microphone; pictures of the page go to OUT
page.py typed HTTP_ADDR QUESTION.wav OUT    typing, keys, settings, a narrow window, no microphone
page.py dropped HTTP_ADDR QUESTION.wav OUT  the connection breaks, and breaks again when the server has forgotten
page.py looked HTTP_ADDR QUESTION.wav OUT   a camera, for an engine that sees
page.py measured HTTP_ADDR QUESTION.wav OUT the question five times over; prints what the page weighs, and its delays

Prints one JSON object of what was seen, but for the last. The browser is `chromium`, or what CAUSERIE_CHROMIUM names.
"""

import base64
import json
import os
import pathlib
import shutil
import statistics
import sys

from playwright.sync_api import sync_playwright

WHAT, SERVER, QUESTION, OUT = sys.argv[1:]
# Chromium reads no file whose path goes up.
QUESTION = pathlib.Path(QUESTION).resolve()
PATIENCE_MS = 120_000

# Beside the loudspeaker, whatever the page plays is measured: the loudest sample of every 50 ms.
LISTEN = """
window.played = [];
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioDestinationNode) {
    const ear = new AnalyserNode(this.context, { fftSize: 2048 });
    connect.call(this, ear);
    const heard = new Float32Array(ear.fftSize);
    setInterval(() => {
      ear.getFloatTimeDomainData(heard);
      window.played.push(heard.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0));
    }, 50);
  }
  return connect.call(this, to, ...rest);
};
"""

# Connections are remembered, to be broken, and handles are spoilt when they are to be forgotten.
BREAK = """
window.sockets = [];
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (!window.sockets.includes(this)) window.sockets.push(this);
  send.call(this, window.forget ? data.replace(/"handle":"[^"]*"/, '"handle":"bm9uc2Vuc2U"') : data);
};
"""

# The first silences Chromium's own requests to hosts that cannot be reached.
FLAGS = [
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    f"--use-file-for-fake-audio-capture={QUESTION}%noloop",
    *(["--use-fake-ui-for-media-stream"] if WHAT in ("spoken", "looked", "measured") else []),
]


def until(page, state):
    # By a selector: the page's policy forbids what waiting for an expression would evaluate.
    page.wait_for_selector(f"body[data-state={state}]")


def words(page, role):
    return page.locator(f"#transcript li[data-role={role}] .words").all_text_contents()


def rows(page):
    """The bars of the waterfall that is open: name, left edge and width as parts of the track, and the number."""
    return page.eval_on_selector_all(
        "details.waterfall[open] li",
        """items => items.map(item => [item.children[0].textContent, parseFloat(item.querySelector(".bar").style.left),
                           parseFloat(item.querySelector(".bar").style.width), item.children[2].textContent])""",
    )


def spoken(page):
    page.get_by_role("button", name="Talk").click()
    page.wait_for_selector("details.waterfall")
    until(page, "listening")
    seen = {"user": words(page, "user"), "model": words(page, "model"), "rows": rows(page)}
    seen["played"] = page.evaluate("window.played")
    seen["weight"], _ = weight(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=f"{OUT}/{scheme}.png")
    narrow(page, seen)
    page.keyboard.press("Space")
    until(page, "ended")
    return seen


def weight(page):
    """Bytes and files that came over the network, headers included."""
    return page.evaluate(
        """(() => {
          const all = ["navigation", "resource"].flatMap(kind => performance.getEntriesByType(kind));
          return [all.reduce((sum, entry) => sum + entry.transferSize, 0), all.length];
        })()"""
    )


def measured(page):
    size, files = weight(page)
    delays, loads = [], []
    for _ in range(5):
        page.reload()
        loads.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        page.get_by_role("button", name="Talk").click()
        page.wait_for_selector("details.waterfall")
        delays += [int(number.removesuffix(" ms").replace(",", "")) for name, *_, number in rows(page) if name == "heard"]
    print(f"{'page: weight':42} {size / 1000:.1f} kB in {files} files")
    for name, values in (("page: loaded", loads), ("page: end of speech to first sound heard", delays)):
        values.sort()
        print(f"{name:42} p50 {statistics.median(values):.0f} ms  ({values[0]:.0f} to {values[-1]:.0f}, n {len(values)})")


def narrow(page, seen):
    page.set_viewport_size({"width": 360, "height": 740})
    seen["overflow"] = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    page.screenshot(path=f"{OUT}/phone.png")


def type_in(page, text):
    page.get_by_label("Type instead of speaking").fill(text)
    page.keyboard.press("Enter")


def turns(page, count):
    page.locator("#transcript li[data-role=model]").nth(count - 1).wait_for()
    until(page, "listening")


def dropped(page):
    def broken(connections):
        page.evaluate("window.sockets.at(-1).close()")
        while page.evaluate("window.sockets.length") < connections:
            page.wait_for_timeout(20)
        until(page, "listening")

    # How often the model has said what it remembers. What was cut off before anybody heard of it is said again.
    def recalled(times):
        type_in(page, "recall")
        page.locator("#transcript li[data-role=model]", has_text="hello say 100 words").nth(times - 1).wait_for()
        until(page, "listening")

    seen = {}
    type_in(page, "hello")
    turns(page, 1)
    type_in(page, "say 100 words")
    until(page, "speaking")
    broken(2)
    recalled(1)
    # The handle counts for nothing: what the page has of the conversation is where another begins.
    page.evaluate("window.forget = true")
    broken(4)
    recalled(2)
    seen["model"] = words(page, "model")
    seen["notice"] = page.locator("#notice").is_visible()
    narrow(page, seen)
    page.get_by_role("button", name="End", exact=True).click()
    until(page, "ended")
    seen["connections"] = page.evaluate("window.sockets.length")
    return seen


def looked(page):
    pictures, tokens = [], []

    def sent(frame):
        video = json.loads(frame).get("realtimeInput", {}).get("video")
        if video:
            pictures.append([video["mimeType"], len(base64.b64decode(video["data"]))])

    def received(frame):
        details = json.loads(frame).get("usageMetadata", {}).get("promptTokensDetails", [])
        tokens.extend(detail["tokenCount"] for detail in details if detail["modality"] == "VIDEO")

    def watch(socket):
        socket.on("framesent", sent)
        socket.on("framereceived", received)

    page.on("websocket", watch)
    type_in(page, "hello")
    turns(page, 1)
    page.get_by_role("button", name="Camera").click()
    while len(pictures) < 2:
        page.wait_for_timeout(50)
    seen = {"preview": page.locator("#preview").is_visible()}
    type_in(page, "What do you see?")
    turns(page, 2)
    page.screenshot(path=f"{OUT}/camera.png")
    narrow(page, seen)
    page.get_by_role("button", name="Camera").click()
    return {**seen, "closed": page.locator("#preview").is_hidden(), "pictures": pictures, "tokens": tokens}


def typed(page):
    seen = {}
    # No permission for the microphone: the page says so, and typing works.
    page.locator("body").press("Space")
    page.wait_for_selector("#notice:not([hidden])")
    seen["refused"] = page.locator("#notice").text_content()
    type_in(page, "<b>not bold</b>")
    turns(page, 1)
    seen["user"], seen["model"] = words(page, "user"), words(page, "model")
    seen["markup"] = page.locator("#transcript b").count()
    # Hushed in the middle of an answer.
    type_in(page, "say 100 words")
    until(page, "speaking")
    page.locator("#transcript").press("Escape")
    page.wait_for_selector(".note")
    seen["hushed"] = [page.locator(".note").text_content(), len(words(page, "model")[-1].split())]
    until(page, "listening")
    # Settings are kept, and the conversation goes on with them.
    page.locator("#transcript").press(",")
    page.screenshot(path=f"{OUT}/settings.png")
    page.get_by_label("Answers").select_option("Written")
    page.get_by_role("button", name="Apply").click()
    until(page, "listening")
    type_in(page, "written")
    turns(page, 3)
    seen["written"] = words(page, "model")[-1]
    page.reload()
    page.get_by_role("button", name="Settings").click()
    seen["kept"] = page.get_by_label("Answers").input_value()
    page.keyboard.press("Escape")
    narrow(page, seen)
    return seen


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=os.environ.get("CAUSERIE_CHROMIUM") or shutil.which("chromium"), args=FLAGS
    )
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.set_default_timeout(PATIENCE_MS)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.add_init_script(LISTEN + BREAK)
    pathlib.Path(OUT).mkdir(parents=True, exist_ok=True)
    page.goto(f"http://{SERVER}/")
    try:
        seen = {"spoken": spoken, "typed": typed, "dropped": dropped, "looked": looked, "measured": measured}[WHAT](page)
    except Exception:
        page.screenshot(path=f"{OUT}/failed.png")
        print(complaints, page.locator("body").inner_text(), file=sys.stderr)
        raise
    if seen:
        print(json.dumps({**seen, "complaints": complaints}))
    browser.close()
