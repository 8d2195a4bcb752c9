// The microphone and the loudspeaker, each behind an AudioWorklet.

const SPEAKER_RATE = 24000;
/** Rates that the server takes; a context at another one cannot be used for the microphone. */
const RATES = [8000, 16000, 22050, 24000, 44100, 48000];

/** The microphone, cancelled of echo by the browser. */
export class Microphone {
  /** `onPiece({ samples: ArrayBuffer, rate, level })` is called every 20 ms. */
  static async open(onPiece) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give a microphone only to pages of this machine (localhost) or over https.");
    }
    const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    const context = new AudioContext({ latencyHint: "interactive" });
    const microphone = new Microphone(stream, context, onPiece);
    try {
      await context.audioWorklet.addModule("capture.js");
      const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
      node.port.onmessage = ({ data }) => microphone.heard(data);
      context.createMediaStreamSource(stream).connect(node);
      await context.resume();
    } catch (error) {
      microphone.close();
      throw error;
    }
    return microphone;
  }

  constructor(stream, context, onPiece) {
    this.stream = stream;
    this.context = context;
    this.onPiece = onPiece;
    this.muted = false;
  }

  heard(piece) {
    if (!RATES.includes(piece.rate)) {
      this.close();
      throw new Error(`the microphone runs at ${piece.rate} Hz, which the server does not take`);
    }
    if (!this.muted) this.onPiece(piece);
  }

  mute(muted) {
    this.muted = muted;
    for (const track of this.stream.getTracks()) track.enabled = !muted;
  }

  close() {
    this.onPiece = () => {};
    for (const track of this.stream.getTracks()) track.stop();
    if (this.context.state !== "closed") this.context.close();
  }
}

/** The loudspeaker. */
export class Speaker {
  /**
   * `onProgress({ reply, playedMs, level, started, ended })` is called as a reply is played, about ten times a second;
   * `onDry()` when a reply came too late.
   */
  static async open(onProgress, onDry) {
    const context = new AudioContext({ sampleRate: SPEAKER_RATE, latencyHint: "interactive" });
    await context.audioWorklet.addModule("playback.js");
    const node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    node.connect(context.destination);
    node.port.onmessage = ({ data }) => {
      if (data.dry) onDry();
      else onProgress({ ...data, playedMs: speaker.heard(data.played) });
    };
    const speaker = new Speaker(context, node);
    await context.resume();
    return speaker;
  }

  constructor(context, node) {
    this.context = context;
    this.node = node;
  }

  /** Milliseconds from a sample leaving the page to its being heard, as far as the browser knows. */
  get latencyMs() {
    return 1000 * (this.context.outputLatency || this.context.baseLatency || 0);
  }

  heard(played) {
    return Math.max(0, (played * 1000) / SPEAKER_RATE - this.latencyMs);
  }

  /** Queues a piece of a reply: 16-bit samples at 24 kHz. */
  play(reply, bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const samples = new Float32Array(bytes.byteLength >> 1);
    for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
    this.node.port.postMessage({ reply, samples }, [samples.buffer]);
  }

  /** Nothing more comes for now: what is queued is played however little it is. */
  finish() {
    this.node.port.postMessage({ finish: true });
  }

  /** Silence, at once. */
  drop() {
    this.node.port.postMessage({ drop: true });
  }

  close() {
    if (this.context.state !== "closed") this.context.close();
  }
}
