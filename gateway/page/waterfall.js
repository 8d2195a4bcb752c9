// When the steps of a turn happened, drawn as bars over a common axis.

/** The steps in order: name, where in the metrics its end is, and by what it could begin. */
const STEPS = [
  ["speech over", "endpointMs", []],
  ["words known", "transcriptFinalMs", []],
  ["first word", "firstTokenMs", ["transcriptFinalMs"]],
  ["first sound", "firstAudioGeneratedMs", ["firstTokenMs"]],
  ["sent", "firstAudioSentMs", ["firstAudioGeneratedMs", "endpointMs"]],
  ["heard", "heardMs", ["firstAudioSentMs"]],
];

/** `metrics` are milliseconds after the last sound of the user; `heardMs` is what this page adds. */
export function waterfall(metrics) {
  const last = Math.max(...STEPS.map(([, field]) => metrics[field] ?? 0));
  if (!(last > 0)) return null;
  const details = document.createElement("details");
  details.className = "waterfall";
  const summary = document.createElement("summary");
  const { heardMs, firstAudioSentMs, firstTokenMs } = metrics;
  summary.textContent = `answered after ${milliseconds(heardMs ?? firstAudioSentMs ?? firstTokenMs ?? last)}`;
  const list = document.createElement("ol");
  for (const [name, field, after] of STEPS) {
    const end = metrics[field];
    if (end === undefined) continue;
    const begin = Math.max(0, ...after.map((earlier) => metrics[earlier] ?? 0));
    list.append(row(name, Math.min(begin, Math.max(end, 0)) / last, Math.max(end, 0) / last, milliseconds(end)));
  }
  details.append(summary, list);
  return details;
}

function row(name, begin, end, value) {
  const item = document.createElement("li");
  const label = document.createElement("span");
  label.textContent = name;
  const track = document.createElement("span");
  track.className = "track";
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.left = `${100 * begin}%`;
  bar.style.width = `${100 * (end - begin)}%`;
  track.append(bar);
  const number = document.createElement("span");
  number.className = "number";
  number.textContent = value;
  item.append(label, track, number);
  return item;
}

function milliseconds(value) {
  return `${Math.round(value).toLocaleString("en")} ms`;
}
