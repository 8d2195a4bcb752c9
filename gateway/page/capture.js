// Takes the microphone's samples and posts them as 16-bit pieces of 20 ms, on the audio thread.
//
// A context at a multiple of 16 kHz is brought down to 16 kHz, which is all that recognition hears; another rate is sent
// as it is, and the server resamples it.

const SPEECH_RATE = 16000;
/** Taps of the low-pass for each step of decimation: 24 a step put its edge at 7.5 kHz, and 50 dB below from 8.5 kHz. */
const TAPS_A_STEP = 24;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.step = sampleRate % SPEECH_RATE === 0 ? sampleRate / SPEECH_RATE : 1;
    this.rate = sampleRate / this.step;
    this.taps = this.step > 1 ? lowPass(this.step) : Float32Array.of(1);
    this.line = new Float32Array(this.taps.length);
    this.at = 0;
    this.phase = 0;
    this.piece = new Int16Array(Math.round(this.rate / 50));
    this.filled = 0;
    this.power = 0;
  }

  process([input]) {
    for (const sample of input[0] ?? []) {
      this.line[this.at] = sample;
      this.at = (this.at + 1) % this.line.length;
      this.phase = (this.phase + 1) % this.step;
      if (this.phase === 0) this.take(this.filtered());
    }
    return true;
  }

  filtered() {
    let sum = 0;
    for (let tap = 0; tap < this.taps.length; tap++) {
      sum += this.taps[tap] * this.line[(this.at + tap) % this.line.length];
    }
    return sum;
  }

  take(sample) {
    this.piece[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
    this.power += sample * sample;
    if (this.filled < this.piece.length) return;
    const samples = this.piece.slice().buffer;
    this.port.postMessage({ samples, rate: this.rate, level: Math.sqrt(this.power / this.filled) }, [samples]);
    this.filled = 0;
    this.power = 0;
  }
}

/** A windowed sinc (Hamming) that passes what the lower rate can hold. */
function lowPass(step) {
  const taps = new Float32Array(TAPS_A_STEP * step + 1);
  const middle = (taps.length - 1) / 2;
  const cut = 0.94 / step;
  let sum = 0;
  for (let i = 0; i < taps.length; i++) {
    const x = i - middle;
    const sinc = x === 0 ? cut : Math.sin(Math.PI * cut * x) / (Math.PI * x);
    taps[i] = sinc * (0.54 - 0.46 * Math.cos((2 * Math.PI * i) / (taps.length - 1)));
    sum += taps[i];
  }
  return taps.map((tap) => tap / sum);
}

registerProcessor("capture", Capture);
