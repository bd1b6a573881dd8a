// Small tools: elements, formats, colours. Text from the data is only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

const FUNCTION = 0, ARGUMENTS = 1, RESULT = 2, STARTED = 3, TOOK = 4, SIZE = 5, HOST = 6, CHILDREN = 7;
const ENVIRONMENT = 8, VERSION = 9, DETAILS = 10, KEY = 11, FAILED = 12;

function element(tag, content, options = {}) {
  const made = document.createElement(tag);
  if (options.class) made.className = options.class;
  if (options.title) made.title = options.title;
  for (const each of [content].flat()) {
    if (each === null || each === undefined) continue;
    made.append(each instanceof Node ? each : String(each));
  }
  if (options.click) made.addEventListener("click", options.click);
  return made;
}

function escaped(text) {
  return String(text).replace(/[&<>"']/g, (each) => `&#${each.charCodeAt(0)};`);
}

// -- formats ---------------------------------------------------------------------------------------

const counted = (number) => Math.round(number).toLocaleString("en-US");
const plural = (number, word) => `${counted(number)} ${word}${number === 1 ? "" : "s"}`;

function number(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US", { useGrouping: Math.abs(value) >= 1e4 });
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e7) return String(Number(value.toPrecision(6)));
  return value.toExponential(3).replace("e+", "e");
}

function durationParts(seconds) {
  const split = (large, small, each) => {
    const whole = Math.floor(seconds / (each * small));
    const rest = Math.round((seconds - whole * each * small) / each);
    return rest === small ? [whole + 1, 0] : [whole, rest];
  };
  if (!(seconds > 0)) return [["0", "s"]];
  if (seconds < 1e-3) return [[number(Number((seconds * 1e6).toPrecision(2))), "µs"]];
  if (seconds < 1) return [[number(Number((seconds * 1e3).toPrecision(3))), "ms"]];
  if (seconds < 60) return [[number(Number(seconds.toPrecision(3))), "s"]];
  let parts;
  if (seconds < 3600) parts = [...split(0, 60, 1).map((each, at) => [each, ["min", "s"][at]])];
  else if (seconds < 86400 * 2) parts = [...split(0, 60, 60).map((each, at) => [each, ["h", "min"][at]])];
  else parts = [...split(0, 24, 3600).map((each, at) => [each, ["d", "h"][at]])];
  return parts.filter(([each], at) => at === 0 || each > 0).map(([each, unit]) => [counted(each), unit]);
}
const duration = (seconds) => durationParts(seconds).map((each) => each.join(" ")).join(" ");

function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (size >= 999.5 && at < units.length - 1) { size /= 1000; at += 1; }
  return `${at === 0 ? Math.round(size) : Number(size.toPrecision(3))} ${units[at]}`;
}

const two = (value) => String(value).padStart(2, "0");
const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
function moment(seconds) {
  const at = new Date(seconds * 1000);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}
function day(seconds, withYear = true) {
  const at = new Date(seconds * 1000);
  return `${at.getDate()} ${months[at.getMonth()]}${withYear ? ` ${at.getFullYear()}` : ""}`;
}

// What a person sees of a value; the summary of a value that is not plain comes in a list.
function valueText(value) {
  if (value === null || value === undefined) return "None";
  if (Array.isArray(value)) return value[0].replace(/-?\d+\.\d{7,}(e[-+]?\d+)?/g, (each) => number(Number(each)));
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : number(value); // 1,000 would be two
  return JSON.stringify(value).replace(/^"|"$/g, "'").replace(/\\"/g, '"');
}
const plainText = (value) => (typeof value === "string" ? value : valueText(value));
const argumentsText = (call) => Object.entries(call[ARGUMENTS]).map(([name, value]) => `${name}=${valueText(value)}`).join(", ");
function resultText(call) {
  const [value] = call[RESULT];
  return call[FAILED] ? `raised ${plainText(value)}` : valueText(value);
}
const functionName = (place) => data.functions[place].name;
const callText = (call) => `${functionName(call[FUNCTION])}(${argumentsText(call)})`;
const shorter = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);

// -- colours ---------------------------------------------------------------------------------------

const PALETTES = {
  light: ["#2b6f8e", "#d98f3a", "#5b8f5e", "#9a5a8c", "#bd5a45", "#5d6c9b", "#9a8a35", "#4a9c95", "#8a7265", "#7d8791"],
  dark: ["#5aaccb", "#e2a75c", "#85b787", "#c08bb4", "#dc8772", "#91a0d0", "#c5b662", "#74c3bc", "#b59d8f", "#a3adb6"],
};
// Machines have colours of their own, so that they are not taken for functions.
const MACHINES = {
  light: ["#0f6a84", "#e3b05f", "#7aa6b5", "#a9744f", "#b9bd8a", "#5b5f86", "#c8a6a0", "#8c979f"],
  dark: ["#58b4cd", "#e6b866", "#3f7486", "#c98f68", "#b5ba84", "#8b8fc0", "#b98f88", "#78838b"],
};
const machine = (place) => { const found = MACHINES[theme()]; return found[place % found.length]; };
const theme = () => document.documentElement.dataset.theme;
const palette = (place) => { const found = PALETTES[theme()]; return found[place % found.length]; };
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
function faded(colour, share) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},${share})`;
}
// An even sequence from dark blue over green to yellow: the order of lightness is that of the values.
const STOPS = [[38, 40, 88], [37, 82, 125], [32, 123, 136], [58, 161, 122], [143, 193, 92], [244, 221, 96]];
function ramp(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((each, index) => Math.round(each + (STOPS[low + 1][index] - each) * (at - low)));
}

// -- controls --------------------------------------------------------------------------------------

function segments(id, choices, chosen, change) {
  const box = byId(id);
  const show = (value) => box.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.value === value)));
  box.replaceChildren(...choices.map(([value, text]) => {
    const button = element("button", text, { click: () => { show(value); change(value); } });
    button.type = "button";
    button.dataset.value = value;
    return button;
  }));
  show(chosen);
  return show;
}

function choose(id, choices, chosen) {
  const box = byId(id);
  box.replaceChildren(...choices.map(([value, text]) => {
    const option = element("option", text);
    option.value = value;
    return option;
  }));
  box.value = chosen;
  return box;
}

function legend(id, items) {
  byId(id).replaceChildren(...items.map(([colour, text]) => {
    const key = element("i");
    key.style.background = colour;
    return element("span", [key, text]);
  }));
}

// -- charts ----------------------------------------------------------------------------------------

const charts = new Map();
function chart(target, option, events = {}) {
  const box = typeof target === "string" ? byId(target) : target;
  let found = charts.get(box);
  if (!found) {
    box.classList.remove("empty");
    box.replaceChildren();
    found = echarts.init(box, null, { renderer: "canvas" });
    charts.set(box, found);
    for (const [name, action] of Object.entries(events)) found.on(name, action);
  }
  found.setOption({ animationDuration: 250, textStyle: { fontFamily: variable("sans") }, ...option }, true);
  return found;
}
function dispose(box) { charts.get(box)?.dispose(); charts.delete(box); }
const NO_CALLS = "No calls.";
function nothing(target, text) {
  const box = typeof target === "string" ? byId(target) : target;
  dispose(box);
  box.classList.add("empty");
  box.replaceChildren(element("p", text));
}
addEventListener("resize", () => charts.forEach((each) => each.resize()));

const tooltip = () => ({
  backgroundColor: variable("card"), borderColor: variable("line"), borderWidth: 1, padding: [8, 12], confine: true,
  textStyle: { color: variable("ink"), fontSize: 12.5 }, extraCssText: "box-shadow:0 4px 18px rgb(0 0 0/12%);border-radius:8px;max-width:380px;white-space:normal;",
});
const axisText = () => ({ color: variable("muted"), fontSize: 11.5 });
const axisLine = () => ({ lineStyle: { color: variable("line") } });
