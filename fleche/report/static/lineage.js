// What called what: of functions, or of single calls round one of them; callers stand left.

const parents = data.calls.map(() => []);
data.calls.forEach((call, at) => call[CHILDREN].forEach((child) => parents[child].push(at)));

const MOST_NODES = 90;
let lineage = { level: "functions", focus: null };

// The call to begin with: from it, the way down is longest, and then widest.
function startOfLineage() {
  if (!data.calls.some((call) => call[CHILDREN].length)) return;
  const depths = new Map();
  const depth = (at, level) => {
    if (depths.has(at)) return depths.get(at);
    depths.set(at, 0); // should a call be below itself
    const found = level > 60 ? 0 : data.calls[at][CHILDREN].reduce((most, child) => Math.max(most, 1 + depth(child, level + 1)), 0);
    depths.set(at, found);
    return found;
  };
  const score = (at) => 1000 * depth(at, 0) + Math.min(data.calls[at][CHILDREN].length, 20);
  lineage.focus = data.calls.map((_, at) => at).reduce((best, at) => (score(at) > score(best) ? at : best), 0);
}

function functionGraph() {
  const edges = new Map(), used = new Set();
  data.calls.forEach((call) => call[CHILDREN].forEach((child) => {
    const key = `${call[FUNCTION]}>${data.calls[child][FUNCTION]}`;
    edges.set(key, (edges.get(key) || 0) + 1);
  }));
  const links = [...edges].map(([key, count]) => { const [from, to] = key.split(">").map(Number); return { from, to, count }; });
  links.forEach(({ from, to }) => { used.add(from); used.add(to); });
  const alone = data.functions.map((_, at) => at).filter((at) => !used.has(at)).slice(0, Math.max(0, 24 - used.size));
  return { nodes: [...used, ...alone], links: links.filter(({ from, to }) => from !== to) };
}

function callGraph(focus) {
  const nodes = new Set([focus]), links = [];
  const walk = (next) => {
    let front = [focus];
    while (front.length && nodes.size < MOST_NODES) {
      const following = [];
      for (const at of front) for (const other of next(at)) if (!nodes.has(other) && nodes.size < MOST_NODES) { nodes.add(other); following.push(other); }
      front = following;
    }
  };
  walk((at) => data.calls[at][CHILDREN]);
  walk((at) => parents[at]);
  for (const at of nodes) for (const child of data.calls[at][CHILDREN]) if (nodes.has(child) && child !== at) links.push({ from: at, to: child, count: 1 });
  return { nodes: [...nodes], links };
}

// Columns by the longest way from a root; in a column, nodes stand near what they are linked to.
function placed(nodes, links) {
  const next = new Map(nodes.map((each) => [each, []])), before = new Map(nodes.map((each) => [each, []]));
  for (const { from, to } of links) { next.get(from).push(to); before.get(to).push(from); }
  const depth = new Map(nodes.map((each) => [each, 0]));
  for (let round = 0; round < nodes.length; round += 1) {
    let changed = false;
    for (const { from, to } of links) {
      const found = depth.get(from) + 1;
      if (found > depth.get(to) && found < Math.min(nodes.length, 12)) { depth.set(to, found); changed = true; }
    }
    if (!changed) break;
  }
  const columns = [];
  for (const each of nodes) (columns[depth.get(each)] ||= []).push(each);
  const rank = new Map();
  columns.forEach((column) => column.forEach((each, at) => rank.set(each, column.length === 1 ? 0.5 : at / (column.length - 1))));
  for (let round = 0; round < 6; round += 1) {
    for (const column of round % 2 ? [...columns].reverse() : columns) {
      if (!column) continue;
      const mean = (each) => { const near = [...next.get(each), ...before.get(each)]; return near.length ? near.reduce((sum, other) => sum + rank.get(other), 0) / near.length : rank.get(each); };
      const order = new Map(column.map((each) => [each, mean(each)]));
      column.sort((one, other) => order.get(one) - order.get(other));
      column.forEach((each, at) => rank.set(each, column.length === 1 ? 0.5 : at / (column.length - 1)));
    }
  }
  return { columns: columns.filter(Boolean), depth, rank };
}

// What tells calls of one function in one column apart is enough; of a single one, name and arguments.
function callLabels(columns) {
  const labels = new Map();
  for (const column of columns) {
    const groups = new Map();
    for (const at of column) { const place = data.calls[at][FUNCTION]; if (!groups.has(place)) groups.set(place, []); groups.get(place).push(at); }
    for (const [place, group] of groups) {
      const values = (name) => new Set(group.map((at) => JSON.stringify(data.calls[at][ARGUMENTS][name])));
      const differing = Object.keys(data.calls[group[0]][ARGUMENTS]).filter((name) => group.length > 1 && values(name).size > 1);
      for (const at of group) {
        const shown = Object.entries(data.calls[at][ARGUMENTS]).filter(([name]) => !differing.length || differing.includes(name)).map(([name, value]) => `${name}=${plainText(value)}`).join(", ");
        labels.set(at, group.length > 3 && differing.length ? brief(shown) : `{name|${brief(functionName(place))}}\n{note|${brief(shown)}}`);
      }
    }
  }
  return (at) => labels.get(at);
}

function showLineage() {
  const byFunction = lineage.level === "functions";
  if (!byFunction && lineage.focus === null) { byId("lineage-note").textContent = ""; return nothing("lineage", "No call of a cached function was made inside another one."); }
  const { nodes, links } = byFunction ? functionGraph() : callGraph(lineage.focus);
  if (byFunction && !nodes.length) return nothing("lineage", NO_CALLS);
  byId("lineage-note").textContent = byFunction
    ? "Which functions call which. A click lists their calls."
    : `${nodes.length >= MOST_NODES ? `${MOST_NODES} calls round` : "All calls round"} ${shorter(callText(data.calls[lineage.focus]), 46)}.`;
  const { columns, depth, rank } = placed(nodes, links);
  const box = byId("lineage"), wide = box.clientWidth || 500, high = box.clientHeight || 360;
  const tallest = Math.max(...columns.map((each) => each.length));
  const crowded = tallest > 24, dense = tallest > 14;
  // labels of functions stand below, those of calls beside
  const side = byFunction ? Math.min(78, wide / 6) : 14;
  const step = (wide - 2 * side) / (byFunction ? Math.max(columns.length - 1, 1) : columns.length);
  const labelRoom = byFunction ? Math.max(step + 16, 80) : Math.max(step - 22, 56);
  const x = (each) => (byFunction && columns.length === 1 ? wide / 2 : side + depth.get(each) * step);
  const y = (each) => {
    const many = columns.find((found) => found.includes(each)).length;
    const margin = Math.max(20, (high - many * (byFunction ? 96 : 44)) / 2), below = byFunction ? 28 : 0; // for the label
    return margin + rank.get(each) * (high - 2 * margin - below);
  };
  const functionOf = (each) => (byFunction ? each : data.calls[each][FUNCTION]);
  const most = Math.max(...data.functions.map((each) => each.calls));
  const size = (each) => (byFunction ? 12 + 16 * Math.sqrt(data.functions[each].calls / most) : each === lineage.focus ? 15 : dense ? 6 : 10);
  const label = byFunction ? (each) => `{name|${brief(functionName(each))}}\n{note|${plural(data.functions[each].calls, "call")}}` : callLabels(columns);
  const strongest = Math.max(...links.map((each) => each.count), 1);
  // the graph is drawn to its extremes, so two invisible corners keep the scale
  const corners = [[0, 0], [wide, high]].map(([cx, cy], at) => ({ id: `c${at}`, x: cx, y: cy, symbolSize: 0, label: { show: false }, silent: true }));
  chart("lineage", {
    tooltip: {
      ...tooltip(), formatter: ({ dataType, data: item }) => {
        if (dataType === "edge") return byFunction ? `${escaped(functionName(item.from))} called ${escaped(functionName(item.to))}: ${escaped(plural(item.count, "call"))}` : "";
        if (item.at === undefined) return "";
        if (byFunction) return `<b>${escaped(functionName(item.at))}</b><br>${escaped(plural(data.functions[item.at].calls, "call"))}`;
        const call = data.calls[item.at];
        return `<b>${escaped(callText(call))}</b><br>= ${escaped(resultText(call))}`;
      },
    },
    series: [{
      type: "graph", layout: "none", left: 0, right: 0, top: 0, bottom: 0, roam: true, scaleLimit: { min: 0.6, max: 6 }, edgeSymbol: ["none", "arrow"], edgeSymbolSize: [0, byFunction ? 6 : 4],
      data: [...nodes.map((each) => ({
        id: String(each), at: each, x: x(each), y: y(each), symbolSize: size(each),
        itemStyle: { color: palette(functionOf(each)), borderColor: each === lineage.focus && !byFunction ? variable("ink") : variable("card"), borderWidth: each === lineage.focus && !byFunction ? 2 : 1.5 },
        label: {
          show: byFunction || !crowded || each === lineage.focus || columns[depth.get(each)].length <= 24, position: byFunction ? "bottom" : "right", align: byFunction ? "center" : "left", distance: 6, formatter: label(each), width: labelRoom, overflow: "truncate", ellipsis: "…",
          color: variable("ink"), fontSize: dense && !byFunction ? 10.5 : 12, textBorderColor: variable("card"), textBorderWidth: 3,
          rich: { name: { fontSize: 12.5, fontWeight: 600, color: variable("ink"), lineHeight: 17, textBorderColor: variable("card"), textBorderWidth: 3 }, note: { fontSize: 11.5, color: variable("muted"), lineHeight: 15, textBorderColor: variable("card"), textBorderWidth: 3 } },
        },
      })), ...corners],
      links: links.map(({ from, to, count }) => ({ source: String(from), target: String(to), from, to, count, lineStyle: { color: variable("muted"), width: byFunction ? 1 + (2.5 * count) / strongest : 1, opacity: byFunction ? 0.45 : 0.6, curveness: 0.08 } })),
      emphasis: { focus: "adjacency", scale: false, lineStyle: { opacity: 0.9 } },
    }],
  }, { click: ({ dataType, data: item }) => {
    if (dataType !== "node" || item?.at === undefined) return;
    if (lineage.level === "functions") filterTo(item.at); else openCall(item.at);
  } });
}
