// One conversation with the server over a WebSocket: causerie.live.v1 in its JSON form.

const PATH = "ws/causerie.live.v1.Live/Converse";

/** Close codes after which the same may work a moment later: gone, broken, failed, restarted, full. */
const PASSING = [1001, 1005, 1006, 1011, 1012, 1013, 1014];

export class Live extends EventTarget {
  /**
   * Opens a conversation. Resolves when the server has accepted the setup.
   *
   * Afterwards every message of the server is an event of type "message" whose `detail` is the message, and the end is
   * an event of type "close" whose `detail` is `{ wanted, reason, passing }`; what is `passing` may be tried again, as
   * may be what it rejects with an error that is `passing`. `handle` is what the conversation can be resumed by.
   */
  static open(setup, key) {
    return new Promise((resolve, reject) => {
      const url = new URL(PATH, location.href);
      url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
      if (key) url.searchParams.set("key", key);
      const live = new Live(new WebSocket(url));
      let accepted = null;
      live.addEventListener("message", ({ detail }) => {
        if (accepted || !detail.setupComplete) return;
        accepted = detail.setupComplete;
        resolve({ live, accepted });
      });
      live.addEventListener("close", async ({ detail }) => {
        if (accepted) return;
        const error = new Error(detail.reason || (await refusal(key)));
        reject(Object.assign(error, { passing: detail.passing }));
      });
      live.socket.addEventListener("open", () => live.send({ setup }));
    });
  }

  constructor(socket) {
    super();
    this.socket = socket;
    this.wanted = false;
    this.error = null;
    this.handle = "";
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }) => {
      const message = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data));
      if (message.error) this.error = message.error;
      this.handle = message.sessionResumptionUpdate?.newHandle || this.handle;
      this.dispatchEvent(new CustomEvent("message", { detail: message }));
    });
    socket.addEventListener("close", ({ code, reason }) => {
      const passing = this.error ? this.error.retryable === true : PASSING.includes(code);
      const detail = { wanted: this.wanted, reason: this.error?.message || reason, passing };
      this.dispatchEvent(new CustomEvent("close", { detail }));
    });
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  audio(samples, rate) {
    this.send({ realtimeInput: { audio: { mimeType: `audio/pcm;rate=${rate}`, data: toBase64(new Uint8Array(samples)) } } });
  }

  picture(bytes) {
    this.send({ realtimeInput: { video: { mimeType: "image/jpeg", data: toBase64(bytes) } } });
  }

  /** The microphone is off for now. */
  audioEnd() {
    this.send({ realtimeInput: { audioStreamEnd: true } });
  }

  text(words) {
    this.send({ clientContent: { turns: [{ role: "user", parts: [{ text: words }] }], turnComplete: true } });
  }

  cancel() {
    this.send({ cancelReply: {} });
  }

  progress(responseId, playedMs) {
    this.send({ playbackProgress: { responseId, playedMs: Math.round(playedMs) } });
  }

  close() {
    this.wanted = true;
    this.socket.close(1000);
  }
}

/** Browsers hide why an upgrade was refused; the same address without one says it. */
async function refusal(key) {
  const url = new URL(PATH, location.href);
  if (key) url.searchParams.set("key", key);
  try {
    const response = await fetch(url, { cache: "no-store" });
    return (await response.json()).error.message;
  } catch {
    return "the server cannot be reached";
  }
}

function toBase64(bytes) {
  let text = "";
  // An argument list has a limit; pictures are longer.
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** Seconds of a duration in JSON (`"1.500s"`). */
export function seconds(duration) {
  return Number.parseFloat(duration ?? "0") || 0;
}
