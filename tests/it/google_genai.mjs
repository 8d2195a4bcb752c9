// Google's @google/genai for JavaScript, unmodified, over plain ws against a server with the scripted engine. Prints one
// JSON object with what came of each conversation.

import { readFileSync } from 'node:fs';
import { GoogleGenAI, Modality } from '@google/genai';

const [server, question] = process.argv.slice(2);
const client = new GoogleGenAI({ apiKey: 'any', httpOptions: { baseUrl: `http://${server}` } });

/** A session, and a function that waits for the next message or the end. */
async function connect(model, config) {
  const waiting = [];
  const come = [];
  const put = (event) => (waiting.length ? waiting.shift()(event) : come.push(event));
  const session = await client.live.connect({
    model,
    config,
    callbacks: {
      onmessage: (message) => put({ message }),
      onerror: (error) => put({ error: String(error.message) }),
      onclose: (close) => put({ close: [close.code, close.reason] }),
    },
  });
  const next = () => (come.length ? Promise.resolve(come.shift()) : new Promise((resolve) => waiting.push(resolve)));
  return { session, next };
}

async function turn(next, seen = { text: '', heard: '', said: '', audioBytes: 0, calls: [] }) {
  for (;;) {
    const { message, error, close } = await next();
    if (!message) throw new Error(`the turn ended by ${error ?? close}`);
    if (message.toolCall) {
      seen.calls.push(...message.toolCall.functionCalls.map((call) => [call.id, call.name]));
      return seen;
    }
    const content = message.serverContent ?? {};
    for (const part of content.modelTurn?.parts ?? []) {
      seen.text += part.text ?? '';
      if (part.inlineData) seen.audioBytes += Buffer.from(part.inlineData.data, 'base64').length;
    }
    seen.heard += content.inputTranscription?.text ?? '';
    seen.said += content.outputTranscription?.text ?? '';
    if (content.turnComplete) return seen;
  }
}

const typed = (text) => ({ turns: [{ role: 'user', parts: [{ text }] }], turnComplete: true });

async function textTurn() {
  const { session, next } = await connect('default', { responseModalities: [Modality.TEXT] });
  session.sendClientContent(typed('hello there'));
  const seen = await turn(next);
  session.close();
  return seen;
}

async function audioTurn() {
  const { session, next } = await connect('models/default', {
    responseModalities: [Modality.AUDIO],
    inputAudioTranscription: {},
    outputAudioTranscription: {},
    speechConfig: { voiceConfig: { prebuiltVoiceConfig: { voiceName: 'Kore' } } },
  });
  const samples = readFileSync(question).subarray(44);
  for (let at = 0; at < samples.length; at += 640) {
    const data = samples.subarray(at, at + 640).toString('base64');
    session.sendRealtimeInput({ audio: { data, mimeType: 'audio/pcm;rate=16000' } });
  }
  session.sendRealtimeInput({ audioStreamEnd: true });
  const seen = await turn(next);
  session.close();
  return seen;
}

async function functionCall() {
  const tools = [{ functionDeclarations: [{ name: 'clock' }] }];
  const { session, next } = await connect('default', { responseModalities: [Modality.TEXT], tools });
  session.sendClientContent(typed('call clock'));
  const seen = await turn(next);
  session.sendToolResponse({ functionResponses: [{ id: seen.calls[0][0], name: 'clock', response: { output: 'noon' } }] });
  await turn(next, seen);
  session.close();
  return seen;
}

// A session that is refused before its setup is answered never connects, or connects and is closed, by version.
function refusal() {
  return new Promise((resolve) => {
    const callbacks = { onmessage: () => {}, onclose: (close) => resolve(`${close.code} ${close.reason}`) };
    const config = { responseModalities: [Modality.TEXT] };
    client.live.connect({ model: 'nobody', config, callbacks }).catch((error) => resolve(error.message));
  });
}

const seen = {
  text: await textTurn(),
  audio: await audioTurn(),
  function: await functionCall(),
  refusal: await refusal(),
};
console.log(JSON.stringify(seen));
