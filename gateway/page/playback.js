// Plays the pieces of replies one after the other without a gap, on the audio thread, and reports how far it has come.
//
// Messages in: { reply, samples } a piece; { finish } no more will come for now; { drop } forget what is queued.
// Messages out: { reply, played, level, started? } about ten times a second while it plays, and at once at the first
// sample and after a drop; { dry } when a reply's pieces ran out before its end.

/** What is gathered before a reply begins, or goes on after it ran dry. */
const RESERVE_SECONDS = 0.06;
const REPORT_SECONDS = 0.1;
/** A drop fades out, as a cut is heard as a click. */
const FADE_SAMPLES = Math.round(sampleRate * 0.005);
/** The server sends a second or so ahead; a queue beyond this has gone wrong, and the oldest goes. */
const MOST_PIECES = 3000;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.queued = 0;
    this.at = 0;
    this.reply = null;
    this.played = 0;
    this.playing = false;
    this.finished = false;
    this.reportAt = 0;
    this.peak = 0;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(message) {
    if (message.drop) {
      this.drop();
    } else if (message.finish) {
      this.finished = true;
    } else {
      this.finished = false;
      this.queue.push(message);
      this.queued += message.samples.length;
      if (this.queue.length > MOST_PIECES) {
        this.queued -= this.queue.shift().samples.length - this.at;
        this.at = 0;
      }
    }
  }

  drop() {
    if (this.playing && this.queue.length > 0) {
      const rest = this.queue[0].samples.subarray(this.at, this.at + FADE_SAMPLES);
      this.queue = [{ reply: this.queue[0].reply, samples: rest.map((sample, i) => sample * (1 - i / rest.length)) }];
      this.queued = rest.length;
    } else {
      this.queue = [];
      this.queued = 0;
    }
    this.at = 0;
    this.finished = true;
    this.report();
  }

  process(_, [output]) {
    const out = output[0];
    if (!this.playing) {
      if (this.queued === 0 || (!this.finished && this.queued < RESERVE_SECONDS * sampleRate)) return true;
      this.playing = true;
    }
    let written = 0;
    while (written < out.length && this.queue.length > 0) {
      const { reply, samples } = this.queue[0];
      if (reply !== this.reply) {
        this.report();
        this.reply = reply;
        this.played = 0;
        this.port.postMessage({ reply, played: 0, level: 0, started: true });
      }
      const count = Math.min(out.length - written, samples.length - this.at);
      for (let i = 0; i < count; i++) {
        const sample = samples[this.at + i];
        out[written + i] = sample;
        this.peak = Math.max(this.peak, Math.abs(sample));
      }
      written += count;
      this.at += count;
      this.played += count;
      this.queued -= count;
      if (this.at === samples.length) {
        this.queue.shift();
        this.at = 0;
      }
    }
    for (const channel of output.slice(1)) channel.set(out);
    if (this.queue.length === 0) {
      this.playing = false;
      this.report();
      if (!this.finished) this.port.postMessage({ dry: true });
    } else if (currentTime >= this.reportAt) {
      this.report();
    }
    return true;
  }

  report() {
    if (this.reply === null) return;
    this.port.postMessage({ reply: this.reply, played: this.played, level: this.playing ? this.peak : 0, ended: !this.playing });
    this.peak = 0;
    this.reportAt = currentTime + REPORT_SECONDS;
  }
}

registerProcessor("playback", Playback);
