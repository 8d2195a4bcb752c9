// The page: one button, one conversation.

import { Camera } from "./camera.js";
import { Live, fromBase64, seconds } from "./live.js";
import { Settings } from "./settings.js";
import { Microphone, Speaker } from "./sound.js";
import { Transcript } from "./transcript.js";

const $ = (id) => document.getElementById(id);

/** What was said while the connection was being made: 5 s. */
const MOST_WAITING = 250;
/** Pauses between the attempts to connect again, the last of them over and over, and for how long. */
const RETRY_MS = [0, 500, 1000, 2000, 4000];
const RETRY_FOR_MS = 120_000;
/** How often the server is told what was played. */
const PROGRESS_MS = 200;

const STATES = {
  ended: "Ready",
  connecting: "Connecting …",
  reconnecting: "Reconnecting …",
  listening: "Listening",
  hearing: "Hearing you",
  waiting: "Waiting for the rest of the sentence",
  thinking: "Thinking",
  speaking: "Speaking",
};

const ENDINGS = {
  TURN_END_REASON_MAX_TOKENS: "cut short: the longest answer was reached",
  TURN_END_REASON_FAILED: "failed",
};

const transcript = new Transcript($("transcript"));
const settings = new Settings($("settings"), restart);

let state = "ended";
let live = null;
let microphone = null;
let speaker = null;
let camera = null;
/** Pieces of the microphone for a connection that is not there yet. */
let waiting = [];
/** Where the microphone's stream was, and when: seconds of it, and the page's clock. */
let captured = { seconds: 0, at: 0 };
/** When the user fell silent, on the page's clock. */
let silentSince = null;
/** Milliseconds from then to the first sound of each reply. */
let heardMs = new Map();
let progressAt = 0;

async function start(withMicrophone) {
  if (state !== "ended") return;
  show("connecting");
  notify("");
  waiting = [];
  captured = { seconds: 0, at: 0 };
  heardMs = new Map();
  try {
    speaker = await Speaker.open(onProgress, () => {});
    if (withMicrophone) microphone = await Microphone.open(onPiece);
    await connect("");
  } catch (error) {
    end();
    notify(reason(error));
  }
}

/** Begins a conversation with what was said before, or goes on with the one that has this handle. */
async function connect(handle) {
  const { live: opened, accepted } = await Live.open(settings.setup(transcript.history(), handle), settings.key);
  if (state !== "connecting" && state !== "reconnecting") {
    opened.close();
    return;
  }
  live = opened;
  live.addEventListener("message", ({ detail }) => onMessage(detail));
  live.addEventListener("close", ({ detail }) => {
    if (live === opened) lost(detail);
  });
  settings.offer(accepted.capabilities?.voices);
  $("engine").textContent = [accepted.model, accepted.voice].filter(Boolean).join(" · ");
  $("camera").hidden = !accepted.capabilities?.videoIn;
  for (const piece of waiting) live.audio(piece.samples, piece.rate);
  waiting = [];
  notify("");
  show("listening");
}

/** The connection broke: the conversation goes on in another, if that can be had within a while. */
async function lost({ reason: why, passing }) {
  let { handle } = live;
  live = null;
  speaker.drop();
  transcript.over();
  waiting = [];
  captured = { seconds: 0, at: 0 };
  let problem = why;
  const until = performance.now() + RETRY_FOR_MS;
  if (passing) show("reconnecting");
  for (let attempt = 0; passing && performance.now() < until; attempt++) {
    await new Promise((done) => setTimeout(done, RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]));
    if (state !== "reconnecting") return;
    try {
      await connect(handle);
      return;
    } catch (error) {
      problem = error.message;
      // A server that does not know the conversation any more is told what was said in it.
      if (!error.passing && !handle) break;
      if (!error.passing) handle = "";
    }
  }
  if (state === "ended") return;
  end();
  notify(`The conversation ended${problem ? `: ${problem}` : "."}`);
}

function reason(error) {
  if (error.name === "NotAllowedError") return "The browser was not allowed to use the microphone or the camera.";
  if (error.name === "NotFoundError") return "There is no microphone or no camera. You can type instead.";
  return error.message;
}

function end() {
  transcript.over();
  live?.close();
  microphone?.close();
  speaker?.close();
  camera?.close();
  live = microphone = speaker = camera = null;
  $("camera").hidden = true;
  $("preview").hidden = true;
  press("camera", false);
  press("mute", false);
  level(0);
  show("ended");
}

async function restart() {
  if (state === "ended") return;
  const withMicrophone = microphone !== null;
  end();
  await start(withMicrophone);
}

function onPiece(piece) {
  captured = { seconds: captured.seconds + lasts(piece), at: performance.now() };
  if (state !== "speaking") level(piece.level * 4);
  if (live) {
    live.audio(piece.samples, piece.rate);
  } else {
    waiting.push(piece);
    if (waiting.length > MOST_WAITING) captured.seconds -= lasts(waiting.shift());
  }
}

function lasts({ samples, rate }) {
  return samples.byteLength / 2 / rate;
}

function onMessage(message) {
  if (message.speechStarted) show("hearing");
  if (message.speechStopped) {
    silentSince = captured.at - 1000 * (captured.seconds - seconds(message.speechStopped.audioOffset));
    show("thinking");
  }
  for (const call of message.toolCall?.functionCalls ?? []) transcript.called(call.name, call.args);
  if (message.warning) notify(message.warning.message);
  if (message.goAway) notify(`The server will be gone in ${Math.round(seconds(message.goAway.timeLeft))} s.`);
  if (message.serverContent) onContent(message.serverContent);
}

function onContent(content) {
  if (content.interimInputTranscription) transcript.heardSoFar(content.interimInputTranscription.text ?? "");
  if (content.inputTranscription) {
    transcript.heard(content.inputTranscription.text ?? "", content.inputTranscription.finished);
  }
  for (const part of content.modelTurn?.parts ?? []) {
    if (part.inlineData) speaker.play(content.replyAudio?.responseId ?? "", fromBase64(part.inlineData.data));
    else if (part.thought) transcript.thought(part.text);
    else if (part.text) transcript.answered(part.text);
  }
  if (content.outputTranscription?.text) transcript.answered(content.outputTranscription.text);
  if (content.waitingForInput) show("waiting");
  if (content.generationComplete) speaker.finish();
  if (content.interrupted) {
    speaker.drop();
    transcript.over("interrupted");
    if (state === "speaking") show("listening");
  }
  if (content.turnComplete) {
    speaker.finish();
    transcript.over(ENDINGS[content.turnEndReason]);
    if (content.turnMetrics) {
      transcript.timed({ ...content.turnMetrics, heardMs: heardMs.get(content.turnMetrics.responseId) });
    }
    if (state !== "hearing") show("listening");
  }
}

function onProgress({ reply, playedMs, level: loudness, started, ended }) {
  if (!live) return;
  if (started) {
    if (silentSince !== null) heardMs.set(reply, performance.now() + speaker.latencyMs - silentSince);
    silentSince = null;
    show("speaking");
  }
  level(loudness);
  if (ended || performance.now() - progressAt >= PROGRESS_MS) {
    progressAt = performance.now();
    live.progress(reply, playedMs);
  }
}

function show(next) {
  state = next;
  document.body.dataset.state = next;
  $("state").textContent = STATES[next];
  const running = next !== "ended";
  press("talk", running);
  $("talk-label").textContent = running ? "End" : "Talk";
  $("mute").disabled = !running || !microphone;
  $("hush").disabled = !running;
  if (running) $("hint").hidden = true;
}

function press(id, pressed) {
  $(id).setAttribute("aria-pressed", String(pressed));
}

function notify(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function level(value) {
  $("talk").style.setProperty("--level", Math.min(1, value).toFixed(2));
}

function talk() {
  if (state === "ended") start(true);
  else end();
}

function mute() {
  if (!microphone) return;
  microphone.mute(!microphone.muted);
  press("mute", microphone.muted);
  level(0);
  if (microphone.muted) live?.audioEnd();
}

function hush() {
  live?.cancel();
  speaker?.drop();
}

async function look() {
  if (camera) {
    camera.close();
    camera = null;
  } else {
    try {
      camera = await Camera.open($("preview"), (bytes) => live?.picture(bytes));
    } catch (error) {
      notify(reason(error));
    }
  }
  $("preview").hidden = camera === null;
  press("camera", camera !== null);
}

async function type(words) {
  if (!words) return;
  if (state === "ended") await start(false);
  if (!live) {
    // To be sent when there is somebody to read it.
    $("words").value = words;
    return;
  }
  speaker.drop();
  transcript.typed(words);
  silentSince = performance.now();
  show("thinking");
  live.text(words);
}

$("talk").addEventListener("click", talk);
$("mute").addEventListener("click", mute);
$("hush").addEventListener("click", hush);
$("camera").addEventListener("click", look);
$("open-settings").addEventListener("click", () => settings.open());
$("typing").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("words").value.trim();
  $("words").value = "";
  type(words);
});

const KEYS = { " ": talk, m: mute, c: () => !$("camera").hidden && look(), Escape: hush, ",": () => settings.open() };

document.addEventListener("keydown", (event) => {
  const busy = event.target.closest("input, textarea, select, button, summary, dialog");
  if ((busy && event.key !== "Escape") || $("settings").open || event.ctrlKey || event.altKey || event.metaKey) return;
  const action = KEYS[event.key];
  if (!action || event.repeat) return;
  event.preventDefault();
  action();
});

show("ended");
