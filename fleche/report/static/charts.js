// What was saved, when and where, by which function; and results against arguments.

const totals = {
  calls: data.total,
  spent: data.functions.reduce((sum, each) => sum + (each.seconds || 0), 0),
  bytes: data.functions.reduce((sum, each) => sum + each.bytes, 0),
  hits: data.usage.reduce((sum, each) => sum + each[3], 0),
  misses: data.usage.reduce((sum, each) => sum + each[4], 0),
  saved: data.usage.reduce((sum, each) => sum + (each[5] || 0), 0),
};

function showHero() {
  const saved = byId("saved");
  const parts = durationParts(totals.saved);
  saved.replaceChildren(...(data.counted ? parts.flatMap(([value, unit]) => [value, element("small", unit)]) : ["–"]));
  byId("saved-note").textContent = data.counted
    ? totals.hits ? `of computing: ${plural(totals.hits, "result")} ${totals.hits === 1 ? "was" : "were"} found instead of computed again.` : "No stored result has been used yet."
    : totals.calls ? "No use of these results has been counted." : NO_CALLS;
  const asked = totals.hits + totals.misses;
  const times = data.activity.map((each) => each[0]);
  const first = Math.min(...times), last = Math.max(...times);
  const period = times.length ? periodText(first, last) : "–";
  const machines = new Set(data.hosts.filter((each) => each !== "unknown").map((each) => each.split("@").at(-1)));
  const people = new Set(data.hosts.filter((each) => each.includes("@")).map((each) => each.split("@")[0]));
  const facts = [
    ["Computed", duration(totals.spent), `by ${plural(data.functions.length, "function")}`],
    ["Results stored", counted(totals.calls), data.calls.length < totals.calls ? `${counted(data.calls.length)} newest in the table` : ""],
    ["Hit rate", asked ? `${Math.round((100 * totals.hits) / asked)} %` : "–", asked ? `${plural(totals.hits, "hit")}, ${plural(totals.misses, "miss").replace("misss", "misses")}` : "nothing counted"],
    ["Stored", bytes(totals.bytes), `${data.measured < data.total ? "on this machine, " : ""}shared values once`],
    ["Machines", machines.size || "–", people.size ? plural(people.size, "person").replace("persons", "people") : ""],
    ["Period", period, ""],
  ];
  byId("facts").replaceChildren(...facts.map(([name, value, note]) => element("div", [element("dt", name), element("dd", [value, note ? element("small", note) : null])])));
  showBalance();
}

function periodText(first, last) {
  const [one, other] = [new Date(first * 1000), new Date(last * 1000)];
  if (day(first) === day(last)) return day(first);
  if (one.getFullYear() !== other.getFullYear()) return `${day(first)} – ${day(last)}`;
  return one.getMonth() === other.getMonth() ? `${one.getDate()}–${day(last)}` : `${day(first, false)} – ${day(last)}`;
}

function showBalance() {
  const box = byId("balance"), all = totals.saved + totals.spent;
  box.hidden = !(data.counted && totals.saved > 0 && totals.spent > 0);
  if (box.hidden) return;
  const part = (seconds, colour) => { const each = element("i"); each.style.flex = `${seconds / all} 0 0`; each.style.background = colour; return each; };
  const bar = element("div", [part(totals.saved, variable("accent")), part(totals.spent, faded(variable("accent"), 0.25))], { class: "bar" });
  const keys = element("div", [element("span", `Saved ${duration(totals.saved)}`), element("span", `Computed ${duration(totals.spent)}`)], { class: "keys" });
  box.replaceChildren(bar, keys);
}

// -- activity --------------------------------------------------------------------------------------

const STEPS = [60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 30 * 86400, 91 * 86400, 365 * 86400];

function buckets(times, least) {
  const first = Math.min(...times), last = Math.max(...times);
  const step = STEPS.find((each) => each >= least && (last - first) / each <= 90) || STEPS.at(-1);
  const shift = step >= 86400 ? new Date(first * 1000).getTimezoneOffset() * 60 : 0; // days begin at midnight here
  const place = (time) => Math.floor((time - shift) / step);
  let begin = place(first), end = place(last);
  if (end - begin < 11) { begin -= Math.ceil((11 - end + begin) / 2); end = begin + 11; }
  return { step, begin, count: end - begin + 1, place: (time) => place(time) - begin, start: (at) => (begin + at) * step + shift };
}

function showActivity(unit) {
  const events = data.activity.length || data.usage.length;
  if (!events) { byId("activity-note").textContent = ""; return nothing("activity", totals.calls ? "When these calls were made is not recorded (metadata “runtime” is off)." : NO_CALLS); }
  const times = [...data.activity.map((each) => each[0]), ...data.usage.map((each) => each[0])];
  const { step, count, place, start } = buckets(times, data.usage.length ? 3600 : 60);
  const hosts = data.hosts.map((_, at) => at).filter((at) => data.activity.some((each) => each[1] === at) || data.usage.some((each) => each[1] === at));
  const sums = (rows, value) => hosts.map((host) => {
    const found = new Array(count).fill(0);
    for (const row of rows) if (row[1] === host) found[place(row[0])] += value(row);
    return found;
  });
  const inTime = unit === "time";
  const computed = sums(data.activity, (row) => (inTime ? row[4] || 0 : row[3]));
  const found = sums(data.usage, (row) => (inTime ? row[5] || 0 : row[3]));
  const labels = Array.from({ length: count }, (_, at) => start(at));
  const label = (at) => (step >= 86400 ? day(at, false) : `${day(at, false)}\n${moment(at).slice(11)}`);
  const value = (each) => (inTime ? duration(each) : counted(each));
  const largest = (rows) => Math.max(...labels.map((_, at) => rows.reduce((sum, row) => sum + row[at], 0)), 0);
  const grid = (top, height) => ({ left: 76, right: 12, top, height });
  const xAxis = (gridIndex, show) => ({
    type: "category", gridIndex, data: labels.map(label), axisTick: { show: false }, axisLine: axisLine(),
    axisLabel: { ...axisText(), show, hideOverlap: true, lineHeight: 14 },
  });
  const yAxis = (gridIndex, name, rows) => ({
    type: "value", gridIndex, name, nameLocation: "end", nameGap: 13, splitNumber: 3, minInterval: inTime ? 0 : 1, max: largest(rows) ? undefined : 1,
    nameTextStyle: { color: variable("soft"), fontSize: 12, fontWeight: 600, align: "left", padding: [0, 0, 0, -66] },
    splitLine: { lineStyle: { color: variable("line") } }, axisLabel: { ...axisText(), formatter: (each) => (inTime ? coarse(each) : counted(each)) },
  });
  const bars = (rows, axis) => rows.map((row, at) => ({
    type: "bar", name: data.hosts[hosts[at]], stack: `s${axis}`, xAxisIndex: axis, yAxisIndex: axis, data: row, barMaxWidth: 34, barCategoryGap: "22%",
    itemStyle: { color: machine(hosts[at]) }, emphasis: { disabled: true },
  }));
  byId("activity-note").textContent = `What each machine found in the cache, and what it computed, per ${stepName(step)}.`;
  legend("activity-legend", hosts.map((at) => [machine(at), data.hosts[at]]));
  chart("activity", {
    tooltip: {
      ...tooltip(), trigger: "axis", axisPointer: { type: "shadow", shadowStyle: { color: faded("#888888", 0.12) } },
      formatter: (items) => {
        const at = items[0].dataIndex;
        const lines = hosts.map((host, index) => [host, found[index][at], computed[index][at]]).filter((each) => each[1] || each[2]);
        return `<b>${escaped(label(labels[at]).replace("\n", ", "))}</b>${lines.map(([host, hits, made]) => `<br>${escaped(data.hosts[host])}: found ${escaped(value(hits))}, computed ${escaped(value(made))}`).join("") || "<br>nothing"}`;
      },
    },
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    grid: [grid(32, 92), grid(166, 92)],
    xAxis: [xAxis(0, false), xAxis(1, true)],
    yAxis: [yAxis(0, inTime ? "Saved" : "Found", found), yAxis(1, "Computed", computed)],
    series: [...bars(found, 0), ...bars(computed, 1)],
  });
}

const stepName = (step) => ({ 60: "minute", 300: "5 minutes", 900: "15 minutes", 3600: "hour", 86400: "day", 604800: "week" })[step]
  || (step < 86400 ? `${step / 3600} hours` : step < 90 * 86400 ? `${step / 86400} days` : step < 366 * 86400 && step > 100 * 86400 ? "year" : "quarter");
function coarse(seconds) {
  if (seconds === 0) return "0";
  const [unit, size] = seconds >= 86400 * 2 ? ["d", 86400] : seconds >= 3600 ? ["h", 3600] : seconds >= 60 ? ["min", 60] : seconds >= 1 ? ["s", 1] : ["ms", 1e-3];
  return `${Number((seconds / size).toPrecision(3))} ${unit}`;
}

// -- functions -------------------------------------------------------------------------------------

const MEASURES = {
  bytes: ["Bytes stored", (each) => each.bytes, bytes],
  time: ["Time computed", (each) => each.seconds || 0, duration],
  calls: ["Calls stored", (each) => each.calls, (each) => plural(each, "call")],
};

function showTreemap(unit) {
  const [name, measure, format] = MEASURES[unit];
  const sum = data.functions.reduce((all, each) => all + measure(each), 0);
  const items = data.functions.map((each, at) => ({
    name: each.name, value: measure(each), at, itemStyle: { color: palette(at) },
    share: measure(each) / sum,
    label: { formatter: () => `{name|${brief(each.name)}}\n{value|${format(measure(each))}}` },
  })).filter((each) => each.value > 0).sort((one, other) => other.value - one.value);
  byId("treemap-note").textContent = items.length ? `${name}, by function. A click lists its calls.` : "";
  if (!items.length) return nothing("treemap", totals.calls ? "Nothing to show." : NO_CALLS);
  chart("treemap", {
    tooltip: {
      ...tooltip(), formatter: ({ data: item }) => {
        if (item.at === undefined) return "";
        const each = data.functions[item.at];
        return `<b>${escaped(each.name)}</b>${each.module ? ` <span style="opacity:.65">${escaped(each.module)}</span>` : ""}<br>${escaped(plural(each.calls, "call"))}, ${escaped(duration(each.seconds || 0))}, ${escaped(bytes(each.bytes))}<br>${(100 * item.share).toPrecision(3)} % of all`;
      },
    },
    series: [{
      type: "treemap", left: 0, right: 0, top: 0, bottom: 0, roam: false, nodeClick: false, breadcrumb: { show: false }, data: items, visibleMin: 60,
      itemStyle: { borderColor: variable("card"), borderWidth: 0, gapWidth: 3 },
      label: { show: true, position: "insideTopLeft", padding: [8, 10], color: theme() === "dark" ? "#0f1315" : "#ffffff", overflow: "truncate", ellipsis: "…",
        rich: { name: { fontSize: 13, fontWeight: 600, lineHeight: 18 }, value: { fontSize: 12, lineHeight: 16 } } },
    }],
  }, { click: ({ data: item }) => { if (item?.at !== undefined) filterTo(item.at); } });
  hideNarrowLabels("treemap", items);
}

// A label that would be cut to nothing is left to the tooltip.
function hideNarrowLabels(id, items) {
  const drawn = charts.get(byId(id)), rooms = new Map();
  drawn.getModel().getSeriesByIndex(0).getData().tree.root.eachNode((node) => {
    const { width, height } = node.getLayout() || {};
    rooms.set(node.name, width > 76 && height > 46);
  });
  drawn.setOption({ series: [{ data: items.map((each) => ({ ...each, label: { ...each.label, show: rooms.get(each.name) !== false } })) }] });
}
const brief = (name) => shorter(name, 34).replace(/[{}|\n]/g, " ");

// -- results against arguments ---------------------------------------------------------------------

const isNumber = (value) => typeof value === "number";
function numbersOf(call) {
  const [value, , , fields] = call[RESULT], found = {};
  if (call[FAILED]) return found;
  if (isNumber(value)) found.result = value;
  for (const [name, each] of Object.entries(fields || {})) found[name] = each;
  return found;
}

const swept = data.functions.map(() => null);
function sweepOf(place) {
  if (swept[place]) return swept[place];
  const calls = data.calls.filter((each) => each[FUNCTION] === place);
  const results = [...new Set(calls.slice(0, 500).flatMap((each) => Object.keys(numbersOf(each))))];
  const values = {};
  for (const call of calls) for (const [name, value] of Object.entries(call[ARGUMENTS])) (values[name] ||= []).push(value);
  const axes = [], groups = [];
  for (const [name, found] of Object.entries(values)) {
    const distinct = new Set(found.map((each) => JSON.stringify(each)));
    if (distinct.size < 2) continue;
    if (found.every(isNumber)) axes.push([name, "value", distinct.size]);
    else if (distinct.size <= 40) axes.push([name, "category", distinct.size]);
    if (distinct.size <= 10) groups.push(name);
  }
  axes.sort((one, other) => (one[1] === other[1] ? other[2] - one[2] : one[1] === "value" ? -1 : 1));
  swept[place] = { calls, results, axes: axes.slice(0, 6), groups };
  return swept[place];
}

function firstGroup({ groups, axes }) {
  const texts = groups.filter((name) => axes.some(([axis, kind]) => axis === name && kind === "category"));
  return texts[0] || (axes.length > 1 ? groups.find((name) => name !== axes[0][0]) : "") || "";
}

let plotted = { function: 0, result: "result", colour: "" };
function preparePlots() {
  const good = data.functions.map((_, at) => at).filter((at) => sweepOf(at).results.length && sweepOf(at).axes.length);
  if (!good.length) { byId("results-card").hidden = true; return; }
  const best = [...good].sort((one, other) => sweepOf(other).axes[0][2] * (sweepOf(other).axes[0][1] === "value" ? 1e6 : 1) - sweepOf(one).axes[0][2] * (sweepOf(one).axes[0][1] === "value" ? 1e6 : 1))[0];
  const pick = (place) => {
    const found = sweepOf(place);
    plotted = { function: place, result: found.results[0], colour: firstGroup(found) };
    choose("plot-result", found.results.map((each) => [each, each]), plotted.result).onchange = (event) => { plotted.result = event.target.value; showPlots(); };
    choose("plot-colour", [["", "none"], ...found.groups.map((each) => [each, each])], plotted.colour).onchange = (event) => { plotted.colour = event.target.value; showPlots(); };
    showPlots();
  };
  choose("plot-function", good.map((at) => [String(at), functionName(at)]), String(best)).onchange = (event) => pick(Number(event.target.value));
  pick(best);
}

const resultName = () => (plotted.result === "result" ? functionName(plotted.function) : plotted.result);
const MOST_POINTS = 4000;
function showPlots() {
  if (byId("results-card").hidden) return;
  const { calls, axes } = sweepOf(plotted.function), box = byId("plots");
  const colourless = plotted.colour === "";
  const withResult = calls.filter((each) => isNumber(numbersOf(each)[plotted.result]));
  const points = withResult.length > MOST_POINTS ? withResult.filter((_, at) => at % Math.ceil(withResult.length / MOST_POINTS) === 0) : withResult;
  const groups = new Map();
  for (const call of points) {
    const key = colourless ? "" : valueText(call[ARGUMENTS][plotted.colour]);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(call);
  }
  const names = [...groups.keys()].sort((one, other) => Number(one) - Number(other) || one.localeCompare(other));
  const shown = axes.filter(([name]) => name !== plotted.colour || axes.length === 1);
  byId("results-note").textContent = `${plotted.result === "result" ? "" : `${plotted.result} of `}${functionName(plotted.function)} against each argument that was varied${points.length < withResult.length ? `; ${counted(points.length)} of ${counted(withResult.length)} points` : ""}. A click opens the call.`;
  legend("results-legend", colourless ? [] : names.map((name, at) => [palette(at), `${plotted.colour} = ${name.replace(/^'|'$/g, "")}`]));
  box.querySelectorAll(".chart").forEach(dispose);
  const boxes = shown.map(() => element("div", null, { class: "chart" }));
  box.replaceChildren(...boxes);
  shown.forEach(([name, kind], index) => plot(boxes[index], name, kind, groups, names));
}

function plot(box, name, kind, groups, names) {
  const coordinate = (call) => (kind === "value" ? call[ARGUMENTS][name] : plainText(call[ARGUMENTS][name]));
  const categories = kind === "category" ? [...new Set(names.flatMap((each) => groups.get(each).map(coordinate)))].sort() : undefined;
  const series = names.map((group, at) => {
    const items = groups.get(group).map((call) => ({ value: [coordinate(call), numbersOf(call)[plotted.result]], call }));
    if (kind === "value") items.sort((one, other) => one.value[0] - other.value[0]);
    const isCurve = kind === "value" && items.length > 2 && new Set(items.map((each) => each.value[0])).size === items.length;
    const style = { name: group, data: items, symbolSize: items.length > 400 ? 4 : 7, itemStyle: { color: palette(at), opacity: items.length > 400 ? 0.6 : 1 } };
    return isCurve ? { type: "line", ...style, symbol: "circle", showSymbol: items.length <= 200, lineStyle: { color: palette(at), width: 1.75 }, emphasis: { disabled: true } } : { type: "scatter", ...style };
  });
  const axis = { nameTextStyle: { color: variable("soft"), fontSize: 12, fontWeight: 600 }, axisLabel: { ...axisText(), hideOverlap: true }, axisTick: { show: false } };
  chart(box, {
    tooltip: { ...tooltip(), trigger: "item", formatter: ({ data: item }) => `<b>${escaped(resultName())} = ${escaped(number(item.value[1]))}</b><br>${escaped(callText(item.call))}` },
    grid: { left: 12, right: 18, top: 34, bottom: 34, containLabel: true },
    xAxis: { ...axis, type: kind, data: categories, scale: true, name, nameLocation: "middle", nameGap: 32, axisLine: { ...axisLine(), onZero: false }, splitLine: { show: false }, axisLabel: { ...axis.axisLabel, formatter: kind === "value" ? number : undefined } },
    yAxis: { ...axis, type: "value", scale: true, name: resultName(), nameLocation: "end", nameGap: 14, nameTextStyle: { ...axis.nameTextStyle, align: "left", padding: [0, 0, 0, -8] }, splitNumber: 4, splitLine: { lineStyle: { color: variable("line") } }, axisLabel: { ...axis.axisLabel, formatter: number } },
    series,
  }, { click: ({ data: item }) => { if (item?.call) openCall(data.calls.indexOf(item.call)); } });
}
