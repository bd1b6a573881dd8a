// The table of calls. Only the rows that can be seen are elements, however many there are.

const HEIGHT = 34;
const table = { rows: [], sort: "started", reversed: true, words: "", function: "", selected: null };

const lower = data.calls.map(() => null);
function searchable(at) {
  if (lower[at] === null) {
    const call = data.calls[at];
    const tags = Object.values(call[DETAILS].metadata).flatMap((fields) => Object.values(fields));
    lower[at] = [callText(call), resultText(call), data.hosts[call[HOST]], data.shorts[at], ...tags].join(" ").toLowerCase();
  }
  return lower[at];
}

// `a>=4.0`, `metal=Cu`, `took>1`, `tag.study=eos`: conditions; everything else is a word to be found.
const CONDITION = /^([\w.]+)(<=|>=|!=|=|<|>)(.+)$/;
const COMPARE = { "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b, "=": (a, b) => a === b, "!=": (a, b) => a !== b };
function field(call, name) {
  if (name in call[ARGUMENTS]) return call[ARGUMENTS][name];
  const own = { result: () => call[RESULT][0], took: () => call[TOOK], size: () => call[SIZE], where: () => data.hosts[call[HOST]], function: () => functionName(call[FUNCTION]), version: () => call[VERSION] };
  if (own[name]) return own[name]();
  if (call[RESULT][3] && name in call[RESULT][3]) return call[RESULT][3][name];
  const [collector, rest] = name.split(/\.(.*)/);
  return call[DETAILS].metadata[{ tag: "tags" }[collector] || collector]?.[rest];
}
function test(word) {
  const found = CONDITION.exec(word);
  if (!found) return (at) => searchable(at).includes(word.toLowerCase());
  const [, name, operator, wanted] = found, asNumber = Number(wanted);
  return (at) => {
    const value = field(data.calls[at], name);
    if (value === undefined) return false;
    if (typeof value === "number" && !Number.isNaN(asNumber)) return COMPARE[operator](value, asNumber);
    return COMPARE[operator](plainText(value).toLowerCase(), wanted.toLowerCase());
  };
}

function columns() {
  const ownFunction = table.function === "" ? null : Number(table.function);
  const found = [];
  if (ownFunction === null) {
    found.push({ id: "function", name: "Function", width: "minmax(130px, 1.1fr)", value: (call) => functionName(call[FUNCTION]), text: (call) => functionName(call[FUNCTION]) });
    found.push({ id: "arguments", name: "Arguments", width: "minmax(150px, 1.9fr)", value: argumentsText, text: argumentsText, class: "code" });
  } else {
    const names = [...new Set(data.calls.filter((each) => each[FUNCTION] === ownFunction).slice(0, 300).flatMap((each) => Object.keys(each[ARGUMENTS])))].slice(0, 6);
    for (const name of names) {
      const numeric = data.calls.filter((each) => each[FUNCTION] === ownFunction).slice(0, 50).every((each) => isNumber(each[ARGUMENTS][name] ?? 0));
      found.push({ id: `argument ${name}`, name, width: numeric ? "minmax(70px, 1fr)" : "minmax(90px, 1.4fr)", value: (call) => { const each = call[ARGUMENTS][name]; return Array.isArray(each) ? each[0] : each; }, text: (call) => (name in call[ARGUMENTS] ? plainText(call[ARGUMENTS][name]) : ""), class: numeric ? "number" : "code" });
    }
  }
  found.push(
    { id: "result", name: "Result", width: "minmax(120px, 1.5fr)", value: (call) => { const each = call[RESULT][0]; return Array.isArray(each) ? each[0] : each; }, text: resultText, class: "code" },
    { id: "started", name: "Started", width: "152px", value: (_, at) => -at, text: (call) => (call[STARTED] === null ? "" : moment(call[STARTED])), class: "soft" },
    { id: "took", name: "Took", width: "88px", value: (call) => call[TOOK] ?? 0, text: (call) => (call[TOOK] === null ? "" : duration(call[TOOK])), class: "number" },
    { id: "size", name: "Size", width: "84px", value: (call) => call[SIZE] ?? 0, text: (call) => (call[SIZE] === null ? "" : bytes(call[SIZE])), class: "number" },
    { id: "where", name: "Where", width: "minmax(150px, 1fr)", value: (call) => data.hosts[call[HOST]], text: (call) => data.hosts[call[HOST]], class: "soft" },
    { id: "key", name: "Key", width: "96px", value: (call) => call[KEY], text: (_, at) => data.shorts[at], class: "code soft" },
  );
  return found;
}

const compared = (one, other) => {
  if (typeof one === "number" && typeof other === "number") return one - other;
  if (typeof one === "number" || typeof other === "number") return typeof one === "number" ? -1 : 1;
  return String(one ?? "").localeCompare(String(other ?? ""), "en", { numeric: true });
};

function showTable() {
  const shown = columns(), tests = table.words.trim().split(/\s+/).filter(Boolean).map(test);
  const wanted = table.function === "" ? null : Number(table.function);
  table.rows = data.calls.map((_, at) => at).filter((at) => (wanted === null || data.calls[at][FUNCTION] === wanted) && tests.every((each) => each(at)));
  const by = shown.find((each) => each.id === table.sort) || shown.find((each) => each.id === "started");
  const values = new Map(table.rows.map((at) => [at, by.value(data.calls[at], at)]));
  const direction = table.reversed ? -1 : 1; // calls are the newest first, and stay so where they are alike
  table.rows.sort((one, other) => direction * compared(values.get(one), values.get(other)) || one - other);
  table.columns = shown;
  const widths = shown.map((each) => each.width).join(" ");
  const head = byId("table-head");
  head.style.gridTemplateColumns = widths;
  head.replaceChildren(...shown.map((each) => {
    const button = element("button", each.name, { class: each.class?.includes("number") ? "number" : "", click: () => {
      const first = ["started", "took", "size"].includes(each.id);
      if (table.sort === each.id) table.reversed = !table.reversed; else { table.sort = each.id; table.reversed = first; }
      showTable();
    } });
    button.type = "button";
    if (each === by) button.setAttribute("aria-sort", table.reversed ? "descending" : "ascending");
    return button;
  }));
  const body = byId("table-body");
  byId("table-space").style.height = `${table.rows.length * HEIGHT}px`;
  body.classList.toggle("short", table.rows.length * HEIGHT < 476);
  body.style.setProperty("--columns", widths);
  byId("calls-note").textContent = noteOfTable();
  body.scrollTop = 0;
  showRows();
}

function noteOfTable() {
  const kept = data.calls.length, found = table.rows.length;
  const bound = kept < data.total ? ` The page holds the ${counted(kept)} newest of ${counted(data.total)}.` : "";
  return `${found === kept ? plural(kept, "call") : `${counted(found)} of ${plural(kept, "call")}`}.${bound}`;
}

function showRows() {
  const body = byId("table-body"), first = Math.max(0, Math.floor(body.scrollTop / HEIGHT) - 4);
  const last = Math.min(table.rows.length, Math.ceil((body.scrollTop + Math.max(body.clientHeight, 476)) / HEIGHT) + 4);
  const rows = [];
  for (let place = first; place < last; place += 1) {
    const at = table.rows[place], call = data.calls[at];
    const row = element("div", table.columns.map((each) => { const text = each.text(call, at); const cell = element("span", text, { class: each.class || "", title: text.length > 12 ? text : "" }); cell.setAttribute("role", "cell"); return cell; }), { class: `row${at === table.selected ? " selected" : ""}`, click: () => openCall(at) });
    row.style.top = `${place * HEIGHT}px`;
    row.style.gridTemplateColumns = body.style.getPropertyValue("--columns");
    row.setAttribute("role", "row");
    rows.push(row);
  }
  const space = byId("table-space");
  if (!table.rows.length) { space.replaceChildren(element("p", totals.calls ? "No call matches the filter." : NO_CALLS, { class: "empty" })); space.style.height = "80px"; return; }
  space.replaceChildren(...rows);
}

function filterTo(place) {
  table.function = String(place);
  byId("filter-function").value = table.function;
  showTable();
  byId("calls-card").scrollIntoView({ behavior: "smooth", block: "start" });
}

function prepareTable() {
  const names = data.functions.map((each, at) => [String(at), `${each.name} (${counted(each.calls)})`]);
  choose("filter-function", [["", "all"], ...names], "").onchange = (event) => { table.function = event.target.value; showTable(); };
  let waiting = 0;
  byId("filter").addEventListener("input", (event) => { clearTimeout(waiting); waiting = setTimeout(() => { table.words = event.target.value; showTable(); }, 120); });
  byId("table-body").addEventListener("scroll", (event) => { byId("table-head").scrollLeft = event.target.scrollLeft; requestAnimationFrame(showRows); });
  byId("table-body").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || table.selected === null) return;
    const place = table.rows.indexOf(table.selected) + step;
    if (place < 0 || place >= table.rows.length) return;
    event.preventDefault();
    openCall(table.rows[place]);
  });
  showTable();
}
