// What the user chose, kept in the browser, and the setup that follows from it.

const STORE = "causerie.settings";
const DEFAULTS = {
  voice: "",
  rate: "1",
  modality: "AUDIO",
  instruction: "",
  start: "START_SENSITIVITY_HIGH",
  end: "END_SENSITIVITY_HIGH",
  handling: "START_OF_ACTIVITY_INTERRUPTS",
  thinking: "",
};

export class Settings {
  /** `onApply()` is called when the user has changed something. */
  constructor(dialog, onApply) {
    this.dialog = dialog;
    this.form = dialog.querySelector("form");
    this.chosen = { ...DEFAULTS, ...stored(localStorage) };
    // A key is a secret: it goes with the tab.
    this.key = stored(sessionStorage).key ?? "";
    this.form.rate.addEventListener("input", () => this.showSpeed());
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "apply") this.apply(onApply);
    });
  }

  open() {
    for (const [name, value] of Object.entries(this.chosen)) this.form[name].value = value;
    this.form.key.value = this.key;
    this.showSpeed();
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }

  showSpeed() {
    this.form.speed.value = `${Number(this.form.rate.value).toFixed(2)} ×`;
  }

  apply(onApply) {
    const before = JSON.stringify([this.chosen, this.key]);
    for (const name of Object.keys(DEFAULTS)) this.chosen[name] = this.form[name].value;
    this.key = this.form.key.value.trim();
    if (JSON.stringify([this.chosen, this.key]) === before) return;
    localStorage.setItem(STORE, JSON.stringify(this.chosen));
    sessionStorage.setItem(STORE, JSON.stringify({ key: this.key }));
    onApply();
  }

  /** Offers the voices that the server has. */
  offer(voices) {
    const select = this.form.voice;
    select.replaceChildren(select.firstElementChild);
    for (const { name, language, gender } of voices ?? []) {
      select.append(new Option(`${name} (${[language, gender].filter(Boolean).join(", ")})`, name));
    }
    select.value = this.chosen.voice;
  }

  /** The setup of a conversation that begins with what was said, or goes on by its handle. */
  setup(history, handle) {
    const { voice, rate, modality, instruction, start, end, handling, thinking } = this.chosen;
    const generationConfig = { responseModalities: [modality] };
    if (voice) generationConfig.speechConfig = { voiceConfig: { prebuiltVoiceConfig: { voiceName: voice } } };
    if (thinking) generationConfig.thinkingConfig = { includeThoughts: true, thinkingBudget: Number(thinking) };
    const setup = {
      model: "default",
      generationConfig,
      realtimeInputConfig: {
        automaticActivityDetection: { startOfSpeechSensitivity: start, endOfSpeechSensitivity: end },
        activityHandling: handling,
      },
      inputAudioTranscription: {},
      outputAudioTranscription: {},
      interimTranscripts: true,
      outputAudioFormat: "audio/pcm;rate=24000",
      speakingRate: Number(rate),
      sessionResumption: handle ? { handle } : {},
    };
    if (modality === "TEXT") {
      delete setup.outputAudioFormat;
      delete setup.outputAudioTranscription;
    }
    if (instruction.trim()) setup.systemInstruction = { parts: [{ text: instruction }] };
    if (!handle && history.length > 0) setup.history = history;
    return setup;
  }
}

function stored(storage) {
  try {
    return JSON.parse(storage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
}
